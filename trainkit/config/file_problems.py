"""Say in trainkit's words what is wrong with a config file, or with its defaults list."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import MissingConfigException

from trainkit.config.loader import conf_dir
from trainkit.config.origins import file_and_line
from trainkit.config.request import Request
from trainkit.errors import did_you_mean

_KINDS: dict[type, str] = {dict: "a mapping", list: "a list", str: "a text", type(None): "null"}


def yaml_problem(error: yaml.YAMLError) -> str:
    """Return what a parser of YAML says, with the place."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        # The parser in C, which newer versions of OmegaConf read with, says less.
        error = _said_by_python(Path(mark.name)) or error
    mark, problem = getattr(error, "problem_mark", mark), getattr(error, "problem", None)
    if mark is None or problem is None:
        return f"A config file is no YAML: {' '.join(str(error).split())}"
    advice = "Expected lines of 'key: value', each key once, indented by spaces."
    return f"{file_and_line(Path(mark.name), mark.line + 1)} is no YAML: {problem}. {advice}"


def _said_by_python(file: Path) -> yaml.YAMLError | None:
    """Return what the parser in Python says of a file; None if it has nothing against it."""
    try:
        with file.open(encoding="utf-8") as stream:
            yaml.load(stream, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        return error
    except OSError:
        return None
    return None


def file_problem(error: Exception, request: Request, groups: Sequence[str]) -> str:
    """Say what Hydra found: in a defaults list, or in a file.

    Args:
        error: What it raised.
        request: What it was to compose.
        groups: Every config group.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error, request, groups)
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, AssertionError) or "Overrides must be at the end" in text:
        return (
            f"A defaults list on the way from {request.config_name!r} cannot be read. In each, "
            "'override /group: option' stands after all other entries but _self_, and the group "
            "hooks is extended by '/hooks: [...]' before them."
        )
    for pattern, say in _SAYINGS:
        match = re.search(pattern, text)
        if match is not None:
            return say(match, request, groups)
    return f"The config {request.config_name!r} does not compose: {text}"


def _missing(error: MissingConfigException, request: Request, groups: Sequence[str]) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    nearest = group.rpartition("/")[2]
    where = _line_with(rf"{re.escape(nearest)}\s*:\s*\[?.*\b{re.escape(option)}\b", request)
    if error.options:
        near = did_you_mean(option, error.options, listed="Options are")
        return f"{where} chooses {group}: {option}, but there is no such option. {near}"
    if group in ("", *groups):
        where = _line_with(rf"-\s*/?{re.escape(option)}\s*$", request)
        near = did_you_mean(option, _files(request, group), listed="There is")
        return f"{where} names the config {option!r}, which is not there. {near}"
    if nearest in groups:
        return (
            f"{where} chooses {nearest}: {option}, which is looked for in {group}/. Write "
            f"'override /{nearest}: {option}'."
        )
    return (
        f"{where} chooses {option!r} of {group!r}, but there is no such group. "
        f"{did_you_mean(group, groups)}"
    )


def _files(request: Request, group: str) -> list[str]:
    folders = [Path(directory) / group for directory in (*request.config_dirs, conf_dir())]
    return [file.stem for folder in folders for file in folder.glob("*.yaml")]


def _no_such_group(match: re.Match[str], request: Request, groups: Sequence[str]) -> str:
    name = match[2].partition("@")[2] or match[2]
    where = _line_with(rf"override\s+/?{re.escape(name)}\s*:", request)
    near = (
        f"Write it with a slash: 'override /{name}'."
        if "@" in match[2]
        else did_you_mean(name, groups)
    )
    return f"{where} overrides {name!r}, which is no group there. {near}"


def _chosen_twice(match: re.Match[str], request: Request, groups: Sequence[str]) -> str:
    group = match[1].partition("@")[0].removesuffix(".")
    group = max((g for g in groups if f"{group}/".startswith(f"{g}/")), key=len, default=group)
    where = _line_with(rf"-\s*/?{re.escape(group)}\s*:", request)
    return (
        f"{where} chooses an option of {group}, and so does another defaults list. Write "
        f"'override /{group}: ...' instead of '{group}: ...'."
    )


def _no_list(match: re.Match[str], request: Request, groups: Sequence[str]) -> str:
    where = _line_with(r"^defaults\s*:", request)
    kind = {"mapping": "a mapping", "str": "a text"}.get(match[2], "a value")
    return f"{where}: defaults is {kind}; expected a list, each line of which begins with '- '."


def _not_chosen(match: re.Match[str], request: Request, groups: Sequence[str]) -> str:
    """Say that an override replaces or removes what no defaults list chooses."""
    key = match[1].partition("=")[0]
    given = next((t for t in request.overrides if t.lstrip("~").partition("=")[0] == key), key)
    if given.startswith("~"):
        return f"{given}: this option is not chosen, so there is none to remove."
    parent = key.rpartition("/")[0]
    if not parent:
        return f"{given}: no option of {key} is chosen, so there is none to replace: +{given}"
    return (
        f"{given}: the option of {parent} that is chosen sets {key.replace('/', '.')} itself. "
        f"Change its values, or choose another option of {parent}: "
        f"{', '.join(_files(request, parent))}."
    )


def _no_merge(match: re.Match[str], request: Request, groups: Sequence[str]) -> str:
    """Find what is a list in a file and a mapping in trainkit's, or the other way round."""
    for file in _yaml_files(request):
        if not file.with_suffix("").as_posix().endswith(match[1]):
            continue
        content = _loaded(file)
        if not isinstance(content, dict):
            kind = _KINDS.get(type(content), "a value")
            return f"{file_and_line(file, None)} holds {kind}; expected 'key: value' lines."
        primary = _loaded(conf_dir() / "config.yaml")
        for key, value in content.items():
            there = primary.get(key)
            if isinstance(value, list) and (isinstance(there, dict) or key in groups):
                where = _line_with(rf"^{re.escape(str(key))}\s*:", request)
                return (
                    f"{where}: {key} is a list; the config has a mapping there. Give each entry a "
                    "name, as 'name: {...}'."
                )
    return (
        f"{match[1]}.yaml has a list where the config has a mapping, or the other way round. "
        "Lists and mappings do not merge."
    )


def _single_value(match: re.Match[str], request: Request, groups: Sequence[str]) -> str:
    files = [file for file in _yaml_files(request) if isinstance(_loaded(file), int | float)]
    where = file_and_line(files[0], None) if files else "A config file"
    return f"{where} holds a single value; expected 'key: value' lines."


_SAYINGS = (
    (r"In '(.+)': Could not override '(.+?)'\. No match", _no_such_group),
    (r"In '(.+)': Invalid Defaults List override .* Default for '(.+?)' exists", _no_such_group),
    (r"^Could not (?:override|delete) '(.+?)'\. No match", _not_chosen),
    (r"(\S+) appears more than once in the final defaults list", _chosen_twice),
    (r"Multiple values for (\S+)", _chosen_twice),
    (r"Invalid defaults list in '(.+?)', defaults must be a list \(got (\w+)\)", _no_list),
    (r"In '(.+?)': ConfigTypeError.*Cannot merge", _no_merge),
    (r"Invalid loaded object type", _single_value),
)


def _yaml_files(request: Request) -> Iterator[Path]:
    """Yield every config file, the user's first."""
    for directory in (*map(Path, request.config_dirs), conf_dir()):
        yield from sorted(directory.rglob("*.yaml"))


def _loaded(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return {}


def _line_with(pattern: str, request: Request) -> str:
    """Return the file and line that match, among the user's files first."""
    for file in _yaml_files(request):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(pattern, line):
                return file_and_line(file, number)
    return f"The defaults list of {request.config_name!r}"
