"""What Python gives, put where Hydra finds it: as options of its groups."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainkit.config.findings import shown
from trainkit.config.loader import parse_override
from trainkit.config.request import Request, given_fields
from trainkit.config.signature import describe, fits, with_article
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

GIVEN = "__given__"  # the option under which Hydra finds what Python gives
# Default hooks whose name in the config is not that of their class.
_HOOK_NAMES = {"IterTimerHook": "timer", "DistSamplerSeedHook": "sampler_seed"}


@contextmanager
def in_python(request: Request, loader: ConfigLoader) -> Iterator[list[str]]:
    """Put what Python gives where Hydra finds it; yield the overrides, those that choose it first.

    Raises:
        ConfigError: A field that a config cannot hold.
    """
    if request.config is None:
        yield list(request.overrides)
        return
    from hydra.core.config_store import ConfigStore
    from hydra.types import RunMode

    given = given_fields(request.config)
    defaults = loader.compute_defaults_list(request.config_name, [], RunMode.RUN)
    listed = {*defaults.overrides.known_choices, "hooks"}  # of hooks, none is chosen by default
    groups = {*listed, *loader.list_groups("")}
    chosen = {text.partition("=")[0].lstrip("+~") for text in request.overrides}
    store = ConfigStore.instance()
    choices: list[str] = []
    values: dict[str, Any] = {}
    try:
        for name, value in given.items():
            if name not in groups:
                values[name] = _holdable(name, value)
            elif name not in chosen:
                choice = _choose(store, loader, name, value, request.overrides)
                choices.append(choice if name in listed else f"+{choice}")
        if values:
            store.store(GIVEN, values, group=GIVEN, package="_global_")
            choices.append(f"+{GIVEN}={GIVEN}")
        added = "hooks" in given and "hooks" in chosen and given["hooks"] is not None
        if added:
            _choose(store, loader, "hooks", given["hooks"], request.overrides)
        yield [*choices, *(_beside_given(t) if added else t for t in request.overrides)]
    finally:
        for group in (*given, GIVEN):
            store.repo.get(group, {}).pop(f"{GIVEN}.yaml", None)


def _choose(
    store: Any, loader: ConfigLoader, group: str, value: Any, overrides: Sequence[str]
) -> str:
    """Store a field as an option of its group; return the override that chooses it."""
    if value is None:
        has_none = "none" in loader.get_group_options(group)
        return f"{group}=none" if has_none else f"~{group}"
    node = _holdable(group, _by_name(group, value))
    if not isinstance(node, Mapping) and not dataclasses.is_dataclass(node):
        option = f"An option is chosen by overrides=[{f'{group}={value}'!r}]."
        told = f"TrainConfig.{group} is {value!r}; expected a dataclass or a mapping."
        raise ConfigError(f"{told} {option}" if isinstance(value, str) else told)
    inner = {
        key.removeprefix(f"{group}/"): option
        for key, option in _choices(overrides)
        if key.startswith(f"{group}/")
    }
    if inner:  # an option inside the field, which then begins from it
        node = {key: item for key, item in _plain(node).items() if key not in inner}
        node["defaults"] = [*({key: option} for key, option in inner.items()), "_self_"]
    store.store(GIVEN, node, group=group)
    return f"{group}=[{GIVEN}]" if group == "hooks" else f"{group}={GIVEN}"


def _beside_given(text: str) -> str:
    """Return an override of ``hooks``, which adds, with what Python gives before its own."""
    if text.partition("=")[0].lstrip("+") != "hooks":
        return text
    value = parse_override(text).value()
    names = value if isinstance(value, list) else [value]
    return f"hooks=[{','.join(map(str, [GIVEN, *names]))}]"


def _choices(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    for text in overrides:
        key, equals, option = text.partition("=")
        if equals:
            yield key, option


def _plain(node: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    structured = OmegaConf.structured(node) if dataclasses.is_dataclass(node) else node
    container = OmegaConf.to_container(OmegaConf.create(structured), resolve=False)
    assert isinstance(container, dict), "a dataclass or a mapping"
    return {str(key): value for key, value in container.items()}


def _by_name(group: str, value: Any) -> Any:
    """Turn a list of hooks or schedulers into a mapping by name."""
    if group not in ("hooks", "param_scheduler") or not isinstance(value, list | tuple):
        return value
    named: dict[str, Any] = {}
    for entry in value:
        if not isinstance(entry, Mapping) and not hasattr(entry, "_target_"):
            raise ConfigError(
                f"TrainConfig.{group} has the entry {entry!r}; expected a dataclass or a mapping "
                "with _target_."
            )
        target = entry.get("_target_", "") if isinstance(entry, Mapping) else entry._target_
        kind = str(target).rpartition(".")[2]
        name = _hook_name(kind) if group == "hooks" else kind
        while name in named:
            name += "_"
        named[name] = entry
    return named


def _hook_name(kind: str) -> str:
    """Return the name that conf/ gives to a hook: ``EarlyStoppingHook`` is ``early_stopping``."""
    if kind in _HOOK_NAMES:
        return _HOOK_NAMES[kind]
    stem = kind.removesuffix("Hook")
    return "".join(
        f"_{c.lower()}" if c.isupper() and i and stem[i - 1].islower() else c.lower()
        for i, c in enumerate(stem)
    )


def _holdable(name: str, value: Any) -> Any:
    """Return the value of a field if a config can hold it.

    Raises:
        ConfigError: It is, or holds, a live object, or a value that its dataclass does not allow.
    """
    told = _unholdable(value, f"TrainConfig.{name}")
    if told is not None:
        raise ConfigError(told)
    return value


def _unholdable(value: Any, path: str) -> str | None:
    """Return what no config can hold in a value, and where; None if there is nothing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.create({"value": value})
    except OmegaConfBaseException as error:
        for name, child in _children(value):
            told = _unholdable(child, f"{path}.{name}")
            if told is not None:
                return told
        field = str(getattr(error, "full_key", None) or "").rpartition(".")[2].partition("[")[0]
        return _wrong_field(value, field, path) or _live(path, value, error)
    return None


def _wrong_field(value: Any, field: str, path: str) -> str | None:
    """Return what a field of a dataclass takes instead of what it was given."""
    if isinstance(value, type) or not hasattr(value, field) or not field:
        return None
    hint = typing.get_type_hints(type(value)).get(field, Any)
    given = getattr(value, field)
    if fits(given, hint):
        return None
    kind = type(value).__name__
    return f"{path}.{field} is {shown(given)}; {kind} takes {describe(hint)}."


def _children(value: Any) -> list[tuple[Any, Any]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _live(key: str, value: Any, error: Exception) -> str:
    if dataclasses.is_dataclass(value):
        reason = str(error).splitlines()[0].rstrip(".")
        return f"{key} cannot be a config: {reason}. Give the field another type, such as Any."
    return (
        f"{key} is {with_article(type(value).__name__)}, a live object; a config holds "
        "dataclasses, mappings, lists and plain values. Give it to Runner(...) instead."
    )
