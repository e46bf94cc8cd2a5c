"""Say in trainkit's words why a config did not compose: what was given, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from trainkit.config.loader import hydra_loader, parse_override
from trainkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def diagnose(
    error: Exception, overrides: list[str], config_name: str, config_dirs: Sequence[str | Path]
) -> ConfigError:
    """Return the ConfigError that says which override is wrong, or what else Hydra found."""
    problems = list(_override_problems(overrides, config_name, config_dirs))
    if problems:
        return ConfigError("\n".join(problems))
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return ConfigError(f"The config {config_name!r} does not compose: {text}")


def _override_problems(
    overrides: list[str], config_name: str, config_dirs: Sequence[str | Path]
) -> Iterator[str]:
    with hydra_loader(config_dirs) as loader:
        parsed, unreadable = _parse(overrides)
        yield from unreadable
        groups = set(all_groups(loader))
        wrong_options = {
            str(o.input_line): text for o in parsed if (text := _option_problem(o, groups, loader))
        }
        yield from wrong_options.values()
        lines = {str(o.input_line): o for o in parsed}
        usable = [
            t for t, o in lines.items() if o.key_or_group in groups and t not in wrong_options
        ]
        known = _keys(config_name, usable)
        for override in parsed:
            if override.key_or_group not in groups:
                yield from _key_problem(override, known, groups)


def key_error(override: Override, cfg: DictConfig) -> ConfigError:
    """Return the ConfigError for an override of a key that ``cfg`` does not have."""
    known = set(_flatten(OmegaConf.to_container(cfg, resolve=False), ""))
    return ConfigError("\n".join(_key_problem(override, known, set())))


def _parse(overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    parsed, unreadable = [], []
    for text in overrides:
        try:
            parsed.append(parse_override(text))
        except ConfigError as error:
            unreadable.append(str(error))
    return parsed, unreadable


def all_groups(loader: ConfigLoader, parent: str = "") -> Iterator[str]:
    """Yield every config group, nested ones as ``parent/child``; Hydra's own group is left out."""
    for name in loader.list_groups(parent):
        group = f"{parent}/{name}" if parent else name
        if group == "hydra" or name.startswith("__"):
            continue
        yield group
        yield from all_groups(loader, group)


def _option_problem(override: Override, groups: set[str], loader: ConfigLoader) -> str | None:
    group = override.key_or_group
    value = override.value()
    if group not in groups or override.is_delete():
        return None
    options = loader.get_group_options(group)
    for option in value if isinstance(value, list) else [value]:
        if option is None:
            none = (
                f"{group}=none switches it off."
                if "none" in options
                else f"Use ~{group} to leave it out."
            )
            return f"{group}=null is not an option. {none}"
        if str(option) not in options:
            homes = [g for g in sorted(groups) if str(option) in loader.get_group_options(g)]
            near = f"It is one of {homes[0]}: {homes[0]}={option}." if homes else ""
            near = near or did_you_mean(str(option), options)
            return f"{group}={option}: there is no option {str(option)!r}. {near}"
    return None


def _keys(config_name: str, overrides: list[str]) -> set[str]:
    """Return the dotted path of every key of the config that group choices give."""
    from hydra import compose
    from hydra.errors import HydraException

    try:
        config = compose(config_name, overrides)
    except HydraException:
        config = compose(config_name)
    return set(_flatten(OmegaConf.to_container(config, resolve=False), ""))


def _flatten(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flatten(value, f"{prefix}{key}.")


def _key_problem(override: Override, known: set[str], groups: set[str]) -> Iterator[str]:
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or key in known or key.startswith("hydra."):
        return
    elsewhere = sorted(full for full in known if full.endswith(f".{key}"))
    if "/" in key:
        yield f"There is no config group {key!r}. {did_you_mean(key, groups)}"
    elif elsewhere:
        yield f"The config has no {key!r} at its top. It stands at {', '.join(elsewhere)}."
    else:
        parent = key.rpartition(".")[0]
        siblings = {full for full in known if full.rpartition(".")[0] == parent} or known
        near = did_you_mean(key, siblings if parent else siblings | groups)
        yield f"The config has no {key!r}. {near}"
