"""Publish a checkpoint: one file with a part of it, whose name tells its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from trainkit.checkpoint import flush_directory, read_checkpoint
from trainkit.errors import CheckpointError


def publish(checkpoint: Path, keys: Sequence[str]) -> Path:
    """Write some entries of a checkpoint to ``<name>-<hash>.pth`` beside it; return that file.

    The hash is the first eight digits of the file's SHA-256, as ``torch.hub`` checks it.

    Args:
        checkpoint: The checkpoint's directory.
        keys: Entries such as ``state_dict``; those that it has not are left out.

    Raises:
        CheckpointError: The file cannot be written.
    """
    whole = read_checkpoint(checkpoint)
    temporary = checkpoint.with_name(f".tmp-{checkpoint.name}-{os.getpid()}.pth")
    try:
        # A file object, as torch hides the reason where it opens the file itself.
        with temporary.open("wb") as file:
            torch.save({key: whole[key] for key in keys if key in whole}, file)
            file.flush()
            os.fsync(file.fileno())
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        path = checkpoint.with_name(f"{checkpoint.name}-{digest[:8]}.pth")
        temporary.replace(path)
        flush_directory(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save: RuntimeError on a full disk
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"{checkpoint} could not be published: {str(error).splitlines()[0]}. The checkpoint "
            "itself is whole."
        ) from error
    return path
