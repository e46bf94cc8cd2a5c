"""What asks a run to end: a signal or a limit sets a flag, and training ends at a whole step."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from trainkit.dist import all_gather_object, get_world_size

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_PERIOD = 1.0  # seconds, about, between two agreements of several ranks
_MOST_STEPS = 100  # between two agreements


class Interrupts:
    """While it is entered, signals only set a flag: :attr:`reason`, which training looks at.

    It may be entered again inside. A second Ctrl-C raises ``KeyboardInterrupt`` at once, a second
    SIGTERM ends the process with exit code 143. A signal that the process ignores stays ignored;
    other handlers come back at the end. Outside the main thread, where Python takes no handlers,
    signals do what they did.

    Processes that are forked meanwhile, the data workers, ignore what is sent to the whole group
    (Ctrl-C, and Slurm's SIGUSR1 and SIGUSR2); SIGTERM ends them, by which torch does so itself.
    """

    def __init__(self) -> None:
        self.reason: str | None = None  # why training is to end, on this rank
        self.several = False  # ranks, which must end at the same step
        self._agreed: str | None = None
        self._received: set[int] = set()
        self._before: dict[int, Any] = {}  # the handlers
        self._depth = 0
        self._next_step, self._every, self._last_time = 0, 1, time.monotonic()

    def ask(self, reason: str) -> None:
        """Ask training to end; the first reason stands."""
        if self.reason is None:
            self.reason = reason

    def agreed(self, step: int) -> str | None:
        """Return why training is to end after ``step``, the same on every rank; None: it goes on.

        Several ranks tell each other about once a second, at steps that each of them can work out:
        one that ended alone would leave the others waiting for it.
        """
        if not self.several:
            return self.reason
        if self._agreed is not None or step < self._next_step:
            return self._agreed
        now = time.monotonic()
        told = all_gather_object((self.reason, now - self._last_time))
        slowest = max(seconds for _, seconds in told)
        self._every = min(max(int(self._every * _PERIOD / max(slowest, 1e-9)), 1), _MOST_STEPS)
        self._next_step, self._last_time = step + self._every, now
        self._agreed = next((reason for reason, _ in told if reason is not None), None)
        return self._agreed

    def __enter__(self) -> Interrupts:
        self.several = get_world_size() > 1
        self._depth += 1
        if self._depth > 1:
            return self
        if threading.current_thread() is not threading.main_thread():
            logger.debug("Training is outside the main thread, so no signal can be waited for.")
            return self
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        _active.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth:
            return
        if self in _active:
            _active.remove(self)
        for number, handler in self._before.items():
            # None: a handler that was not set from Python, and cannot be set by it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.reason = self._agreed = None
        self._received.clear()
        self._before.clear()
        self._next_step = 0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number in self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number in self._received and number == signal.SIGTERM:
            raise SystemExit(128 + number)
        if number in self._received:
            return
        self._received.add(number)
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self.ask(name)
        self._hear_of_dead_workers_later()
        text = f"\n{name}: training ends after this step, and is saved."
        if number in (signal.SIGINT, signal.SIGTERM):
            text += " A second one ends it at once."
        with contextlib.suppress(OSError):  # no stream: what is interrupted may be writing to it
            os.write(2, f"{text}\n".encode())

    def _hear_of_dead_workers_later(self) -> None:
        """Take away torch's handler of SIGCHLD, which raises in whatever line training stands.

        The workers may have got the signal too. That they died is noticed at the next batch.
        """
        if signal.SIGCHLD not in self._before and callable(signal.getsignal(signal.SIGCHLD)):
            self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def leave_to_child(self) -> None:
        """Set the signals of a process that was forked meanwhile."""
        for number in self._before:
            ignored = number in SIGNALS and number != signal.SIGTERM
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)


def _after_fork() -> None:
    while _active:
        _active.pop().leave_to_child()


_active: list[Interrupts] = []
os.register_at_fork(after_in_child=_after_fork)
