"""The training loops: the order of a run, and nothing else. What else happens is in the hooks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.dataloader import batches_from, go_to, num_batches, place_of, set_epoch
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from trainkit.runner import Runner


_NO_BATCH = "The training data loader gives no batch at all, so there is nothing to train on."


class BaseTrainLoop(ABC):
    """What both loops share: counters, when a validation is due, and their state.

    Counters rise after the hooks of their point, so a hook in ``after_train_epoch`` of the first
    epoch sees ``epoch == 0``; :meth:`state_dict` counts what is done.

    Args:
        runner: The runner whose model is trained.
        dataloader: The training data.
        val_begin: The first epoch (iteration) after which to validate.
        val_interval: Epochs (iterations) between validations; the last one is always validated.
        dynamic_intervals: ``[[milestone, interval], ...]``: from each milestone on, another
            ``val_interval``.
        val_before_train: Validate once before the first iteration too; a resumed run does not.
    """

    by_epoch: ClassVar[bool]

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: Sequence[Sequence[int]] | None = None,
        val_before_train: bool = False,
    ) -> None:
        self.runner, self.dataloader = runner, dataloader
        self.val_before_train = val_before_train
        self.val_begin = _whole("val_begin", val_begin, least=0)
        self.val_interval = _whole("val_interval", val_interval)
        self.intervals = _intervals(self.val_interval, dynamic_intervals or ())
        self.epoch = 0
        self.iter = 0
        self.stop_training = False
        self._epoch_done = False  # between the last hook of an epoch and its being counted
        self._iter_done = False
        self._in_step = False  # until the batch in work has been trained on
        self._batch = 0  # batches of the current pass over the data, the one in work included
        self._start_batch = 0  # of the pass that a resume goes on in
        self._validated = -1  # the count of the last validation

    @property
    @abstractmethod
    def max_epochs(self) -> int:
        """The number of epochs of the whole run."""

    @property
    @abstractmethod
    def max_iters(self) -> int:
        """The number of iterations of the whole run."""

    @property
    def done(self) -> int:
        """Finished epochs, or iterations, whichever the loop counts."""
        return self.epoch + self._epoch_done if self.by_epoch else self.iter + self._iter_done

    @property
    def last(self) -> int:
        """What ``done`` is at the end of the run."""
        return self.max_epochs if self.by_epoch else self.max_iters

    def end_at(self, last: int) -> None:
        """End the run at another number of epochs, or iterations; see :attr:`last`."""
        raise ConfigError(
            f"{type(self).__name__} was to end at {last} but has no end_at(), which a loop of "
            "one's own needs for resume_with=checkpoint."
        )

    @abstractmethod
    def run(self) -> Any:
        """Train to the end; return the model."""

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train on one batch; ``idx`` is its place in the epoch, or the iteration."""
        runner = self.runner
        runner.is_exact, self._in_step = False, True
        runner.hooks.before_train_iter(runner, idx, data_batch)
        outputs = runner.model.train_step(data_batch, runner.optim_wrapper)
        self._in_step, self._iter_done = False, True
        runner.hooks.after_train_iter(runner, idx, data_batch, outputs)
        self.iter += 1
        self._iter_done = False

    def validate_if_due(self) -> bool:
        """Validate where the loop stands, unless it is not due or done; return whether it was."""
        if len(self.intervals) > 1:
            # An interval holds from the check before its milestone on, as in MMEngine.
            begun = [
                interval for milestone, interval in self.intervals if milestone <= self.done + 1
            ]
            self.val_interval = begun[-1]
        if self.val_before_train and not self.runner.has_val:
            raise ConfigError(
                "train_cfg.val_before_train is true, but there is no validation. Set it to false, "
                "or validate."
            )
        if not self.runner.has_val or not self._validation_due():
            return False
        self.runner.end_if_asked()  # rather than begin
        self.runner.val_loop.run()
        self._validated = self.done
        self.runner.is_exact = True
        return True

    def _validation_due(self) -> bool:
        if self.done == 0:
            return self.val_before_train and self.iter == 0 and self._validated != 0
        if self.done == self._validated or self.done < self.val_begin:
            return False
        return self.done % self.val_interval == 0 or self.done == self.last

    def state_dict(self) -> dict[str, Any]:
        """Return how far the loop has come."""
        epoch, iteration = self.epoch + self._epoch_done, self.iter + self._iter_done
        batch = 0 if self._epoch_done else self._batch - self._in_step
        return {
            "epoch": epoch,
            "iter": iteration,
            "batch": batch,
            "validated": self._validated,
            "batches": num_batches(self.dataloader),
            "data": place_of(self.dataloader, batch),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to where :meth:`state_dict` was taken."""
        self.epoch, self.iter = int(state_dict["epoch"]), int(state_dict["iter"])
        batch, warn = int(state_dict.get("batch", 0)), self.runner.logger.warning
        self._start_batch = go_to(self.dataloader, state_dict.get("data"), batch, warn)
        self._batch = self._start_batch
        self._validated = int(state_dict.get("validated", -1))


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
        self._max_epochs = _whole("max_epochs", max_epochs)
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
        self._max_epochs = _whole("max_epochs", last)
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
        runner.hooks.before_train(runner)
        # Before training; or a run that was stopped between an epoch and its validation.
        self.validate_if_due()
        while self.epoch < self.max_epochs and not self.stop_training:
            self.run_epoch()
            runner.at_boundary()
            self.validate_if_due()
        runner.hooks.after_train(runner)
        return runner.model

    def run_epoch(self) -> None:
        """Train on every batch once."""
        runner = self.runner
        runner.hooks.before_train_epoch(runner)
        runner.model.train()
        start, self._start_batch = self._start_batch, 0
        stop = self._max_iters // self.max_epochs  # an endless sampler has no end of its own
        batches = batches_from(self.dataloader, start, epoch=self.epoch, stop=stop)
        for idx, data_batch in enumerate(batches, start):
            self._batch = idx + 1
            self.run_iter(idx, data_batch)
            if self._batch < stop:  # the last one's boundary is the epoch's
                runner.at_boundary()
        if self._batch < stop:
            self._end_early(stop)
        self._epoch_done = True
        runner.hooks.after_train_epoch(runner)
        self.epoch += 1
        self._batch, self._epoch_done = 0, False

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
        self._max_iters = _whole("max_iters", max_iters)

    def end_at(self, last: int) -> None:
        """End the run after another number of iterations."""
        self._max_iters = _whole("max_iters", last)

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
        runner.hooks.before_train(runner)
        runner.hooks.before_train_epoch(runner)
        # Before training; or a run that was stopped between an iteration and its validation.
        self.validate_if_due()
        runner.model.train()
        batches = self._endless_batches()
        while self.iter < self.max_iters and not self.stop_training:
            self.run_iter(self.iter, next(batches))
            runner.at_boundary()
            if self.validate_if_due():
                runner.model.train()
        runner.hooks.after_train_epoch(runner)
        runner.hooks.after_train(runner)
        return runner.model

    def _endless_batches(self) -> Iterator[Any]:
        while True:
            set_epoch(self.dataloader, self.epoch)
            start, self._start_batch = self._start_batch, 0
            self._batch = start
            for data_batch in batches_from(self.dataloader, start, epoch=self.epoch):
                self._batch += 1
                yield data_batch
            if self._batch == 0:
                raise ConfigError(_NO_BATCH)
            self.epoch += 1


def _intervals(first: int, later: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return each milestone and the interval from there on, in order."""
    pairs = [(_whole("dynamic_intervals", m), _whole("dynamic_intervals", i)) for m, i in later]
    return [(0, first), *sorted(pairs)]


def _whole(name: str, value: float, least: int = 1) -> int:
    """Return ``value`` as an int if it is a whole number of at least ``least``; 3.0 is."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value % 1 != 0
        or value < least
    ):
        raise ConfigError(
            f"train_cfg.{name} is {value!r}; expected a whole number of at least {least}."
        )
    return int(value)
