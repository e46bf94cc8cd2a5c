"""The processes that a test started, apart from those that an earlier one left behind."""

from __future__ import annotations

import multiprocessing
from multiprocessing.process import BaseProcess

_earlier: set[int | None] = set()


def forget_children() -> None:
    """Count only children that are started from now on."""
    _earlier.clear()
    _earlier.update(child.pid for child in multiprocessing.active_children())


def children() -> list[BaseProcess]:
    """Return the live children of this test, oldest first."""
    own = [child for child in multiprocessing.active_children() if child.pid not in _earlier]
    return sorted(own, key=lambda child: child.pid or 0)
