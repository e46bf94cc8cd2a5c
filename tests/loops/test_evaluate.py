"""The val and test loops: eval mode, no gradients, autocast, metainfo, every sample once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import MeanSquaredError, ToyDataset, ToyModel, loader_config, make_runner
from trainkit import ConfigError, Hook, Runner
from trainkit.evaluator import BaseMetric
from trainkit.loops import TestLoop, ValLoop


class Spy(ToyModel):
    """Keep what a step finds."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[bool, bool, bool, int]] = []

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        autocast = torch.is_autocast_enabled("cpu")
        self.found.append((self.training, torch.is_grad_enabled(), autocast, len(x)))
        return super().forward(x, y, mode)


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("purpose", ["val", "test"])
def test_a_step_runs_in_eval_mode_without_gradients(
    tmp_path: Path, fp16: bool, purpose: str
) -> None:
    model = Spy()
    runner = make_runner(tmp_path, model=model, **{f"{purpose}_cfg": {"fp16": fp16}})
    getattr(runner, purpose)(load=False)
    assert model.found == [(False, False, fp16, 4)] * 3


def test_training_goes_on_in_train_mode(tmp_path: Path) -> None:
    model = Spy()
    make_runner(tmp_path, model=model, train_cfg={"by_epoch": True, "max_epochs": 2}).train()
    assert [training for training, *_ in model.found] == [*[True] * 3, *[False] * 3] * 2
    model.found.clear()
    train_cfg = {"by_epoch": False, "max_iters": 4, "val_interval": 2}
    make_runner(tmp_path / "iter", model=model, train_cfg=train_cfg).train()
    assert [training for training, *_ in model.found] == [True, True, False, False, False] * 2


def test_the_evaluator_learns_what_the_data_are(tmp_path: Path) -> None:
    metric = MeanSquaredError()
    make_runner(tmp_path, val_evaluator=metric).val(load=False)
    assert metric.dataset_meta == {"name": "toy"}


def test_every_sample_counts_once(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, val_dataloader=loader_config(batch_size=5))
    model = ToyModel()
    data = runner.val_dataloader.dataset
    with torch.no_grad():
        expected = (model.linear(data.x) - data.y).square().mean().item()
    assert runner.val(load=False)["mse"] == pytest.approx(expected, rel=1e-6)


class Kept(BaseMetric):
    """The predictions of every batch, as they are."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(data_samples)

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {"kept": results}


@pytest.mark.parametrize(("fp16", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_fp16_predicts_in_bfloat16_on_a_cpu(tmp_path: Path, fp16: bool, dtype: torch.dtype) -> None:
    runner = make_runner(tmp_path, val_cfg={"fp16": fp16}, val_evaluator=Kept())
    assert {scores.dtype for scores in runner.val(load=False)["kept"]} == {dtype}


def test_the_data_type_of_autocast_is_torchs_own(tmp_path: Path) -> None:
    before = torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", torch.float16)
    try:
        runner = make_runner(tmp_path, val_cfg={"fp16": True}, val_evaluator=Kept())
        assert runner.val(load=False)["kept"][0].dtype == torch.float16
    finally:
        torch.set_autocast_dtype("cpu", before)


# ---------------------------------------------------------------- losses


class Element:
    """What MMEngine calls a data element: keys, and attributes of the same names."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    def keys(self) -> list[str]:
        return list(vars(self))


class WithLosses(ToyModel):
    """Put the losses of a batch behind its predictions."""

    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        out = super().forward(x, y, mode)
        if mode == "loss":
            return out
        error = (out - y).square()
        losses = {"loss_a": error.mean(), "loss_b": [error.min(), error.max()], "seen": error.sum()}
        return [*out, self.wrap(losses)]


