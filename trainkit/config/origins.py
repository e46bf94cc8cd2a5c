"""Who set a value of a config: every file, override and dataclass that touched it, in order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from omegaconf import OmegaConf

from trainkit.config.given import GIVEN, in_python
from trainkit.config.loader import conf_dir, hydra_loader, parse_override
from trainkit.config.references import Reference, dotted, references, tokens
from trainkit.config.request import Request

if TYPE_CHECKING:
    from hydra.core.default_element import ResultDefault
    from hydra.core.override_parser.types import Override
    from hydra.plugins.config_source import ConfigResult


@dataclass(frozen=True)
class Touch:
    """One place that set a key.

    Args:
        key: Dotted path; the value is no mapping, or an empty one.
        value: As it is written there, interpolations included; None for a deletion.
        source: ``conf/optim_wrapper/optimizer/sgd.yaml:2``, ``the override seed=1``, ….
        why: What chose the file, where that is not the primary config itself.
        is_user: Whether the user wrote it, rather than trainkit's conf/.
        is_deletion: Whether it removes the key.
        inside: Of a list: the sources of what is in it, by the rest of the key: ``[0].lr``.
    """

    key: str
    value: Any
    source: str
    why: str = ""
    is_user: bool = True
    is_deletion: bool = False
    inside: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def shown(self) -> str:
        """The source, and what chose it."""
        return f"{self.source}, {self.why}" if self.why else self.source

    def at(self, key: str) -> Touch:
        """Return what it says of ``key`` inside its list, or of what ``key`` stands in there."""
        value, source, rest = self.value, self.source, ""
        for part in tokens(key)[len(tokens(self.key)) :]:
            name = part.strip("[]")
            if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                value, rest = value[int(name)], f"{rest}[{name}]"
            elif rest and isinstance(value, dict) and name in value:
                value, rest = value[name], f"{rest}.{name}"
            else:
                break
            source = self.inside.get(rest, source)
        return replace(self, key=f"{self.key}{rest}", value=value, source=source) if rest else self

    def references(self, key: str) -> Iterator[Reference]:
        """Yield what its interpolations read to give the value of ``key``, at or inside its own."""
        below = tokens(key)[len(tokens(self.key)) :]
        yield from references(self.value, self.key, tuple(below))


class Origins:
    """The touches of a whole config, in the order in which they were applied."""

    def __init__(self, touches: Sequence[Touch]) -> None:
        self.touches = tuple(touches)

    def of(self, key: str) -> list[Touch]:
        """Return what set ``key``, what stood in its place above it, and what is below it."""
        return [
            touch.at(key)
            for touch in self.touches
            if is_at_or_below(touch.key, key) or is_at_or_below(key, touch.key)
        ]

    def last(self, key: str) -> Touch | None:
        """Return what set ``key`` to its final value; of a mapping, what touched it last."""
        return next(reversed(self.of(key)), None)

    def references(self, key: str) -> list[Reference]:
        """Return what is read to give the value of ``key`` itself."""
        last = self.last(key)
        is_above = last is not None and is_at_or_below(key, last.key)
        return list(dict.fromkeys(last.references(key))) if last is not None and is_above else []

    def told(self, touch: Touch, key: str, seen: frozenset[str] = frozenset()) -> str:
        """Return a touch of ``key`` in words, with who set what it reads, and so on."""
        here = seen | {dotted(key)}
        reads = [self._told_read(reference, here) for reference in touch.references(key)]
        known = " and ".join(dict.fromkeys(filter(None, reads)))
        return f"{touch.shown}, which reads {known}" if known else touch.shown

    def _told_read(self, reference: Reference, seen: frozenset[str]) -> str:
        """Return what a reference reads in words; empty if it finds nothing there."""
        if reference.variable:
            is_set = reference.variable in os.environ
            return f"the environment variable {reference.variable}" if is_set else ""
        last = None if dotted(reference.key) in seen else self.last(reference.key)
        if last is None:
            return ""
        return f"{reference.key}, set by {self.told(last, reference.key, seen)}"


def is_at_or_below(key: str, parent: str) -> bool:
    """Whether a dotted ``key`` is ``parent`` or stands inside it, as in ``parent[0]``."""
    key, parent = dotted(key), dotted(parent)
    return not parent or key == parent or key.startswith(f"{parent}.")


def trace(request: Request) -> Origins:
    """Return who set what in the config that ``request`` composes; it must compose."""
    with hydra_loader(request.config_dirs) as loader, in_python(request, loader) as overrides:
        assert isinstance(loader, ConfigLoaderImpl), "Hydra has one loader"
        parsed, repository = loader._parse_overrides_and_create_caching_repo(
            request.config_name, list(overrides)
        )
        defaults = create_defaults_list(
            repo=repository,
            config_name=request.config_name,
            overrides_list=parsed,
            prepend_hydra=True,
            skip_missing=False,
        )
        touches = [
            t for default in defaults.defaults for t in _of_file(default, defaults, repository)
        ]
    touches += [touch for override in defaults.config_overrides for touch in _of_override(override)]
    return Origins(touches)


def trace_stored(file: Path, overrides: Sequence[str]) -> Origins:
    """Return who set what in a config that a run has stored, changed by ``overrides``."""
    lines = _lines(file)
    stored = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    touches = [
        Touch(
            key,
            value,
            file_and_line(file, lines.get(key)),
            inside=_inside(file, lines, key, value),
        )
        for key, value in leaves(stored, "")
    ]
    for text in overrides:
        touches += _of_override(parse_override(text))
    return Origins(touches)


def _of_file(
    default: ResultDefault, defaults: DefaultsList, repository: CachingConfigRepository
) -> Iterator[Touch]:
    package, name = default.package or "", default.config_path or ""
    if name.startswith("hydra/") or package.partition(".")[0] == "hydra":
        return
    loaded = repository.load_config(name)
    if loaded is None:
        return
    file, lines = _file(loaded, name), {}
    if file is not None:
        lines = _lines(file)
    why = _why(default, defaults)
    for key, value in leaves(_content(loaded.config), ""):
        full = ".".join(part for part in (package, key) if part)
        if full.partition(".")[0] != "hydra":
            place = file_and_line(file, lines.get(key)) if file else _dataclass(loaded, name)
            inside = _inside(file, lines, key, value) if file else {}
            yield Touch(full, value, place, why, not _is_shipped(file), inside=inside)


def _inside(file: Path, lines: Mapping[str, int], key: str, value: Any) -> dict[str, str]:
    """Return the places of what is in a list, by what follows the list's own key."""
    if not isinstance(value, list):
        return {}
    within = (name for name in lines if name.startswith(f"{key}["))
    return {name[len(key) :]: file_and_line(file, lines[name]) for name in within}


