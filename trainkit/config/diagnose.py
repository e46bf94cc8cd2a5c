"""Say in trainkit's words why a config did not compose: what was given, what to do."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from trainkit.config.build import partial
from trainkit.config.findings import Finding
from trainkit.config.loader import conf_dir, hydra_loader, parse_override
from trainkit.config.request import Request, in_python, wrong_type
from trainkit.errors import ConfigError, MissingExtra, did_you_mean

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a request.

    Args:
        cfg: The config without the overrides at fault; None where nothing composes.
        request: What ``cfg`` was composed from.
        findings: What is wrong.
        unsure: Groups of which a wrong option was chosen.
    """

    cfg: DictConfig | None
    request: Request
    findings: tuple[Finding, ...]
    unsure: tuple[str, ...] = ()


def diagnose(error: Exception | None, request: Request, early: Sequence[Finding] = ()) -> Diagnosis:
    """Return what is wrong with a request, and the config without the overrides at fault.

    Args:
        error: What Hydra raised, if it was asked.
        request: What does not compose.
        early: What is known to be wrong already.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file == request.config_name:
        text = (
            f"There is no primary config {request.config_name!r}. Expected the name of a YAML file "
            f"in {conf_dir()} or in a --config-dir, without its ending."
        )
        return Diagnosis(None, request, (*early, Finding("", text)))
    with hydra_loader(request.config_dirs) as loader:
        sorted_out = _Overrides(request, loader)
        sorted_out.sort()
    found = [*early, *(Finding("", text) for text in sorted_out.problems)]
    left = dataclasses.replace(request, overrides=tuple(sorted_out.good))
    cfg = _composed(left)
    if not found:
        assert error is not None, "without an error there are early findings"
        found.append(Finding("", _told(error, request)))
    return Diagnosis(cfg, left, tuple(found), tuple(sorted_out.unsure))


class _Overrides:
    """The overrides of a request, the good ones sorted from those that are wrong."""

    def __init__(self, request: Request, loader: ConfigLoader) -> None:
        self.request, self.loader = request, loader
        self.groups = {group: loader.get_group_options(group) for group in all_groups(loader)}
        self.told: dict[str, str] = {}  # what is wrong with an override
        self.good: list[str] = []
        self.unsure: list[str] = []  # groups of which a wrong option was chosen

    def sort(self) -> None:
        """Look at choices of options first, since they decide which keys there are."""
        choices, values = self._parsed()
        for override in choices:
            problem = _option_problem(override, {*self.groups}, self.loader)
            if problem is None:
                self.good.append(str(override.input_line))
            else:
                self.told[str(override.input_line)] = problem
                self.unsure.append(override.key_or_group)
        config = self._plain_config()
        if not config:  # what is wrong lies deeper than in the values
            self.good += [str(override.input_line) for override in values]
            return
        for override in values:
            problem = self._value_problem(override, config)
            if problem is None:
                self.good.append(str(override.input_line))
            elif not self._is_unsure(override.key_or_group):
                self.told[str(override.input_line)] = problem

    @property
    def problems(self) -> list[str]:
        """What is wrong, in the order of the overrides."""
        return [self.told[text] for text in self.request.overrides if text in self.told]

    def _parsed(self) -> tuple[list[Override], list[Override]]:
        choices: list[Override] = []
        values: list[Override] = []
        seen = set()
        for text in self.request.overrides:
            try:
                override = parse_override(text)
            except ConfigError as error:
                self.told[text] = str(error)
                continue
            if override.key_or_group in seen or text.startswith("~hooks."):
                continue  # told already
            seen.add(override.key_or_group)
            is_choice = override.key_or_group in self.groups or override.key_or_group.startswith(
                "hydra/"
            )
            (choices if is_choice else values).append(override)
        return choices, values

    def _is_unsure(self, key: str) -> bool:
        inside = (group.replace("/", ".") for group in self.unsure)
        return any(key == group or key.startswith(f"{group}.") for group in inside)

    def _plain_config(self) -> dict[str, Any]:
        cfg = _composed(dataclasses.replace(self.request, overrides=tuple(self.good)))
        return {} if cfg is None else _plain(cfg)

    def _value_problem(self, override: Override, config: dict[str, Any]) -> str | None:
        if override.is_sweep_override():
            text = str(override.input_line)
            return f"{text} gives several values; write -m to sweep over them."
        told = key_problem(override, config, self.groups)
        if told is not None or override.key_or_group.startswith("hydra."):
            return told
        with_it = dataclasses.replace(
            self.request, overrides=(*self.good, str(override.input_line))
        )
        try:
            _compose_or_raise(with_it)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            return _refused(override, error)
        return None


def _composed(request: Request) -> DictConfig | None:
    try:
        return _compose_or_raise(request)
    except (HydraException, OmegaConfBaseException, ValueError):
        return None


def _compose_or_raise(request: Request) -> DictConfig:
    from hydra import compose

    with hydra_loader(request.config_dirs) as loader, in_python(request, loader) as overrides:
        return compose(request.config_name, overrides)


def _refused(override: Override, error: Exception) -> str:
    """Say why a single override does not go with the rest."""
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, ValidationError):
        told = wrong_type(cause, override.key_or_group)
        if told is not None:
            return told
    reason = str(cause).splitlines()[0].rstrip(".")
    if override.is_delete():
        return f"{override.input_line}: there is no {override.key_or_group!r} to remove."
    return f"{override.input_line} is refused: {reason}."


def _told(error: Exception, request: Request) -> str:
    """Say what else Hydra found: in a defaults list, or in a file."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        where = _line_with(rf"{re.escape(group)}\s*:\s*\[?.*\b{re.escape(option)}\b", request)
        near = did_you_mean(option, error.options or (), listed="Options are")
        if not error.options:
            return f"{where} chooses {option!r} of {group!r}, but there is no such group."
        return f"{where} chooses {group}: {option}, but there is no such option. {near}"
    match = re.search(r"In '(.+)': Could not override '(.+?)'\. No match", text)
    if match is not None:
        name = match[2].partition("@")[2] or match[2]
        slash = "" if "@" not in match[2] else f" Write it with a slash: 'override /{name}'."
        near = slash or f" {did_you_mean(name, _defaults_groups(request))}"
        return f"The defaults of {match[1]} override {name!r}, which is no group there.{near}"
    match = re.search(r"(\S+) appears more than once in the final defaults list", text)
    if match is not None:
        group = match[1].partition("@")[0]
        return (
            f"{group} is chosen twice. In a defaults list on top of trainkit's, write "
            f"'override /{group.partition('/')[0]}: ...' instead of '{group.partition('/')[0]}: "
            "...'."
        )
    return f"The config {request.config_name!r} does not compose: {text}"


def _defaults_groups(request: Request) -> list[str]:
    with hydra_loader(request.config_dirs) as loader:
        return list(all_groups(loader))


def _line_with(pattern: str, request: Request) -> str:
    """Return the file and line that match, among the user's files first."""
    for directory in (*map(Path, request.config_dirs), conf_dir()):
        for file in sorted(directory.rglob("*.yaml")):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if re.search(pattern, line):
                    return f"{file}:{number}"
    return f"The defaults list of {request.config_name!r}"


def key_error(override: Override, cfg: DictConfig) -> ConfigError:
    """Return the ConfigError for an override of a key that ``cfg`` does not have."""
    return ConfigError(key_problem(override, _plain(cfg), {}) or f"{override.input_line}: no key.")


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
    if override.is_delete():
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


def _plain(cfg: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(container, dict), "a config is a mapping"
    return {str(key): value for key, value in container.items()}


def _flatten(node: Any, prefix: str) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flatten(value, f"{prefix}{key}.")


def key_problem(
    override: Override, config: dict[str, Any], groups: Mapping[str, list[str]]
) -> str | None:
    """Return what is wrong with the key of an override; None if nothing is."""
    key = override.key_or_group
    known = set(_flatten(config, ""))
    if override.is_add() and key in known and not isinstance(override.value(), dict | list):
        line = str(override.input_line)
        return f"{line}: {key} is there already. Write {line[1:]}"
    if override.is_add() or override.is_force_add() or key in known or key.startswith("hydra."):
        return None
    elsewhere = sorted(full for full in known if full.endswith(f".{key}"))
    if "/" in key:
        return f"There is no config group {key!r}. {did_you_mean(key, groups)}"
    if elsewhere:
        return f"The config has no {key!r} at its top. It stands at {', '.join(elsewhere)}."
    return f"The config has no {key!r}. {_advice(override, config, groups)}"


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
    below = [key for key in _flatten(node, "") if key.endswith(f".{name}")]
    if below and len(parts) == 1:
        return f"It stands at {', '.join('.'.join([*there, key]) for key in below)}."
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
