"""Mistakes of a config, told all at once: what is wrong, who set it, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainkit.errors import CheckpointError, ConfigError, TrainkitError

if TYPE_CHECKING:
    from trainkit.config.origins import Origins

_MAX_SHOWN = 80  # characters of a value that a message repeats


@dataclass(frozen=True)
class Finding:
    """One mistake.

    Args:
        key: Where it stands in the config; empty where the text says it all.
        text: What was given, what is expected, what to do.
        node: For an argument that its target does not take: the node that it stands in.
        error: The error that it is when it stands alone.
    """

    key: str
    text: str
    node: str = ""
    error: type[TrainkitError] = ConfigError


def shown(value: Any) -> str:
    """Return a value as a message repeats it: as in YAML, and not too long."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, Mapping) and "_target_" in value:
        text = f"a config of {value['_target_']}"
    elif isinstance(value, list):
        text = f"[{', '.join(map(shown, value))}]"
    elif isinstance(value, Mapping):
        text = f"{{{', '.join(f'{key}: {shown(item)}' for key, item in value.items())}}}"
    else:
        text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def raise_findings(
    findings: Iterable[Finding], origins: Callable[[Finding], Origins | None] = lambda _: None
) -> None:
    """Raise one error that tells all ``findings``, if there are any.

    Args:
        findings: The mistakes; one that is told twice is told once.
        origins: Gives who set what in the config of a finding; called only to tell it.
    """
    told = list(dict.fromkeys(findings))
    if not told:
        return
    kind = CheckpointError if all(f.error is CheckpointError for f in told) else ConfigError
    error = kind(tell(told, origins))
    error.findings = tuple(told)
    raise error


@contextmanager
def told_with_origin(origins: Callable[[], Origins | None]) -> Iterator[None]:
    """Add to an error about a place in the config who set what stands there."""
    try:
        yield
    except TrainkitError as error:
        traced = origins() if error.key else None
        if traced is not None and not error.findings:
            sources = _sources(error.key, traced)
            if sources:
                error.args = (f"{error.args[0]}\n   Set by {'; '.join(sources)}.",)
        raise


def _sources(key: str, origins: Origins) -> list[str]:
    """Return who set what stands at and below ``key``: the user's own places, if there are any."""
    touches = origins.of(key)
    own = [touch for touch in touches if touch.is_user] or touches[-1:]
    return list(dict.fromkeys(origins.told(touch, touch.key) for touch in own))


def tell(
    findings: Sequence[Finding], origins: Callable[[Finding], Origins | None] = lambda _: None
) -> str:
    """Return all findings as one text, numbered if there are several."""
    texts: list[str] = []
    left_over: dict[tuple[str, str], list[Finding]] = {}  # by node, and what they are left from
    for finding in findings:
        traced = origins(finding) if finding.key else None
        left = "" if traced is None else _left_over(finding, traced)
        if not left:
            texts.append(f"{finding.text}{_origin([finding], origins)}")
            continue
        together = left_over.setdefault((finding.node, left), [])
        if not together:
            texts.append("")  # its place in the list, for all of them
        together.append(finding)
    for (_, left), together in left_over.items():
        text = f"{_told_left_over(left, together)}{_origin(together, origins)}"
        texts[texts.index("")] = text
    if len(texts) == 1:
        return texts[0]
    numbered = (f"{n}. {text}" for n, text in enumerate(texts, 1))
    return "\n".join([f"The config has {len(texts)} mistakes.", *numbered])


def _origin(findings: Sequence[Finding], origins: Callable[[Finding], Origins | None]) -> str:
    """Return the line that says who set what the findings are about."""
    traced = [(finding.key, origins(finding)) for finding in findings if finding.key]
    places = dict.fromkeys(_set_by(key, found) for key, found in traced if found is not None)
    told = "; ".join(filter(None, places))
    return f"\n   Set by {told}." if told else ""


def _set_by(key: str, origins: Origins) -> str:
    """Return who set ``key``; of a mapping, who touched it last."""
    last = origins.last(key)
    return "" if last is None else origins.told(last, key)


def _told_left_over(left: str, findings: Sequence[Finding]) -> str:
    keys = [finding.key for finding in findings]
    verb, them = ("is", "it") if len(keys) == 1 else ("are", "them")
    return (
        f"{', '.join(keys)} {verb} left over from {left}, which takes no such argument. Choose an "
        f"option of the group instead of a _target_, or remove {them}: "
        f"{' '.join(f'~{key}' for key in keys)}"
    )


def _left_over(finding: Finding, origins: Origins) -> str:
    """Say what an argument is left over from, if it belongs to an earlier target of its node."""
    touches = origins.touches
    target_key = f"{finding.node}._target_"
    targets = [n for n, touch in enumerate(touches) if touch.key == target_key]
    set_at = [n for n, touch in enumerate(touches) if touch.key == finding.key]
    if not finding.node or not set_at or len(targets) < 2 or set_at[-1] > targets[-1]:
        return ""
    before = [touches[n].value for n in targets if n <= targets[-2]][-1]
    now = touches[targets[-1]]
    if before == now.value:
        return ""
    return f"{before}, which {now.source} replaced by {now.value}"
