"""Resuming: a run that was stopped ends with the same bits as one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import Recorder, ToyModel, loader_config, make_runner
from trainkit import CheckpointError, Hook, Runner
from trainkit.checkpoint import read_checkpoint

TIMES = ("train/time", "train/data_time", "val/time", "val/data_time", "memory")


class Bomb(Hook):
    """Raise in a train iteration, as a stand-in for whatever ends a process."""

    priority = "HIGHEST"

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        if runner.iter == self.at:
            raise KeyboardInterrupt


def run_of(work_dir: Path, **changes: Any) -> Runner:
    arguments: dict[str, Any] = {
        "model": ToyModel(dropout=0.3),
        "train_dataloader": loader_config(sampler={"shuffle": True}),
        "train_cfg": {"by_epoch": True, "max_epochs": 4},
        "param_scheduler": [
            {"_target_": "trainkit.param_scheduler.LinearLR", "by_epoch": False, "end": 5},
            {"_target_": "trainkit.param_scheduler.MultiStepLR", "milestones": [2, 3]},
        ],
        "custom_hooks": [
            {"_target_": "trainkit.hooks.EMAHook", "momentum": 0.1},
            {"_target_": "trainkit.hooks.EarlyStoppingHook", "monitor": "mse", "patience": 9},
        ],
        "default_hooks": {"logger": {"interval": 1}, "checkpoint": {"save_best": "mse"}},
        "log_processor": {"log_with_hierarchy": True, "window_size": 1},
    }
    return make_runner(work_dir, **{**arguments, **changes})


def stop(work_dir: Path, at: int, **changes: Any) -> None:
    runner = run_of(work_dir, **changes)
    runner.register_hook(Bomb(at))
    with pytest.raises(KeyboardInterrupt):
        runner.train()


def scalars(work_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_same_end(one: Path, other: Path, name: str) -> None:
    """Compare everything that two runs left but times and paths."""
    states = [read_checkpoint(path / "checkpoints" / name) for path in (one, other)]
    for state in states:
        del state["meta"]
    assert_equal(states[0], states[1], "checkpoint")
    assert scalars(one) == scalars(other)


def assert_equal(one: Any, other: Any, path: str) -> None:
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{path}[{index}]")
    else:
        assert one == other, path


@pytest.mark.parametrize("at", [3, 4, 8, 11])
def test_an_epoch_run_ends_the_same(tmp_path: Path, at: int) -> None:
    run_of(tmp_path / "whole").train()
    stop(tmp_path / "stopped", at)
    run_of(tmp_path / "stopped", resume=True).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


@pytest.mark.parametrize("at", [2, 3, 7])
def test_an_iteration_run_ends_the_same(tmp_path: Path, at: int) -> None:
    changes = {
        "train_cfg": {"by_epoch": False, "max_iters": 10, "val_interval": 4},
        "param_scheduler": None,
    }
    run_of(tmp_path / "whole", **changes).train()
    stop(tmp_path / "stopped", at, **changes)
    run_of(tmp_path / "stopped", resume=True, **changes).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "iter_10")


def test_a_run_stopped_in_its_validation_validates_then(tmp_path: Path) -> None:
    class ValBomb(Hook):
        def before_val_epoch(self, runner: Runner) -> None:
            if runner.epoch == 2:
                raise KeyboardInterrupt

    run_of(tmp_path / "whole").train()
    runner = run_of(tmp_path / "stopped")
    runner.register_hook(ValBomb())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    run_of(tmp_path / "stopped", resume=True).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_inside_an_epoch_no_batch_is_trained_twice(tmp_path: Path) -> None:
    by_iter = {"checkpoint": {"by_epoch": False, "interval": 1}}
    stop(tmp_path, 5, default_hooks=by_iter)
    recorder = Recorder()
    runner = run_of(tmp_path, resume=True, default_hooks=by_iter)
    runner.register_hook(recorder)
    runner.train()
    trained = [iteration for name, _, iteration in recorder.calls if name == "before_train_iter"]
    assert trained == list(range(5, 12))
    assert runner.epoch == 4


def test_nothing_to_resume_starts_anew_and_says_so(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, resume=True)
    runner.train()
    assert runner.epoch == 2
    assert "no checkpoint in" in (tmp_path / "train.log").read_text()


def test_load_from_takes_the_weights_only(tmp_path: Path) -> None:
    make_runner(tmp_path / "first").train()
    recorder = Recorder()
    second = make_runner(tmp_path / "second", load_from=tmp_path / "first", custom_hooks=[recorder])
    second.train()
    assert recorder.calls[:3] == [
        ("before_run", 0, 0),
        ("after_load_checkpoint", 0, 0),
        ("before_train", 0, 0),
    ]
    assert second.iter == 6
    first = read_checkpoint(tmp_path / "first" / "checkpoints" / "epoch_2")["state_dict"]
    assert not torch.equal(second.model.linear.weight, first["linear.weight"])


def test_resume_from_a_path_goes_on_from_there(tmp_path: Path) -> None:
    make_runner(tmp_path / "first").train()
    path = tmp_path / "first" / "epoch_1.pth"
    second = make_runner(tmp_path / "second", load_from=path, resume=True)
    recorder = Recorder()
    second.register_hook(recorder)
    second.train()
    assert [call for call in recorder.calls if call[0] == "before_train_epoch"] == [
        ("before_train_epoch", 1, 3)
    ]
    assert torch.equal(
        second.model.linear.weight,
        read_checkpoint(tmp_path / "first" / "checkpoints" / "epoch_2")["state_dict"][
            "linear.weight"
        ],
    )


def test_the_config_wins_where_it_was_changed(tmp_path: Path) -> None:
    make_runner(tmp_path).train()
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.5, "momentum": 0.9}
    runner = make_runner(
        tmp_path,
        resume=True,
        optim_wrapper={"optimizer": optimizer},
        train_cfg={"by_epoch": True, "max_epochs": 3},
        param_scheduler={"_target_": "trainkit.param_scheduler.MultiStepLR", "milestones": [2]},
    )
    seen: list[float] = []

    class Watch(Hook):
        def before_train_iter(self, runner: Runner, *args: Any) -> None:
            seen.append(runner.optim_wrapper.param_groups[0]["lr"])

    runner.register_hook(Watch())
    runner.train()
    assert seen == [pytest.approx(0.05)] * 3
    assert (
        "lr of group 0: the config's 0.5, not the checkpoint's 0.1"
        in (tmp_path / "train.log").read_text()
    )


def test_a_finished_run_resumed_trains_no_more(runner: Runner) -> None:
    runner.train()
    before = read_checkpoint(runner.checkpoint_dir / "epoch_2")["state_dict"]
    again = make_runner(runner.work_dir, resume=True)
    again.train()
    assert again.iter == 6
    assert torch.equal(again.model.linear.weight, before["linear.weight"])


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(runner: Runner) -> None:
    runner.train()
    file = runner.checkpoint_dir / "epoch_2" / "model.pt"
    file.write_bytes(file.read_bytes()[:-1])
    again = make_runner(runner.work_dir, resume=True)
    again.train()
    log = (runner.work_dir / "train.log").read_text()
    assert "epoch_2/model.pt has" in log
    assert "Resumed from" in log
    assert len(list(runner.checkpoint_dir.glob(".corrupt-epoch_2-*"))) == 1
    assert (runner.checkpoint_dir / "epoch_2").is_dir()


def test_an_evaluation_needs_weights_or_to_be_told_not_to_load(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"There is no checkpoint in .* to val\. Give load_from"
    ):
        make_runner(tmp_path / "a").val()
    assert make_runner(tmp_path / "b").val(load=False).keys() == {"mse"}


def test_a_runner_that_trained_evaluates_what_it_has(runner: Runner) -> None:
    runner.train()
    with torch.no_grad():
        runner.model.linear.weight.zero_()
    assert runner.val() != make_runner(runner.work_dir).val()


def test_weights_that_do_not_fit_are_named(runner: Runner) -> None:
    runner.train()
    model = ToyModel()
    model.linear = torch.nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match=r"linear.weight \(1, 3\) for \(2, 3\)"):
        make_runner(runner.work_dir, model=model).val()


def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path) -> None:
    model = ToyModel()
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        state = {f"{prefix}{name}": value + 1 for name, value in model.state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / "weights.pth")
        runner = make_runner(tmp_path / "run")
        runner.load_checkpoint(tmp_path / "weights.pth", strict=True)
        assert torch.equal(runner.model.linear.weight, model.linear.weight + 1)


def test_weights_alone_cannot_be_resumed(tmp_path: Path) -> None:
    torch.save(ToyModel().state_dict(), tmp_path / "weights.pth")
    runner = make_runner(tmp_path / "run", load_from=tmp_path / "weights.pth", resume=True)
    with pytest.raises(CheckpointError, match="holds weights only"):
        runner.train()


def test_a_template_of_ones_own_is_found_again(tmp_path: Path) -> None:
    options = {"checkpoint": {"filename_tmpl": "model_{}"}}
    make_runner(tmp_path, default_hooks=options).train()
    again = make_runner(
        tmp_path,
        default_hooks=options,
        train_cfg={"by_epoch": True, "max_epochs": 3},
        resume=True,
    )
    again.load_or_resume()
    assert again.iter == 6


def test_a_run_of_another_process_is_only_read(tmp_path: Path) -> None:
    make_runner(tmp_path / "first").train()
    checkpoints = tmp_path / "first" / "checkpoints"
    (checkpoints / "epoch_2" / "model.pt").write_bytes(b"damaged")
    before = sorted(path.name for path in checkpoints.iterdir())
    make_runner(tmp_path / "second", load_from=tmp_path / "first").val()
    assert sorted(path.name for path in checkpoints.iterdir()) == before
