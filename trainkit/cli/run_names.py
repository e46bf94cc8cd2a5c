"""Runs by name: all that lie below a directory, and the one that a user means."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trainkit.errors import ConfigError
from trainkit.run_dir import OUTPUTS, STATUS

_SHOWN = 3  # runs that a message names


def runs_below(directory: Path) -> Iterator[Path]:
    """Yield ``directory`` if it is a run, and every run below it, each once."""
    seen: set[tuple[int, int]] = set()  # links are followed, also those that lead in a circle
    for here, directories, files in os.walk(directory, followlinks=True):
        facts = os.stat(here)
        if (facts.st_dev, facts.st_ino) in seen:
            directories.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        inside = (name for name in directories if name != "checkpoints" and name[0] != ".")
        # Links last: a run is shown by its own name, not as "latest".
        directories[:] = sorted(inside, key=lambda name: os.path.islink(os.path.join(here, name)))
        if STATUS in files:
            yield Path(here)


def find_named_run(text: str) -> Path:
    """Return the directory of the run that ``text`` names.

    Args:
        text: The run's directory, one of its checkpoints, or a part of its path below
            ``outputs/`` that no other run has; a whole name wins over a part of one.

    Raises:
        ConfigError: No run is named so, or several are.
    """
    path = Path(os.path.expanduser(text))
    owner = (_owner(path) or _owner(OUTPUTS / path)) if text else None
    if owner is not None:
        return owner
    runs = list(runs_below(OUTPUTS)) if OUTPUTS.is_dir() else []
    part = text.rstrip("/")
    whole = [run for run in runs if part in (run.name, run.relative_to(OUTPUTS).as_posix())]
    found = whole or [run for run in runs if part and part in run.as_posix()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{text!r} names {len(found)} runs: {_some(found)}. Give more of the name, or the "
            "run's directory."
        )
    raise ConfigError(_none(text, path, runs))


def _owner(path: Path) -> Path | None:
    """Return the run that ``path`` is, or is a checkpoint of."""
    if _is_run(path):
        return path
    if os.path.exists(path):
        for parent in (path, *path.parents):
            if parent.name == "checkpoints" and _is_run(parent.parent):
                return parent.parent
    return None


def _is_run(path: Path) -> bool:
    # os.path, as it takes a name of any length or content for one that does not exist.
    config, env = path / "config.yaml", path / "env.json"
    return os.path.isfile(path / STATUS) or (os.path.isfile(config) and os.path.isfile(env))


def _none(text: str, path: Path, runs: list[Path]) -> str:
    """Return a message for a name that no run has."""
    inside = []
    if text and os.path.isdir(path):  # not looked through whole: it may be any directory
        inside = [file.parent for depth in ("*", "*/*") for file in path.glob(f"{depth}/{STATUS}")]
    if inside:
        return f"{text!r} is no run, but holds some: {_some(inside)}. Name one of them."
    if runs:
        return (
            f"There is no run {text!r}. The newest below {OUTPUTS}/: {_some(runs)}. "
            "trainkit runs lists them all."
        )
    return (
        f"There is no run {text!r}, and none below {OUTPUTS}/ in {Path.cwd()}. Expected the "
        "directory of a run."
    )


def _some(runs: list[Path]) -> str:
    """Return the newest of ``runs`` in words."""
    newest = sorted(runs, key=lambda run: (_time(run), run.as_posix()), reverse=True)
    more = f" and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else ""
    return ", ".join(map(str, newest[:_SHOWN])) + more


def _time(run: Path) -> float:
    try:
        return (run / STATUS).stat().st_mtime
    except OSError:
        return 0.0
