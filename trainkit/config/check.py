"""Hold the nodes of a config against the signatures of what they name, before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from trainkit.config.build import HYDRA_KEYS, find_target, to_plain
from trainkit.config.findings import Finding, shown
from trainkit.config.references import dotted
from trainkit.config.signature import REQUIRED, Schema, describe, fits, schema_of
from trainkit.errors import ConfigError, MissingExtra, did_you_mean

_MAX_TYPE = 60  # characters of a type beyond which it is no help


class Unresolved:
    """Stands for a value that could not be resolved; it fits everywhere, as it is told already."""


@dataclass(frozen=True)
class Place:
    """What a run does with the node at a place of the config.

    Args:
        default: The target of a node that names none.
        positional: How many positional arguments the run passes.
        passed: Arguments that the run passes by name where the node leaves them open.
        read: Keys that the run reads itself; the target never sees them.
        kind: What the target must be a subclass of, if it is a class.
        not_kind: What it must not be a subclass of.
        noun: What belongs here, for messages: "a hook, a subclass of trainkit.Hook".
        needs_all: Whether the node must give all arguments that the target needs.
    """

    default: Callable[..., Any] | None = None
    positional: int = 0
    passed: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()
    kind: type | None = None
    not_kind: tuple[type, ...] = ()
    noun: str = ""
    needs_all: bool = True


@dataclass(frozen=True)
class Node:
    """A node of a config with the target that it names."""

    path: str
    content: Mapping[str, Any]
    target: Callable[..., Any]
    place: Place = field(default_factory=Place)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the target gets by name."""
        known = HYDRA_KEYS | self.place.read
        return {key: value for key, value in self.content.items() if key not in known}

    @cached_property
    def schema(self) -> Schema | None:
        """What the target takes; None for a builtin that does not say."""
        return schema_of(self.target)

    @property
    def unknown(self) -> set[str]:
        """Arguments that the target does not take."""
        schema = self.schema
        if schema is None or schema.is_open:
            return set()
        return self.arguments.keys() - schema.parameters.keys()


def resolve(cfg: Any) -> tuple[dict[str, Any], list[Finding]]:
    """Return a config in plain containers, and what could not be resolved in it."""
    from omegaconf import OmegaConf

    try:
        plain: dict[str, Any] = to_plain(cfg, "")
    except ConfigError:
        if not OmegaConf.is_config(cfg):
            raise
    else:
        return plain, []
    findings: list[Finding] = []
    raw = OmegaConf.to_container(cfg, resolve=False)
    resolved: dict[str, Any] = _resolved(raw, "", cfg, findings)
    return resolved, findings


def _resolved(raw: Any, key: str, cfg: Any, findings: list[Finding]) -> Any:
    if isinstance(raw, dict):
        return {
            name: _resolved(item, f"{key}.{name}".lstrip("."), cfg, findings)
            for name, item in raw.items()
        }
    if isinstance(raw, list):
        return [_resolved(item, f"{key}[{n}]", cfg, findings) for n, item in enumerate(raw)]
    if not isinstance(raw, str) or ("${" not in raw and raw != "???"):
        return raw
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return to_plain(OmegaConf.select(cfg, key, throw_on_missing=True), key)
    except (OmegaConfBaseException, ConfigError, RecursionError) as error:
        findings.append(Finding(key, _unresolved(key, raw, error, cfg)))
        return Unresolved()


def _unresolved(key: str, raw: str, error: Exception, cfg: Any) -> str:
    if raw == "???":
        return f"{key} has no value yet. Give it one: {dotted(key)}=..."
    reason = str(error).splitlines()[0].rstrip(".")
    _, _, missing = reason.partition("Interpolation key '")
    if missing:
        name = missing.partition("'")[0]
        known = [inner for inner, _ in _leaves(cfg)]
        near = did_you_mean(name, known) if name else ""
        near = near if near.startswith("Did") else "Mend the interpolation."
        return f"{key} is {raw!r}, but the config has no {name!r}. {near}"
    _, _, variable = reason.partition("Environment variable '")
    if variable:
        name = variable.partition("'")[0]
        return (
            f"{key} is {raw!r}, but the environment has no {name}. Set it, or write "
            f"${{oc.env:{name},<default>}}."
        )
    _, _, resolver = reason.partition("Unsupported interpolation type ")
    if resolver:
        return f"{key} is {raw!r}, but there is no resolver {resolver!r}. Mend the interpolation."
    if isinstance(error, RecursionError) or "recurs" in reason.lower():
        return f"{key} is {raw!r}, which leads back to itself. Give one of the keys a value."
    return f"{key} is {raw!r}, which cannot be resolved: {reason}. Mend the interpolation."


def texts(node: Any) -> Iterator[str]:
    """Yield every text in a config, with interpolations as they are written."""
    from omegaconf import OmegaConf

    raw = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, Mapping | list | tuple):
        for item in raw.values() if isinstance(raw, Mapping) else raw:
            yield from texts(item)


def _leaves(cfg: Any) -> Iterator[tuple[str, Any]]:
    from omegaconf import OmegaConf

    from trainkit.config.origins import leaves

    yield from leaves(OmegaConf.to_container(cfg, resolve=False), "")


