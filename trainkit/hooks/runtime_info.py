"""Publish what the run is doing to the message hub and to status.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from trainkit.dataloader import batch_sizes
from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner


class RuntimeInfoHook(Hook):
    """Publish counters, learning rate, losses and metrics in ``runner.message_hub``."""

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        # Samples of a batch, batches of a pass, samples of its last; None where the loader does not
        # tell.
        self._sizes: tuple[int, int, int] | None = None

    def before_run(self, runner: Runner) -> None:
        """Publish what stays the same."""
        from trainkit import __version__

        self._inform(runner, seed=runner.seed, experiment_name=runner.experiment_name)
        self._inform(runner, cfg=runner.config_text, trainkit_version=__version__)

    def before_train(self, runner: Runner) -> None:
        """Publish where the run stands and how far it goes."""
        self._inform(runner, loop_stage="train", epoch=runner.epoch, iter=runner.iter)
        self._inform(runner, max_epochs=runner.max_epochs, max_iters=runner.max_iters)
        dataset = getattr(runner.train_dataloader, "dataset", None)
        self._inform(runner, dataset_meta=getattr(dataset, "metainfo", None))
        self._sizes = batch_sizes(runner.train_dataloader)
        for name in runner.optim_wrapper.grad_norm_names:  # the next update may be lines away
            runner.message_hub.recall(f"train/{name}")
        if runner.iter == 0:
            runner.message_hub.update_info("samples", 0)

    def before_train_epoch(self, runner: Runner) -> None:
        """Publish the epoch."""
        self._inform(runner, epoch=runner.epoch)
        # In an iteration run this point comes once, also where a resume comes into a later pass.
        runner.message_hub.begin_epoch("train", runner.epoch if runner.by_epoch else 0)

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin the window of the evaluation."""
        runner.message_hub.begin_epoch("val")

    def before_test_epoch(self, runner: Runner) -> None:
        """Begin the window of the evaluation."""
        runner.message_hub.begin_epoch("test")

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
        self._count_samples(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Record how far the run is."""
        runner.record_progress()

    def before_val(self, runner: Runner) -> None:
        """Publish the stage."""
        self._inform(runner, loop_stage="val")

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Publish and record the metrics."""
        self._publish(runner, "val", metrics)
        found = {name: as_number(value) for name, value in (metrics or {}).items()}
        runner.record_progress(metrics={k: v for k, v in found.items() if v is not None})

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
        runner.message_hub.update_info_dict(facts, resumed=False)

    def _publish(self, runner: Runner, mode: str, metrics: Mapping[str, Any] | None) -> None:
        for name, value in (metrics or {}).items():
            number = as_number(value)
            if number is None:
                runner.message_hub.update_info(f"{mode}/{name}", value, resumed=False)
            else:
                runner.message_hub.update_scalar(f"{mode}/{name}", number)

    def _count_samples(self, runner: Runner) -> None:
        """Add the samples of this iteration on all ranks, where they are known."""
        seen = runner.message_hub.get_info("samples")
        size = self._batch_size(runner)
        known = None if seen is None or size is None else seen + size * runner.world_size
        runner.message_hub.update_info("samples", known)

    def _batch_size(self, runner: Runner) -> int | None:
        if self._sizes is None:
            return None
        size, batches, last = self._sizes
        if last == size:
            return size
        return last if runner.train_loop.batches_done == batches else size


def as_number(value: Any) -> float | int | None:
    """Return a metric as a number of Python's, if it is one number; else None."""
    if isinstance(value, torch.Tensor) or type(value).__module__ == "numpy":
        single = getattr(value, "ndim", 1) == 0
        value = value.item() if single else None
    return value if isinstance(value, int | float) else None
