"""The loops that evaluate: validation during training, and test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from trainkit.dist import get_world_size
from trainkit.errors import ConfigError
from trainkit.evaluator import TAKEN_NAMES, Evaluator, LossAverage, batch_size, split_losses
from trainkit.loops.sets import LoaderSets
from trainkit.model import unwrap
from trainkit.seed import isolated_rng

if TYPE_CHECKING:
    from trainkit.runner import Runner


class _EvaluateLoop:
    """Run the model over a loader without gradients and compute the metrics.

    Several named sets are one evaluation: the points before and after come once, around all of
    them, so that what acts on the metrics sees all of them at once, and counts one validation.
    Their metrics are named ``<set>/<metric>``.

    Losses behind a step's predictions (see ``trainkit.evaluator.split_losses``) become metrics:
    their means over the samples, and the sum of those with "loss" in their name as ``val_loss`` or
    ``test_loss``.

    Args:
        runner: The runner whose model is evaluated.
        dataloader: The data; or the loaders of several sets by name.
        evaluator: The metrics; of several sets, by the same names.
        fp16: Run the model in autocast: float16 on CUDA, bfloat16 on CPU.
        loss: Also compute the losses of training on each batch, by a second forward pass
            (``loss_step`` of a BaseModel); ``loss`` is the total.
    """

    mode: ClassVar[str]

    def __init__(
        self,
        runner: Runner,
        dataloader: Any,
        evaluator: Evaluator | Mapping[str, Evaluator],
        fp16: bool = False,
        loss: bool = False,
    ) -> None:
        self.runner, self.fp16, self.loss = runner, fp16, loss
        self.dataloader = LoaderSets(dataloader) if isinstance(dataloader, Mapping) else dataloader
        self.evaluators = dict(evaluator) if isinstance(evaluator, Mapping) else {}
        # Of the set in work.
        self.evaluator: Any = next(iter(self.evaluators.values()), evaluator)
        self._returned, self._computed = LossAverage(), LossAverage()
        if isinstance(evaluator, Evaluator):
            evaluator.dataset_meta = _metainfo(dataloader)
        if loss:
            self._loss_step()

    def _loss_step(self) -> Callable[[Any], Mapping[str, Any]]:
        model: Any = unwrap(self.runner.model)
        if not callable(getattr(model, "loss_step", None)):
            raise ConfigError(
                f"{self.mode}_cfg.loss is true, but {type(model).__name__} has no loss_step(data). "
                "Derive it from trainkit.model.BaseModel, or write that method: it returns a dict "
                "of losses."
            )
        step: Callable[[Any], Mapping[str, Any]] = model.loss_step
        return step

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluate meanwhile; leave the model's mode and training's random numbers alone."""
        model = self.runner.model
        training = model.training
        with isolated_rng():
            try:
                yield
            finally:
                model.train(training)

    def sets(self) -> Iterator[tuple[str | None, Any]]:
        """Yield each set's name and loader, ``self.evaluator`` being ready for it.

        One loader that is no named set comes with None.
        """
        several = isinstance(self.dataloader, LoaderSets)
        for name, loader in self.dataloader.each() if several else [(None, self.dataloader)]:
            if name is not None:
                self.evaluator = self.evaluators[name]
            self.evaluator.begin(_metainfo(loader), name, self.runner.work_dir)
            self._returned, self._computed = LossAverage(), LossAverage()
            yield name, loader

    def measure(self, loader: Any) -> dict[str, Any]:
        """Return the metrics of the set in work, all of whose batches were processed."""
        dataset = getattr(loader, "dataset", None)
        size = len(dataset) if isinstance(dataset, Sized) else 0  # a stream does not know
        metrics = dict(self.evaluator.evaluate(size))
        returned = self._returned.compute()
        if returned:
            terms = [value for name, value in returned.items() if "loss" in name]
            returned[f"{self.mode}_loss"] = sum(terms)
        computed = self._computed.compute()
        _check_losses(self.mode, metrics, returned, computed)
        return {**metrics, **returned, **computed}

    def run_all(self) -> dict[str, Any]:
        """Evaluate on every batch of every set; return all metrics by name."""
        metrics: dict[str, Any] = {}
        done = 0  # batches of the sets before
        for name, loader in self.sets():
            given = done
            for idx, data_batch in enumerate(loader, done):
                self.run_iter(idx, data_batch)
                self.runner.end_if_asked()
                given = idx + 1
            if given == done and get_world_size() == 1:
                which = "" if name is None else f" of the set {name}"
                raise ConfigError(
                    f"The {self.mode} data{which} gave no batch, so there is nothing to measure."
                )
            done = given
            found = self.measure(loader)
            metrics.update(found if name is None else {f"{name}/{k}": v for k, v in found.items()})
        return metrics

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Evaluate on one batch."""
        raise NotImplementedError

    def evaluate_step(self, data_batch: Any) -> Any:
        """Return the model's predictions for a batch, after the evaluator has seen them."""
        model = self.runner.model
        with torch.autocast(self.runner.device.type, enabled=self.fp16):
            outputs = getattr(model, f"{self.mode}_step")(data_batch)
            losses = self._loss_step()(data_batch) if self.loss else {}
        outputs, returned = split_losses(outputs)
        size = batch_size(data_batch)
        self._returned.update(returned, size)
        self._computed.update({k: v for k, v in losses.items() if "loss" in k}, size)
        self.evaluator.process(outputs, data_batch)
        return outputs