def _content(node: Any) -> Any:
    content = OmegaConf.to_container(node, resolve=False)
    if isinstance(content, dict):
        content.pop("defaults", None)
    return content


def leaves(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of everything in ``node`` that is no filled mapping."""
    if isinstance(node, Mapping) and (node or not prefix):
        for key, value in node.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def _of_override(override: Override) -> Iterator[Touch]:
    source = f"the override {override.input_line}"
    key = override.key_or_group
    if override.is_delete():
        yield Touch(key, None, source, is_deletion=True)
        return
    value = override.value()
    for inner, leaf in leaves(value, key) if isinstance(value, Mapping) else [(key, value)]:
        yield Touch(inner, leaf, source)


def _why(default: ResultDefault, defaults: DefaultsList) -> str:
    """Return what chose a file: an override of the command line, or a defaults list."""
    path = default.config_path
    if default.primary or path is None or path.endswith(GIVEN):
        return ""
    # An option that is one of a list has no key of its own.
    key = default.override_key or path.rpartition("/")[0]
    for added in defaults.overrides.append_group_defaults:
        if added.get_override_key() == key:
            return f"chosen by +{key}={_choice(added.value)}"
    group = key.partition("@")[0]
    meta = defaults.overrides.override_metadata.get(key)
    if meta is not None and meta.external_override:
        chosen = defaults.overrides.override_choices.get(key)
        return f"chosen by {group}={_choice(chosen) or path.removeprefix(f'{group}/')}"
    if meta is not None and meta.containing_config_path is not None:
        return f"chosen by the defaults of {meta.containing_config_path}"
    return ""


def _choice(value: str | Sequence[str] | None) -> str:
    """Return what was chosen of a group as an override has it."""
    return value if isinstance(value, str) else f"[{','.join(value)}]" if value else ""


def _file(loaded: ConfigResult, name: str) -> Path | None:
    """Return the YAML file that a config was read from; None for a dataclass."""
    scheme, _, directory = loaded.path.partition("://")
    if scheme != "file":
        return None
    return Path(directory) / (name if name.endswith(".yaml") else f"{name}.yaml")


def _is_shipped(file: Path | None) -> bool:
    return file is not None and file.is_relative_to(conf_dir())


def file_and_line(file: Path, line: int | None) -> str:
    """Return a file as a user would write it: from conf/, from the working directory, or whole."""
    for root in (conf_dir().parent, Path.cwd()):
        if file.is_relative_to(root):
            file = file.relative_to(root)
            break
    return os.fspath(file) if line is None else f"{file}:{line}"


def _dataclass(loaded: ConfigResult, name: str) -> str:
    option = name.rpartition("/")[2]
    kind = OmegaConf.get_type(loaded.config)
    shown = kind.__name__ if kind not in (dict, None) else "a mapping"
    if option == GIVEN:
        return f"{shown} given in Python" if kind not in (dict, None) else "what is given in Python"
    return f"{shown} in the ConfigStore as {name}"


def _lines(file: Path) -> dict[str, int]:
    """Return the line of each dotted key of a YAML file."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError):
        return {}
    return dict(_numbered(root, ""))


def _numbered(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}.{key.value}" if prefix else str(key.value)
            yield name, key.start_mark.line + 1
            yield from _numbered(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            yield f"{prefix}[{index}]", entry.start_mark.line + 1
            yield from _numbered(entry, f"{prefix}[{index}]")
