"""One checkpoint: written so that a kill at any instant costs none that was complete.

A checkpoint is a directory ``{model.pt, state.pt, rank_K.pt, manifest.json}``. It is written under
a temporary name, each file flushed to the disk, the manifest with every file's size and SHA-256
last; then it is renamed, and the parent directory flushed. ``torch.load`` itself notices no flipped
bit (pytorch issue 126952), so reading compares the digests first. Everything loads under
``weights_only=True``: no checkpoint can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import socket
import time
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainkit.errors import CheckpointError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how the files of torch.save begin, the old ones as pickles
ASIDE = ".old-"  # of a checkpoint that one of the same name is about to replace
_TENSORS = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
_ATOMS = (float, str, bool, complex, type(None), torch.Size, torch.dtype, torch.device, *_TENSORS)
_MAPPINGS = (dict, OrderedDict, Counter)


class NewerFormatError(CheckpointError):
    """A checkpoint of a later trainkit: whole, but not for this one."""


def check_plain(value: Any, path: str = "") -> None:
    """Raise if a state holds what could not be loaded back without pickle, naming the key.

    Raises:
        CheckpointError: A value is no tensor, number, string, None, or a container of these.
    """
    kind = type(value)
    if kind in _ATOMS or (kind is int and value.bit_length() < 2000) or (kind is bytes and value):
        return  # the safe loader refuses longer ints, and bytes without content
    if kind in _MAPPINGS:
        for key, item in value.items():
            check_plain(key, f"{path} (a key)")
            check_plain(item, f"{path}.{key}".lstrip("."))
    elif kind in (list, tuple, set):
        for index, item in enumerate(value):
            check_plain(item, f"{path}[{index}]")
    else:
        raise CheckpointError(
            f"The checkpoint's {path} is a {kind.__module__}.{kind.__qualname__}, which could not "
            "be loaded back safely. Expected tensors, numbers, strings, None, and lists or dicts "
            "of these; convert it in state_dict()."
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
    if directory.exists() and not directory.is_dir():
        raise CheckpointError(f"{directory} is a file, so no checkpoint can stand there. Move it.")
    parent, name = directory.parent, directory.name
    _sweep(parent, name)
    temporary = parent / f".tmp-{name}-{socket.gethostname()}-{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        written = {name: _write_file(temporary / name, state) for name, state in files.items()}
        manifest = {"format_version": FORMAT_VERSION, "name": name, "time": time.time(), **facts}
        _write_text(temporary / MANIFEST, json.dumps({**manifest, "files": written}, indent=1))
        _flush_directory(temporary)
        _put_in_place(temporary, directory)
    except (OSError, RuntimeError, TypeError) as error:  # torch.save: RuntimeError on a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_failure(directory, error)) from error
    _flush_directory(parent)
    return directory


def _failure(directory: Path, error: Exception) -> str:
    existing = next(path for path in directory.parents if path.exists())
    free = shutil.disk_usage(existing).free / 2**20
    return (
        f"The checkpoint {directory} could not be written: {str(error).splitlines()[0]} "
        f"({free:.1f} MiB are free there). Earlier checkpoints are untouched. "
        "Make room or mend the directory's rights, then resume=true."
    )


def _sweep(parent: Path, name: str) -> None:
    """Remove what a killed process left of the same checkpoint, and of removals."""
    for pattern in (f".tmp-{name}-*", ".del-*"):
        for leftover in parent.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


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
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _put_in_place(temporary: Path, directory: Path) -> None:
    """Rename a complete checkpoint to its name; an old one of that name goes only afterwards.

    A kill between the renames leaves the old one aside, from where ``find_latest`` puts it back.
    """
    aside = directory.with_name(f"{ASIDE}{directory.name}")
    shutil.rmtree(aside, ignore_errors=True)
    if directory.exists():
        os.rename(directory, aside)
    os.rename(temporary, directory)
    if aside.exists():
        shutil.rmtree(aside, ignore_errors=True)


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        check_file(path)
        return _as_checkpoint(_load(path, map_location), path)
    files = verify_checkpoint(path)["files"]
    checkpoint = {"state_dict": _load(path / "model.pt", map_location)}
    if "state.pt" in files:
        checkpoint.update(_load(path / "state.pt", map_location))
    if f"rank_{rank}.pt" in files:
        checkpoint["rank"] = _load(path / f"rank_{rank}.pt", "cpu")
    return checkpoint


def check_file(path: Path) -> None:
    """Raise if a file cannot be one that ``torch.load`` reads; little of it is looked at.

    Raises:
        CheckpointError: It is empty, cut short or another kind of file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    if not start:
        what = "it is empty"
    elif start == _ZIP:
        what = _wrong_zip(path)
    else:
        what = "" if start.startswith(_PICKLE) else "it is neither a zip archive nor a pickle"
    if what:
        raise CheckpointError(
            f"{path} is no file that torch.load reads: {what}. Expected a checkpoint of a run, or "
            "weights that torch.save has written."
        )


def _wrong_zip(path: Path) -> str:
    """Say what is wrong with a zip archive; nothing where it may be one of torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # for damaged bytes zipfile raises whatever its parser happens to
        return "its zip archive is cut short or damaged"
    is_torchs = any(name.endswith("/data.pkl") for name in names)
    return "" if is_torchs else "it is a zip archive without a data.pkl"


def _as_checkpoint(loaded: Any, path: Path) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        kind = type(loaded).__name__
        raise CheckpointError(f"{path} holds a {kind}; expected a state dict, or a dict with one.")
    return loaded if isinstance(loaded.get("state_dict"), dict) else {"state_dict": loaded}


def _load(path: Path, map_location: str | torch.device) -> Any:
    try:
        # Explicit: the default can be switched off by an environment variable.
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} needs pickle, which can run any code, so it is not loaded "
            f"({str(error).splitlines()[0]}). Where you trust it, save its weights once more with "
            "torch.save(model.state_dict(), ...)."
        ) from None
    except Exception as error:  # for damaged bytes torch raises whatever its parsers happen to
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise CheckpointError(
            f"{path} is damaged, or nothing that torch.save has written ({reason})."
        ) from None
