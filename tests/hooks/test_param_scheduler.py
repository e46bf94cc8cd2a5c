"""ParamSchedulerHook in runs: what steps when, what is shown what, and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runner.test_resume import assert_same_end, run_of, stop
from tests.toy import MeanSquaredError, make_runner
from trainkit import ConfigError, Hook, Runner


def scheduled(_name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"trainkit.param_scheduler.{_name}", **arguments}


HALVED = scheduled("ExponentialLR", gamma=0.5)
PLATEAU = scheduled("ReduceOnPlateauLR", monitor="mse", factor=0.5, patience=0)
WATCHES_LOSS = {**PLATEAU, "monitor": "train/loss", "rule": "greater"}
SGD = {"_target_": "torch.optim.SGD", "lr": 1.0}


class Rates(Hook):
    """Keep the learning rate of each iteration."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.values.append(runner.optim_wrapper.param_groups[0]["lr"])


class Rising(MeanSquaredError):
    """A metric that is worse at each validation."""

    rounds = 0

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        self.rounds += 1
        return {"mse": float(self.rounds)}


def rates(tmp_path: Path, schedule: Any, **changes: Any) -> list[float]:
    """Return the learning rate of each iteration; an epoch has three."""
    seen = Rates()
    options = {"optim_wrapper": {"optimizer": SGD}, "param_scheduler": schedule, **changes}
    make_runner(tmp_path / "run", custom_hooks=[seen], **options).train()
    return seen.values


def test_epochs_and_iterations_are_stepped_apart(tmp_path: Path) -> None:
    assert rates(tmp_path, HALVED) == [1, 1, 1, 0.5, 0.5, 0.5]
    by_iter = {**HALVED, "by_epoch": False}
    assert rates(tmp_path / "b", by_iter) == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]


@pytest.mark.parametrize("loop", [{"max_epochs": 2}, {"by_epoch": False, "max_iters": 6}])
def test_updates_are_stepped_as_they_are_made(tmp_path: Path, loop: dict[str, Any]) -> None:
    wrapper = {"optimizer": SGD, "accumulative_counts": 4}
    found = rates(
        tmp_path,
        {**HALVED, "by_update": True},
        optim_wrapper=wrapper,
        train_cfg={"by_epoch": True, **loop},
    )
    assert found == [1, 1, 1, 1, 0.5, 0.5]


@pytest.mark.parametrize(("passes", "end"), [(1, 6), (2, 3), (4, 2), (9, 1)])
def test_an_open_end_in_updates_is_that_of_the_run(tmp_path: Path, passes: int, end: int) -> None:
    runner = make_runner(
        tmp_path,
        optim_wrapper={"optimizer": SGD, "accumulative_counts": passes},
        param_scheduler={**HALVED, "by_update": True},
    )
    assert runner.param_schedulers[0].end == end
    runner.train()
    assert runner.param_schedulers[0].last_step == runner.optim_wrapper.update_count == end


@pytest.mark.parametrize(
    ("options", "other"),
    [({"by_epoch": True}, "by_epoch: true"),
     ({"by_epoch": True, "convert_to_iter_based": True}, "convert_to_iter_based")],
)  # fmt: skip
def test_a_step_is_either_an_update_or_an_epoch(
    tmp_path: Path, options: dict[str, Any], other: str
) -> None:
    runner = make_runner(tmp_path, param_scheduler={**HALVED, "by_update": True, **options})
    with pytest.raises(ConfigError) as error:
        runner.train()
    assert str(error.value) == (
        f"param_scheduler has by_update and {other}; a step is one of them. Drop {other}, and give "
        "all numbers in updates."
    )


def test_a_plateau_sees_each_validation(tmp_path: Path) -> None:
    found = rates(
        tmp_path,
        PLATEAU,
        train_cfg={"by_epoch": True, "max_epochs": 4},
        val_evaluator=[Rising()],
    )
    assert found[::3] == [1, 1, 0.5, 0.25]


