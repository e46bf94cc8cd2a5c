"""What the option of a group brings to a config, apart from all else that is composed with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.config.compose import compose
from trainkit.config.loader import hydra_loader
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.config_repository import IConfigRepository
    from hydra._internal.defaults_list import DefaultsList
    from hydra.core.override_parser.types import Override

# Groups whose options add to what is there; those of all others replace it.
ADDING = ("hooks",)


@dataclass(frozen=True)
class Option:
    """What an override of a group does to a config that was composed without it.

    Args:
        value: What it puts at the group's key.
        keys: The dotted keys that are the user's choice now.
        adds: Whether ``value`` is merged into what is there.
    """

    value: Any
    keys: tuple[str, ...]
    adds: bool = False


def read_option(
    override: Override, config_name: str, config_dirs: Sequence[str | Path] = ()
) -> Option:
    """Return what an override of a group brings.

    Raises:
        ConfigError: It does not compose, or its option sets keys of other groups as well.
    """
    from omegaconf import OmegaConf

    from trainkit.config.origins import leaves

    text, key = override.input_line or "", override.key_or_group.replace("/", ".")
    if override.package is not None:
        raise ConfigError(
            f"{text}: a package (@{override.package}) cannot be chosen for an option that is put "
            "on a run's config. Override single keys."
        )
    composed = compose([text], config_name=config_name, config_dirs=config_dirs)
    if override.is_delete():
        return Option(None, (key,))
    brought, chosen = _brought(override, config_name, config_dirs)
    _check_inside(text, key, brought, chosen)
    if key not in ADDING:
        return Option(OmegaConf.select(composed, key), (key,))
    value = OmegaConf.select(OmegaConf.merge({key: {}}, *brought), key)
    plain = OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
    # An empty mapping sets nothing, so that what stands below it is not the user's choice.
    set_here = tuple(name for name, leaf in leaves(plain, key) if leaf != {})
    return Option(value, set_here, adds=True)


def _brought(
    override: Override, config_name: str, config_dirs: Sequence[str | Path]
) -> tuple[list[Any], list[str]]:
    """Return the content of an option, with that of its defaults, and the groups it chooses for."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.defaults_list import create_defaults_list

    with hydra_loader(config_dirs) as loader:
        assert isinstance(loader, ConfigLoaderImpl), "Hydra has one loader"
        parsed, repository = loader._parse_overrides_and_create_caching_repo(
            config_name, [override.input_line or ""]
        )
        defaults = create_defaults_list(
            repo=repository,
            config_name=config_name,
            overrides_list=parsed,
            prepend_hydra=True,
            skip_missing=False,
        )
        value = override.value()
        options = value if isinstance(value, list) else [value]
        names = {f"{override.key_or_group}/{option}" for option in options}
        brought = list(_contents(defaults, names, repository))
    chosen = [
        group
        for group, known in defaults.overrides.override_metadata.items()
        if known.containing_config_path in names and not known.external_override
    ]
    return brought, chosen


def _contents(
    defaults: DefaultsList, names: set[str], repository: IConfigRepository
) -> Iterator[Any]:
    """Yield what the configs ``names`` hold, at its place; those they include join ``names``."""
    from omegaconf import OmegaConf

    grown = True
    while grown:  # what an option includes stands before it
        found = {d.config_path or "" for d in defaults.defaults if d.parent in names} - names
        names |= found
        grown = bool(found)
    for default in defaults.defaults:
        loaded = repository.load_config(default.config_path or "")
        if default.config_path in names and loaded is not None:
            content = OmegaConf.to_container(loaded.config, resolve=False)
            if isinstance(content, dict):
                content.pop("defaults", None)
            for part in reversed((default.package or "").split(".") if default.package else []):
                content = {part: content}
            yield OmegaConf.create(content)


def _check_inside(text: str, key: str, brought: list[Any], chosen: list[str]) -> None:
    """Raise if an option sets more than what stands at its group's key."""
    from omegaconf import OmegaConf

    from trainkit.config.origins import is_at_or_below, leaves

    outside = [
        name
        for content in brought
        for name, _ in leaves(OmegaConf.to_container(content, resolve=False), "")
        if not is_at_or_below(name, key)
    ]
    others = [group for group in chosen if not is_at_or_below(group.replace("/", "."), key)]
    if outside or others:
        more = ", ".join(dict.fromkeys([*outside, *others]))
        raise ConfigError(
            f"{text}: this option sets more than {key} ({more}), so it "
            "cannot be put on a run's config. Override single keys."
        )
