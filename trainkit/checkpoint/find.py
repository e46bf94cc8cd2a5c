"""The right one among the checkpoints of a run."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainkit.checkpoint.files import (
    ASIDE,
    MANIFEST,
    NewerFormatError,
    read_manifest,
    remove_checkpoint,
    sweep,
    verify_checkpoint,
)
from trainkit.checkpoint.reading import check_file
from trainkit.errors import CheckpointError

_PERIODIC = re.compile(r"(epoch|iter)_(\d+)", re.ASCII)
_OUTDATED = ".outdated-"


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the complete periodic checkpoints in a directory, by iteration, oldest first.

    Best checkpoints are no place to go on from; copies under another name are the user's.
    """
    order = {path: _iteration(path) for path in _candidates(directory)}
    found = [(iteration, path) for path, iteration in order.items() if iteration is not None]
    return [path for _, path in sorted(found)]


def find_latest(
    directory: Path, *, own: bool = True, scheduled: bool = False
) -> tuple[Path | None, list[str]]:
    """Return the newest good checkpoint in a directory, and what is wrong with the newer ones.

    Good is one whose files are what was written, and whose weights are finite. Where none of those
    that are whole has finite weights, it is the newest of them.

    Args:
        directory: Where a run's checkpoints are.
        own: The run is this process's: a damaged checkpoint is renamed to ``.corrupt-…``, out of
            the way and kept for inspection, and what a killed process left is put in order.
        scheduled: Leave out those that are there because the run was asked to end.

    Raises:
        CheckpointError: There are checkpoints, but none is whole; or one is of a newer format.
    """
    if own:
        _restore(directory)
    paths = _newest_first(directory)
    found, damaged, diverged = _first_good(
        [path for path in paths if _is_scheduled(path)] if scheduled else paths
    )
    if found is None and diverged:
        found, diverged = next(iter(diverged)), {}
    if found is None and damaged:
        raise CheckpointError(
            f"No good checkpoint in {directory}: "
            + " ".join(damaged.values())
            + " Restore one, or start anew with resume=fresh."
        )
    for path in damaged if own else ():
        path.rename(path.with_name(f".corrupt-{path.name}-{time.time_ns()}"))
    return found, [*damaged.values(), *diverged.values()]


def _first_good(paths: Sequence[Path]) -> tuple[Path | None, dict[Path, str], dict[Path, str]]:
    """Return the first good one, and why those before it are not: damaged, or not finite."""
    damaged: dict[Path, str] = {}
    diverged: dict[Path, str] = {}
    for path in paths:
        try:
            bad = verify_checkpoint(path).get("non_finite")
        except NewerFormatError:
            raise
        except CheckpointError as error:
            damaged[path] = str(error)
            continue
        if not bad:
            return path, damaged, diverged
        diverged[path] = f"{path} has NaN or infinity in its weights ({_some(bad)})."
    return None, damaged, diverged


