"""BaseTrainLoop: what all training loops share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from trainkit.dataloader import batches_from, go_to, num_batches, place_of
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from trainkit.runner import Runner


def _counter(name: str) -> property:
    """Return the place of a counter of MMEngine's loops, which says where it is here."""

    def tell(self: Any, *value: Any) -> NoReturn:
        raise AttributeError(
            f"{type(self).__name__} uses self._{name}; in trainkit it is self.{name}, for loops "
            "that derive from trainkit.loops too."
        )

    return property(tell, tell)


class BaseTrainLoop(ABC):
    """What both loops share: counters, when a validation is due, and their state.

    Counters rise after the hooks of their point, so a hook in ``after_train_epoch`` of the first
    epoch sees ``epoch == 0``; :meth:`state_dict` counts what is done. For that, a loop of one's own
    has only to call the points of training and to raise ``iter`` and ``epoch``.

    Args:
        runner: The runner whose model is trained.
        dataloader: The training data.
        val_begin: The first epoch (iteration) after which to validate.
        val_interval: Epochs (iterations) between validations; after the last one there is always
            one, if ``val_begin`` is reached.
        dynamic_intervals: ``[[milestone, interval], ...]``: from each milestone on, another
            ``val_interval``.
        val_before_train: Validate once before the first iteration too; a resumed run does not.
    """

    by_epoch: ClassVar[bool]
    _iter, _epoch = _counter("iter"), _counter("epoch")

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
        self.val_begin = whole("val_begin", val_begin, least=0)
        self.val_interval = whole("val_interval", val_interval)
        self._later = _intervals(dynamic_intervals or ())
        self.epoch = 0
        self.iter = 0
        self.stop_training = False
        # The last ones whose end was reached, from where the hooks are called on.
        self._ended_iter, self._ended_epoch = -1, -1
        self._in_step = False  # until the batch in work has been trained on
        self._batch = 0  # batches of the current pass over the data, the one in work included
        self._start_batch = 0  # of the pass that a resume goes on in
        self._validated = -1  # the count of the last validation
        self._validating = False  # while one that was due is made

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
        return self.epochs_done if self.by_epoch else self.iters_done

    @property
    def epochs_done(self) -> int:
        """Finished epochs: in the hooks of an epoch's end, that one too."""
        return self.epoch + (self._ended_epoch == self.epoch)

    @property
    def iters_done(self) -> int:
        """Finished iterations: in the hooks after one, that one too."""
        return self.iter + (self._ended_iter == self.iter)

    @property
    def batches_done(self) -> int:
        """Batches of the current pass over the data that were trained on; 0 between two epochs."""
        return self._batch - self._in_step

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
        runner.hooks.before_train_iter(runner, idx, data_batch)
        outputs = runner.model.train_step(data_batch, runner.optim_wrapper)
        runner.hooks.after_train_iter(runner, idx, data_batch, outputs)
        self.iter += 1

    def validate_if_due(self) -> bool:
        """Validate where the loop stands, unless it is not due or done; return whether it was.

        It is called between two epochs or iterations, where training may also be ended.
        """
        runner = self.runner
        runner.at_boundary()
        if not self._validation_due():
            return False
        runner.end_if_asked()  # rather than begin
        self._validating = True
        runner.val_loop.run()
        self._validated, self._validating = self.done, False
        runner.is_exact = True
        return True

    def _validation_due(self) -> bool:
        done = self.done
        self._settle_interval()
        if done == 0:
            return self.iter == 0 and self._validated != 0 and self._validates_first()
        if done == self._validated or done < self.val_begin or not self.runner.has_val:
            return False
        return done % self.val_interval == 0 or done == self.last

    def _settle_interval(self) -> None:
        """Have ``val_interval`` be the one that holds: from the check before its milestone on."""
        while self._later and self._later[0][0] <= self.done + 1:  # as in MMEngine
            _, self.val_interval = self._later.pop(0)

    def _validates_first(self) -> bool:
        if self.val_before_train and not self.runner.has_val:
            raise ConfigError(
                "train_cfg.val_before_train is true, but there is no validation. Set it to false, "
                "or validate."
            )
        return self.val_before_train

    def _tell_if_never_validated(self) -> None:
        if self.runner.has_val and self.val_begin > self.last:
            unit = "epochs" if self.by_epoch else "iterations"
            self.runner.logger.warning(
                "train_cfg.val_begin is %d, but the run ends after %d %s: it will not validate on "
                "the way. Lower it.",
                *(self.val_begin, self.last, unit),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return how far the loop has come."""
        batch = self.batches_done
        # Not exact within a validation: its hooks are at work, and have its metrics.
        validated = self._validating and not self.runner.is_exact
        return {
            "epoch": self.epochs_done,
            "iter": self.iters_done,
            "batch": batch,
            "validated": self.done if validated else self._validated,
            "batches": num_batches(self.dataloader),
            "data": place_of(self.dataloader, batch),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to where :meth:`state_dict` was taken."""
        self.epoch, self.iter = int(state_dict["epoch"]), int(state_dict["iter"])
        self._ended_iter, self._ended_epoch, self._in_step = -1, -1, False
        batch, warn = int(state_dict.get("batch", 0)), self.runner.logger.warning
        self._start_batch = go_to(self.dataloader, state_dict.get("data"), batch, warn)
        self._batch = self._start_batch
        self._validated = int(state_dict.get("validated", -1))

    # ------------------------------------------------------------------ the place in the data

    def batches(self) -> Iterator[tuple[int, Any]]:
        """Yield the batches of a pass, each with its place, from where a resumed run goes on.

        Between two of them training may be ended. A loop of one's own that reads ``dataloader``
        itself can only be ended, and gone on with, between two epochs.
        """
        start = self._begin_pass()
        batches = batches_from(self.dataloader, start, epoch=self.epoch)
        yield from enumerate(self._hand_out(batches), start)

    def _begin_pass(self) -> int:
        """Return the batch to start from."""
        start, self._start_batch = self._start_batch, 0
        self._batch = start
        return start

    def _hand_out(self, batches: Iterator[Any], stop: int | None = None) -> Iterator[Any]:
        """Yield batches; between two, not after the one before ``stop``, training may be ended."""
        for data_batch in batches:
            self._take(self._batch + 1)
            yield data_batch
            if not self._in_step and self._batch != stop and not self.runner.is_exact:
                self.runner.at_boundary()  # unless the loop has done so, as before a validation

    def _take(self, batch: int) -> None:
        """Take note that the ``batch``-th of the pass is in work."""
        self._batch, self._in_step, self.runner.is_exact = batch, True, False

    def begin_step(self, batch_idx: int) -> None:
        """Take note that a step begins; the point before it does this."""
        if self._in_step:  # with what batches() gave
            return
        if self._start_batch:
            raise ConfigError(
                f"The run was stopped after batch {self._start_batch} of an epoch, but "
                f"{type(self).__name__} reads its data from their beginning. Take the batches from "
                "self.batches() there, or resume from a checkpoint of an epoch's end."
            )
        self._take(batch_idx + 1 if self.by_epoch else self._batch or self.iter + 1)

    def end_step(self) -> None:
        """Take note that a step is done; the point after it does this."""
        self._ended_iter, self._in_step = self.iter, False
        self._settle_interval()  # a checkpoint may go by it

    def end_epoch(self) -> None:
        """Take note that an epoch is done; the point after it does this."""
        if self.by_epoch:  # else it is the whole run that has ended
            self._ended_epoch, self._batch, self._in_step = self.epoch, 0, False


def _intervals(later: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return each milestone and the interval from there on, in order."""
    is_list = isinstance(later, Sequence) and not isinstance(later, str)
    if not is_list or not all(isinstance(each, Sequence) and len(each) == 2 for each in later):
        raise ConfigError(
            f"train_cfg.dynamic_intervals is {later!r}; expected pairs of a milestone and the "
            "interval from there on, such as [[100, 5]]."
        )
    return sorted((whole("dynamic_intervals", m), whole("dynamic_intervals", i)) for m, i in later)


def whole(name: str, value: float, least: int = 1) -> int:
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
