"""Publish what the run is doing to the message hub and to status.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner


class RuntimeInfoHook(Hook):
    """Publish counters, learning rate, losses and metrics in ``runner.message_hub``."""

    priority = "VERY_HIGH"

    def before_run(self, runner: Runner) -> None:
        """Publish what stays the same."""
        self._inform(runner, seed=runner.seed, experiment_name=runner.experiment_name)

    def before_train(self, runner: Runner) -> None:
        """Publish where the run stands and how far it goes."""
        self._inform(runner, loop_stage="train", epoch=runner.epoch, iter=runner.iter)
        self._inform(runner, max_epochs=runner.max_epochs, max_iters=runner.max_iters)

    def before_train_epoch(self, runner: Runner) -> None:
        """Publish the epoch."""
        self._inform(runner, epoch=runner.epoch)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Publish the iteration and the learning rate that it will use."""
        self._inform(runner, iter=runner.iter)
        for name, values in runner.optim_wrapper.get_lr().items():
            runner.message_hub.update_scalar(f"train/{name}", values[0])

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Publish what the train step returned, and the gradient norm if it was measured."""
        for name, value in (outputs or {}).items():
            runner.message_hub.update_scalar(f"train/{name}", value)
        for name, norm in runner.optim_wrapper.get_grad_norm().items():
            runner.message_hub.update_scalar(f"train/{name}", norm)

    def after_train_epoch(self, runner: Runner) -> None:
        """Record how far the run is."""
        runner.record_progress()

    def before_val(self, runner: Runner) -> None:
        """Publish the stage."""
        self._inform(runner, loop_stage="val")

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Publish and record the metrics."""
        self._publish(runner, "val", metrics)
        runner.record_progress(metrics=_numbers(metrics))

    def after_val(self, runner: Runner) -> None:
        """Publish the stage."""
        self._inform(runner, loop_stage="train")

    def before_test(self, runner: Runner) -> None:
        """Publish the stage."""
        self._inform(runner, loop_stage="test")

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Publish the metrics."""
        self._publish(runner, "test", metrics)

    def _inform(self, runner: Runner, **facts: Any) -> None:
        for key, value in facts.items():
            runner.message_hub.update_info(key, value, resumed=False)

    def _publish(self, runner: Runner, mode: str, metrics: Mapping[str, Any] | None) -> None:
        for name, value in (metrics or {}).items():
            if isinstance(value, int | float):
                runner.message_hub.update_scalar(f"{mode}/{name}", value)
            else:
                runner.message_hub.update_info(f"{mode}/{name}", value, resumed=False)


def _numbers(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    return {
        name: value for name, value in (metrics or {}).items() if isinstance(value, int | float)
    }
