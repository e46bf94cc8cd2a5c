"""``trainkit explain KEY``: every file, override and interpolation that set a value, in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from trainkit.cli.arguments import parse
from trainkit.config.compose import make_request, try_compose
from trainkit.config.findings import raise_findings, shown
from trainkit.config.references import Reference, dotted, is_key, joined, tokens
from trainkit.config.secrets import Redactor, redact
from trainkit.errors import ConfigError, did_you_mean

_INDENT = "  "
_NOTHING = object()


def run(command: str, argv: list[str]) -> None:
    """Print who set a value of the config that the overrides give; of a mapping, of all in it.

    Raises:
        ConfigError: No key was given, or the config has none of this name.
    """
    before = ["", *argv]
    keys = [key for flag, key in zip(before, argv, strict=False) if _is_key(key, flag)]
    if len(keys) != 1:
        raise ConfigError(
            f"trainkit explain got {len(keys)} keys{': ' if keys else ''}{', '.join(keys)}; "
            "expected one, such as: trainkit explain optim_wrapper.optimizer.lr [overrides]."
        )
    key = keys[0].replace("/", ".")
    if not is_key(key):
        raise ConfigError(
            f"{keys[0]!r} is no key; expected one such as optim_wrapper.optimizer.lr or "
            "model.channels[0]."
        )
    given = parse([argument for argument in argv if argument != keys[0]])
    if given.inspect or given.multirun:
        raise ConfigError("trainkit explain looks at one config; it takes overrides only.")
    request = make_request(given.overrides, None, given.config_name, given.config_dirs)
    composed = try_compose(request)
    raise_findings(composed.findings)
    explanation = _Explanation(composed.cfg, composed.origins())
    redactor = Redactor(composed.cfg)
    for line in explanation.of(key):
        print(redactor.text(line))


def _is_key(argument: str, before: str) -> bool:
    """Whether an argument is a key: no override, no flag, and not the value of one."""
    is_value = before in ("--config-dir", "-cd", "--config-name", "-cn")
    return not is_value and not argument.startswith(("-", "+", "~")) and "=" not in argument


class _Explanation:
    """The lines about a key: its value, who touched it, and the same of what it refers to."""

    def __init__(self, cfg: Any, origins: Any) -> None:
        self.cfg, self.origins = cfg, origins
        self.raw = _plain(cfg)

    def of(self, key: str, indent: str = "", seen: tuple[str, ...] = ()) -> Iterator[str]:
        """Yield the lines about ``key``.

        Raises:
            ConfigError: There is no such key.
        """
        key, raw = self._found(key)
        if not self._is_there(key):
            yield self._default_of(key)
            return
        inner = _inner(raw)
        if inner:
            for name in inner:
                yield from self.of(f"{key}{name}", indent, seen)
            return
        yield f"{indent}{key} = {'(removed)' if raw is _NOTHING else self._value(key)}"
        yield from self._touches(key, indent + _INDENT)
        for reference in self.origins.references(key):
            yield from self._read(reference, indent + _INDENT * 2, (*seen, dotted(key)))

    def _found(self, key: str) -> tuple[str, Any]:
        """Return a key as it is written here, ``[0]`` for what is in a list, and what is there."""
        node, place = self.raw, ""
        for part in tokens(key):
            name = part.strip("[]")
            if isinstance(node, list):
                is_entry = name.isdecimal() and int(name) < len(node)
                node = node[int(name)] if is_entry else _NOTHING
                place = f"{place}[{name}]" if name.isdecimal() else f"{place}.{name}"
                continue
            place = f"{place}.{name}".lstrip(".")
            if isinstance(node, dict):
                node = {str(own): value for own, value in node.items()}.get(name, _NOTHING)
            elif node is not _NOTHING:  # a value, or an interpolation that may give a mapping
                node = self._selected(place)
        return place, node

    def _is_there(self, key: str) -> bool:
        """Whether the config has a key, or had it until another touch."""
        depth = len(tokens(key))
        return self._found(key)[1] is not _NOTHING or any(
            touch.is_deletion or len(tokens(touch.key)) >= depth for touch in self.origins.of(key)
        )

    def _selected(self, key: str) -> Any:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            value = OmegaConf.select(self.cfg, key, default=_NOTHING)
        except OmegaConfBaseException:
            return _NOTHING
        return _plain(value) if OmegaConf.is_config(value) else value

    def _value(self, key: str) -> str:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            value = OmegaConf.select(self.cfg, key)
        except OmegaConfBaseException as error:
            return f"(cannot be resolved: {str(error).splitlines()[0]})"
        value = _plain(value) if OmegaConf.is_config(value) else value
        for name in self._names(key):
            value = _without_secrets(value, name)
        return shown(value)

    def _names(self, key: str, seen: tuple[str, ...] = ()) -> Iterator[str]:
        """Yield the names of a value: its key, and the keys and variables that it is read from."""
        yield key
        for reference in self.origins.references(key):
            if reference.variable:
                yield reference.variable
            elif dotted(reference.key) not in seen:
                yield from self._names(reference.key, (*seen, dotted(key)))

    def _touches(self, key: str, indent: str) -> Iterator[str]:
        touches = self.origins.of(key)
        width = max((len(touch.source) for touch in touches), default=0)
        for touch in touches:
            value = shown(_without_secrets(touch.value, touch.key))
            told = "(removed)" if touch.is_deletion else value
            where = "" if dotted(touch.key) == dotted(key) else f"{touch.key} = "
            why = f"   ({touch.why})" if touch.why else ""
            yield f"{indent}{touch.source:<{width}}   {where}{told}{why}"

    def _read(self, reference: Reference, indent: str, seen: tuple[str, ...]) -> Iterator[str]:
        """Yield the lines about what an interpolation reads."""
        if reference.variable:
            name = reference.variable
            state = "is set" if name in os.environ else f"is not set{_default(reference, name)}"
            yield f"{indent}the environment variable {name} {state}"
        elif dotted(reference.key) not in seen:
            if self._is_there(reference.key):
                yield from self.of(reference.key, indent, (*seen, dotted(reference.key)))
            else:
                told = _default(reference, reference.key)
                yield f"{indent}{reference.key} is not in the config{told}"

    def _default_of(self, key: str) -> str:
        """Return the line about an argument that only its target's signature gives."""
        from trainkit.config.signature import REQUIRED, schema_of

        *around, name = tokens(key)
        node = self._found(joined(around))[1]
        schema = None
        if around and isinstance(node, dict) and isinstance(node.get("_target_"), str):
            from trainkit.config.build import locate

            schema = schema_of(locate(node["_target_"], f"{joined(around)}._target_"))
        if schema is not None and name in schema.parameters:
            default = schema.parameters[name].default
            value = "is required" if default is REQUIRED else f"has the default {shown(default)}"
            told = f"{key} is not in the config. It {value} in {schema.name}"
            return f"{told}; set it by +{dotted(key)}=..."
        raise ConfigError(f"The config has no {key!r}. {self._near(key)}")

    def _near(self, key: str) -> str:
        """Say where a key may stand that is not there."""
        around = tokens(key)[:-1]
        while self._found(joined(around))[1] is _NOTHING:
            around.pop()
        parent, node = self._found(joined(around))
        if isinstance(node, list):
            return _entries(parent, len(node))
        if not isinstance(node, dict):
            return f"{parent} is {shown(_without_secrets(node, parent))}, which has no keys."
        known = sorted({touch.key for touch in self.origins.touches})
        elsewhere = [full for full in known if full.endswith(f".{key}")]
        if elsewhere:
            return f"It stands at {', '.join(elsewhere)}."
        near = did_you_mean(key, known)
        return near if near.startswith("Did") else f"At the top it has: {', '.join(self.raw)}."


def _inner(raw: Any) -> list[str]:
    """Return how the keys go on below a mapping, or a list that holds more than values."""
    if isinstance(raw, dict):
        return [f".{name}" for name in raw]
    if isinstance(raw, list) and any(isinstance(item, dict | list) for item in raw):
        return [f"[{index}]" for index in range(len(raw))]
    return []


def _entries(key: str, length: int) -> str:
    if not length:
        return f"{key} is an empty list."
    entries = f"{key}[0]" if length == 1 else f"{key}[0] to {key}[{length - 1}]"
    return f"The entries of the list are {entries}."


def _default(reference: Reference, name: str) -> str:
    """Return what stands in the place of what is not there, for the end of a line."""
    if reference.default is None:
        return ""
    return f"; the default {_without_secrets(reference.default, name)} stands"


def _without_secrets(value: Any, key: str) -> Any:
    """Return a value without secrets, which all is that stands at or below the name of one."""
    nested = value
    for part in reversed(tokens(key)):
        nested = {part: nested} if part[0] != "[" else [nested]
    nested = redact(nested)
    for part in tokens(key):
        nested = nested[0] if part[0] == "[" else next(iter(nested.values()))
    return nested


def _plain(node: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=False)
