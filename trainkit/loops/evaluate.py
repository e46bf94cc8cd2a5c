"""The loops that evaluate: validation during training, and test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sized
from typing import TYPE_CHECKING, Any

import torch

from trainkit.evaluator import Evaluator
from trainkit.seed import isolated_rng

if TYPE_CHECKING:
    from trainkit.runner import Runner


class _EvaluateLoop:
    """Run the model over a loader without gradients and compute the metrics.

    Args:
        runner: The runner whose model is evaluated.
        dataloader: The data.
        evaluator: The metrics.
        fp16: Run the model in autocast: float16 on CUDA, bfloat16 on CPU.
    """

    def __init__(
        self, runner: Runner, dataloader: Any, evaluator: Evaluator, fp16: bool = False
    ) -> None:
        self.runner, self.dataloader, self.evaluator, self.fp16 = (
            runner,
            dataloader,
            evaluator,
            fp16,
        )

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluate meanwhile; leave the model's mode and training's random numbers alone."""
        model = self.runner.model
        training = model.training
        dataset = getattr(self.dataloader, "dataset", None)
        self.evaluator.dataset_meta = getattr(dataset, "metainfo", None)
        self.evaluator.reset()
        with isolated_rng():
            try:
                yield
            finally:
                model.train(training)

    def _samples(self) -> int:
        dataset = getattr(self.dataloader, "dataset", None)
        return len(dataset) if isinstance(dataset, Sized) else 0  # a stream does not know

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.runner.device.type, enabled=self.fp16)


class ValLoop(_EvaluateLoop):
    """Validate: ``val_step`` on every batch, then the metrics. Training's RNG is left alone."""

    def run(self) -> dict[str, Any]:
        """Validate once; return the metrics by name."""
        runner = self.runner
        with self._evaluating():
            runner.hooks.before_val(runner)
            runner.hooks.before_val_epoch(runner)
            runner.model.eval()
            for idx, data_batch in enumerate(self.dataloader):
                self.run_iter(idx, data_batch)
            metrics = self.evaluator.evaluate(self._samples())
        runner.hooks.after_val_epoch(runner, metrics)
        runner.hooks.after_val(runner)
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Validate on one batch."""
        runner = self.runner
        runner.hooks.before_val_iter(runner, idx, data_batch)
        with self._autocast():
            outputs = runner.model.val_step(data_batch)
        self.evaluator.process(outputs, data_batch)
        runner.hooks.after_val_iter(runner, idx, data_batch, outputs)


class TestLoop(_EvaluateLoop):
    """Test: ``test_step`` on every batch, then the metrics."""

    __test__ = False  # no test case, though its name begins so

    def run(self) -> dict[str, Any]:
        """Test once; return the metrics by name."""
        runner = self.runner
        with self._evaluating():
            runner.hooks.before_test(runner)
            runner.hooks.before_test_epoch(runner)
            runner.model.eval()
            for idx, data_batch in enumerate(self.dataloader):
                self.run_iter(idx, data_batch)
            metrics = self.evaluator.evaluate(self._samples())
        runner.hooks.after_test_epoch(runner, metrics)
        runner.hooks.after_test(runner)
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Test on one batch."""
        runner = self.runner
        runner.hooks.before_test_iter(runner, idx, data_batch)
        with self._autocast():
            outputs = runner.model.test_step(data_batch)
        self.evaluator.process(outputs, data_batch)
        runner.hooks.after_test_iter(runner, idx, data_batch, outputs)