def test_a_plateau_sees_validations_between_iterations(tmp_path: Path) -> None:
    found = rates(
        tmp_path,
        {**PLATEAU, "begin": 3},
        train_cfg={"by_epoch": False, "max_iters": 9, "val_interval": 2},
        val_evaluator=[Rising()],
    )
    assert found == [1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("train_cfg", [{"by_epoch": True, "max_epochs": 3},
                                       {"by_epoch": False, "max_iters": 9}])  # fmt: skip
def test_a_plateau_of_the_train_loss_needs_no_validation(
    tmp_path: Path, train_cfg: dict[str, Any]
) -> None:
    by_epoch = train_cfg["by_epoch"]
    found = rates(
        tmp_path,
        {**WATCHES_LOSS, "interval": 1 if by_epoch else 3},
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        train_cfg=train_cfg,
        optim_wrapper={"optimizer": {**SGD, "lr": 0.01}},
    )
    assert found[::3] == [0.01, 0.01, 0.005]  # the loss falls


def test_a_plateau_without_a_validation_is_refused(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path, param_scheduler=PLATEAU, val_dataloader=None, val_cfg=None, val_evaluator=None
    )
    with pytest.raises(ConfigError) as error:
        runner.train()
    assert str(error.value) == (
        "ReduceOnPlateauLR looks at what validation gives, but there is no validation. Validate, "
        "or let it watch a value of training: monitor: train/loss."
    )


def test_a_plateau_cannot_be_converted_to_iterations(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path, param_scheduler={**PLATEAU, "by_epoch": True, "convert_to_iter_based": True}
    )
    with pytest.raises(ConfigError, match="Set by_epoch: false, and give all numbers in iterat"):
        runner.train()


def test_a_validation_by_hand_is_none_of_a_run(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, param_scheduler=PLATEAU)
    runner.val(load=False)
    assert "param_schedulers" not in vars(runner)


SCHEDULES = [
    [PLATEAU, scheduled("LinearLR", by_epoch=False, end=5)],
    [{**PLATEAU, "monitor": "train/loss", "rule": "greater"}],
    [scheduled("LinearLR", by_update=True, start_factor=0.1, end=4), {**HALVED, "begin": 1}],
    [scheduled("CosineRestartLR", periods=[2, 2], eta_min=0.0), scheduled("ConstantLR")],
]


@pytest.mark.parametrize("at", [2, 4, 6, 9])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_resumed_run_ends_the_same(tmp_path: Path, schedule: Any, at: int) -> None:
    changes = {
        "param_scheduler": schedule,
        "optim_wrapper": {"optimizer": {**SGD, "lr": 0.1}, "accumulative_counts": 3},
        "val_evaluator": [Rising()],
    }
    run_of(tmp_path / "whole", **changes).train()
    stop(tmp_path / "stopped", at, **{**changes, "val_evaluator": [Rising()]})
    again = Rising()
    again.rounds = max(at // 3 - 1, 0)  # of the checkpoint, before its validation
    run_of(tmp_path / "stopped", resume=True, **{**changes, "val_evaluator": [again]}).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_a_resume_from_the_best_does_not_count_its_validation_twice(tmp_path: Path) -> None:
    best = {"checkpoint": {"save_best": "mse"}}
    run = {"param_scheduler": {**PLATEAU, "patience": 1}, "default_hooks": best}
    first = make_runner(tmp_path / "first", **run, val_evaluator=[Rising()])
    first.train()
    (path,) = (tmp_path / "first" / "checkpoints").glob("best_*")
    longer = {"train_cfg": {"by_epoch": True, "max_epochs": 3}, "load_from": path, "resume": True}
    again = make_runner(tmp_path / "again", **run, **longer, val_evaluator=[Rising()])
    again.train()
    assert again.param_schedulers[0].state_dict()["bad"] == 1  # of epochs 1, 2, 3; the last is out


def test_steps_of_another_unit_are_counted_anew_on_resume(tmp_path: Path) -> None:
    make_runner(tmp_path, param_scheduler=HALVED).train()
    runner = make_runner(
        tmp_path,
        resume=True,
        train_cfg={"by_epoch": True, "max_epochs": 3},
        param_scheduler={**HALVED, "by_update": True},
    )
    runner.train()
    assert runner.param_schedulers[0].last_step == runner.optim_wrapper.update_count == 9
