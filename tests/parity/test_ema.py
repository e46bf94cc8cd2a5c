"""Averages of the weights in a whole run: MMEngine's, to the bit, but for what is said below."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.parity.test_hook_order import TheirSize, their_loader
from tests.toy import loader, make_runner
from trainkit import BaseModel, Runner
from trainkit.checkpoint import read_checkpoint
from trainkit.evaluator import BaseMetric
from trainkit.hooks import EMAHook

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.hooks
    import mmengine.runner
    from mmengine.model import BaseModel as TheirModel

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = [
    {"momentum": 0.3},
    {"momentum": 0.3, "interval": 2},
    {"momentum": 0.3, "update_buffers": True},
    {"ema_type": "MomentumAnnealingEMA", "momentum": 0.05, "gamma": 3},
    {"ema_type": "MomentumAnnealingEMA", "momentum": 0.05, "gamma": 3, "interval": 3},
    {"ema_type": "StochasticWeightAverage"},
    {"ema_type": "StochasticWeightAverage", "interval": 2, "update_buffers": True},
    {"ema_type": "StochasticWeightAverage", "begin_epoch": 2},
    {"momentum": 0.3, "begin_iter": 3},
]


class Size(BaseMetric):
    """How many predictions there are."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"size": float(sum(results))}


class _Net(nn.Module):
    """A network with a batch norm, the same for both."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        out = self.layers(x)
        return {"loss": (out - y).square().mean()} if mode == "loss" else list(out)


def _layers() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 1))


class OurNet(_Net, BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layers = _layers()


class TheirNet(_Net, TheirModel):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layers = _layers()


def theirs(tmp_path: Path, hook: Any, max_epochs: int, **changes: Any) -> Any:
    model = TheirNet()
    runner = mmengine.runner.Runner(
        model=model,
        work_dir=str(tmp_path / "theirs"),
        train_dataloader=their_loader(),
        train_cfg={"by_epoch": True, "max_epochs": max_epochs},
        optim_wrapper={"optimizer": torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)},
        val_dataloader=their_loader(),
        val_cfg={},
        val_evaluator=[TheirSize()],
        custom_hooks=[hook],
        default_hooks={"logger": None},
        experiment_name=f"ema_{tmp_path.name}_{max_epochs}",
        log_level="ERROR",
        **changes,
    )
    runner.train()
    return runner


def ours(tmp_path: Path, hook: EMAHook, max_epochs: int, **changes: Any) -> Runner:
    model = OurNet()
    runner = make_runner(
        tmp_path / "ours",
        model=model,
        train_dataloader=loader(),
        train_cfg={"by_epoch": True, "max_epochs": max_epochs},
        optim_wrapper={"optimizer": torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)},
        val_dataloader=loader(),
        val_evaluator=[Size()],
        custom_hooks=[hook],
        **changes,
    )
    runner.train()
    return runner


def same(ours: Any, theirs: Any, *, but: tuple[str, ...] = ()) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if name not in but:
            assert torch.equal(value, theirs[name]), name


def saved(runner: Any, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights of a checkpoint of either: what is evaluated, and what stands beside."""
    path = Path(runner.work_dir)
    if isinstance(runner, Runner):
        checkpoint = read_checkpoint(path / "checkpoints" / f"epoch_{number}")
    else:
        checkpoint = torch.load(path / f"epoch_{number}.pth", weights_only=False)
    beside = {k: v for k, v in checkpoint["ema_state_dict"].items() if k.startswith("module.")}
    return checkpoint["state_dict"], beside


def whole(options: dict[str, Any]) -> tuple[str, ...]:
    """Whole numbers among averaged buffers, which differ on purpose."""
    return (
        ("layers.1.num_batches_tracked", "module.layers.1.num_batches_tracked")
        if options.get("update_buffers")
        else ()
    )


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_weights_average_and_checkpoints_are_the_same(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    their_hook, hook = mmengine.hooks.EMAHook(**options), EMAHook(**options)
    their_runner, runner = theirs(tmp_path, their_hook, 3), ours(tmp_path, hook, 3)
    assert hook.ema_model is not None
    but = whole(options)
    same(runner.model.state_dict(), their_runner.model.state_dict(), but=but)
    same(hook.ema_model.module.state_dict(), their_hook.ema_model.module.state_dict(), but=but)
    for of_ours, of_theirs in zip(saved(runner, 3), saved(their_runner, 3), strict=True):
        same(of_ours, of_theirs, but=but)


@pytest.mark.parametrize("options", [KINDS[0], KINDS[4], KINDS[6], KINDS[7]], ids=str)
def test_a_resumed_run_ends_the_same(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    theirs(tmp_path, mmengine.hooks.EMAHook(**options), 2)
    ours(tmp_path, EMAHook(**options), 2)
    their_hook, hook = mmengine.hooks.EMAHook(**options), EMAHook(**options)
    their_runner = theirs(tmp_path, their_hook, 4, resume=True)
    runner = ours(tmp_path, hook, 4, resume=True)
    assert hook.ema_model is not None
    but = whole(options)
    same(runner.model.state_dict(), their_runner.model.state_dict(), but=but)
    same(hook.ema_model.module.state_dict(), their_hook.ema_model.module.state_dict(), but=but)


def test_whole_numbers_among_averaged_buffers_are_copied_on_purpose(tmp_path: Path) -> None:
    """MMEngine leaves num_batches_tracked at its first value."""
    options = {"momentum": 0.3, "update_buffers": True}
    their_hook, hook = mmengine.hooks.EMAHook(**options), EMAHook(**options)
    theirs(tmp_path, their_hook, 2)
    ours(tmp_path, hook, 2)
    assert hook.ema_model is not None
    assert int(their_hook.ema_model.module.layers[1].num_batches_tracked) == 1
    assert int(hook.ema_model.module.layers[1].num_batches_tracked) == 6


def test_a_test_after_training_sees_the_average_on_purpose(tmp_path: Path) -> None:
    """MMEngine makes the average anew from the trained weights, and so tests with these."""
    hook = EMAHook(momentum=0.3)
    their_hook = mmengine.hooks.EMAHook(momentum=0.3)
    their_runner, runner = theirs(tmp_path, their_hook, 2), ours(tmp_path, hook, 2)
    averaged = saved(runner, 2)[0]["layers.0.weight"]
    seen: list[Any] = []
    for model in (their_runner.model, runner.model):
        model.layers.register_forward_pre_hook(
            lambda layers, _: seen.append(layers[0].weight.detach().clone())
        )
    their_runner.val()
    runner.val()
    assert not torch.equal(seen[0], averaged)
    assert torch.equal(seen[-1], averaged)


def test_a_beginning_by_epochs_counts_passes_in_an_iteration_run_on_purpose(tmp_path: Path) -> None:
    """In MMEngine the epoch of an iteration run stays 0, so begin_epoch=2 is refused there."""
    hook = EMAHook(momentum=0.3, begin_epoch=2)
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": False, "max_iters": 5},
        train_dataloader=loader(),
        custom_hooks=[hook],
    )
    runner.train()
    assert hook.ema_model is not None
    assert int(hook.ema_model.n_averaged) == 2  # of iterations 4 and 5, after 3 batches an epoch
