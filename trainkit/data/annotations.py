"""Annotation files, and the paths in and around them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainkit.errors import ConfigError, did_you_mean

_URL = re.compile(r"[a-z][a-z0-9+]*://", re.IGNORECASE)


def join_path(root: str | None, path: str) -> str:
    """Return ``path`` below ``root``, which may be a URL; an absolute path or URL stays itself."""
    if not root or os.path.isabs(path) or _URL.match(path):
        return path
    if _URL.match(root):
        return f"{root.rstrip('/')}/{path}"
    return os.path.join(root, path)


def read_annotations(ann_file: str | None) -> tuple[dict[str, Any], list[Any]]:
    """Read an annotation file; return its ``metainfo`` and its ``data_list``.

    Raises:
        ConfigError: There is no such file, or it holds something else.
    """
    if not ann_file:
        raise ConfigError(
            "The dataset has no ann_file. Give it one, or a class that overrides load_data_list()."
        )
    content = _parsed(ann_file)
    for key, kind, noun in (("metainfo", dict, "a mapping"), ("data_list", list, "a list")):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise ConfigError(
                f"The annotation file {ann_file!r} has {_found(content, key)}; expected a mapping "
                f"with {key!r}, which is {noun}."
            )
    return content["metainfo"], content["data_list"]


def _found(content: Any, key: str) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__} at its top"
    if key in content:
        return f"a {type(content[key]).__name__} under {key!r}"
    return f"no {key!r}, but {', '.join(map(str, content)) or 'nothing'}"


def _parsed(ann_file: str) -> Any:
    if _URL.match(ann_file):
        raise ConfigError(f"ann_file is {ann_file!r}; expected a file. Download it first.")
    path = Path(ann_file).expanduser()
    suffix = path.suffix.lower()
    if suffix in (".pkl", ".pickle"):
        raise ConfigError(
            f"ann_file is {ann_file!r}. A pickle can run any code when it is read, so it is not "
            "read. If you trust it, write it as JSON once: json.dump(pickle.load(open(old, 'rb')), "
            "open(new, 'w')); or override load_data_list()."
        )
    if suffix not in _READERS:
        raise ConfigError(
            f"ann_file is {ann_file!r}; expected a file of one of the kinds {', '.join(_READERS)}. "
            f"{did_you_mean(suffix, _READERS)} For another, override load_data_list()."
        )
    try:
        return _READERS[suffix](path)
    except OSError as error:
        reason = f"{error.strerror or error} in {Path.cwd()}"
        raise ConfigError(
            f"The annotation file {ann_file!r} cannot be read: {reason}. Mend ann_file or "
            "data_root."
        ) from None
    except ValueError as error:  # also of JSON and of an encoding
        raise ConfigError(
            f"The annotation file {ann_file!r} is no valid {suffix[1:].upper()}: {error}."
        ) from None


def _read_json(path: Path) -> Any:
    with path.open(encoding="utf-8") as file:
        return json.load(file)


def _read_yaml(path: Path) -> Any:
    import yaml  # comes with OmegaConf; JSON needs none

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it is ten times as fast
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


_READERS: Mapping[str, Callable[[Path], Any]] = {
    ".json": _read_json,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
}
