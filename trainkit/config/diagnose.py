"""Say in trainkit's words why a config did not compose: what was given, what to do."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainkit.config.build import find_target
from trainkit.config.file_problems import file_problem
from trainkit.config.findings import Finding, shown
from trainkit.config.given import in_python
from trainkit.config.loader import conf_dir, group_options, hydra_loader, parse_override
from trainkit.config.request import Request
from trainkit.config.signature import describe, schema_of
from trainkit.errors import ConfigError, MissingExtra, TrainkitError, did_you_mean

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


# What Hydra and OmegaConf raise about a config.
_REFUSALS = (HydraException, OmegaConfBaseException, ValueError, OSError, AssertionError)


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
    cfg = sorted_out.composed()
    if not found:
        assert error is not None, "without an error there are early findings"
        found.append(Finding("", file_problem(error, request, [*sorted_out.groups])))
    return Diagnosis(cfg, left, tuple(found), tuple(sorted_out.unsure))


class _Overrides:
    """The overrides of a request, the good ones sorted from those that are wrong."""

    def __init__(self, request: Request, loader: ConfigLoader) -> None:
        self.request, self.loader = request, loader
        self.groups = group_options(loader, request.config_name, request.overrides)
        self.told: dict[str, str] = {}  # what is wrong with an override
        self.good: list[str] = []
        self.unsure: list[str] = []  # groups of which a wrong option was chosen
        self._composed: dict[tuple[str, ...], DictConfig | None] = {}

    def sort(self) -> None:
        """Look at choices of options first, since they decide which keys there are."""
        choices, values = self._parsed()
        # Where files are looked for comes before what is chosen of them.
        values.sort(key=lambda override: override.key_or_group != "hydra.searchpath")
        if values and values[0].key_or_group == "hydra.searchpath":
            self.good.append(str(values.pop(0).input_line))
        for override in choices:
            problem = _option_problem(override, self.groups, self.loader)
            problem = problem or self._package_problem(override)
            if problem is None:
                self.good.append(str(override.input_line))
            else:
                self.told[str(override.input_line)] = problem
                self.unsure.append(override.key_or_group)
        cfg = self.composed()
        if cfg is None:  # what is wrong lies deeper than in the values
            self.good += [str(override.input_line) for override in values]
            return
        for override in values:
            problem = self._value_problem(override, cfg)
            if problem is None:
                self.good.append(str(override.input_line))
            elif not self._is_unsure(override.key_or_group):
                self.told[str(override.input_line)] = problem

    def _package_problem(self, override: Override) -> str | None:
        """Return what is wrong with a choice for a package, ``group@package=option``."""
        group, line = override.key_or_group, str(override.input_line)
        if override.package is None or override.is_add():
            return None
        with_it = dataclasses.replace(self.request, overrides=(*self.good, line))
        if _composed(with_it) is not None:
            return None
        return (
            f"{line}: no defaults list chooses {group} for the package {override.package!r}. Write "
            f"{group}={override.value()}; to put a second one there: +{line}"
        )

    def composed(self) -> DictConfig | None:
        """Compose with the good overrides; None if that fails."""
        good = tuple(self.good)
        if good not in self._composed:
            self._composed[good] = _composed(dataclasses.replace(self.request, overrides=good))
        return self._composed[good]

    @property
    def problems(self) -> list[str]:
        """What is wrong, in the order of the overrides."""
        return [self.told[text] for text in self.request.overrides if text in self.told]

    def _parsed(self) -> tuple[list[Override], list[Override]]:
        choices: list[Override] = []
        values: list[Override] = []
        seen: set[str] = set()
        for text in self.request.overrides:
            try:
                override = parse_override(text)
            except ConfigError:
                self.told[text] = _unreadable(text, self.groups)
                continue
            if override.key_or_group in ("", *seen) or text.startswith("~hooks."):
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

    def _value_problem(self, override: Override, cfg: DictConfig) -> str | None:
        text = str(override.input_line)
        if override.is_sweep_override():
            return f"{text} gives several values; write -m to sweep over them."
        told = self._beside_problem(override) or key_problem(override, _plain(cfg), self.groups)
        if told is not None:
            return told
        try:
            _compose_or_raise(dataclasses.replace(self.request, overrides=(*self.good, text)))
        except _REFUSALS as error:
            return _refused(override, error, cfg)
        return None

    def _beside_problem(self, override: Override) -> str | None:
        """Return what is wrong with a key inside of what another override gives a value."""
        for text in self.good:
            outer, _, value = text.partition("=")
            is_inside = override.key_or_group.startswith(f"{outer.lstrip('+')}.")
            if not is_inside or outer in self.groups or value.startswith("{"):
                continue
            told = f"{override.input_line}: {text} leaves nothing inside of it."
            if outer.replace(".", "/") not in self.groups or value == "null":
                return f"{told} Drop one."
            self.good.remove(text)  # wrong as well, but for the same reason
            return f"{told} To choose an option, write {outer.replace('.', '/')}={value}"
        return None


def _composed(request: Request) -> DictConfig | None:
    try:
        return _compose_or_raise(request)
    except _REFUSALS:
        return None


def _compose_or_raise(request: Request) -> DictConfig:
    from hydra import compose

    with hydra_loader(request.config_dirs) as loader, in_python(request, loader) as overrides:
        return compose(request.config_name, overrides)


def _refused(override: Override, error: Exception, cfg: DictConfig) -> str:
    """Say why a single override does not go with the rest, ``cfg``."""
    key, line = override.key_or_group, str(override.input_line)
    if override.is_delete():
        return f"{line}: there is no {key!r} to remove."
    if key.startswith("hydra."):
        return f"{line}: Hydra has no such setting, or takes no such value. --cfg hydra shows all."
    value, expected = override.value(), _expected(key, cfg)
    if expected:
        return f"{key} is {shown(value)}; {expected}."
    reason = str(error.__cause__ or error.__context__ or error).splitlines()[0].rstrip(".")
    return f"{line} is refused: {reason}."


def _expected(key: str, cfg: DictConfig) -> str:
    """Say what belongs at ``key``: by its dataclass, or by what is there; empty if unknown."""
    parent, _, name = key.rpartition(".")
    kind = OmegaConf.get_type(OmegaConf.select(cfg, parent) if parent else cfg)
    if dataclasses.is_dataclass(kind):
        hint = typing.get_type_hints(kind).get(name, Any)
        return f"{kind.__name__} takes {_described(hint)}"
    there = OmegaConf.select(cfg, key, throw_on_missing=False)
    if OmegaConf.is_list(there):
        return "the config has a list there"
    return "the config has a mapping there" if OmegaConf.is_dict(there) else ""


def _described(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " or ".join(repr(member.name) for member in hint)
    return "a mapping" if dataclasses.is_dataclass(hint) else describe(hint)


def key_error(override: Override, cfg: DictConfig) -> ConfigError:
    """Return the ConfigError for an override of a key that ``cfg`` does not have."""
    return ConfigError(key_problem(override, _plain(cfg), {}) or f"{override.input_line}: no key.")


def _option_problem(
    override: Override, groups: Mapping[str, list[str]], loader: ConfigLoader
) -> str | None:
    group = override.key_or_group
    if override.is_delete():
        return None
    if override.is_sweep_override():
        text = str(override.input_line).partition("=")[2]
        both = f"{group}=[{text}] for all, or " if group == "hooks" else ""
        return f"{group}={text} is a sweep. Write {both}-m to sweep over them."
    # Hydra's own groups are not among those of the config.
    options = groups[group] if group in groups else loader.get_group_options(group)
    value = override.value()
    for option in value if isinstance(value, list) else [value]:
        if str(option) not in options:
            return _unknown_option(group, option, options, groups)
    return None


def _unknown_option(
    group: str, option: Any, options: list[str], groups: Mapping[str, list[str]]
) -> str:
    if isinstance(option, dict):
        return f"{group} is {shown(option)}; expected the name of an option: {', '.join(options)}."
    if option is None:
        off = f"{group}=none switches it off." if "none" in options else ""
        off = off or (
            f"{group}=[] adds none." if group == "hooks" else f"Leave it out by ~{group}."
        )
        return f"{group}=null is not an option. {off}"
    if "submitit" in str(option):
        return str(MissingExtra("hydra-submitit-launcher", "slurm", f"{group}={option}"))
    name = shown(option) if isinstance(option, bool) else str(option)
    homes = [other for other, names in groups.items() if str(option) in names]
    if homes and option != "none":
        near = f"It is one of {homes[0]}: {homes[0]}={option}."
    else:
        near = did_you_mean(name, options)
    return f"{group}={name}: there is no option {name!r}. {near}"


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
    if key.replace("/", ".") in known:
        text = str(override.input_line).replace("/", ".", key.count("/"))
        return f"{key} is no config group. A value is set with dots: {text}"
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
    if len(parts) > 1 and name in node and not isinstance(node[name], list):
        return _inside_of(node[name], ".".join([*there, name]), override)
    arguments = _arguments(node) if len(parts) == 1 else []
    if name in arguments:
        return f"Its target takes it, but the config does not list it: +{override.input_line}"
    below = [key for key in _flatten(node, "") if key.endswith(f".{name}")]
    if below and len(parts) == 1:
        return f"It stands at {', '.join('.'.join([*there, key]) for key in below)}."
    siblings = list(dict.fromkeys([*map(str, node), *(() if there else groups), *arguments]))
    lower = {sibling.lower(): sibling for sibling in siblings}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    if near:
        full = ".".join([*there, lower[near[0]]])
        plus = (
            ""
            if lower[near[0]] in node or not there
            else f" The config does not list it: +{full}=..."
        )
        return f"Did you mean {full!r}?{plus}"
    return f"{'.'.join(there) or 'The top'} has: {', '.join(map(str, node)) or 'nothing'}."


def _inside_of(value: Any, key: str, override: Override) -> str:
    """Say how to give a value to what is below ``key``, where a plain value stands."""
    line = str(override.input_line)
    if value is None:
        return f"{key} is null; to put something there: +{line}"
    inside, _, given = line.removeprefix(f"{key}.").partition("=")
    for part in reversed(inside.split(".")):
        given = f"{{{part}: {given}}}"
    return f"{key} is {shown(value)}, with nothing inside. If it takes a mapping: '{key}={given}'"


def _arguments(node: Mapping[str, Any]) -> list[str]:
    """Return what the target of a node takes, as far as that is known."""
    try:
        schema = schema_of(find_target({"_target_": node["_target_"]}, ""))
    except (KeyError, TrainkitError):  # no target; or a wrong one, which is told as such
        return []
    return [] if schema is None else [*schema.parameters]


def _unreadable(text: str, groups: Iterable[str]) -> str:
    key, _, value = text.partition("=")
    group = max((g for g in groups if key.startswith((f"{g}.", f"{g}/"))), key=len, default="")
    if "/" in group and "." in key[len(group) :]:
        return (
            f"The override {text!r} cannot be read. A value is set with dots: "
            f"{key.replace('/', '.')}={value}"
        )
    return (
        f"The override {text!r} cannot be read. Expected key=value, with brackets that are closed, "
        f"and quotes around a value with special characters: '{key}=\"...\"'"
    )
