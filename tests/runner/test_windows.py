"""Resuming around windows of accumulated gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.runner.test_interrupt import Sender, assert_same_end, preempt, saved
from tests.runner.test_resume import run_of, stop
from tests.toy import ToyModel, make_runner
from trainkit import BaseModel
from trainkit.checkpoint import read_checkpoint, write_checkpoint
from trainkit.optim_wrapper import (
    AmpOptimWrapper,
    OptimWrapper,
    OptimWrapperDict,
    load_gradients,
    open_gradients,
)

SGD = {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9}


def accumulating(counts: int, **changes: Any) -> dict[str, Any]:
    return {"optim_wrapper": {"optimizer": SGD, "accumulative_counts": counts, **changes}}


@pytest.mark.parametrize("counts", [2, 4, 5])
@pytest.mark.parametrize("at", [4, 7, 10])
def test_a_checkpoint_inside_a_window_goes_on_exactly(tmp_path: Path, counts: int, at: int) -> None:
    """An epoch has three batches, so most of its checkpoints are inside a window."""
    changes = accumulating(counts)
    run_of(tmp_path / "whole", **changes).train()
    stop(tmp_path / "stopped", at, **changes)
    run_of(tmp_path / "stopped", resume=True, **changes).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_gradients_are_saved_only_inside_a_window(tmp_path: Path) -> None:
    run_of(tmp_path, **accumulating(2)).train()
    states = [read_checkpoint(tmp_path / "checkpoints" / f"epoch_{n}")["rank"] for n in (1, 2)]
    assert sorted(states[0]["gradients"]) == ["linear.bias", "linear.weight"]
    assert "gradients" not in states[1]


@pytest.mark.parametrize(("at", "name"), [(3, "iter_4"), (6, "iter_8"), (7, "iter_8")])
def test_a_signal_waits_for_the_end_of_a_window(tmp_path: Path, at: int, name: str) -> None:
    changes = accumulating(4)
    run_of(tmp_path / "whole", **changes).train()
    preempt(run_of(tmp_path / "stopped", **changes), Sender("before_train_iter", at))
    assert saved(tmp_path / "stopped")[-1] == name
    assert "gradients" not in read_checkpoint(tmp_path / "stopped" / "checkpoints" / name)["rank"]
    run_of(tmp_path / "stopped", resume=True, **changes).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


@pytest.mark.parametrize(("point", "at"), [("before_val_iter", 6), ("after_train_iter", 5)])
def test_a_validation_inside_a_window_is_not_waited_for(
    tmp_path: Path, point: str, at: int
) -> None:
    changes = accumulating(4)
    run_of(tmp_path / "whole", **changes).train()
    preempt(run_of(tmp_path / "stopped", **changes), Sender(point, at))
    assert saved(tmp_path / "stopped") == ["epoch_1", "epoch_2"]
    run_of(tmp_path / "stopped", resume=True, **changes).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def float16(loss_scale: Any = "dynamic") -> dict[str, Any]:
    wrapper = {"_target_": AmpOptimWrapper, "dtype": "float16", "loss_scale": loss_scale}
    return accumulating(4, **wrapper)


def test_scaled_gradients_go_on_exactly(tmp_path: Path) -> None:
    scale = {"init_scale": 1024.0, "growth_interval": 1}
    run_of(tmp_path / "whole", **float16(scale)).train()
    stop(tmp_path / "stopped", 10, **float16(scale))
    state = read_checkpoint(tmp_path / "stopped" / "checkpoints" / "epoch_3")
    assert state["optimizer"]["loss_scaler"]["scale"] > 1024
    assert state["rank"]["gradients"]
    run_of(tmp_path / "stopped", resume=True, **float16(scale)).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_gradients_of_another_loss_scale_are_scaled_anew() -> None:
    def made(scale: float) -> tuple[nn.Linear, AmpOptimWrapper]:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        wrapper = AmpOptimWrapper(optimizer, scale, "float16", accumulative_counts=2)
        wrapper.name_parameters(model)
        return model, wrapper

    def step(model: nn.Linear, wrapper: AmpOptimWrapper) -> None:
        wrapper.update_params(model(torch.ones(4, 2)).mean())

    (model, wrapper), (again, other) = made(64.0), made(256.0)
    step(model, wrapper)
    other.load_state_dict(wrapper.state_dict())
    load_gradients(other, open_gradients(wrapper))
    for each in ((model, wrapper), (again, other)):
        step(*each)
    assert torch.equal(model.weight, again.weight)


class TwoPlayers(BaseModel):
    """Each part has an optimizer; a pass for the first leaves gradients in the second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        return self.second(self.first(x))

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        for name in ("first", "second"):
            loss = (self(**data) - data["y"]).square().mean()
            optim_wrapper[name].update_params(loss)
        return {"loss": loss}


