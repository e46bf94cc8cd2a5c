"""EMAHook: the average is what is evaluated, saved and tested, and survives a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import loader, make_runner
from trainkit import ConfigError, Hook, Runner
from trainkit.checkpoint import read_checkpoint
from trainkit.hooks import EMAHook


class Trace(Hook):
    """Keep the trained weights after each iteration and the evaluated ones in each validation."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.trained: list[torch.Tensor] = []
        self.evaluated: list[torch.Tensor] = []

    def after_train_iter(self, runner: Runner, *args: Any) -> None:
        self.trained.append(runner.model.linear.weight.detach().clone())

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:
            self.evaluated.append(runner.model.linear.weight.detach().clone())


def averaged(trained: list[torch.Tensor], momentum: float) -> torch.Tensor:
    average = trained[0].clone()
    for weight in trained[1:]:
        average.lerp_(weight, momentum)
    return average


def run(tmp_path: Path, hook: EMAHook, **changes: Any) -> tuple[Runner, Trace]:
    trace = Trace()
    runner = make_runner(tmp_path, train_dataloader=loader(), custom_hooks=[hook, trace], **changes)
    runner.train()
    return runner, trace


def test_validation_sees_the_average_and_training_does_not(tmp_path: Path) -> None:
    _, trace = run(tmp_path / "ema", EMAHook(momentum=0.3))
    plain = Trace()
    make_runner(tmp_path / "plain", train_dataloader=loader(), custom_hooks=[plain]).train()
    assert all(map(torch.equal, trace.trained, plain.trained))
    assert torch.equal(trace.evaluated[0], averaged(trace.trained[:3], 0.3))
    assert torch.equal(trace.evaluated[1], averaged(trace.trained, 0.3))


def test_the_checkpoint_holds_the_average_and_the_trained_weights(tmp_path: Path) -> None:
    _, trace = run(tmp_path, EMAHook(momentum=0.3))
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "epoch_2")
    assert torch.equal(checkpoint["state_dict"]["linear.weight"], trace.evaluated[1])
    assert torch.equal(checkpoint["ema_state_dict"]["module.linear.weight"], trace.trained[-1])


def test_testing_after_training_uses_the_average(tmp_path: Path) -> None:
    runner, _ = run(tmp_path, EMAHook(momentum=0.3))
    again = make_runner(tmp_path, custom_hooks=[EMAHook(momentum=0.3)])
    assert runner.test() == again.test() == runner.val()


def test_the_best_checkpoint_is_what_was_evaluated(tmp_path: Path) -> None:
    changes = {"default_hooks": {"checkpoint": {"save_best": "mse"}}}
    runner, _ = run(tmp_path, EMAHook(momentum=0.3), **changes)
    best = runner.hooks.hooks["checkpoint"].best["mse"]  # type: ignore[attr-defined]
    path = runner.checkpoint_dir / best["checkpoint"]
    assert make_runner(tmp_path / "other", load_from=path).val()["mse"] == best["value"]


def test_averaging_can_begin_later(tmp_path: Path) -> None:
    _, trace = run(tmp_path, EMAHook(momentum=0.3, begin_epoch=2))
    assert torch.equal(trace.evaluated[0], trace.trained[2])
    assert torch.equal(trace.evaluated[1], averaged(trace.trained[3:], 0.3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin_iter": 2, "begin_epoch": 2}, "begin_iter=2 and begin_epoch=2"),
        ({"begin_iter": -1}, "begin_iter=-1"),
    ],
)
def test_a_beginning_that_does_not_fit_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EMAHook(**options)


def test_a_beginning_after_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="begin_epoch is 3, but the run ends at 2"):
        run(tmp_path, EMAHook(begin_epoch=3))
