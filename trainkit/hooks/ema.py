"""Keep, evaluate and save an exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from trainkit.errors import ConfigError
from trainkit.hook import Hook
from trainkit.model import ExponentialMovingAverage, trained_weights, unwrap

if TYPE_CHECKING:
    from trainkit.runner import Runner


class EMAHook(Hook):
    """Average the weights after each iteration, and evaluate with the average.

    A checkpoint's ``model.pt`` holds the average, which is what was evaluated; the trained weights
    stand beside it in ``state.pt``, and a resumed run goes on with both.

    Args:
        momentum: Weight of the newest values, in (0, 1): one minus the decay that others speak of.
        update_buffers: Average buffers as well, instead of copying them.
        begin_iter: The first iteration that counts.
        begin_epoch: The first epoch that counts; only one of both may be given.
    """

    priority = "NORMAL"

    def __init__(
        self,
        momentum: float = 0.0002,
        update_buffers: bool = False,
        begin_iter: int = 0,
        begin_epoch: int = 0,
    ) -> None:
        if begin_iter < 0 or begin_epoch < 0 or (begin_iter and begin_epoch):
            raise ConfigError(
                f"hooks.ema has begin_iter={begin_iter} and begin_epoch={begin_epoch}; "
                "expected one of them, and neither below 0."
            )
        if not 0.0 < momentum < 1.0:
            raise ConfigError(f"hooks.ema.momentum is {momentum}; expected a weight in (0, 1).")
        self.momentum, self.update_buffers = momentum, update_buffers
        self.begin_iter, self.begin_epoch = begin_iter, begin_epoch
        self.ema_model: ExponentialMovingAverage | None = None
        self._shows_average = False

    def before_run(self, runner: Runner) -> None:
        """Make the average; one from an earlier run of the same runner is kept."""
        if self.ema_model is None:
            self.ema_model = ExponentialMovingAverage(
                unwrap(runner.model), self.momentum, self.update_buffers
            )

    def before_train(self, runner: Runner) -> None:
        """Refuse a beginning after the end."""
        limits = [("begin_iter", self.begin_iter, runner.max_iters)]
        if runner.by_epoch:
            limits.append(("begin_epoch", self.begin_epoch, runner.max_epochs))
        for name, begin, end in limits:
            if begin > end:
                raise ConfigError(
                    f"hooks.ema.{name} is {begin}, but the run ends at {end}; it would never begin."
                )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Update the average, once it has begun; its first update copies."""
        if runner.epoch + 1 >= self.begin_epoch and runner.iter + 1 >= self.begin_iter:
            self._average.update_parameters(unwrap(runner.model))

    def before_val_epoch(self, runner: Runner) -> None:
        """Put the average in the model's place."""
        self._show(runner, average=True)

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Put the trained weights back."""
        self._show(runner, average=False)

    def before_test_epoch(self, runner: Runner) -> None:
        """Put the average in the model's place."""
        self._show(runner, average=True)

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Put the trained weights back."""
        self._show(runner, average=False)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the average as the model, and the trained weights beside it."""
        if not self._has_begun:
            return
        model, other = checkpoint["state_dict"], self._average.module.state_dict()
        average, trained = (model, other) if self._shows_average else (other, model)
        checkpoint["state_dict"] = average
        checkpoint["ema_state_dict"] = {
            **{f"module.{name}": value for name, value in trained.items()},
            "n_averaged": self._average.n_averaged.clone(),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """When resuming, give the model its trained weights and the average its own.

        Weights that are loaded otherwise begin a new average.
        """
        if self.ema_model is None:
            return
        self._show(runner, average=False)
        if not runner.is_resuming or "ema_state_dict" not in checkpoint:
            self._average.n_averaged.zero_()
            return
        saved = checkpoint.pop("ema_state_dict")
        self._average.n_averaged.copy_(saved["n_averaged"])
        self._average.module.load_state_dict(checkpoint["state_dict"])
        checkpoint["state_dict"] = trained_weights(saved)

    @property
    def _average(self) -> ExponentialMovingAverage:
        assert self.ema_model is not None, "before_run comes first"
        return self.ema_model

    @property
    def _has_begun(self) -> bool:
        return int(self._average.n_averaged) > 0  # a counter on the CPU

    def _show(self, runner: Runner, *, average: bool) -> None:
        """Have the model show the average or the trained weights; to show them twice is harmless.

        Before the first update both are the model's own.
        """
        if not self._has_begun or average == self._shows_average:
            return
        model, other = unwrap(runner.model), self._average.module
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        pairs += zip(model.parameters(), other.parameters(), strict=True)
        if self.update_buffers:
            pairs += zip(model.buffers(), other.buffers(), strict=True)
        for ours, theirs in pairs:
            ours.data, theirs.data = theirs.data, ours.data
        self._shows_average = average
