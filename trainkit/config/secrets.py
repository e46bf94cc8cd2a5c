"""Secrets are left out of what a run writes: found by key, by their look, and by their value."""

from __future__ import annotations

import functools
import json
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from trainkit.errors import ConfigError

REDACTED = "<redacted>"
# How the name of a secret ends, from the start of a word on: hf_token, hfToken and API-KEY, but
# neither tokenizer nor the tokens of a text, nor the special tokens of a vocabulary.
_NAME = (
    r"(?:(?<![A-Za-z0-9])|(?<=[a-z0-9])(?=[A-Z]))"
    r"(?i:(?<!pad_)(?<!unk_)(?<!bos_)(?<!eos_)(?<!sep_)(?<!cls_)(?<!mask_)"
    r"(?:token|secrets?|passw(?:or)?ds?|passphrase|credentials?|cookies?|dsn|auth(?:orization)?"
    r"|(?:api|access|account|private|secret|signing|encryption)[_-]?keys?))"
)
_KEY = re.compile(f"{_NAME}$")
# What a secret looks like wherever it stands.
_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(?:A[KS]IA[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}"
    r"|hf_[A-Za-z0-9]{20,}|glpat-[\w-]{20,}|sk-[\w-]{20,}|sk_(?:live|test)_\w{10,}"
    r"|xox[abeprs]-[\w-]{10,}|AIza[\w-]{35}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    r"|-----BEGIN[\s\S]*?(?:-----END[^\n-]*-----|\Z)"
    r"|(?<=Bearer )(?=\S*\d)[\w.~+/=-]{8,}"
    r"|(?<=://)[^/\s\"'<>]+(?=@)"
)
_PASSWORD_OF_URL = re.compile(r"://[^/\s:@]*:([^/\s]+)@")
# In a text, what is set to the name of a secret: a quoted string, or whatever ends at a blank.
_ASSIGNED = re.compile(
    rf"(?P<key>{_NAME})(?P<sign>[\"']?[ \t]*[:=]=?[ \t]*(?i:(?:basic|bearer|token)[ \t]+)?)"
    r"(?P<value>[bfruBFRU]{0,2}(?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''"
    r"|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?![$<])[^\s\"'`(){}\[\],;<>]+)"
)
_NUMBER = re.compile(r"[-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf)", re.IGNORECASE)
_NO_VALUE = re.compile(r"|null|none|true|false|str|bytes|int|float|bool|Any", re.IGNORECASE)
# ${oc.env:NAME} and the like, without a literal default.
_REFERENCE = re.compile(r"(?:\$\{[\w.]+:)*\$\{[\w.:@/\[\]-]+(?:,\s*(?:null|''|\"\"))?\}+")
_SHORT, _LONG = 4, 8  # characters of a value that is left out as a whole word, and anywhere


class Redactor:
    """Leave out of texts and facts what looks like a secret, and the secret values of a config.

    Args:
        cfg: A config; None: only the environment's secrets (``HF_TOKEN``) are known by value.
    """

    def __init__(self, cfg: Any = None) -> None:
        values = {text for value in _secret_values(cfg) for text in _spellings(value)}
        self._known = _any_of(values)
        # A short one or a word may well stand elsewhere in a config: auth=basic, mode=basic.
        self._sure = _any_of(v for v in values if len(v) >= _LONG and not v.isalpha())

    def text(self, text: str) -> str:
        """Return a text, such as a line of a log, without secrets."""
        return redact_text(self._known.sub(REDACTED, text))

    def facts(self, facts: Any) -> Any:
        """Return nested facts without secrets; numbers, such as metrics, stay."""
        return _walk(facts, "", self.text, numbers=False)

    def config(self, node: Any) -> Any:
        """Return a config in plain containers without secrets."""
        return _walk(node, "", lambda text: redact_text(self._sure.sub(REDACTED, text)))


def as_yaml(cfg: Any, redactor: Redactor | None = None) -> str:
    """Return a config as YAML, unresolved and without secrets; empty for None."""
    if cfg is None:
        return ""
    from omegaconf import OmegaConf

    plain = (redactor or Redactor(cfg)).config(_writable(_raw(cfg)))
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def redact(node: Any, key: str = "") -> Any:
    """Return a config without secrets: by key (``api_key``), and by the look of a value."""
    return _walk(node, key, redact_text)


def redact_text(text: str) -> str:
    """Return a text without what looks like a secret, or is set to the name of one."""
    return _ASSIGNED.sub(_hide_assigned, _VALUE.sub(REDACTED, text))


def redact_override(text: str) -> str:
    """Return an override without its secret; one that holds a secret inside is left out whole."""
    key, equals, value = text.partition("=")
    inner = re.findall(r"[{,]\s*[\"']?([\w.-]+)[\"']?\s*:", value)
    hidden = any(_KEY.search(name) for name in inner)
    return f"{key}={REDACTED if hidden else redact(value, key)}" if equals else text


def refuse_redacted(cfg: Any) -> None:
    """Raise if a stored config lacks a secret that was left out when it was written.

    Raises:
        ConfigError: It names the keys, and how to give them.
    """
    missing = [
        "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
        for path, value in _leaves(_raw(cfg))
        if isinstance(value, str) and REDACTED in value
    ]
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise ConfigError(
            f"The run's config was stored without its secrets, and {', '.join(missing)} "
            f"{'are' if missing[1:] else 'is'} missing. Give {given}, or write ${{oc.env:NAME}} "
            "in the config, which is stored as it is."
        )


