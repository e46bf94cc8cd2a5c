"""CheckpointHook: what a killed run, and one that goes back, find again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hooks.test_checkpoint import Scores
from tests.toy import make_runner
from trainkit import CheckpointError, Hook, Runner
from trainkit.checkpoint import list_checkpoints, read_manifest
from trainkit.errors import Preempted
from trainkit.hook import PRIORITIES
from trainkit.run_dir import read_status

EPOCHS = {"by_epoch": True, "max_epochs": 4}
ITERATIONS = {"by_epoch": False, "max_iters": 12, "val_interval": 3}


class KilledError(BaseException):
    """As a kill would, it leaves nothing saved."""


class Kill(Hook):
    """End the run before an iteration, counted from 0."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter == self.at:
            raise KilledError


class Count(Hook):
    """Count what is done; the counts are its state."""

    def __init__(self) -> None:
        self.counts = {"iterations": 0, "epochs": 0, "validations": 0}

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.counts["iterations"] += 1

    def after_train_epoch(self, runner: Runner) -> None:
        self.counts["epochs"] += 1

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        self.counts["validations"] += 1

    def state_dict(self) -> dict[str, Any]:
        return {"counts": dict(self.counts)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.counts = dict(state_dict["counts"])


def counting(work_dir: Path, loop: dict[str, Any], priority: str, **changes: Any) -> list[int]:
    """Train, whole or until the kill of ``changes``; return the counts."""
    kill = changes.pop("kill", -1)
    by_epoch = loop["by_epoch"]
    changes["default_hooks"] = {
        "checkpoint": {"interval": 1 if by_epoch else 3, "save_best": "accuracy"}
    }
    scores = Scores([1.0, 2.0, 3.0, 4.0])
    runner = make_runner(work_dir, train_cfg=loop, val_evaluator=scores, **changes)
    count = Count()
    runner.register_hook(count, priority=priority)
    runner.register_hook(Kill(kill))
    if kill < 0:
        runner.train()
    else:
        with pytest.raises(KilledError):
            runner.train()
    return list(count.counts.values())


@pytest.mark.parametrize("priority", PRIORITIES)
@pytest.mark.parametrize("loop", [EPOCHS, ITERATIONS], ids=["epochs", "iterations"])
def test_a_hook_of_any_priority_misses_nothing_that_its_checkpoint_counts(
    tmp_path: Path, loop: dict[str, Any], priority: str
) -> None:
    expected = [12, 4 if loop["by_epoch"] else 1, 4]
    counting(tmp_path, loop, priority, kill=8)
    assert counting(tmp_path, loop, priority, resume=True) == expected
    name = "best_accuracy_epoch_2" if loop["by_epoch"] else "best_accuracy_iter_6"
    counting(tmp_path / "best", loop, priority, kill=8)
    best = tmp_path / "best" / "checkpoints" / name
    assert counting(tmp_path / "best", loop, priority, resume=True, load_from=best) == expected


def scored(
    work_dir: Path,
    scores: list[float],
    *,
    kill: int = -1,
    interval: int = 2,
    epochs: int = 6,
    **changes: Any,
) -> Runner:
    runner = make_runner(
        work_dir,
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        val_evaluator=Scores(scores),
        default_hooks={"checkpoint": {"interval": interval, "save_best": "accuracy"}},
        **changes,
    )
    runner.register_hook(Kill(kill))
    if kill < 0:
        runner.train()
    else:
        with pytest.raises(KilledError):
            runner.train()
    return runner


def standing(work_dir: Path, begin: str = "best_") -> set[str]:
    names = os.listdir(work_dir / "checkpoints")
    return {name.rpartition("-")[0] or name for name in names if name.startswith(begin)}


def test_the_best_stands_that_a_resume_goes_back_to(tmp_path: Path) -> None:
    scored(tmp_path, [1.0, 0.5, 4.0], kill=10)
    assert standing(tmp_path) == {"best_accuracy_epoch_1", "best_accuracy_epoch_3"}
    scored(tmp_path, [0.5, 0.2, 0.1, 0.1, 0.1], resume=True)
    assert standing(tmp_path) == {"best_accuracy_epoch_1"}
    best = {"accuracy": {"value": 1.0, "checkpoint": "best_accuracy_epoch_1"}}
    assert read_status(tmp_path)["best"] == best


def test_the_record_names_the_best_of_this_run_from_its_beginning_on(tmp_path: Path) -> None:
    scored(tmp_path, [1.0, 0.5, 4.0], kill=10)
    assert read_status(tmp_path)["best"]["accuracy"]["value"] == 4.0
    scored(tmp_path, [0.5], kill=6, resume=True)
    assert read_status(tmp_path)["best"]["accuracy"]["value"] == 1.0


def test_a_former_best_goes_once_no_newer_checkpoint_goes_on_with_it(tmp_path: Path) -> None:
    scored(tmp_path, [1.0, 2.0, 3.0, 0.0, 0.0], kill=12)
    assert standing(tmp_path) == {"best_accuracy_epoch_3"}
    scored(tmp_path / "b", [1.0, 2.0, 3.0, 4.0, 5.0], kill=15)
    # Of epoch 4's checkpoint, which was written before epoch 4 was validated; and the best.
    assert standing(tmp_path / "b") == {"best_accuracy_epoch_3", "best_accuracy_epoch_5"}
    scored(tmp_path / "b", [4.0, 5.0, 6.0], resume=True)
    assert standing(tmp_path / "b") == {"best_accuracy_epoch_6"}


def test_a_best_of_an_attempt_that_saved_nothing_else_is_not_taken_for_this_ones(
    tmp_path: Path,
) -> None:
    scored(tmp_path, [4.0], kill=4)
    assert standing(tmp_path) == {"best_accuracy_epoch_1"}
    scored(tmp_path, [0.0, 2.0, 0.0, 0.0, 0.0, 0.0], resume=True)
    assert standing(tmp_path) == {"best_accuracy_epoch_2"}
    best = {"accuracy": {"value": 2.0, "checkpoint": "best_accuracy_epoch_2"}}
    assert read_status(tmp_path)["best"] == best


def test_kills_leave_no_best_checkpoint_aside_once_it_is_made_again(tmp_path: Path) -> None:
    scored(tmp_path, [1.0, 2.0, 3.0], kill=10)
    scored(tmp_path, [2.0, 3.0], kill=10, resume=True)
    assert standing(tmp_path, ".") == set()
    scored(tmp_path, [2.0, 3.0, 1.0, 1.0, 1.0], resume=True)
    assert standing(tmp_path, ".") == set()
    assert standing(tmp_path) == {"best_accuracy_epoch_3"}


def test_going_back_by_name_keeps_the_best_that_is_left_behind(tmp_path: Path) -> None:
    scored(tmp_path, [1.0, 2.0, 3.0, 0.0, 0.0, 0.0])
    older = tmp_path / "checkpoints" / "epoch_2"
    scored(tmp_path, [2.0, 3.0, 1.0, 1.0, 1.0], resume=True, load_from=older)
    assert ".superseded-best_accuracy_epoch_3" in standing(tmp_path, ".superseded-best_")
    assert standing(tmp_path) == {"best_accuracy_epoch_3"}


def test_a_best_that_is_gone_is_told_of_and_made_anew(tmp_path: Path) -> None:
    runner = scored(tmp_path, [1.0, 2.0, 0.0, 0.0], epochs=4)
    (best,) = runner.checkpoint_dir.glob("best_*")
    best.rename(tmp_path / "elsewhere")
    scored(tmp_path, [0.0, 0.5, 0.0], resume=True)
    said = (tmp_path / "train.log").read_text()
    assert "best_accuracy_epoch_2, the best accuracy so far, is gone" in said
    assert standing(tmp_path) == {"best_accuracy_epoch_5"}


def test_the_place_of_a_run_that_was_asked_to_end_counts_as_no_periodic_one(tmp_path: Path) -> None:
    class Ask(Hook):
        def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            if runner.iter == 6:
                runner.request_preemption("a test")

    def run(*hooks: Hook, **changes: Any) -> None:
        options = {"checkpoint": {"interval": 1, "max_keep_ckpts": 1}}
        loop = {"train_cfg": EPOCHS, "default_hooks": options}
        make_runner(tmp_path, **loop, custom_hooks=list(hooks), **changes).train()

    with pytest.raises(Preempted, match=r"saved as .*iter_7"):
        run(Ask())
    paths = list_checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in paths] == ["epoch_2", "iter_7"]
    assert [read_manifest(path).get("scheduled", True) for path in paths] == [True, False]
    run(resume=True)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["epoch_4"]


class State(Hook):
    """A hook with some state."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.steps = 0

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        if isinstance(self.state, Exception) and not self.steps:
            raise self.state
        return {"kept": {"mean": 1.0 if isinstance(self.state, Exception) else self.state}}


def test_state_that_could_not_be_loaded_back_is_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    hook = State(np.float64(3))
    with pytest.raises(CheckpointError, match=r"checkpoint's state\.hooks\.State\.kept\.mean is a"):
        make_runner(tmp_path, custom_hooks=[hook]).train()
    assert hook.steps == 0


def test_a_hook_may_have_no_state_before_the_first_step(tmp_path: Path) -> None:
    hook = State(AttributeError("yet to come"))
    make_runner(tmp_path, custom_hooks=[hook]).train()
    assert hook.steps == 6
