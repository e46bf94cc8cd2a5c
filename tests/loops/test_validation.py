"""When a train loop validates, beyond its interval: before training, after a stop, once only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.toy import MeanSquaredError, Recorder, ToyModel, loader_config, make_runner
from trainkit import ConfigError, Hook, Runner
from trainkit.loops import BaseTrainLoop, EpochBasedTrainLoop

LOOPS = [
    {"by_epoch": True, "max_epochs": 2},
    {"by_epoch": False, "max_iters": 6, "val_interval": 3},
]


def validated_at(recorder: Recorder) -> list[tuple[int, int]]:
    """Epoch and iteration of each validation."""
    return [(epoch, done) for name, epoch, done in recorder.calls if name == "before_val"]


class Stop(Hook):
    """Raise, ask for a stop, or neither, at an iteration."""

    def __init__(self, at: int, kill: bool) -> None:
        self.at, self.kill = at, kill

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter + 1 == self.at:
            if self.kill:
                raise KeyboardInterrupt
            runner.request_stop("a test")


@pytest.mark.parametrize("loop", LOOPS)
def test_validation_before_training_comes_first_and_once(
    tmp_path: Path, loop: dict[str, Any]
) -> None:
    recorder = Recorder()
    runner = make_runner(
        tmp_path, train_cfg={**loop, "val_before_train": True}, custom_hooks=[recorder]
    )
    runner.train()
    epochs = [0, 1, 2] if loop["by_epoch"] else [0, 0, 1]
    assert validated_at(recorder) == list(zip(epochs, [0, 3, 6], strict=True))
    names = recorder.names()
    assert names.index("before_train") < names.index("before_val")
    assert names.index("after_val") < names.index("before_train_iter")


@pytest.mark.parametrize("loop", LOOPS)
def test_it_is_off_unless_asked_for(tmp_path: Path, loop: dict[str, Any]) -> None:
    recorder = Recorder()
    make_runner(tmp_path, train_cfg=loop, custom_hooks=[recorder]).train()
    assert (0, 0) not in validated_at(recorder)


@pytest.mark.parametrize("loop", LOOPS)
def test_its_metrics_are_those_of_the_first_weights_at_step_0(
    tmp_path: Path, loop: dict[str, Any]
) -> None:
    before = make_runner(tmp_path / "alone").val(load=False)["mse"]
    make_runner(tmp_path / "run", train_cfg={**loop, "val_before_train": True}).train()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert (first["iter"], first["mse"]) == (0, before)


@pytest.mark.parametrize("loop", LOOPS)
def test_it_does_not_change_what_is_trained(tmp_path: Path, loop: dict[str, Any]) -> None:
    weights = []
    for first in (True, False):
        runner = make_runner(
            tmp_path / str(first),
            model=ToyModel(0.5),
            train_cfg={**loop, "val_before_train": first},
        )
        runner.train()
        weights.append(runner.model.linear.weight)
    assert weights[0].equal(weights[1])


@pytest.mark.parametrize("loop", LOOPS)
def test_a_resumed_run_does_not_validate_before_training_again(
    tmp_path: Path, loop: dict[str, Any]
) -> None:
    loop = {**loop, "val_before_train": True}
    hooks = {"checkpoint": {"by_epoch": False, "interval": 1}}
    first = make_runner(tmp_path, train_cfg=loop, custom_hooks=[Stop(2, True)], default_hooks=hooks)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    recorder = Recorder()
    runner = make_runner(
        tmp_path, train_cfg=loop, custom_hooks=[recorder], default_hooks=hooks, resume=True
    )
    runner.train()
    assert runner.iter == 6
    assert [done for _, done in validated_at(recorder)] == [3, 6]


def test_a_first_epoch_that_is_gone_on_with_was_begun_already(tmp_path: Path) -> None:
    """The option may come with the resume; the weights are no longer those before training."""
    loop = {"by_epoch": True, "max_epochs": 1}
    hooks = {"checkpoint": {"by_epoch": False, "interval": 1}}
    first = make_runner(tmp_path, train_cfg=loop, custom_hooks=[Stop(2, True)], default_hooks=hooks)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    recorder = Recorder()
    make_runner(
        tmp_path,
        train_cfg={**loop, "val_before_train": True},
        custom_hooks=[recorder],
        default_hooks=hooks,
        resume=True,
    ).train()
    assert validated_at(recorder) == [(1, 3)]


def test_the_first_weights_may_be_the_best(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 1, "val_before_train": True},
        optim_wrapper={"optimizer": {"_target_": "torch.optim.SGD", "lr": 100.0}},
        default_hooks={"checkpoint": {"save_best": "mse", "rule": "less"}},
    )
    runner.train()
    assert [path.name for path in runner.checkpoint_dir.glob("best_*")] == ["best_mse_epoch_0"]


def test_early_stopping_may_stop_before_the_first_step(tmp_path: Path) -> None:
    stopping = {
        "_target_": "trainkit.hooks.EarlyStoppingHook",
        "monitor": "mse",
        "stopping_threshold": 1e9,
    }
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 2, "val_before_train": True},
        custom_hooks={"early_stopping": stopping},
    )
    runner.train()
    assert runner.iter == 0


def test_validation_before_training_needs_a_validation(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 1, "val_before_train": True},
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    with pytest.raises(ConfigError, match=r"val_before_train is true, but there is no validation"):
        runner.train()


def test_a_loop_without_validation_goes_by_no_interval(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 2, "val_interval": 1},
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    runner.train()
    assert runner.epoch == 2


@pytest.mark.parametrize("loop", LOOPS)
def test_a_run_that_is_stopped_finishes_its_epoch_or_iteration_and_validates_if_due(
    tmp_path: Path, loop: dict[str, Any]
) -> None:
    recorder = Recorder()
    runner = make_runner(
        tmp_path, train_cfg=loop, custom_hooks={"stop": Stop(2, False), "recorder": recorder}
    )
    runner.train()
    assert runner.iter == (3 if loop["by_epoch"] else 2)
    assert len(validated_at(recorder)) == (1 if loop["by_epoch"] else 0)
    ends = ["after_train", "after_run"]
    if not loop["by_epoch"]:
        ends = ["after_train_epoch", *ends]
    names = [name for name in recorder.names() if name != "before_save_checkpoint"]
    assert names[-len(ends) :] == ends


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([[10, 1]], [5, 9, 10, 11, 12]),
        (((10, 1),), [5, 9, 10, 11, 12]),
        ([[10, 1], [4, 2]], [4, 6, 8, 9, 10, 11, 12]),  # in any order
        ([[1, 6]], [6, 12]),
    ],
)
def test_dynamic_intervals_come_as_lists_or_tuples(
    tmp_path: Path, intervals: Any, expected: list[int]
) -> None:
    recorder = Recorder()
    train_cfg = {
        "by_epoch": False,
        "max_iters": 12,
        "val_interval": 5,
        "dynamic_intervals": intervals,
    }
    make_runner(tmp_path, train_cfg=train_cfg, custom_hooks=[recorder]).train()
    assert [done for _, done in validated_at(recorder)] == expected


def test_an_iteration_run_counts_its_passes_over_the_data_on_purpose(tmp_path: Path) -> None:
    """MMEngine's ``epoch`` stays 0 for ever; ``max_epochs`` is 1 in both."""
    recorder = Recorder()
    train_cfg = {"by_epoch": False, "max_iters": 8, "val_interval": 2}
    runner = make_runner(tmp_path, train_cfg=train_cfg, custom_hooks=[recorder])
    runner.train()
    assert validated_at(recorder) == [(0, 2), (1, 4), (1, 6), (2, 8)]
    assert (runner.epoch, runner.max_epochs) == (2, 1)


