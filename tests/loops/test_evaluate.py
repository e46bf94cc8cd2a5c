"""The val and test loops: eval mode, no gradients, autocast, metainfo, every sample once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import MeanSquaredError, ToyModel, loader_config, make_runner


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
