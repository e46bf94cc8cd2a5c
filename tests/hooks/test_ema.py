"""EMAHook: the average is what is evaluated, saved and tested, and survives a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import ToyModel, loader, make_runner
from trainkit import CheckpointError, ConfigError, Hook, Runner
from trainkit.checkpoint import read_checkpoint
from trainkit.hooks import EMAHook
from trainkit.model import BaseAveragedModel, StochasticWeightAverage


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
        (
            {"begin_iter": 2, "begin_epoch": 2},
            "begin_iter=2 and begin_epoch=2 of an EMAHook: expected one of them, and neither below "
            "0.",
        ),
        (
            {"begin_iter": -1},
            "begin_iter=-1 and begin_epoch=0 of an EMAHook: expected one of them, and neither "
            "below 0.",
        ),
        (
            {"ema_type": "ExponentialMovingAvg"},
            "ema_type is 'ExponentialMovingAvg'. Did you mean 'ExponentialMovingAverage'?",
        ),
        (
            {"ema_type": 3},
            "ema_type is 3; expected the name of an average, a class, or a config with _partial_: "
            "true.",
        ),
        (
            {"ema_type": "StochasticWeightAverage", "momentum": 0.1},
            "momentum: StochasticWeightAverage has no argument 'momentum'. It takes: device, "
            "interval, update_buffers.",
        ),
        (
            {"gamma": 5},
            "gamma: ExponentialMovingAverage has no argument 'gamma'. It takes: device, interval, "
            "momentum, update_buffers.",
        ),
        (
            {"momentun": 0.1},
            "momentun: ExponentialMovingAverage has no argument 'momentun'. Did you mean "
            "'momentum'?",
        ),
        (
            {"momentum": 1.0},
            "momentum is 1.0; expected a weight of the newest values in (0, 1), as 0.0002.",
        ),
        (
            {"ema_type": "MomentumAnnealingEMA", "gamma": 0},
            "gamma is 0; expected a number of updates above 0.",
        ),
        (
            {"interval": 0},
            "interval is 0; expected a whole number of updates, at least 1.",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EMAHook(**options)
    assert str(caught.value) == message


def test_an_average_of_ones_own_is_taken(tmp_path: Path) -> None:
    class Newest(BaseAveragedModel):
        """No average at all."""

        def average(self, averaged: Any, current: Any, steps: int) -> None:
            torch._foreach_copy_(list(averaged), list(current))

    _, trace = run(tmp_path, EMAHook(Newest))
    assert torch.equal(trace.evaluated[1], trace.trained[-1])
    with pytest.raises(ConfigError, match="momentum: Newest has no argument 'momentum'"):
        EMAHook(Newest, momentum=0.1)


def test_an_average_is_named_in_a_config(tmp_path: Path) -> None:
    target = "trainkit.model.StochasticWeightAverage"
    node = {"_target_": "trainkit.hooks.EMAHook", "ema_type": {"_target_": target}}
    node["ema_type"] |= {"_partial_": True, "interval": 2}
    runner = make_runner(tmp_path, custom_hooks={"mean": node})
    runner.train()
    hook = runner.hooks.hooks["mean"]
    assert isinstance(hook, EMAHook)
    assert isinstance(hook.ema_model, StochasticWeightAverage)
    assert hook.ema_model.interval == 2


@pytest.mark.parametrize("at", [1, 3, 4, 5, 8])
@pytest.mark.parametrize(
    "options",
    [
        {"ema_type": "MomentumAnnealingEMA", "momentum": 0.05, "gamma": 3, "interval": 2},
        {"ema_type": "StochasticWeightAverage", "interval": 3, "update_buffers": True},
        {"ema_type": "StochasticWeightAverage", "begin_iter": 4},
        {"momentum": 0.2, "begin_epoch": 2},
    ],
    ids=str,
)
def test_a_killed_run_ends_with_the_same_bits(
    tmp_path: Path, options: dict[str, Any], at: int
) -> None:
    class Bomb(Hook):
        priority = "HIGHEST"

        def before_train_iter(self, runner: Runner, *args: Any) -> None:
            if runner.iter == at:
                raise KeyboardInterrupt

    def train(name: str, *hooks: Hook, resume: bool = False) -> tuple[Any, Any]:
        hook = EMAHook(**options)
        runner = make_runner(
            tmp_path / name,
            train_cfg={"by_epoch": True, "max_epochs": 3},
            default_hooks={"checkpoint": {"interval": 1, "by_epoch": False}},
            custom_hooks=[hook, *hooks],
            resume=resume,
        )
        runner.train()
        assert hook.ema_model is not None
        return runner.model.state_dict(), hook.ema_model.state_dict()

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", Bomb())
    resumed = train("killed", resume=True)
    for expected, found in zip(whole, resumed, strict=True):
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_run_that_is_resumed_with_an_average_says_that_there_was_none(tmp_path: Path) -> None:
    def train(max_epochs: int, *hooks: Hook) -> str:
        runner = make_runner(
            tmp_path,
            train_cfg={"by_epoch": True, "max_epochs": max_epochs},
            custom_hooks=list(hooks),
            resume=True,
        )
        runner.train()
        return (tmp_path / "train.log").read_text()

    said = "hooks.EMAHook: the checkpoint holds no average; a new one begins with its weights."
    assert said not in train(2)
    assert said not in train(3, EMAHook(begin_epoch=3))
    assert said not in train(4, EMAHook(begin_epoch=3))
    assert said not in train(5)
    assert said in train(6, EMAHook(begin_epoch=3))


def test_several_averages_are_refused_on_purpose(tmp_path: Path) -> None:
    """MMEngine swaps both, not nested, and trains on with the weights of one of them."""
    hooks = {
        "ema": {"_target_": "trainkit.hooks.EMAHook"},
        "swa": {"_target_": "trainkit.hooks.EMAHook", "ema_type": "StochasticWeightAverage"},
    }
    runner = make_runner(tmp_path, custom_hooks=hooks)
    with pytest.raises(ConfigError) as raised:
        runner.train()
    assert str(raised.value) == (
        "hooks.ema and hooks.swa each average the weights, but a model is evaluated and saved with "
        "one average. Set all but one of them to null."
    )


def test_a_decay_in_place_of_a_momentum_is_pointed_out(tmp_path: Path) -> None:
    run(tmp_path, EMAHook(momentum=0.999))
    said = (
        "hooks.EMAHook.momentum is 0.999: the newest values weigh more than all before them. If "
        "that is a decay, give 0.001."
    )
    assert said in (tmp_path / "train.log").read_text()


def test_training_goes_on_with_its_weights_after_a_validation_that_failed(tmp_path: Path) -> None:
    class Once(Hook):
        armed = False

        def after_val_iter(self, runner: Runner, *args: Any) -> None:
            if self.armed:
                self.armed = False
                raise KeyboardInterrupt

    bomb = Once()
    runner, trace = run(tmp_path, EMAHook(momentum=0.3), default_hooks={"checkpoint": None})
    runner.register_hook(bomb)
    bomb.armed = True
    with pytest.raises(KeyboardInterrupt):
        runner.val()
    assert torch.equal(runner.model.linear.weight, trace.evaluated[-1])
    runner.train()  # nothing is left to do
    assert torch.equal(runner.model.linear.weight, trace.trained[-1])


def test_the_checkpoint_holds_the_buffers_that_were_evaluated(tmp_path: Path) -> None:
    class Shift(Hook):
        """Change a buffer after the average was renewed, as SyncBuffersHook does."""

        def after_train_epoch(self, runner: Runner) -> None:
            runner.model.norm.running_mean += 1

    class Net(ToyModel):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
            return super().forward(self.norm(x), y, mode)

    model = Net()
    run(tmp_path, EMAHook(momentum=0.3), model=model, default_hooks={"shift": Shift()})
    saved = read_checkpoint(tmp_path / "checkpoints" / "epoch_2")["state_dict"]
    assert torch.equal(saved["norm.running_mean"], model.norm.running_mean)


def test_what_does_not_fit_in_a_saved_average_is_refused_or_said(tmp_path: Path) -> None:
    run(tmp_path, EMAHook(momentum=0.3))
    hook = EMAHook(momentum=0.3, strict_load=True)
    again = make_runner(tmp_path, custom_hooks=[hook], resume=True)
    hook.before_run(again)
    again.is_resuming = True
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "epoch_2")
    del checkpoint["state_dict"]["linear.bias"]
    with pytest.raises(CheckpointError) as caught:
        hook.after_load_checkpoint(again, dict(checkpoint))
    assert str(caught.value) == (
        "hooks.EMAHook: the saved average does not fit the model in linear.bias. Use load_from "
        "without resume, or strict_load=false."
    )
    hook.strict_load = False
    hook.after_load_checkpoint(again, dict(checkpoint))
    assert hook.ema_model is not None
    expected = checkpoint["state_dict"]["linear.weight"]
    assert torch.equal(hook.ema_model.module.linear.weight, expected)


@pytest.mark.parametrize("shortened", ["fast_dev_run", "overfit_batches"])
def test_a_run_that_is_cut_short_may_end_before_the_average_begins(
    tmp_path: Path, shortened: str
) -> None:
    run(tmp_path, EMAHook(begin_epoch=30), cfg={shortened: 2})


def test_a_beginning_after_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="begin_epoch is 3, but the run ends at 2"):
        run(tmp_path, EMAHook(begin_epoch=3))
