"""What a config is composed from: overrides, directories, and what Python gives."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.config.schema import NOT_GIVEN, TrainConfig
from trainkit.config.signature import describe
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

GIVEN = "__given__"  # the option under which Hydra finds what Python gives
# OmegaConf's names of the types that a dataclass gives to its fields.
_TYPES: dict[str, Any] = {"Float": float, "Integer": int, "Boolean": bool, "String": str}
# Default hooks whose name in the config is not that of their class.
_HOOK_NAMES = {"IterTimerHook": "timer", "DistSamplerSeedHook": "sampler_seed"}


@dataclass(frozen=True)
class Request:
    """What a config is composed from.

    Args:
        overrides: As on the command line.
        config_name: The primary config.
        config_dirs: Directories whose groups and options are added to trainkit's own.
        config: Fields that Python gives.
    """

    overrides: tuple[str, ...] = ()
    config_name: str = "config"
    config_dirs: tuple[str | Path, ...] = ()
    config: TrainConfig | None = None

    def facts(self) -> list[str]:
        """Return the fields that Python gives as text, to tell runs from each other."""
        if self.config is None:
            return []
        from omegaconf import OmegaConf

        given = {name: {"value": value} for name, value in given_fields(self.config).items()}
        plain = OmegaConf.to_container(OmegaConf.create(given), resolve=False)
        assert isinstance(plain, dict), "a mapping of fields"
        return [f"{name!s}={json.dumps(node['value'])}" for name, node in plain.items()]


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
        yield [*choices, *request.overrides]
    finally:
        for group in (*given, GIVEN):
            store.repo.get(group, {}).pop(f"{GIVEN}.yaml", None)


def given_fields(config: TrainConfig) -> dict[str, Any]:
    """Return the fields of ``config`` that are given, by name."""
    every = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    is_open = {name for name, value in every.items() if isinstance(value, str)}
    return {
        name: value for name, value in every.items() if name not in is_open or value != NOT_GIVEN
    }


def _choose(
    store: Any, loader: ConfigLoader, group: str, value: Any, overrides: Sequence[str]
) -> str:
    """Store a field as an option of its group; return the override that chooses it."""
    if value is None:
        has_none = "none" in loader.get_group_options(group)
        return f"{group}=none" if has_none else f"~{group}"
    node = _holdable(group, _by_name(group, value))
    if not isinstance(node, Mapping) and not dataclasses.is_dataclass(node):
        raise ConfigError(
            f"TrainConfig.{group} is {value!r}; expected a dataclass or a mapping. An option is "
            f"chosen by overrides=[{f'{group}={value}'!r}]."
        )
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


def wrong_type(error: Exception, key: str) -> str | None:
    """Return what OmegaConf says of a dataclass's field in words; None if it says something else.

    Args:
        error: What it raised.
        key: Where the value stands.
    """
    found = re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", str(error))
    if found is None or found[2] not in _TYPES:
        return None
    kind = getattr(getattr(error, "object_type", None), "__name__", "its dataclass")
    return f"{key} is {found[1]!r}; {kind} takes {describe(_TYPES[found[2]])}."


def _holdable(name: str, value: Any) -> Any:
    """Return ``value`` if a config can hold it.

    Raises:
        ConfigError: It is, or holds, a live object, or a dataclass with a field of such a type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.create({"value": value})
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", None) or "").removeprefix("value").lstrip(".")
        told = wrong_type(error, f"TrainConfig.{name}.{key}" if key else f"TrainConfig.{name}")
        if told is not None:
            raise ConfigError(told) from None
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"TrainConfig.{name} cannot be a config: {reason}. A config holds dataclasses, "
            "mappings, lists and plain values; give a live object to Runner(...) instead."
        ) from None
    return value
