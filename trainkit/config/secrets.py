"""Configs as text that others may read: what looks like a secret is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainkit.errors import ConfigError

REDACTED = "<redacted>"
# By the last word of a key: hf_token and api_key, but neither tokenizer nor the tokens of a text.
_KEY = re.compile(
    r"^(?!(?:pad|unk|bos|eos|sep|cls|mask)_token$)(?:.*_)?(?:token|secret|passw(?:or)?d|api_?key"
    r"|credentials?|private_?key|cookie|dsn|access_?key|auth)$",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|hf_\w{20,}|sk-[\w-]{20,}|-----BEGIN|(?<=://)[^/@\s]+@"
)


def as_yaml(cfg: Any) -> str:
    """Return a config as YAML, unresolved and without secrets; empty for None."""
    if cfg is None:
        return ""
    from omegaconf import OmegaConf  # a runner made from objects never loads it

    container = OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg
    return OmegaConf.to_yaml(OmegaConf.create(_writable(redact(container))))


def redact(node: Any, key: str = "") -> Any:
    """Return a config without secrets: by key (``api_key``), and by the look of a value."""
    secret = bool(_KEY.search(key.rpartition(".")[2]))
    if isinstance(node, Mapping):
        return {name: redact(value, key if secret else str(name)) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [redact(value, key) for value in node]
    if isinstance(node, str) and not node.startswith("${"):
        return REDACTED if secret else _VALUE.sub(REDACTED, node)
    return REDACTED if secret and isinstance(node, int | float) else node


def _writable(node: Any) -> Any:
    """Return a config in which live objects and classes are written as their names."""
    if isinstance(node, Mapping):
        return {key: _writable(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_writable(value) for value in node]
    if node is None or isinstance(node, str | int | float | bool):
        return node
    return f"{node.__module__}.{node.__qualname__}" if isinstance(node, type) else repr(node)


def redact_override(text: str) -> str:
    """Return an override without its secret; one that holds a secret inside is left out whole."""
    key, equals, value = text.partition("=")
    inner = re.findall(r"[{,]\s*([\w.]+)\s*:", value)
    hidden = any(_KEY.search(name) for name in inner)
    return f"{key}{equals}{REDACTED if hidden else redact(value, key)}" if equals else text


def refuse_redacted(cfg: Any) -> None:
    """Raise if a stored config lacks a secret that was left out when it was written.

    Raises:
        ConfigError: It names the keys, and how to give them.
    """
    from omegaconf import OmegaConf

    missing = list(_redacted(OmegaConf.to_container(cfg, resolve=False), ""))
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise ConfigError(
            f"The run's config was stored without its secrets, and {', '.join(missing)} "
            f"{'are' if missing[1:] else 'is'} missing. Give {given}, or write ${{oc.env:NAME}} "
            "in the config, which is stored as it is."
        )


def _redacted(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _redacted(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _redacted(value, f"{path}[{index}]")
    elif isinstance(node, str) and REDACTED in node:
        yield path
