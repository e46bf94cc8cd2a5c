"""The sequence of hook points, with the counters at each, is MMEngine's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import Recorder, ToyDataset, make_runner
from trainkit import Hook
from trainkit.hook import POINTS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.hooks
    import mmengine.runner
    from mmengine.evaluator import BaseMetric as TheirMetric
    from mmengine.model import BaseModel as TheirModel

pytestmark = pytest.mark.filterwarnings("ignore")

Calls = list[tuple[str, int, int]]


class TheirRecorder(mmengine.hooks.Hook):  # type: ignore[misc]
    """The same as Recorder, for MMEngine."""

    def __init__(self) -> None:
        self.calls: Calls = []


def _recording(point: str) -> Any:
    def record(self: TheirRecorder, runner: Any, *args: Any, **kwargs: Any) -> None:
        self.calls.append((point, runner.epoch, runner.iter))

    return record


for _point in POINTS:
    setattr(TheirRecorder, _point, _recording(_point))


class Their(TheirModel):  # type: ignore[misc]
    """The toy model, for MMEngine."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        out = self.linear(x)
        return {"loss": (out - y).square().mean()} if mode == "loss" else list(out)


class TheirSize(TheirMetric):  # type: ignore[misc]
    """A metric that falls with each validation."""

    rounds = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += list(data_samples)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        self.rounds += 1
        return {"mse": 1.0 / self.rounds}


def their_loader() -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(ToyDataset(), batch_size=4)


def theirs(tmp_path: Path, train_cfg: dict[str, Any], hooks: list[Any], checkpoint: Any) -> Any:
    model = Their()
    return mmengine.runner.Runner(
        model=model,
        work_dir=str(tmp_path / "theirs"),
        train_dataloader=their_loader(),
        train_cfg=train_cfg,
        optim_wrapper={"optimizer": torch.optim.SGD(model.parameters(), lr=0.1)},
        val_dataloader=their_loader(),
        val_cfg={},
        val_evaluator=[TheirSize()],
        test_dataloader=their_loader(),
        test_cfg={},
        test_evaluator=[TheirSize()],
        custom_hooks=hooks,
        default_hooks={"checkpoint": checkpoint, "logger": None},
        experiment_name=f"order_{tmp_path.name}",
        log_level="ERROR",
    )


@pytest.mark.parametrize(
    "loop",
    [
        {"max_epochs": 2},
        {"max_epochs": 5, "val_begin": 2, "val_interval": 2},
        {"max_epochs": 6, "val_interval": 4, "dynamic_intervals": [(4, 1)]},
        {"max_iters": 3, "val_interval": 2},
        {"max_iters": 3, "val_begin": 3, "val_interval": 1},
    ],
)
def test_training_with_validation(tmp_path: Path, loop: dict[str, Any]) -> None:
    train_cfg = {"by_epoch": "max_epochs" in loop, **loop}
    their_recorder, recorder = TheirRecorder(), Recorder()
    theirs(tmp_path, train_cfg, [their_recorder], None).train()
    runner = make_runner(
        tmp_path / "ours",
        train_cfg=train_cfg,
        custom_hooks=[recorder],
        default_hooks={"checkpoint": None},
    )
    runner.train()
    assert recorder.calls == their_recorder.calls


def test_with_checkpoints_and_test(tmp_path: Path) -> None:
    train_cfg = {"by_epoch": True, "max_epochs": 3}
    their_recorder, recorder = TheirRecorder(), Recorder()
    their_runner = theirs(
        tmp_path, train_cfg, [their_recorder], {"type": "CheckpointHook", "interval": 2}
    )
    their_runner.train()
    their_runner.test()
    runner = make_runner(
        tmp_path / "ours",
        train_cfg=train_cfg,
        custom_hooks=[recorder],
        default_hooks={"checkpoint": {"interval": 2}},
    )
    runner.train()
    runner.test()
    assert recorder.calls == their_recorder.calls


def test_stopping_early(tmp_path: Path) -> None:
    class Stop(Hook):
        def before_train_epoch(self, runner: Any) -> None:
            runner.train_loop.stop_training = True

    class TheirStop(mmengine.hooks.Hook):  # type: ignore[misc]
        def before_train_epoch(self, runner: Any) -> None:
            runner.train_loop.stop_training = True

    train_cfg = {"by_epoch": True, "max_epochs": 3}
    their_recorder, recorder = TheirRecorder(), Recorder()
    theirs(tmp_path, train_cfg, [TheirStop(), their_recorder], None).train()
    make_runner(
        tmp_path / "ours",
        train_cfg=train_cfg,
        custom_hooks=[Stop(), recorder],
        default_hooks={"checkpoint": None},
    ).train()
    assert recorder.calls == their_recorder.calls


def test_the_points_are_mmengines() -> None:
    theirs_too = [
        name for name in vars(mmengine.hooks.Hook) if name.startswith(("before_", "after_"))
    ]
    assert set(POINTS) == set(theirs_too)
    assert len(POINTS) == 22


def test_stopping_early_saves_on_purpose(tmp_path: Path) -> None:
    """MMEngine saves nothing when a run stops between its intervals; trainkit saves the last."""

    class Stop(Hook):
        def before_train_epoch(self, runner: Any) -> None:
            runner.request_stop("a test")

    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 9},
        custom_hooks=[Stop()],
        default_hooks={"checkpoint": {"interval": 5}},
    )
    runner.train()
    assert [path.name for path in runner.checkpoint_dir.glob("epoch_*")] == ["epoch_1"]
