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
    return list(dict.fromkeys(touch.shown for touch in own))


def tell(
    findings: Sequence[Finding], origins: Callable[[Finding], Origins | None] = lambda _: None
) -> str:
    """Return all findings as one text, numbered if there are several."""
    texts = [
        f"{finding.text}{_origin(finding, origins(finding) if finding.key else None)}"
        for finding in findings
    ]
    if len(texts) == 1:
        return texts[0]
    numbered = (f"{n}. {text}" for n, text in enumerate(texts, 1))
    return "\n".join([f"The config has {len(texts)} mistakes.", *numbered])


def _origin(finding: Finding, origins: Origins | None) -> str:
    touch = None if origins is None else origins.last(finding.key)
    if touch is None or origins is None:
        return ""
    left = _left_over(finding, origins)
    return f"\n   {left}Set by {touch.shown}."


def _left_over(finding: Finding, origins: Origins) -> str:
    """Say so if an argument belongs to an earlier target of its node."""
    touches = origins.touches
    target_key = f"{finding.node}._target_"
    targets = [n for n, touch in enumerate(touches) if touch.key == target_key]
    set_at = [n for n, touch in enumerate(touches) if touch.key == finding.key]
    if not finding.node or not set_at or len(targets) < 2 or set_at[-1] > targets[-1]:
        return ""
    before = [touches[n].value for n in targets if n <= targets[-2]][-1]
    if before == touches[targets[-1]].value:
        return ""
    return (
        f"It is left over from {before}, which {touches[targets[-1]].source} replaced: choose an "
        f"option of the group instead of a _target_, or remove it by ~{finding.key}. "
    )