def players(*counts: int) -> dict[str, Any]:
    model = TwoPlayers()
    parts = zip((model.first, model.second), counts, strict=True)
    wrappers = [
        OptimWrapper(torch.optim.SGD(part.parameters(), lr=0.02), accumulative_counts=count)
        for part, count in parts
    ]
    optim_wrapper = OptimWrapperDict(first=wrappers[0], second=wrappers[1])
    return {"model": model, "optim_wrapper": optim_wrapper, "param_scheduler": None}


@pytest.mark.parametrize("counts", [(1, 1), (2, 4), (1, 5)])
def test_several_optimizers_go_on_exactly(tmp_path: Path, counts: tuple[int, int]) -> None:
    run_of(tmp_path / "whole", **players(*counts)).train()
    stop(tmp_path / "stopped", 7, **players(*counts))
    run_of(tmp_path / "stopped", resume=True, **players(*counts)).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_windows_that_are_never_closed_together_keep_nobody_waiting(tmp_path: Path) -> None:
    changes = players(3, 4)
    preempt(run_of(tmp_path, **changes), Sender("before_train_iter", 4))
    assert saved(tmp_path) == ["epoch_1", "epoch_2"]  # the first's closes at iteration 6


def test_a_checkpoint_that_lacks_the_gradients_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop(tmp_path, 4, **accumulating(2))
    path = tmp_path / "checkpoints" / "epoch_1"
    state = torch.load(path / "rank_0.pt", weights_only=True)
    del state["gradients"]
    files = {name: torch.load(path / name, weights_only=True) for name in ("model.pt", "state.pt")}
    write_checkpoint(path, {**files, "rank_0.pt": state}, {"epoch": 1, "iter": 3})
    run_of(tmp_path, resume=True, **accumulating(2)).train()
    assert "inside a window of accumulated gradients, and holds none" in capsys.readouterr().out


def test_a_model_that_steps_by_itself_is_not_waited_for(tmp_path: Path) -> None:
    class Own(ToyModel):
        def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
            loss = (self(**data) - data["y"]).square().mean()
            optim_wrapper.zero_grad()
            optim_wrapper.backward(loss)
            optim_wrapper.optimizer.step()
            return {"loss": loss}

    preempt(run_of(tmp_path, model=Own(), **accumulating(2)), Sender("before_train_iter", 7))
    assert saved(tmp_path) == ["epoch_1", "epoch_2", "iter_8"]


class Twice(ToyModel):
    """Learns twice from each batch."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        super().train_step(data, optim_wrapper)
        outputs: dict[str, torch.Tensor] = super().train_step(data, optim_wrapper)
        return outputs


@pytest.mark.parametrize(("counts", "is_open"), [(4, True), (2, False)])
def test_a_window_that_is_open_at_the_end_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], counts: int, is_open: bool
) -> None:
    """Of 12 passes in 6 iterations, as the wrapper counts on one in each."""
    make_runner(tmp_path, model=Twice(), **accumulating(counts)).train()
    said = "Training ended in the midst of a window of accumulative_counts=4: the gradients of"
    assert (said in capsys.readouterr().out) == is_open


def test_an_open_window_of_several_optimizers_is_told_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_runner(tmp_path, **players(3, 4)).train()
    out = capsys.readouterr().out
    assert "accumulative_counts=4 of the optimizer second: the gradients of its last passes" in out
    assert "of the optimizer first" not in out