def nodes(
    content: Any, path: str, place_of: Callable[[str, Any], Place | None], found: list[Finding]
) -> Iterator[Node]:
    """Yield every node below ``content`` whose target can be found; tell ``found`` of the others.

    Args:
        content: A resolved config, or a part of it.
        path: Where it stands.
        place_of: Gives what the run does with the node at a path; None for one that only the
            node around it knows.
        found: Takes what is wrong with a node as such.
    """
    place = place_of(path, content)
    if isinstance(content, Mapping):
        wrong: set[str] = set()
        if place is not None or ("_target_" in content and path):
            node = _node(content, path, place or Place(), found)
            if node is not None:
                yield node
                wrong = node.unknown
        for key, item in content.items():
            if key not in wrong:  # what stands there is nothing's argument
                yield from nodes(item, f"{path}.{key}".lstrip("."), place_of, found)
    elif isinstance(content, list):
        for index, item in enumerate(content):
            yield from nodes(item, f"{path}[{index}]", place_of, found)


def _node(content: Mapping[str, Any], path: str, place: Place, found: list[Finding]) -> Node | None:
    """Return the node, or None if its target cannot be found or is of the wrong kind."""
    name = content.get("_target_", "")
    if isinstance(name, Unresolved):
        return None
    key = f"{path}._target_" if "_target_" in content else path
    own = path.rpartition(".")[2]
    if name is None:
        text = f"{key} is null; expected the import path of a class or function."
        found.append(Finding(key, text))
        return None
    if not name and isinstance(content.get(own), Mapping):
        text = (
            f"{path}.{own}: what stands here is put under {path!r} already. Drop the line '{own}:'."
        )
        found.append(Finding(f"{path}.{own}", text))
        return None
    try:
        target = find_target(content, path, place.default)
    except (ConfigError, MissingExtra) as error:
        found.append(Finding(key, str(error), error=type(error)))
        return None
    if not _is_of_kind(target, place) and not content.get("_partial_"):
        text = f"{path} is a config of {target.__qualname__}; expected {place.noun}."
        found.append(Finding(key, text))
        return None
    return Node(path, content, target, place)


def _is_of_kind(target: Callable[..., Any], place: Place) -> bool:
    if place.kind is None or not inspect.isclass(target):
        return True
    return issubclass(target, place.kind) and not issubclass(target, place.not_kind)


def check_node(node: Node) -> Iterator[Finding]:
    """Yield what does not fit the target: unknown, missing and wrong arguments."""
    schema = node.schema
    if schema is None:
        return
    given = node.place.positional + len(node.content.get("_args_") or ())
    filled = frozenset(schema.positional[:given])
    for key, value in node.arguments.items():
        if key in filled:
            text = f"{node.path}.{key} is {shown(value)}, but the run gives {schema.name} its own."
            advice = _advice(node, "from the entry of the list", f"~{node.path}.{key}")
            yield Finding(f"{node.path}.{key}", f"{text} Remove it: {advice}")
        elif key not in schema.parameters:
            if not schema.is_open:
                yield _unknown(node, schema, key, filled)
        elif not _fits(value, schema, key):
            expected = describe(schema.parameters[key].hint)
            text = f"{node.path}.{key} is {shown(value)}; {schema.name} takes {expected}."
            yield Finding(f"{node.path}.{key}", text)
    if node.place.needs_all and not node.content.get("_partial_"):
        yield from _missing(node, schema, filled)


def _fits(value: Any, schema: Schema, key: str) -> bool:
    parameter = schema.parameters[key]
    # A default fits whatever its annotation says: ``size: int = None`` is common.
    plain = isinstance(value, str | int | float | list | tuple)
    if value is parameter.default or (plain and value == parameter.default):
        return True
    return isinstance(value, Unresolved) or fits(value, parameter.hint)


def _advice(node: Node, where: str, override: str) -> str:
    """Say where and by which override to change an argument; in a list, in its entry first."""
    is_listed = "[" in node.path
    return f"{where}, or by {dotted(override)}" if is_listed else override


def _unknown(node: Node, schema: Schema, key: str, filled: Iterable[str]) -> Finding:
    names = [name for name in schema.parameters if name not in filled]
    near = did_you_mean(key, names, listed="It takes") if names else "It takes none by name."
    if key == "type":
        near = "MMEngine's 'type' is '_target_: <full import path>' here."
    elif key.startswith("_") and key.endswith("_"):
        near = did_you_mean(key, HYDRA_KEYS)
    elif not near.startswith("Did"):
        below = _below(node.content, key)
        near = f"It stands at {node.path}.{below}." if below else near
    text = f"{node.path}.{key}: {schema.name} has no argument {key!r}. {near}"
    return Finding(f"{node.path}.{key}", text, node=node.path)


def _below(content: Mapping[str, Any], key: str) -> str:
    """Return where a node further down has ``key``; empty if none has."""
    for name, item in content.items():
        if isinstance(item, Mapping):
            if key in item:
                return f"{name}.{key}"
            deeper = _below(item, key)
            if deeper:
                return f"{name}.{deeper}"
    return ""


def _missing(node: Node, schema: Schema, filled: frozenset[str]) -> Iterator[Finding]:
    have = filled | node.place.passed | node.content.keys()
    free = schema.parameters.keys() - have
    meant = {near for key in node.unknown for near in get_close_matches(key, free, n=1)}
    for name, parameter in schema.parameters.items():
        if parameter.default is REQUIRED and name in free - meant:
            key = f"{node.path}.{name}"
            takes = describe(parameter.hint) if parameter.hint not in (REQUIRED, Any) else ""
            kind = f" It takes {takes}." if takes and len(takes) <= _MAX_TYPE else ""
            advice = _advice(node, f"{name}: ... in the entry of the list", f"+{key}=...")
            text = f"{node.path}: {schema.name} needs {name!r}. Give it: {advice}{kind}"
            yield Finding(f"{node.path}._target_", text)
