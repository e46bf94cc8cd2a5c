"""End training before a time limit of somebody else's does."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainkit.errors import ConfigError
from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", re.ASCII)


class TimeLimitHook(Hook):
    """Save and end training once it has taken ``limit``, as a signal would (exit code 75).

    The time of this process counts, on a clock that nobody sets, from ``before_run`` on: a resumed
    run has the whole limit again. Leave a scheduler's limit some time for the start, the step and
    the checkpoint.

    Args:
        limit: ``"HH:MM:SS"``, Slurm's ``"D-HH:MM:SS"``, or seconds.
    """

    priority = "VERY_LOW"

    def __init__(self, limit: str | float) -> None:
        self.limit = _seconds(limit)
        self._given = limit
        self._start = time.monotonic()

    def before_run(self, runner: Runner) -> None:
        """Start the clock, where training begins."""
        if runner.is_training:
            self._start = time.monotonic()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """End training, if it is time."""
        self._look(runner)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End training, if it is time; a resumed run validates again."""
        self._look(runner)

    def _look(self, runner: Runner) -> None:
        if runner.is_training and time.monotonic() - self._start >= self.limit:
            runner.request_preemption(f"the time limit of {self._given}")


def _seconds(limit: str | float) -> float:
    clock = _CLOCK.fullmatch(limit) if isinstance(limit, str) else None
    seconds = 0.0
    if clock:
        days, hours, minutes, rest = (int(part or 0) for part in clock.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    elif isinstance(limit, int | float) and not isinstance(limit, bool):
        seconds = float(limit)
    if not 0 < seconds < math.inf:
        raise ConfigError(
            f"hooks.time_limit.limit is {limit!r}; expected HH:MM:SS, D-HH:MM:SS or seconds, more "
            "than none."
        )
    return seconds