def _some(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def superfluous(checkpoints: Sequence[Path], keep: int) -> list[Path]:
    """Return which of a run's checkpoints, given oldest first, may go.

    The newest ``keep`` that are complete stay, and the newest that is finite. One that is not
    complete is nothing to count on, and no rubbish either: a resume sets it aside. One where the
    run was asked to end is beyond the count, and stays until a newer one is finite: it takes the
    place of none that the run would have had anyway.
    """
    whole = 0
    has_finite = has_newer = False  # among the counted; among all
    old = []
    for path in reversed(checkpoints):
        try:
            manifest = read_manifest(path)
        except CheckpointError:
            continue
        is_finite, is_counted = not manifest.get("non_finite"), manifest.get("scheduled", True)
        if is_counted:
            stays = whole < keep or (is_finite and not has_finite)
            whole += stays
            has_finite = has_finite or is_finite
        else:
            stays = not has_newer
        has_newer = has_newer or is_finite
        if not stays:
            old.append(path)
    return old


def _restore(directory: Path) -> None:
    """Put back a checkpoint that a killed process was replacing, and remove what it left."""
    sweep(directory)
    for aside in directory.glob(f"{ASIDE}*"):
        replaced = aside.with_name(aside.name.removeprefix(ASIDE))
        if replaced.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(replaced)


def set_aside_newer(directory: Path, iteration: int, *, asked: bool = True) -> list[Path]:
    """Rename checkpoints after ``iteration``, which a run that goes back leaves behind.

    Else the next resume would go on from them, and they would be written over.

    Args:
        directory: Where a run's checkpoints are.
        iteration: Where it goes on.
        asked: It goes back because someone said so: all are kept, as ``.superseded-…``. Else the
            best ones are ``.outdated-…`` until they are made again; see :func:`drop_outdated`.
    """
    best = [path for path in directory.glob("best_*") if path.is_dir()]
    standing = [*list_checkpoints(directory), *best]
    newer = [path for path in standing if (_iteration(path) or 0) > iteration]
    for path in newer:
        prefix = _OUTDATED if path in best and not asked else ".superseded-"
        path.rename(path.with_name(f"{prefix}{path.name}-{time.time_ns()}"))
    return newer


def drop_outdated(path: Path) -> None:
    """Remove what was set aside under the name of a best checkpoint that was made again."""
    for outdated in path.parent.iterdir():
        name, _, number = outdated.name.rpartition("-")
        if name == f"{_OUTDATED}{path.name}" and number.isdecimal():
            remove_checkpoint(outdated)


def _newest_first(directory: Path) -> list[Path]:
    """Return every periodic checkpoint, whole or not; those that tell nothing come first."""
    order = {path: _iteration(path) for path in _candidates(directory)}
    unknown = 2**62
    return sorted(
        order, key=lambda p: (unknown if order[p] is None else order[p], _number(p)), reverse=True
    )


def _candidates(directory: Path) -> Iterator[Path]:
    """Yield ``epoch_N`` and ``iter_N``, and what the user's own ``filename_tmpl`` has named."""
    for path in directory.iterdir() if directory.is_dir() else ():
        if not path.is_dir() or path.name.startswith(("best_", "failed_", ".")):
            continue
        if _PERIODIC.fullmatch(path.name) or _named_so(path):
            yield path


def _named_so(path: Path) -> bool:
    """Whether a directory is a checkpoint that was written under its present name."""
    try:
        return read_manifest(path).get("name") == path.name
    except CheckpointError:
        return False


def _is_scheduled(path: Path) -> bool:
    try:
        return bool(read_manifest(path).get("scheduled", True))
    except CheckpointError:
        return True  # whoever reads it says what is wrong


def _iteration(path: Path) -> int | None:
    try:
        return int(read_manifest(path)["iter"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        return None


def _number(path: Path) -> int:
    match = _PERIODIC.fullmatch(path.name)
    return int(match[2]) if match else -1


def locate_checkpoint(given: str | Path) -> Path:
    """Return the checkpoint that a user means by a path.

    Taken are a checkpoint directory, a run (its newest good checkpoint), a file, and MMEngine's
    spelling ``<work_dir>/epoch_5.pth`` for ``<work_dir>/checkpoints/epoch_5``.

    Raises:
        CheckpointError: There is none.
    """
    try:
        return _located(Path(given).expanduser())
    except (OSError, ValueError) as error:  # a name that is too long, or with a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(f"There is no checkpoint {str(given)!r}: {reason}.") from None


def _located(path: Path) -> Path:
    for candidate in _meanings(path):
        if candidate.is_file():
            check_file(candidate)
            return candidate
        if (candidate / MANIFEST).is_file():
            return candidate
    if (path / "checkpoints").is_dir():
        latest, _ = find_latest(path / "checkpoints", own=False)
        if latest is not None:
            return latest
        raise CheckpointError(
            f"The run {path} has no checkpoint yet. Name another run, or a checkpoint in it."
        )
    around = [*list_checkpoints(path.parent), *list_checkpoints(path.parent / "checkpoints")]
    what = f"There is no checkpoint {str(path)!r}"
    if path.is_dir():
        what = f"{path} has neither the {MANIFEST} of a checkpoint nor the checkpoints/ of a run"
    raise CheckpointError(
        f"{what}. Expected a run, a checkpoint directory or a file. "
        f"Nearby: {', '.join(map(str, around)) or 'none'}."
    )


def _meanings(path: Path) -> Iterator[Path]:
    yield path
    if path.suffix == ".pth":
        yield path.with_suffix("")
        yield path.parent / "checkpoints" / path.stem
    else:
        yield path.parent / "checkpoints" / path.name
