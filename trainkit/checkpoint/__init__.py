"""Checkpoints on disk: one of them in files.py, finding the right one in find.py."""

from trainkit.checkpoint.files import (
    FORMAT_VERSION,
    MANIFEST,
    check_plain,
    read_checkpoint,
    read_manifest,
    remove_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from trainkit.checkpoint.find import (
    find_latest,
    list_checkpoints,
    locate_checkpoint,
    set_aside_newer,
)

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "check_plain",
    "find_latest",
    "list_checkpoints",
    "locate_checkpoint",
    "read_checkpoint",
    "read_manifest",
    "remove_checkpoint",
    "set_aside_newer",
    "verify_checkpoint",
    "write_checkpoint",
]
