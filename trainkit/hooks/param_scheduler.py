"""Step the parameter schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner


class ParamSchedulerHook(Hook):
    """Step iteration schedulers after each iteration and epoch schedulers after each epoch.

    It runs after the logger and before the checkpoint: the log shows the value that was used, a
    checkpoint holds the one that comes next.
    """

    priority = "LOW"

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Step the schedulers that count iterations."""
        for scheduler in runner.param_schedulers:
            if not scheduler.by_epoch:
                scheduler.step()

    def after_train_epoch(self, runner: Runner) -> None:
        """Step the schedulers that count epochs."""
        for scheduler in runner.param_schedulers:
            if scheduler.by_epoch:
                scheduler.step()
