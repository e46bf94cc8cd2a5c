"""Checkpoints on disk.

What one holds (state.py), writing and verifying it (files.py), reading it (reading.py), finding the
right one (find.py), and writing in the background (writer.py).
"""

from trainkit.checkpoint.files import (
    FORMAT_VERSION,
    MANIFEST,
    flush_directory,
    point_to,
    read_manifest,
    remove_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from trainkit.checkpoint.find import (
    drop_outdated,
    find_latest,
    list_checkpoints,
    locate_checkpoint,
    set_aside_newer,
    superfluous,
)
from trainkit.checkpoint.reading import read_checkpoint
from trainkit.checkpoint.state import Snapshot, check_plain, compact, non_finite
from trainkit.checkpoint.writer import CheckpointWriter

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "CheckpointWriter",
    "Snapshot",
    "check_plain",
    "compact",
    "drop_outdated",
    "find_latest",
    "flush_directory",
    "list_checkpoints",
    "locate_checkpoint",
    "non_finite",
    "point_to",
    "read_checkpoint",
    "read_manifest",
    "remove_checkpoint",
    "set_aside_newer",
    "superfluous",
    "verify_checkpoint",
    "write_checkpoint",
]
