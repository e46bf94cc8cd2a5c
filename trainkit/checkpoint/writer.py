"""Checkpoints are written one at a time, at once or in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from trainkit.checkpoint.state import Snapshot
from trainkit.errors import CheckpointError


class CheckpointWriter:
    """Runs one write at a time, in a thread of its own or in the caller's.

    Every rank calls :meth:`write` and :meth:`settle` at the same places; only one of them has
    something to write. How it went is shared among the ranks, from the thread that calls, so that
    all go on or raise together. The thread is no daemon: the interpreter waits for it at exit.

    Args:
        share: Returns rank 0's value on every rank.
    """

    def __init__(self, share: Callable[[Any], Any] = lambda value: value) -> None:
        self.snapshot = Snapshot()
        self._share = share
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._then: Callable[[], None] | None = None  # of the write that is not settled yet

    def write(
        self,
        prepare: Callable[[], Callable[[], None]] | None,
        then: Callable[[], None],
        *,
        background: bool = False,
    ) -> None:
        """Write, once what was being written is settled.

        Args:
            prepare: Called at once; returns what writes, which may then run in the background. None
                on a rank that writes nothing.
            then: Called on every rank once it is written, in the thread that settles it.
            background: Return while it is being written.

        Raises:
            Exception: The write before, or this one, has failed.
        """
        self.settle(wait=True)
        self._then = then
        try:
            write = None if prepare is None else self._tried(prepare)
            if write is not None and background:
                self._thread = threading.Thread(
                    target=self._tried, args=(write,), name="trainkit-checkpoint"
                )
                self._thread.start()
            elif write is not None:
                self._tried(write)
        except BaseException:  # Ctrl-C: nothing is left to settle
            self._then = None
            raise
        self.settle(wait=not background)

    def settle(self, *, wait: bool = False) -> None:
        """Do what is to be done after a write if it is complete; a step calls it, at no cost.

        Args:
            wait: Wait for it to be complete.

        Raises:
            Exception: The write has failed.
        """
        if self._then is None:
            return
        if wait and self._thread is not None:
            self._thread.join()
        is_done = self._thread is None or not self._thread.is_alive()
        error = self._error if is_done else None
        is_done, failure = self._share((is_done, None if error is None else str(error)))
        if not is_done:
            return
        then, self._then, self._thread, self._error = self._then, None, None, None
        if failure is not None:
            raise error or CheckpointError(failure)
        then()

    def close(self) -> Exception | None:
        """Wait for what is being written, on this rank alone; return why it has failed, if it has.

        For a run that ends with an error, when other ranks may not come to settle anything.
        """
        if self._thread is not None:
            self._thread.join()
        then, self._then, self._thread = self._then, None, None
        error, self._error = self._error, None
        if error is None and then is not None:
            then()
        return error

    def _tried(self, action: Callable[[], Any]) -> Any:
        """Return what ``action`` returns; keep the error that it raises for :meth:`settle`."""
        try:
            return action()
        except Exception as error:
            self._error = error
            return None