class TwiceLoop(EpochBasedTrainLoop):
    """The loop of MMEngine's guide: train twice on every batch."""

    def run_iter(self, idx: int, data_batch: Any) -> None:
        super().run_iter(idx, data_batch)
        super().run_iter(idx, data_batch)


class OwnLoop(BaseTrainLoop):
    """A loop that says itself in which order things happen: one batch an epoch."""

    by_epoch = True

    def __init__(self, runner: Any, dataloader: Any, rounds: int = 1, **options: Any) -> None:
        super().__init__(runner, dataloader, **options)
        self.rounds = rounds

    @property
    def max_epochs(self) -> int:
        return self.rounds

    @property
    def max_iters(self) -> int:
        return self.rounds

    def run(self) -> Any:
        self.runner.hooks.before_train(self.runner)
        self.validate_if_due()
        while self.epoch < self.max_epochs and not self.stop_training:
            self.runner.hooks.before_train_epoch(self.runner)
            self.runner.model.train()
            self.run_iter(0, next(iter(self.dataloader)))
            self.runner.hooks.after_train_epoch(self.runner)
            self.epoch += 1
            self.validate_if_due()
        self.runner.hooks.after_train(self.runner)
        return self.runner.model


def test_the_guides_loop_trains_twice_on_every_batch(tmp_path: Path) -> None:
    recorder = Recorder()
    train_cfg = {"_target_": TwiceLoop, "max_epochs": 2, "val_interval": 1}
    runner = make_runner(tmp_path, train_cfg=train_cfg, custom_hooks=[recorder])
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 12)
    assert validated_at(recorder) == [(1, 6), (2, 12)]


def test_a_loop_of_ones_own_validates_by_the_same_rules(tmp_path: Path) -> None:
    recorder = Recorder()
    train_cfg = {
        "_target_": OwnLoop,
        "rounds": 5,
        "val_begin": 2,
        "val_interval": 2,
        "val_before_train": True,
    }
    runner = make_runner(tmp_path, train_cfg=train_cfg, custom_hooks=[recorder])
    runner.train()
    assert validated_at(recorder) == [(0, 0), (2, 2), (4, 4), (5, 5)]
    assert (runner.max_epochs, runner.by_epoch) == (5, True)


def test_a_validation_that_was_begun_is_begun_anew(tmp_path: Path) -> None:
    """What an interrupted validation had collected is not counted by the next."""

    class Interrupt(Hook):
        seen = 0

        def after_val_iter(
            self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            self.seen += 1
            if self.seen == 2:
                raise KeyboardInterrupt

    metric = MeanSquaredError()
    runner = make_runner(
        tmp_path,
        val_evaluator=metric,
        custom_hooks=[Interrupt()],
        val_dataloader=loader_config(batch_size=5),
    )
    with pytest.raises(KeyboardInterrupt):
        runner.val(load=False)
    assert runner.model.training
    expected = make_runner(tmp_path / "whole").val(load=False)
    assert runner.val(load=False) == pytest.approx(expected)