def _check_losses(
    mode: str, metrics: Mapping[str, Any], returned: Mapping[str, Any], computed: Mapping[str, Any]
) -> None:
    """Raise if two numbers of an evaluation, or of the log, have one name.

    Args:
        mode: ``"val"`` or ``"test"``.
        metrics: The evaluator's numbers.
        returned: Losses behind the predictions.
        computed: Losses of a pass for them alone.
    """
    for name in [*returned, *computed]:
        if name in metrics:
            raise ConfigError(
                f"A metric and a loss are both named {name!r}. Give the metric a prefix."
            )
        if name in TAKEN_NAMES:
            raise ConfigError(
                f"A loss behind the predictions of {mode}_step is named {name!r}, which is "
                "something else in the log. Give it another name."
            )
        if name in returned and name in computed:
            raise ConfigError(
                f"Two losses are named {name!r}: one behind the predictions of {mode}_step, and "
                f"one that {mode}_cfg.loss=true computes. Rename the first, or set "
                f"{mode}_cfg.loss=false."
            )


def _metainfo(loader: Any) -> Any:
    return getattr(getattr(loader, "dataset", None), "metainfo", None)


class ValLoop(_EvaluateLoop):
    """Validate: ``val_step`` on every batch, then the metrics. Training's RNG is left alone."""

    mode = "val"

    def run(self) -> dict[str, Any]:
        """Validate once; return the metrics by name."""
        runner = self.runner
        with self._evaluating():
            runner.hooks.before_val(runner)
            runner.hooks.before_val_epoch(runner)
            runner.model.eval()
            metrics = self.run_all()
        runner.is_exact = False  # until every hook has taken the metrics
        runner.hooks.after_val_epoch(runner, metrics)
        runner.hooks.after_val(runner)
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Validate on one batch."""
        runner = self.runner
        runner.hooks.before_val_iter(runner, idx, data_batch)
        outputs = self.evaluate_step(data_batch)
        runner.hooks.after_val_iter(runner, idx, data_batch, outputs)


class TestLoop(_EvaluateLoop):
    """Test: ``test_step`` on every batch, then the metrics."""

    __test__ = False  # no test case, though its name begins so
    mode = "test"

    def run(self) -> dict[str, Any]:
        """Test once; return the metrics by name."""
        runner = self.runner
        with self._evaluating():
            runner.hooks.before_test(runner)
            runner.hooks.before_test_epoch(runner)
            runner.model.eval()
            metrics = self.run_all()
        runner.hooks.after_test_epoch(runner, metrics)
        runner.hooks.after_test(runner)
        return metrics

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Test on one batch."""
        runner = self.runner
        runner.hooks.before_test_iter(runner, idx, data_batch)
        outputs = self.evaluate_step(data_batch)
        runner.hooks.after_test_iter(runner, idx, data_batch, outputs)