def _walk(node: Any, key: str, hide: Callable[[str], str], *, numbers: bool = True) -> Any:
    """Return ``node``, which stands under ``key``, with texts and secret numbers hidden."""
    if isinstance(node, Mapping):
        return {
            _VALUE.sub(REDACTED, name) if isinstance(name, str) else name: _walk(
                value, _inner_key(key, name), hide, numbers=numbers
            )
            for name, value in node.items()
        }
    if isinstance(node, list | tuple):
        values = [_walk(value, key, hide, numbers=numbers) for value in node]
        return tuple(values) if isinstance(node, tuple) else values
    secret = bool(_KEY.search(key))
    if isinstance(node, str):
        return REDACTED if secret and not _is_open(key, node) else hide(node)
    is_number = isinstance(node, int | float) and not isinstance(node, bool)
    return REDACTED if numbers and secret and is_number and not _is_open(key, str(node)) else node


def _inner_key(key: str, name: Any) -> str:
    """Return by which key to judge an entry: all is secret below a secret, but ``_target_``."""
    below = _KEY.search(key) and not str(name).startswith("_")
    return key if below or isinstance(name, int) else str(name)


def _is_open(key: str, value: str) -> bool:
    """Whether what stands under the name of a secret is none."""
    counted = key.lower().endswith("token") and _NUMBER.fullmatch(value)  # max_token, per_token
    return bool(counted or _NO_VALUE.fullmatch(value) or _REFERENCE.fullmatch(value))


def _hide_assigned(match: re.Match[str]) -> str:
    """Hide what a text sets to the name of a secret, unless it is code that does so."""
    key, value, text = match["key"], match["value"], match.string
    before = re.search(r"[\w-]*$", text[max(match.start() - 80, 0) : match.start()])
    name = (before[0] if before else "") + key
    called = text[match.end() : match.end() + 1] in tuple("([")  # token = read(), = words[0]
    passed_on = value.rpartition(".")[2] == name  # token=token, token=self.token
    if called or passed_on or _is_open(key, value.strip("\"'")):
        return match[0]
    return f"{key}{match['sign']}{REDACTED}"


def _writable(node: Any) -> Any:
    """Return a config in which live objects and classes are written as their names."""
    if isinstance(node, Mapping):
        return {key: _writable(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_writable(value) for value in node]
    if node is None or isinstance(node, str | int | float | bool):
        return node
    return f"{node.__module__}.{node.__qualname__}" if isinstance(node, type) else repr(node)


# ------------------------------------------------------------------ secrets known by their value


def _any_of(values: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for any of the values, short ones as whole words; for none, of nothing."""
    longest_first = sorted(values, key=lambda value: (-len(value), value))
    words = [
        _escaped(value) if len(value) >= _LONG else rf"(?<![\w.]){_escaped(value)}(?!\w)"
        for value in longest_first
        if len(value) >= _SHORT
    ]
    return re.compile("|".join(words) or r"(?!)")


def _escaped(value: str) -> str:
    """Return a pattern for a value, also as it stands in quotes, or in quotes within quotes."""
    parts = []
    for character in value:
        forms = {character, json.dumps(character)[1:-1], ascii(character)[1:-1]}
        forms |= {f"\\{character}"} if character in "'\"" else set()
        texts = (re.escape(form).replace(r"\\", r"\\+") for form in sorted(forms))
        parts.append(f"(?:{'|'.join(texts)})" if len(forms) > 1 else re.escape(character))
    return "".join(parts)


def _spellings(value: str) -> Iterator[str]:
    """Yield a value as it may stand in a text: as it is, in a URL, line by line."""
    yield from (value, quote(value, safe="", errors="replace"))
    yield from (line for line in map(str.strip, value.splitlines()) if len(line) >= _LONG)


def _secret_values(cfg: Any) -> Iterator[str]:
    """Yield the values that stand under secret keys, and of variables with secret names."""
    for name, value in os.environ.items():
        # GOOGLE_APPLICATION_CREDENTIALS is a path.
        if _KEY.search(name) and len(value) >= _LONG and not os.path.exists(value):
            yield value
    for path, value in _leaves(_raw(cfg)):
        key = functools.reduce(_inner_key, path, "")
        if _KEY.search(key):
            yield from _values_at(cfg, path, value, key)
        if isinstance(value, str):
            yield from _PASSWORD_OF_URL.findall(value)


def _values_at(cfg: Any, path: tuple[Any, ...], value: Any, key: str) -> Iterator[str]:
    """Yield what a secret key holds, an interpolation resolved."""
    if isinstance(value, str) and "${" in value:
        try:
            value = _raw(functools.reduce(operator.getitem, path, cfg), resolve=True)
        except Exception:  # whatever a resolver raises: then the value is not known to the run
            return
    for _, leaf in _leaves(value):
        is_number = isinstance(leaf, int | float) and not isinstance(leaf, bool)
        if (isinstance(leaf, str) or is_number) and not _is_open(key, str(leaf)):
            yield str(leaf)


def _raw(cfg: Any, *, resolve: bool = False) -> Any:
    """Return a config in plain containers; what is none as it is."""
    if cfg is None:
        return None
    from omegaconf import OmegaConf  # a runner made from objects never loads it

    return OmegaConf.to_container(cfg, resolve=resolve) if OmegaConf.is_config(cfg) else cfg


def _leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every value that is no container, with where it stands."""
    if isinstance(node, Mapping):
        entries: Iterable[tuple[Any, Any]] = node.items()
    elif isinstance(node, list | tuple):
        entries = enumerate(node)
    else:
        yield path, node
        return
    for name, value in entries:
        yield from _leaves(value, (*path, name))
