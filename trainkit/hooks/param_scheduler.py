"""Step the parameter schedulers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainkit.errors import ConfigError
from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner


class ParamSchedulerHook(Hook):
    """Step iteration schedulers after each iteration and epoch schedulers after each epoch.

    Schedulers that count updates step with the updates of their optimizer. Those that watch a value
    get what each train step returns and what each validation gives.

    It runs after the logger and before the checkpoint: the log shows the value that was used, a
    checkpoint holds the one that comes next.
    """

    priority = "LOW"

    def __init__(self) -> None:
        self.validated = -1  # iterations before the last validation that was shown

    def before_train(self, runner: Runner) -> None:
        """Refuse schedulers that would wait for a validation in vain."""
        for scheduler in runner.param_schedulers:
            if scheduler.needs_validation and not runner.has_val:
                raise ConfigError(
                    f"{type(scheduler).__name__} looks at what validation gives, but there is no "
                    "validation. Validate, or let it watch a value of training: "
                    "monitor: train/loss."
                )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Step the schedulers that count iterations, or updates."""
        for scheduler in runner.param_schedulers:
            scheduler.observe_outputs(outputs or {})
            if scheduler.by_update:
                scheduler.catch_up()
            elif not scheduler.by_epoch:
                scheduler.step()

    def after_train_epoch(self, runner: Runner) -> None:
        """Step the schedulers that count epochs."""
        for scheduler in runner.param_schedulers:
            if scheduler.by_epoch:
                scheduler.step()

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Show the metrics to the schedulers, once for the same weights."""
        if not runner.is_training or metrics is None:
            return
        done = runner.train_loop.iters_done
        if done != self.validated:  # else a resume from what that validation saved validates again
            self.validated = done
            for scheduler in runner.param_schedulers:
                scheduler.observe_metrics(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedulers last saw a validation."""
        return {"validated": self.validated}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""
        self.validated = int(state_dict.get("validated", -1))