class Count(BaseMetric):
    """How many predictions there are."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {"count": sum(results)}


def errors() -> torch.Tensor:
    data = ToyDataset()
    with torch.no_grad():
        return (ToyModel().linear(data.x) - data.y).square().flatten().double()


@pytest.mark.parametrize("purpose", ["val", "test"])
@pytest.mark.parametrize(
    "wrap", [lambda losses: {"loss": losses}, lambda losses: Element(loss=losses)]
)
def test_losses_behind_the_predictions_become_metrics(
    tmp_path: Path, purpose: str, wrap: Callable[[Any], Any]
) -> None:
    changes = {f"{purpose}_evaluator": Count()}
    runner = make_runner(tmp_path, model=WithLosses(wrap), **changes)
    metrics = getattr(runner, purpose)(load=False)
    batches = errors().split(4)
    a = torch.stack([batch.mean() for batch in batches]).mean().item()
    b = torch.stack([(batch.min() + batch.max()) / 2 for batch in batches]).mean().item()
    seen = torch.stack([batch.sum() for batch in batches]).mean().item()
    expected = {"count": 12, "loss_a": a, "loss_b": b, "seen": seen, f"{purpose}_loss": a + b}
    assert list(metrics) == list(expected)
    assert metrics == pytest.approx(expected, rel=1e-6)


def test_a_validation_loss_is_a_mean_over_samples_on_purpose(tmp_path: Path) -> None:
    """MMEngine's is a mean over batches, in which the samples of a short batch weigh more."""
    for model, cfg in (
        (WithLosses(lambda losses: {"loss": losses}), {}),
        (ToyModel(), {"loss": True}),
    ):
        name = "loss" if cfg else "loss_a"
        runner = make_runner(
            tmp_path,
            model=model,
            val_dataloader=loader_config(batch_size=5),
            val_cfg=cfg,
            val_evaluator=Count(),
        )
        assert runner.val(load=False)[name] == pytest.approx(errors().mean().item(), rel=1e-6)


def test_batches_of_unknown_size_count_alike(tmp_path: Path) -> None:
    class Opaque:
        def __init__(self, batches: list[Any]) -> None:
            self.batches = batches

        def __iter__(self) -> Any:
            return iter([frozenset({batch}) for batch in self.batches])

    class Model(nn.Module):
        def val_step(self, data: Any) -> Any:
            return [{"loss": torch.tensor(float(next(iter(data))))}]

        def train_step(self, data: Any, optim_wrapper: Any) -> Any: ...

    runner = make_runner(
        tmp_path,
        model=Model(),
        train_dataloader=None,
        train_cfg=None,
        optim_wrapper=None,
        val_dataloader=Opaque([1, 4]),
        val_evaluator=Count(),
    )
    assert runner.val(load=False) == {"count": 0, "loss": 2.5, "val_loss": 2.5}


@pytest.mark.parametrize("purpose", ["val", "test"])
def test_the_models_own_loss_can_be_asked_for(tmp_path: Path, purpose: str) -> None:
    runner = make_runner(tmp_path, **{f"{purpose}_cfg": {"loss": True}})
    metrics = getattr(runner, purpose)(load=False)
    mean = errors().mean().item()
    assert metrics == pytest.approx({"mse": mean, "loss": mean}, rel=1e-6)


def test_a_loss_of_several_terms_has_a_total(tmp_path: Path) -> None:
    class Two(ToyModel):
        def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
            out = super().forward(x, y, mode)
            if mode != "loss":
                return out
            return {"loss_a": out["loss"], "loss_b": 2 * out["loss"], "acc": torch.tensor(1.0)}

    metrics = make_runner(tmp_path, model=Two(), val_cfg={"loss": True}).val(load=False)
    assert list(metrics) == ["mse", "loss", "loss_a", "loss_b"]  # what is no loss is left out
    assert metrics["loss"] == pytest.approx(3 * metrics["loss_a"])


def test_computing_a_loss_does_not_change_training(tmp_path: Path) -> None:
    weights = []
    for loss in (True, False):
        runner = make_runner(tmp_path / str(loss), model=ToyModel(0.5), val_cfg={"loss": loss})
        runner.train()
        weights.append(runner.model.linear.weight)
    assert weights[0].equal(weights[1])


def test_a_model_without_a_loss_step_is_told_so_before_the_run(tmp_path: Path) -> None:
    class Model(nn.Linear):
        def val_step(self, data: Any) -> Any: ...

        def train_step(self, data: Any, optim_wrapper: Any) -> Any: ...

    runner = make_runner(tmp_path, model=Model(3, 1), val_cfg={"loss": True})
    with pytest.raises(ConfigError, match=r"val_cfg\.loss is true, but Model has no loss_step"):
        runner.train()


