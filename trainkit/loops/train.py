"""The training loops: the order of a run, and nothing else. What else happens is in the hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trainkit.dataloader import batches_from, num_batches, set_epoch
from trainkit.errors import ConfigError
from trainkit.loops.base import BaseTrainLoop, whole

if TYPE_CHECKING:
    from trainkit.runner import Runner


_NO_BATCH = "The training data loader gives no batch at all, so there is nothing to train on."


class EpochBasedTrainLoop(BaseTrainLoop):
    """Train for ``max_epochs`` passes over the data.

    Args:
        runner: See :class:`BaseTrainLoop`.
        dataloader: Must have a length.
        max_epochs: Passes over the data, a whole number; 1e2 is one.
        val_begin: See :class:`BaseTrainLoop`.
        val_interval: See :class:`BaseTrainLoop`.
        dynamic_intervals: See :class:`BaseTrainLoop`.
        val_before_train: See :class:`BaseTrainLoop`.
    """

    by_epoch = True

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,
        max_epochs: float,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: Sequence[Sequence[int]] | None = None,
        val_before_train: bool = False,
    ) -> None:
        super().__init__(
            runner, dataloader, val_begin, val_interval, dynamic_intervals, val_before_train
        )
        self._max_epochs = whole("max_epochs", max_epochs)
        batches = num_batches(dataloader)
        if batches is None:
            raise ConfigError(
                "The training data has no length, so its epochs cannot be counted. "
                "Train by iterations: train_cfg=iter, or by_epoch: false with max_iters."
            )
        self._max_iters = self._max_epochs * batches

    def end_at(self, last: int) -> None:
        """End the run after another number of epochs."""
        batches = self._max_iters // self._max_epochs
        self._max_epochs = whole("max_epochs", last)
        self._max_iters = self._max_epochs * batches

    @property
    def max_epochs(self) -> int:
        """The number of epochs of the whole run."""
        return self._max_epochs

    @property
    def max_iters(self) -> int:
        """The number of iterations of the whole run."""
        return self._max_iters

    def run(self) -> Any:
        """Train to the end; return the model."""
        runner = self.runner
        self._tell_if_never_validated()
        runner.hooks.before_train(runner)
        # Before training; or a run that was stopped between an epoch and its validation.
        self.validate_if_due()
        while self.epoch < self.max_epochs and not self.stop_training:
            self.run_epoch()
            self.validate_if_due()
        runner.hooks.after_train(runner)
        return runner.model

    def run_epoch(self) -> None:
        """Train on every batch once."""
        runner = self.runner
        runner.hooks.before_train_epoch(runner)
        runner.model.train()
        for idx, data_batch in self.batches():
            self.run_iter(idx, data_batch)
        runner.hooks.after_train_epoch(runner)
        self.epoch += 1

    def batches(self) -> Iterator[tuple[int, Any]]:
        """Yield the epoch's batches, each with its place, from where a resumed run goes on."""
        start = self._begin_pass()
        stop = self._max_iters // self.max_epochs  # an endless sampler has no end of its own
        batches = batches_from(self.dataloader, start, epoch=self.epoch, stop=stop)
        yield from enumerate(self._hand_out(batches, stop), start)
        if self._batch < stop:
            self._end_early(stop)

    def _end_early(self, promised: int) -> None:
        """Say that the data ended before their length, by which schedules count."""
        if self._batch == 0:
            raise ConfigError(_NO_BATCH)
        self.runner.logger.warning(
            "The training data gave %d batches in an epoch, but their length promises %d. The "
            "epoch ends there; schedules that count iterations take it to be longer.",
            self._batch,
            promised,
        )


class IterBasedTrainLoop(BaseTrainLoop):
    """Train for ``max_iters`` batches; the loader starts again whenever it ends.

    For the hooks the whole run is one epoch, as in MMEngine; ``epoch`` counts the passes over the
    data.

    Args:
        runner: See :class:`BaseTrainLoop`.
        dataloader: Need not have a length.
        max_iters: Batches to train on, a whole number; 1e5 is one.
        val_begin: See :class:`BaseTrainLoop`.
        val_interval: See :class:`BaseTrainLoop`.
        dynamic_intervals: See :class:`BaseTrainLoop`.
        val_before_train: See :class:`BaseTrainLoop`.
    """

    by_epoch = False

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,
        max_iters: float,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: Sequence[Sequence[int]] | None = None,
        val_before_train: bool = False,
    ) -> None:
        super().__init__(
            runner, dataloader, val_begin, val_interval, dynamic_intervals, val_before_train
        )
        self._max_iters = whole("max_iters", max_iters)

    def end_at(self, last: int) -> None:
        """End the run after another number of iterations."""
        self._max_iters = whole("max_iters", last)

    @property
    def max_epochs(self) -> int:
        """1: for the hooks the run is one epoch."""
        return 1

    @property
    def max_iters(self) -> int:
        """The number of iterations of the whole run."""
        return self._max_iters

    def run(self) -> Any:
        """Train to the end; return the model."""
        runner = self.runner
        self._tell_if_never_validated()
        runner.hooks.before_train(runner)
        runner.hooks.before_train_epoch(runner)
        # Before training; or a run that was stopped between an iteration and its validation.
        self.validate_if_due()
        runner.model.train()
        batches = self.batches()
        while self.iter < self.max_iters and not self.stop_training:
            self.run_iter(*next(batches))
            if self.validate_if_due():
                runner.model.train()
        runner.hooks.after_train_epoch(runner)
        runner.hooks.after_train(runner)
        return runner.model

    def batches(self) -> Iterator[tuple[int, Any]]:
        """Yield batches without end, each with the iteration, from where a resumed run goes on."""
        while True:
            set_epoch(self.dataloader, self.epoch)
            start = self._begin_pass()
            for data_batch in self._hand_out(
                batches_from(self.dataloader, start, epoch=self.epoch)
            ):
                yield self.iter, data_batch
            if self._batch == 0:
                raise ConfigError(_NO_BATCH)
            self.epoch += 1
