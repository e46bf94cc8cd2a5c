"""What an interpolation reads: other keys of the config, and environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# ${key}, ${.key} and the resolvers that read a key or a variable, with or without a default.
_READ = re.compile(
    r"(?<!\\)\$\{\s*(?:(?P<resolver>oc\.(?:select|env|dict\.keys|dict\.values))\s*:\s*)?"
    r"[\"']?(?P<name>\.*[A-Za-z_][\w.\[\]-]*)[\"']?\s*"
    r"(?:\}|,\s*(?:(?P<default>[^{}]*?)\s*\})?)"
)
_TOKEN = re.compile(r"\[[^\[\]]*\]|[^.\[\]]+")
_KEY = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[[^.\[\]]+\])*")


@dataclass(frozen=True)
class Reference:
    """One thing that an interpolation reads.

    Args:
        key: The key of the config, in full; empty for a variable.
        variable: The environment variable; empty for a key.
        default: What stands in its place where it is not there, as it is written.
    """

    key: str = ""
    variable: str = ""
    default: str | None = None


def is_key(text: str) -> bool:
    """Whether a text may be a key of a config, such as ``a.b`` or ``a[0].b``."""
    return _KEY.fullmatch(text) is not None


def tokens(key: str) -> list[str]:
    """Return the parts of a key; one in brackets keeps them."""
    return _TOKEN.findall(key)


def dotted(key: str) -> str:
    """Return a key as an override has it: ``a.0.b`` for ``a[0].b``."""
    return key.replace("[", ".").replace("]", "") if "[" in key else key


def joined(parts: list[str]) -> str:
    """Return the key that :func:`tokens` has taken apart."""
    return "".join(part if part[0] == "[" else f".{part}" for part in parts).lstrip(".")


def references(value: Any, key: str, below: tuple[str, ...] = ()) -> Iterator[Reference]:
    """Yield what the interpolations of a value read.

    Args:
        value: As it is written.
        key: Where it stands.
        below: The parts of a key inside it: then only an interpolation that gives the whole value
            says what is there.
    """
    if isinstance(value, str):
        whole = _READ.fullmatch(value.strip())
        if below and whole is None:
            return
        yield from (_reference(match, key, below) for match in _READ.finditer(value))
    elif not below and isinstance(value, Mapping):
        for name, item in value.items():
            yield from references(item, f"{key}.{name}")
    elif not below and isinstance(value, list):
        for index, item in enumerate(value):
            yield from references(item, f"{key}[{index}]")


def _reference(match: re.Match[str], key: str, below: tuple[str, ...]) -> Reference:
    name = match["name"]
    if match["resolver"] == "oc.env":
        return Reference(variable=name, default=match["default"])
    dots = len(name) - len(name.lstrip("."))
    base = tokens(key)[:-dots] if dots else []
    return Reference(joined([*base, *tokens(name), *below]), default=match["default"])
