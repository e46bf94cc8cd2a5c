"""Checkpoints on disk, written so that a kill at any instant costs none that was complete.

A checkpoint is a directory ``{model.pt, state.pt, rank_K.pt, manifest.json}``. It is written under
a temporary name, each file flushed to the disk, the manifest with every file's size and SHA-256
last; then it is renamed, and the parent directory flushed. ``torch.load`` itself notices no flipped
bit (pytorch issue 126952), so reading compares the digests first. Everything loads under
``weights_only=True``: no checkpoint can run code.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pickle
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from trainkit.errors import CheckpointError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_PLAIN = (
    int,
    float,
    str,
    bytes,
    bool,
    complex,
    type(None),
    torch.Tensor,
    torch.Size,
    torch.dtype,
    torch.device,
)


def check_plain(value: Any, path: str = "") -> None:
    """Raise if a state holds what could not be loaded back without pickle, naming the key.

    Raises:
        CheckpointError: A value is no tensor, number, string, None, or a container of these.
    """
    if type(value) in _PLAIN or isinstance(value, torch.Tensor):
        return
    if isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections"):
        for key, item in value.items():
            check_plain(key, f"{path} (a key)")
            check_plain(item, f"{path}.{key}".lstrip("."))
    elif type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            check_plain(item, f"{path}[{index}]")
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise CheckpointError(
            f"The checkpoint's {path} is a {kind}, which could not be loaded back safely. "
            "Expected tensors, numbers, strings, None, and lists or dicts of these; convert it in "
            "state_dict()."
        )


def write_checkpoint(directory: Path, files: Mapping[str, Any], facts: Mapping[str, Any]) -> Path:
    """Write a checkpoint; it stands complete under its name when this returns.

    Args:
        directory: The checkpoint's final path. A checkpoint already there is replaced once the new
            one is complete.
        files: The states by file name, as ``{"model.pt": ...}``.
        facts: Plain values for the manifest, such as epoch and iteration.

    Raises:
        CheckpointError: A state that could not be loaded back, or a write that failed; nothing is
            left behind.
    """
    for name, state in files.items():
        check_plain(state, name.removesuffix(".pt"))
    temporary = directory.parent / f".tmp-{directory.name}-{socket.gethostname()}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        digests = {name: _write_file(temporary / name, state) for name, state in files.items()}
        manifest = {
            "format_version": FORMAT_VERSION,
            "time": time.time(),
            **facts,
            "files": digests,
        }
        _write_text(temporary / MANIFEST, json.dumps(manifest, indent=1))
        _flush_directory(temporary)
        _rename(temporary, directory)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(directory.parent).free if directory.parent.exists() else 0
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"The checkpoint {directory} could not be written: {reason} ({free / 2**20:.0f} MiB "
            "are free there). "
            "Earlier checkpoints are untouched. Make room or mend the directory's rights, then "
            "resume=true."
        ) from error
    _flush_directory(directory.parent)
    return directory


def _write_file(path: Path, state: Any) -> dict[str, Any]:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    # Read back rather than hashed on the way: faster, and it is what a reader will see.
    return {"size": path.stat().st_size, "sha256": _digest(path)}


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _hash(file)
        )


def _hash(file: Any) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no file_digest
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _rename(temporary: Path, directory: Path) -> None:
    if directory.exists():
        remove_checkpoint(directory)
    os.rename(temporary, directory)


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_checkpoint(directory: Path) -> None:
    """Delete a checkpoint: renamed first, so that a half-deleted one is never taken for whole."""
    doomed = directory.parent / f".del-{directory.name}-{os.getpid()}"
    os.rename(directory, doomed)
    shutil.rmtree(doomed)


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint whose files are all there, of the right size.

    Raises:
        CheckpointError: It is not complete, or of a newer format.
    """
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        version, files = manifest["format_version"], manifest["files"]
        sizes = {name: (directory / name).stat().st_size for name in files}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{directory} is no complete checkpoint: {error}.") from None
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{directory} has format {version}; this trainkit reads up to {FORMAT_VERSION}. Update "
            "it."
        )
    for name, size in sizes.items():
        if size != files[name]["size"]:
            raise CheckpointError(
                f"{directory / name} has {size} bytes; {files[name]['size']} were written."
            )
    return manifest


