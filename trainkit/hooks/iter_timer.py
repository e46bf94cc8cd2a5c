"""Time the iterations and estimate when the run ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from trainkit.dataloader import num_batches
from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner


class IterTimerHook(Hook):
    """Publish ``time`` and ``data_time`` of each iteration in seconds, and ``eta`` in seconds.

    ``time`` runs from the end of one iteration to the end of the next; ``data_time`` is the part of
    it spent waiting for the batch. ``eta`` is the mean time since the start, or the resume, for
    what remains. None of them goes into checkpoints: the next process may be on another machine.
    """

    priority = "NORMAL"

    def __init__(self) -> None:
        self._last = 0.0  # end of the last iteration
        self._total = 0.0
        self._count = 0
        self._training: tuple[float, int] = (0.0, 0)  # kept while a validation is timed

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self._restart()

    def before_val(self, runner: Runner) -> None:
        """Put training's clock aside."""
        self._training = (self._total, self._count)

    def after_val(self, runner: Runner) -> None:
        """Take training's clock up again; the validation counts for no training iteration."""
        self._total, self._count = self._training
        self._last = time.perf_counter()

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
        if mode == "train":
            self._last = time.perf_counter()
        else:
            self._restart()

    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = "train"
    ) -> None:
        waited = time.perf_counter() - self._last
        runner.message_hub.update_scalar(f"{mode}/data_time", waited, resumed=False)

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> None:
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        runner.message_hub.update_scalar(f"{mode}/time", elapsed, resumed=False)
        self._total += elapsed
        self._count += 1
        eta = self._total / self._count * self._remaining(runner, batch_idx, mode)
        runner.message_hub.update_info("eta", eta, resumed=False)

    def _remaining(self, runner: Runner, batch_idx: int, mode: str) -> int:
        if mode == "train":
            return max(runner.max_iters - runner.iter - 1, 0)
        return max((num_batches(runner.dataloader(mode)) or 0) - batch_idx - 1, 0)

    def _restart(self) -> None:
        self._last, self._total, self._count = time.perf_counter(), 0.0, 0
