"""SyncBuffersHook: ranks evaluate and save the same buffers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.ranks import on_ranks
from tests.toy import make_runner
from trainkit.hooks import SyncBuffersHook


def test_one_process_needs_nothing(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, custom_hooks=[SyncBuffersHook()])
    runner.train()
    assert runner.epoch == 2


def model_of(rank: int) -> nn.Module:
    """Batch norms whose statistics differ between the ranks."""
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(3).double(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].running_mean += 1 + 2 * rank
        model[1].running_var += 4 * rank
        model[0].num_batches_tracked += 5
        model[2].weight.fill_(rank)
    return model


def work(rank: int) -> dict[str, Any]:
    model, hook = model_of(rank), SyncBuffersHook()
    runner: Any = SimpleNamespace(model=model)
    hook.after_train_epoch(runner)
    after_epoch = {name: value.tolist() for name, value in model.state_dict().items()}
    model[0].running_mean.fill_(rank)
    hook.before_val_epoch(runner)  # of the epoch that was synced already
    left = model[0].running_mean.tolist()
    hook.before_val_epoch(runner)  # of an iteration run
    return {"after_epoch": after_epoch, "left": left, "val": model[0].running_mean.tolist()}


@pytest.mark.slow
def test_floating_point_buffers_are_averaged_over_the_ranks(tmp_path: Path) -> None:
    for rank, found in enumerate(on_ranks(work, tmp_path)):
        state = found["after_epoch"]
        assert state["0.running_mean"] == [2.0, 2.0]
        assert state["0.running_var"] == [1.0, 1.0]
        assert state["1.running_var"] == [3.0, 3.0, 3.0]
        assert state["0.num_batches_tracked"] == 5
        assert state["2.weight"] == [[rank, rank]] * 2
        assert found["left"] == [rank, rank]
        assert found["val"] == [0.5, 0.5]
