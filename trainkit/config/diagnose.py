"""Say in trainkit's words why a config did not compose: what was given, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from trainkit.config.build import partial
from trainkit.config.loader import conf_dir, hydra_loader, parse_override
from trainkit.errors import ConfigError, MissingExtra, did_you_mean

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def diagnose(
    error: Exception, overrides: list[str], config_name: str, config_dirs: Sequence[str | Path]
) -> ConfigError:
    """Return the ConfigError that says which override is wrong, or what else Hydra found."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file == config_name:
        return ConfigError(
            f"There is no primary config {config_name!r}. Expected the name of a YAML file in "
            f"{conf_dir()} or in a --config-dir, without its ending."
        )
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
        groups = {group: loader.get_group_options(group) for group in all_groups(loader)}
        lines = {str(override.input_line): override for override in parsed}
        found = {line: _option_problem(o, {*groups}, loader) for line, o in lines.items()}
        wrong = {line: problem for line, problem in found.items() if problem}
        yield from wrong.values()
        usable = [
            line for line, o in lines.items() if o.key_or_group in groups and line not in wrong
        ]
        config = _composed(config_name, usable)
        for line, override in lines.items():
            if override.key_or_group not in groups and line not in wrong:
                yield from _key_problem(override, config, groups)


def key_error(override: Override, cfg: DictConfig) -> ConfigError:
    """Return the ConfigError for an override of a key that ``cfg`` does not have."""
    return ConfigError("\n".join(_key_problem(override, _plain(cfg), {})))


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
    if override.is_delete() or not (group in groups or group.startswith("hydra/")):
        return None
    if override.is_sweep_override():
        text = str(override.input_line).partition("=")[2]
        return (
            f"{group}={text} is a sweep. Write {group}=[{text}] for all, or -m to sweep over them."
        )
    options = loader.get_group_options(group)
    value = override.value()
    for option in value if isinstance(value, list) else [value]:
        if str(option) not in options:
            return _unknown_option(group, option, options, groups, loader)
    return None


def _unknown_option(
    group: str, option: Any, options: list[str], groups: set[str], loader: ConfigLoader
) -> str:
    if option is None:
        off = f"{group}=none switches it off." if "none" in options else ""
        off = off or (
            f"{group}=[] adds none." if group == "hooks" else f"Leave it out by ~{group}."
        )
        return f"{group}=null is not an option. {off}"
    if "submitit" in str(option):
        return str(MissingExtra("hydra-submitit-launcher", "slurm", f"{group}={option}"))
    homes = [g for g in sorted(groups) if str(option) in loader.get_group_options(g)]
    if homes and option != "none":
        near = f"It is one of {homes[0]}: {homes[0]}={option}."
    else:
        near = did_you_mean(str(option), options)
    return f"{group}={option}: there is no option {str(option)!r}. {near}"


def _composed(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """Return the config that group choices give, in plain containers; empty if there is none."""
    from hydra import compose
    from hydra.errors import HydraException

    for choices in (overrides, []):
        try:
            return _plain(compose(config_name, choices))
        except HydraException:
            continue
    return {}


def _plain(cfg: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(container, dict), "a config is a mapping"
    return {str(key): value for key, value in container.items()}


def _flatten(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flatten(value, f"{prefix}{key}.")


def _key_problem(
    override: Override, config: dict[str, Any], groups: Mapping[str, list[str]]
) -> Iterator[str]:
    key = override.key_or_group
    known = set(_flatten(config, ""))
    if override.is_add() or override.is_force_add() or key in known or key.startswith("hydra."):
        return
    elsewhere = sorted(full for full in known if full.endswith(f".{key}"))
    if "/" in key:
        yield f"There is no config group {key!r}. {did_you_mean(key, groups)}"
    elif elsewhere:
        yield f"The config has no {key!r} at its top. It stands at {', '.join(elsewhere)}."
    else:
        yield f"The config has no {key!r}. {_advice(override, config, groups)}"


def _advice(override: Override, config: dict[str, Any], groups: Mapping[str, list[str]]) -> str:
    """Say what a key that is not there may have meant, from the deepest part that is there."""
    node: Any = config
    parts = override.key_or_group.split(".")
    there: list[str] = []
    while len(parts) > 1 and isinstance(node.get(parts[0]), dict):
        node = node[parts[0]]
        there.append(parts.pop(0))
    name, group = parts[0], "/".join(there)
    if name in groups.get(group, ()):
        return f"It is an option that is not chosen: add {group}={name}."
    if len(parts) == 1 and _takes(node, name):
        return f"Its target takes it, but the config does not list it: +{override.input_line}"
    siblings = list(dict.fromkeys([*node, *(() if there else groups)]))
    near = difflib.get_close_matches(name, map(str, siblings), n=1)
    if near:
        return f"Did you mean {'.'.join([*there, near[0]])!r}?"
    return f"{'.'.join(there) or 'The top'} has: {', '.join(map(str, siblings)) or 'nothing'}."


def _takes(node: Mapping[str, Any], name: str) -> bool:
    """Whether the target of a node has an argument that the node does not give."""
    if "_target_" not in node:
        return False
    try:
        return partial({"_target_": node["_target_"]}, "").accepts(name)
    except ConfigError:
        return False
