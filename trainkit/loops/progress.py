"""Progress: tells the train loop which point its training has come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainkit.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainkit.runner import Runner


class Progress(Hook):
    """Comes before all hooks, so that a checkpoint of any of them counts what is done.

    It is at the points, and not in the loop's methods, because these may be overridden.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Nothing is begun here, so training may be ended."""
        runner.at_boundary()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """A step begins."""
        runner.train_loop.begin_step(batch_idx)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """A step is done."""
        runner.train_loop.end_step()

    def after_train_epoch(self, runner: Runner) -> None:
        """An epoch is done."""
        runner.train_loop.end_epoch()
