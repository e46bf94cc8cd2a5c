"""One checkpoint: written so that a kill at any instant costs none that was complete.

A checkpoint is a directory ``{model.pt, state.pt, rank_K.pt, manifest.json}``. It is written under
a temporary name, each file flushed to the disk, the manifest with every file's size and SHA-256
last; then it is renamed, and the parent directory flushed. ``torch.load`` itself notices no flipped
bit (pytorch issue 126952), so reading compares the digests first. Everything loads under
``weights_only=True``: no checkpoint can run code.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainkit.checkpoint.state import check_plain, compact, room
from trainkit.errors import CheckpointError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
ASIDE = ".old-"  # of a checkpoint that one of the same name is about to replace
POINTER = "last_checkpoint"
_DELETED = re.compile(r"\.del-.+-\d+-\d+")  # as remove_checkpoint() names what it deletes
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WORKER_DIED = "DataLoader worker"  # torch raises that out of a signal handler, wherever one is


class NewerFormatError(CheckpointError):
    """A checkpoint of a later trainkit: whole, but not for this one."""


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
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(f"{directory} is a file, so no checkpoint can stand there. Move it.")
    parent, name = directory.parent, directory.name
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    sweep(parent, f".tmp-{name}-")
    temporary = parent / f".tmp-{name}-{socket.gethostname()}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        files = compact(files)
        written = {name: _write_file(temporary / name, state) for name, state in files.items()}
        manifest = {"format_version": FORMAT_VERSION, "name": name, "time": time.time(), **facts}
        manifest["files"] = written
        manifest["sha256"] = _digest_of(manifest)
        _write_text(temporary / MANIFEST, json.dumps(manifest, indent=1))
        flush_directory(temporary)
        _put_in_place(temporary, directory)
        for path in (parent, *(made.parent for made in missing)):
            flush_directory(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError | RuntimeError | TypeError) and _WORKER_DIED not in str(error):
            raise CheckpointError(_failure(directory, error, room(files))) from error
        raise
    return directory


def _failure(directory: Path, error: Exception, needed: int) -> str:
    """Say why a write has failed; torch hides the operating system's reason behind its own."""
    existing = next(path for path in directory.parents if path.exists())
    free = shutil.disk_usage(existing).free
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    reason = (cause.strerror if cause else None) or str(error).splitlines()[0]
    advice = f"Make {existing} writable"
    if cause is None or cause.errno in _NO_ROOM:
        advice = "Make room"
        reason += f". It takes about {_mib(needed)}; {_mib(free)} are free in {existing}"
    return (
        f"The checkpoint {directory} could not be written: {reason}. Earlier checkpoints are "
        f"untouched. {advice}, then resume=true."
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def sweep(directory: Path, temporary: str = ".tmp-") -> None:
    """Remove what a killed process left: unfinished writes that begin so, and removals."""
    for leftover in directory.iterdir() if directory.is_dir() else ():
        if leftover.name.startswith(temporary) or _DELETED.fullmatch(leftover.name):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    leftover.unlink()


def _write_file(path: Path, state: Any) -> dict[str, Any]:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    _check_written(path)
    # Read back rather than hashed on the way: faster, and it is what a reader will see.
    return {"size": path.stat().st_size, "sha256": _digest(path)}


def _check_written(path: Path) -> None:
    """Raise unless a file holds what was in memory, by the checksums that torch took of that.

    Older checkpoints go once this one stands, and its digest is of whatever was written.
    """
    if not torch.serialization.get_crc32_options():
        return  # someone has switched them off
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # for damaged bytes zipfile raises whatever its parser happens to
        damaged = f"its zip archive: {error}"
    if damaged is not None:
        raise OSError(f"{path.name} was written, but reads otherwise ({damaged})")


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _digest_of(manifest: Mapping[str, Any]) -> str:
    """Return the digest of everything in a manifest but its own."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _put_in_place(temporary: Path, directory: Path) -> None:
    """Rename a complete checkpoint to its name; an old one of that name goes only afterwards.

    A kill between the renames leaves the old one aside, from where ``find_latest`` puts it back.
    """
    aside = directory.with_name(f"{ASIDE}{directory.name}")
    if directory.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(directory, aside)
    try:
        os.rename(temporary, directory)
    except BaseException:
        if aside.exists() and not directory.exists():
            os.rename(aside, directory)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def flush_directory(directory: Path) -> None:
    """Make renames in a directory last through a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point_to(directory: Path) -> None:
    """Name a checkpoint in ``last_checkpoint`` beside it, for people and scripts.

    Nothing here reads it: what is there decides, whatever the pointer says.

    Raises:
        CheckpointError: It cannot be written.
    """
    pointer = directory.with_name(POINTER)
    temporary = pointer.with_name(f".tmp-{POINTER}-{os.getpid()}")
    try:
        _write_text(temporary, f"{directory.name}\n")
        os.replace(temporary, pointer)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"{pointer} could not be written: {error.strerror}. The checkpoint {directory} itself "
            "is whole; make room or mend the directory's rights, then resume=true."
        ) from error


def remove_checkpoint(directory: Path) -> None:
    """Delete a checkpoint: renamed first, so that a half-deleted one is never taken for whole."""
    doomed = directory.with_name(f".del-{directory.name}-{os.getpid()}-{time.time_ns()}")
    os.rename(directory, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint whose files are all there, of the right size.

    Raises:
        CheckpointError: It is not complete, or of a newer format.
    """
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        version: int = manifest["format_version"]
        newer = version > FORMAT_VERSION
        expected = {name: (facts["size"], facts["sha256"]) for name, facts in _files(manifest)}
        found = {name: (directory / name).stat().st_size for name in expected}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{directory} is no complete checkpoint ({reason}).") from None
    if manifest.get("sha256", _digest_of(manifest)) != _digest_of(manifest):
        path = directory / MANIFEST
        raise CheckpointError(f"{path} is damaged: its content is not what was written.")
    if newer:
        raise NewerFormatError(
            f"{directory} has format {version}; this trainkit reads up to {FORMAT_VERSION}. "
            "Update trainkit."
        )
    for name, (size, _) in expected.items():
        if found[name] != size:
            path = directory / name
            raise CheckpointError(f"{path} has {found[name]} bytes; {size} were written.")
    return manifest


def _files(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(manifest["files"].items())


def verify_checkpoint(directory: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint whose files are, byte for byte, what was written.

    Raises:
        CheckpointError: Something is missing or changed.
    """
    manifest = read_manifest(directory)
    for name, facts in _files(manifest):
        if _digest(directory / name) != facts["sha256"]:
            path = directory / name
            raise CheckpointError(f"{path} is damaged: its content is not what was written.")
    return manifest