def test_a_metric_and_a_loss_of_one_name_are_refused(tmp_path: Path) -> None:
    class Named(Count):
        def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
            return {"loss": 1.0}

    runner = make_runner(tmp_path, val_cfg={"loss": True}, val_evaluator=Named())
    with pytest.raises(ConfigError, match="A metric and a loss are both named 'loss'"):
        runner.val(load=False)


def test_a_loss_with_the_name_of_something_else_in_the_log_is_refused(tmp_path: Path) -> None:
    model = WithLosses(lambda losses: {"loss": {"time": losses["loss_a"]}})
    with pytest.raises(ConfigError, match=r"of val_step is named 'time', which is something else"):
        make_runner(tmp_path, model=model, val_evaluator=Count()).val(load=False)


def test_two_losses_of_one_name_are_both_called_losses(tmp_path: Path) -> None:
    model = WithLosses(lambda losses: {"loss": {"loss": losses["loss_a"]}})
    runner = make_runner(tmp_path, model=model, val_evaluator=Count(), val_cfg={"loss": True})
    text = r"Two losses are named 'loss': one .* val_step, and one that val_cfg\.loss=true computes"
    with pytest.raises(ConfigError, match=text):
        runner.val(load=False)


def test_a_loss_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    model = WithLosses(lambda losses: {"loss": {"loss_a": "small"}})
    with pytest.raises(ConfigError, match="loss 'loss_a' is a str; expected a tensor"):
        make_runner(tmp_path, model=model, val_evaluator=Count()).val(load=False)


@pytest.mark.parametrize("outputs", [{}, [], (), None, {"scores": 1}, "text", torch.zeros(0)])
def test_whatever_a_step_returns_reaches_the_metrics(tmp_path: Path, outputs: Any) -> None:
    """MMEngine fails for a dict and for an empty list."""

    class Model(ToyModel):
        def val_step(self, data: Any) -> Any:
            return outputs

    runner = make_runner(tmp_path, model=Model(), val_evaluator=Kept())
    kept = runner.val(load=False)["kept"]
    assert [type(one) for one in kept] == [type(outputs)] * 3


# ---------------------------------------------------------------- loops of one's own


class OwnValLoop(ValLoop):
    """A loop written for MMEngine: it overrides both methods, and knows nothing of sets."""

    def __init__(self, runner: Any, dataloader: Any, evaluator: Any, skip: int = 0) -> None:
        super().__init__(runner, dataloader, evaluator)
        self.skip = skip

    def run(self) -> dict[str, Any]:
        self.runner.hooks.before_val(self.runner)
        self.runner.hooks.before_val_epoch(self.runner)
        self.runner.model.eval()
        for idx, data_batch in enumerate(self.dataloader):
            if idx >= self.skip:
                self.run_iter(idx, data_batch)
        metrics = self.evaluator.evaluate(len(self.dataloader.dataset))
        self.runner.hooks.after_val_epoch(self.runner, metrics)
        self.runner.hooks.after_val(self.runner)
        return {**metrics, **{f"meta_{k}": v for k, v in self.evaluator.dataset_meta.items()}}

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        outputs = self.runner.model.val_step(data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)


class TwiceTestLoop(TestLoop):
    """Test twice on every batch."""

    def run_iter(self, idx: int, data_batch: Any) -> None:
        super().run_iter(idx, data_batch)
        super().run_iter(idx, data_batch)


def test_loops_of_ones_own_come_from_the_config(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        val_cfg={"_target_": OwnValLoop, "skip": 1},
        val_evaluator=Count(),
        test_cfg={"_target_": TwiceTestLoop},
        test_evaluator=Count(),
    )
    assert runner.val(load=False) == {"count": 8, "meta_name": "toy"}
    assert runner.test(load=False) == {"count": 24}


def test_any_object_with_run_is_a_loop(tmp_path: Path) -> None:
    class Fixed:
        def __init__(self, runner: Any, dataloader: Any, evaluator: Any) -> None:
            self.runner, self.dataloader = runner, dataloader

        def run(self) -> dict[str, float]:
            metrics = {"fixed": 0.5}
            self.runner.hooks.after_val_epoch(self.runner, metrics)
            return metrics

    class Seen(Hook):
        metrics: Any = None

        def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
            self.metrics = metrics

    hook = Seen()
    runner = make_runner(tmp_path, val_cfg={"_target_": Fixed}, custom_hooks=[hook])
    runner.train()
    assert hook.metrics == {"fixed": 0.5}