def verify_checkpoint(directory: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint all of whose files are, byte for byte, what was written.

    Raises:
        CheckpointError: Something is missing or changed.
    """
    manifest = read_manifest(directory)
    for name, facts in manifest["files"].items():
        if _digest(directory / name) != facts["sha256"]:
            raise CheckpointError(
                f"{directory / name} is damaged: its content is not what was written."
            )
    return manifest


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the complete ``epoch_N`` and ``iter_N`` in a directory, oldest first.

    Best checkpoints are no place to go on from, and names of other kinds are not touched.
    """
    found: list[tuple[int, Path]] = []
    for path in itertools.chain(directory.glob("epoch_*"), directory.glob("iter_*")):
        try:
            found.append((int(read_manifest(path)["iter"]), path))
        except (CheckpointError, KeyError):
            continue
    return [path for _, path in sorted(found)]


def find_latest(directory: Path) -> tuple[Path | None, list[str]]:
    """Return the newest good checkpoint in a directory, and what is wrong with the newer ones.

    Damaged ones are renamed to ``.corrupt-…``: out of the way, and kept for inspection.

    Raises:
        CheckpointError: There are checkpoints, but none is good.
    """
    reasons: list[str] = []
    broken: list[Path] = []
    for path in _newest_first(directory):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            reasons.append(str(error))
            broken.append(path)
            continue
        for bad in broken:
            bad.rename(bad.with_name(f".corrupt-{bad.name}-{time.time_ns()}"))
        return path, reasons
    if reasons:
        raise CheckpointError(
            f"No good checkpoint in {directory}: "
            + " ".join(reasons)
            + " Restore one, or start anew with resume=fresh."
        )
    return None, []


def _newest_first(directory: Path) -> list[Path]:
    """Return every ``epoch_N`` and ``iter_N``, whole or not, the newest first."""

    def order(path: Path) -> tuple[int, int]:
        number = int(path.name.rpartition("_")[2])
        try:
            return int(read_manifest(path)["iter"]), number
        except (CheckpointError, KeyError):
            return 2**62, number  # tried first, so that it is reported

    names = itertools.chain(directory.glob("epoch_*"), directory.glob("iter_*"))
    numbered = [path for path in names if path.name.rpartition("_")[2].isdigit()]
    return sorted(numbered, key=order, reverse=True)


def read_checkpoint(
    path: Path, map_location: str | torch.device = "cpu", rank: int = 0
) -> dict[str, Any]:
    """Return a checkpoint as one dict: ``state_dict`` and whatever else was saved beside it.

    Args:
        path: A checkpoint directory, verified before it is read, or a file that ``torch.load``
            reads: a plain state dict, or a dict with one under ``state_dict``.
        map_location: Device of the tensors.
        rank: The rank whose own state (``rank``) is read.

    Raises:
        CheckpointError: Damaged, or not loadable without running code from it.
    """
    if path.is_file():
        return _as_checkpoint(_load(path, map_location))
    files = verify_checkpoint(path)["files"]
    checkpoint = {"state_dict": _load(path / "model.pt", map_location)}
    if "state.pt" in files:
        checkpoint.update(_load(path / "state.pt", map_location))
    if f"rank_{rank}.pt" in files:
        checkpoint["rank"] = _load(path / f"rank_{rank}.pt", "cpu")
    return checkpoint


def _as_checkpoint(loaded: Any) -> dict[str, Any]:
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        return loaded
    return {"state_dict": loaded}


def _load(path: Path, map_location: str | torch.device) -> Any:
    try:
        # Explicit: the default can be switched off by an environment variable.
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} needs pickle, which can run any code, so it is not loaded "
            f"({str(error).splitlines()[0]}). "
            "Where you trust it, save its weights once more with torch.save(model.state_dict(), "
            "...)."
        ) from None
    except (
        RuntimeError,
        EOFError,
        OSError,
        KeyError,
        ValueError,
    ) as error:  # torch raises any of these for bad bytes
        raise CheckpointError(
            f"{path} cannot be read: {str(error).splitlines()[0] or type(error).__name__}."
        ) from None


def locate_checkpoint(given: str | Path) -> Path:
    """Return the checkpoint that a user means by a path.

    Taken are a checkpoint directory, a run (its newest good checkpoint), a file, and MMEngine's
    spelling ``<work_dir>/epoch_5.pth`` for ``<work_dir>/checkpoints/epoch_5``.

    Raises:
        CheckpointError: There is none.
    """
    path = Path(given).expanduser()
    for candidate in _candidates(path):
        if candidate.is_file() or (candidate / MANIFEST).is_file():
            return candidate
    if (path / "checkpoints").is_dir():
        latest, _ = find_latest(path / "checkpoints")
        if latest is not None:
            return latest
        raise CheckpointError(
            f"The run {path} has no checkpoint yet. Name another run, or a checkpoint in it."
        )
    nearby = ", ".join(str(p) for p in list_checkpoints(path.parent / "checkpoints")) or "none"
    raise CheckpointError(
        f"There is no checkpoint {str(given)!r}. Expected a run, a checkpoint directory or a file. "
        f"Nearby: {nearby}."
    )


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    if path.suffix == ".pth":
        yield path.with_suffix("")
        yield path.parent / "checkpoints" / path.stem
    else:
        yield path.parent / "checkpoints" / path.name
