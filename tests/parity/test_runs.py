"""Whole runs of both loops: losses, weights, averages and logged numbers are MMEngine's."""

from __future__ import annotations

import copy
import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.toy import ToyDataset, make_runner
from trainkit import BaseModel, Hook
from trainkit.evaluator import BaseMetric
from trainkit.hooks import EMAHook

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.hooks
    import mmengine.runner
    from mmengine.evaluator import BaseMetric as TheirMetric
    from mmengine.model import BaseModel as TheirModel

pytestmark = pytest.mark.filterwarnings("ignore")

SAMPLES = 20  # five batches of 4 in an epoch, so that windows of 3 and of 4 lie across epochs
EPOCHS = {"by_epoch": True, "max_epochs": 2}
ITERATIONS = {"by_epoch": False, "max_iters": 7, "val_interval": 3}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "AdamW": {"lr": 0.02, "weight_decay": 0.1},
}
AVERAGES: list[dict[str, Any]] = [
    {"momentum": 0.3},
    {"ema_type": "MomentumAnnealingEMA", "momentum": 0.05, "gamma": 3, "begin_iter": 2},
    {"ema_type": "StochasticWeightAverage", "interval": 2},
]
RULES: list[dict[str, Any]] = [
    {"bias_lr_mult": 2.0},
    {"dwconv_decay_mult": 0.0, "norm_decay_mult": 0.5, "bias_decay_mult": 0.0},
    {"custom_keys": {"tied": {"lr_mult": 0.1, "decay_mult": 3.0}}},
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine looks for compilers first, and sleeps where the data begins again."""
    monkeypatch.setattr(mmengine.runner.runner, "collect_env", dict)
    monkeypatch.setattr(mmengine.runner.loops.time, "sleep", lambda seconds: None)


class _Net(nn.Module):
    """A network with a depthwise convolution, a norm, and one weight in two places."""

    def make(self) -> None:
        torch.manual_seed(11)
        self.depthwise = nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm1d(4)
        self.inner, self.tied = nn.Linear(3, 3), nn.Linear(3, 3)
        self.tied.weight = self.inner.weight
        self.head = nn.Linear(12, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        hidden = self.norm(self.depthwise(x[:, None].expand(-1, 4, -1)))
        out = self.head(self.tied(self.inner(hidden).relu()).flatten(1))
        if mode == "loss":
            return {"loss": (out - y).square().mean(), "size": out.detach().abs().mean()}
        return list(out)


class Net(_Net, BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.make()


class TheirNet(_Net, TheirModel):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.make()


class _Sum:
    """The sum of all predictions."""

    results: list[Any]

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += list(data_samples)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"sum": torch.stack(results).sum().item()}


class Sum(_Sum, BaseMetric):
    pass


class TheirSum(_Sum, TheirMetric):  # type: ignore[misc]
    pass


def _after_train_iter(
    self: Any, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
) -> None:
    self.losses.append(float(outputs["loss"]))


class Losses(Hook):
    def __init__(self) -> None:
        self.losses: list[float] = []

    after_train_iter = _after_train_iter


class TheirLosses(mmengine.hooks.Hook):  # type: ignore[misc]
    def __init__(self) -> None:
        self.losses: list[float] = []

    after_train_iter = _after_train_iter


def parts(loop: dict[str, Any], metric: Any, logger: Any) -> dict[str, Any]:
    """Return what both runners are given alike."""

    def loader() -> DataLoader[Any]:
        return DataLoader(ToyDataset(SAMPLES), batch_size=4)

    return {
        "train_dataloader": loader(),
        "train_cfg": dict(loop),
        "val_dataloader": loader(),
        "val_cfg": {},
        "val_evaluator": [metric],
        "default_hooks": {"checkpoint": None, "logger": logger},
    }


def ours(directory: Path, loop: Any, optimizer: str, hooks: list[Any], **wrapper: Any) -> Any:
    logger = {"interval": 1} if wrapper.pop("logs", False) else None
    config = {"_target_": f"torch.optim.{optimizer}", **OPTIMIZERS[optimizer]}
    steps = {"_target_": "trainkit.param_scheduler.StepLR", "step_size": 2, "gamma": 0.5}
    runner = make_runner(
        directory / "ours",
        model=Net(),
        optim_wrapper={"optimizer": config, **copy.deepcopy(wrapper)},
        param_scheduler=[{**steps, "by_epoch": False}],
        custom_hooks=hooks,
        **parts(loop, Sum(), logger),
    )
    runner.train()
    return runner


def theirs(directory: Path, loop: Any, optimizer: str, hooks: list[Any], **wrapper: Any) -> Any:
    by_epoch = loop["by_epoch"]
    logs = {"type": "LoggerHook", "interval": 1, "log_metric_by_epoch": by_epoch}
    logger = logs if wrapper.pop("logs", False) else None
    config = {"type": optimizer, **OPTIMIZERS[optimizer]}
    runner = mmengine.runner.Runner(
        model=TheirNet(),
        work_dir=str(directory / "theirs"),
        optim_wrapper={"optimizer": config, **copy.deepcopy(wrapper)},
        param_scheduler=[{"type": "StepLR", "step_size": 2, "gamma": 0.5, "by_epoch": False}],
        custom_hooks=hooks,
        log_processor={"by_epoch": by_epoch},
        experiment_name=f"runs_{directory.name}",
        log_level="ERROR",
        **parts(loop, TheirSum(), logger),
    )
    runner.train()
    return runner


def assert_same(mine: nn.Module, other: nn.Module) -> None:
    states = mine.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def both(directory: Path, *given: Any, **wrapper: Any) -> tuple[Any, Any]:
    """Train in both and compare the losses and the final weights to the bit."""
    watches = Losses(), TheirLosses()
    runners = (
        ours(directory, *given, [watches[0]], **wrapper),
        theirs(directory, *given, [watches[1]], **wrapper),
    )
    assert watches[0].losses == watches[1].losses != []
    assert_same(runners[0].model, runners[1].model)
    return runners


LOOPS = {"epochs": EPOCHS, "iterations": ITERATIONS}


@pytest.mark.parametrize(
    ("loop", "optimizer", "counts"), list(itertools.product(LOOPS, OPTIMIZERS, (1, 3, 4)))
)
def test_windows_lie_across_epochs_and_validations(
    tmp_path: Path, loop: str, optimizer: str, counts: int
) -> None:
    clip = {"max_norm": 0.5}
    wrapper = {"accumulative_counts": counts, "clip_grad": clip}
    both(tmp_path, LOOPS[loop], optimizer, **wrapper, paramwise_cfg={"bypass_duplicate": True})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rules_for_shared_and_depthwise_weights(
    tmp_path: Path, optimizer: str, rules: dict[str, Any]
) -> None:
    rules = {"bypass_duplicate": True, **rules}
    both(tmp_path, EPOCHS, optimizer, accumulative_counts=4, paramwise_cfg=rules)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("options", AVERAGES, ids=str)
def test_averages_of_adamw_over_accumulated_gradients(
    tmp_path: Path, loop: str, options: dict[str, Any]
) -> None:
    hook, their_hook = EMAHook(**options), mmengine.hooks.EMAHook(**options)
    given = {"accumulative_counts": 3, "paramwise_cfg": {"bypass_duplicate": True}}
    mine = ours(tmp_path, LOOPS[loop], "AdamW", [hook], **given)
    other = theirs(tmp_path, LOOPS[loop], "AdamW", [their_hook], **given)
    assert hook.ema_model is not None
    assert_same(mine.model, other.model)
    assert_same(hook.ema_model.module, their_hook.ema_model.module)


def _lines(path: Path, keys: set[str]) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: row[key] for key in keys if key in row} for row in rows]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_whole_run_logs_the_same_numbers(tmp_path: Path, loop: str) -> None:
    """All but times and memory: of training, of validation, each beside its step."""
    given = {
        "accumulative_counts": 2,
        "clip_grad": {"max_norm": 0.5},
        "paramwise_cfg": {"bypass_duplicate": True, "bias_lr_mult": 2.0},
    }
    both(tmp_path, LOOPS[loop], "SGD", **given, logs=True)
    keys = {"step", "lr", "base_lr", "loss", "grad_norm", "size", "sum"}
    mine = _lines(tmp_path / "ours" / "metrics.jsonl", keys)
    other = _lines(next((tmp_path / "theirs").rglob("scalars.json")), keys)
    assert len(mine) == len(other)
    for row, their_row in zip(mine, other, strict=True):
        assert row == pytest.approx(their_row, rel=1e-6), (row, their_row)
    assert set().union(*mine) == keys
