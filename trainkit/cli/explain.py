"""``trainkit explain KEY``: every file, override and interpolation that set a value, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from trainkit.cli.arguments import parse
from trainkit.config.compose import make_request, try_compose
from trainkit.config.findings import raise_findings, shown
from trainkit.errors import ConfigError, did_you_mean

_REFERENCE = re.compile(r"\$\{\s*(\.*[A-Za-z_][\w.]*)\s*\}")
_INDENT = "  "


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
    given = parse([argument for argument in argv if argument != keys[0]])
    if given.inspect or given.multirun:
        raise ConfigError("trainkit explain looks at one config; it takes overrides only.")
    request = make_request(given.overrides, None, given.config_name, given.config_dirs)
    composed = try_compose(request)
    raise_findings(composed.findings)
    explanation = _Explanation(composed.cfg, composed.origins())
    for line in explanation.of(keys[0].replace("/", ".")):
        print(line)


def _is_key(argument: str, before: str) -> bool:
    """Whether an argument is a key: no override, no flag, and not the value of one."""
    is_value = before in ("--config-dir", "-cd", "--config-name", "-cn")
    return not is_value and not argument.startswith(("-", "+", "~")) and "=" not in argument


class _Explanation:
    """The lines about a key: its value, who touched it, and the same of what it refers to."""

    def __init__(self, cfg: Any, origins: Any) -> None:
        self.cfg, self.origins = cfg, origins

    def of(self, key: str, indent: str = "", seen: tuple[str, ...] = ()) -> Iterator[str]:
        """Yield the lines about ``key``.

        Raises:
            ConfigError: There is no such key.
        """
        from omegaconf import OmegaConf

        nothing = object()
        value = OmegaConf.select(self.cfg, key, default=nothing, throw_on_missing=False)
        is_there = value is not nothing or self.origins.of(key)
        if not is_there:
            yield self._default_of(key)
            return
        raw = self._raw(key)
        if isinstance(raw, dict) and raw:
            for name in raw:
                yield from self.of(f"{key}.{name}", indent, seen)
            return
        yield f"{indent}{key} = {self._value(key)}"
        yield from self._touches(key, indent + _INDENT)
        for reference in _references(key, raw):
            if reference not in seen and OmegaConf.select(self.cfg, reference) is not None:
                yield from self.of(reference, indent + _INDENT * 2, (*seen, key))

    def _raw(self, key: str) -> Any:
        """Return what stands at ``key``, with interpolations as they are written."""
        node: Any = _plain(self.cfg)
        for part in re.findall(r"[^.\[\]]+", key):
            node = node[int(part)] if isinstance(node, list) else node.get(part)
            if node is None:
                return None
        return node

    def _value(self, key: str) -> str:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            value = OmegaConf.select(self.cfg, key)
        except OmegaConfBaseException as error:
            return f"(cannot be resolved: {str(error).splitlines()[0]})"
        return shown(_plain(value) if OmegaConf.is_config(value) else value)

    def _touches(self, key: str, indent: str) -> Iterator[str]:
        touches = self.origins.of(key)
        width = max((len(touch.source) for touch in touches), default=0)
        for touch in touches:
            value = "(removed)" if touch.is_deletion else shown(touch.value)
            where = "" if touch.key == key else f"{touch.key} = "
            why = f"   ({touch.why})" if touch.why else ""
            yield f"{indent}{touch.source:<{width}}   {where}{value}{why}"

    def _default_of(self, key: str) -> str:
        """Return the line about an argument that only its target's signature gives."""
        from trainkit.config.signature import REQUIRED, schema_of

        parent, _, name = key.rpartition(".")
        node = self._raw(parent) if parent else None
        schema = None
        if isinstance(node, dict) and isinstance(node.get("_target_"), str):
            from trainkit.config.build import locate

            schema = schema_of(locate(node["_target_"], f"{parent}._target_"))
        if schema is not None and name in schema.parameters:
            default = schema.parameters[name].default
            value = "is required" if default is REQUIRED else f"has the default {shown(default)}"
            return f"{key} is not in the config. It {value} in {schema.name}; set it by +{key}=..."
        known = sorted({touch.key for touch in self.origins.touches})
        elsewhere = [full for full in known if full.endswith(f".{key}")]
        near = f"It stands at {', '.join(elsewhere)}." if elsewhere else did_you_mean(key, known)
        if not near.startswith(("Did", "It")):
            near = f"At the top it has: {', '.join(map(str, self.cfg))}."
        raise ConfigError(f"The config has no {key!r}. {near}")


def _plain(node: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=False)


def _references(key: str, raw: Any) -> Iterator[str]:
    """Yield the keys that a value's interpolations name, in full."""
    for text in raw if isinstance(raw, list) else [raw]:
        for name in _REFERENCE.findall(text) if isinstance(text, str) else ():
            dots = len(name) - len(name.lstrip("."))
            base = key.split(".")[:-dots] if dots else []
            yield ".".join([*base, name.lstrip(".")])
