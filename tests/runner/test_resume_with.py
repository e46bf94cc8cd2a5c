"""Whose values hold on a resume: the config's where they were changed, or the checkpoint's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import ToyDataset, ToyModel, loader, loader_config, make_runner
from trainkit import CheckpointError, ConfigError, Hook, Runner
from trainkit.config import compose
from trainkit.runner.check import find_mistakes

SGD = {"_target_": "torch.optim.SGD"}
STEPS = {"_target_": "trainkit.param_scheduler.MultiStepLR", "gamma": 0.5}


class Values(Hook):
    """Keep what the first group holds in each iteration."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        (group,) = runner.optim_wrapper.optimizer.param_groups
        names = ("lr", "momentum", "weight_decay")
        self.seen.append({name: group[name] for name in names})

    def of(self, name: str) -> list[float]:
        return [values[name] for values in self.seen]


def run(work_dir: Path, changed: bool = False, **changes: Any) -> Values:
    """Train to the end of epoch 2 (of 4 that were planned), or go on with a changed config."""
    lr, momentum, decay, milestones, end = (0.1, 0.9, 0.01, [1, 3], 4)
    if changed:
        lr, momentum, decay, milestones, end = (0.8, 0.5, 0.02, [5], 6)
    values = Values()
    optimizer = {**SGD, "lr": lr, "momentum": momentum, "weight_decay": decay}
    arguments: dict[str, Any] = {
        "optim_wrapper": {"optimizer": optimizer},
        "param_scheduler": {**STEPS, "milestones": milestones},
        "train_cfg": {"by_epoch": True, "max_epochs": end},
        "custom_hooks": [values],
        "resume": changed,
    }
    runner = make_runner(work_dir, **{**arguments, **changes})
    if not changed:
        runner.register_hook(Stop())
    runner.train()
    return values


class Stop(Hook):
    """Stop after two epochs."""

    def after_train_epoch(self, runner: Runner) -> None:
        if runner.epoch == 1:
            runner.request_stop("enough")


def test_the_config_wins_unless_told_otherwise(tmp_path: Path) -> None:
    run(tmp_path)
    values = run(tmp_path, changed=True)
    assert values.of("lr") == [0.8] * 9 + [0.4] * 3
    assert set(values.of("momentum")) == {0.5}
    assert set(values.of("weight_decay")) == {0.02}


def test_the_checkpoint_wins_if_told_so(tmp_path: Path) -> None:
    run(tmp_path)
    values = run(tmp_path, changed=True, resume_with="checkpoint")
    assert values.of("lr") == pytest.approx([0.05] * 3 + [0.025] * 3)
    assert set(values.of("momentum")) == {0.9}
    assert set(values.of("weight_decay")) == {0.01}


def test_the_log_says_whose_values_hold(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, changed=True, resume_with="checkpoint")
    log = (tmp_path / "train.log").read_text()
    for text in (
        "lr of group 0: the checkpoint's 0.1, not the config's 0.8.",
        "momentum of group 0: the checkpoint's 0.9, not the config's 0.5.",
        "weight_decay of group 0: the checkpoint's 0.01, not the config's 0.02.",
        "milestones of MultiStepLR (0): the checkpoint's ",
        "end of MultiStepLR (0): the checkpoint's 4, not the config's 6.",
        "The run ends at 4 epochs, as the checkpoint says, not at the config's 6.",
    ):
        assert text in log


def test_a_run_goes_on_with_the_checkpoint_as_if_its_config_had_stayed(tmp_path: Path) -> None:
    run(tmp_path / "same")
    run(tmp_path / "other")
    same = run(tmp_path / "same", resume=True)
    other = run(tmp_path / "other", changed=True, resume_with="checkpoint")
    assert other.seen == same.seen


def test_the_config_wins_again_on_the_next_resume(tmp_path: Path) -> None:
    run(tmp_path)
    run(tmp_path, changed=True, resume_with="checkpoint")
    assert set(run(tmp_path, changed=True).of("momentum")) == {0.5}


def test_an_iteration_run_ends_where_the_checkpoint_says(tmp_path: Path) -> None:
    def train(end: int, **changes: Any) -> Runner:
        runner = make_runner(
            tmp_path, train_cfg={"by_epoch": False, "max_iters": end, "val_interval": 2}, **changes
        )
        runner.train()
        return runner

    train(4)
    assert train(8, resume=True, resume_with="checkpoint").iter == 4
    assert train(8, resume=True).iter == 8


def test_other_schedulers_cannot_take_the_checkpoints_values(tmp_path: Path) -> None:
    run(tmp_path)
    cosine = {"_target_": "trainkit.param_scheduler.CosineAnnealingLR"}
    for scheduler in (None, [{**STEPS, "milestones": [1], "param_name": "momentum"}], [cosine]):
        with pytest.raises(CheckpointError, match=r"schedulers MultiStepLR\(lr, epoch\)"):
            run(tmp_path, changed=True, resume_with="checkpoint", param_scheduler=scheduler)


def test_other_groups_cannot_take_the_checkpoints_values(tmp_path: Path) -> None:
    run(tmp_path)
    groups = {"optimizer": {**SGD, "lr": 0.1}, "paramwise_cfg": {"bias_lr_mult": 2.0}}
    with pytest.raises(CheckpointError, match=r"parameters are in other groups.*with=config"):
        run(tmp_path, changed=True, resume_with="checkpoint", optim_wrapper=groups)


def test_several_groups_and_the_base_values_take_the_checkpoints(tmp_path: Path) -> None:
    def train(lr: float, **changes: Any) -> Runner:
        groups = {"optimizer": {**SGD, "lr": lr}, "paramwise_cfg": {"bias_lr_mult": 2.0}}
        runner = make_runner(tmp_path, optim_wrapper=groups, **changes)
        runner.train()
        return runner

    train(0.1)
    resumed = train(0.4, resume=True, resume_with="checkpoint")
    found = resumed.optim_wrapper.get_lr()
    assert (sorted(found["lr"]), found["base_lr"]) == ([0.1, 0.2], [0.1])


def test_there_are_two_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"with is 'chekpoint'\. Did you mean 'checkpoint'\?"):
        make_runner(tmp_path, resume_with="chekpoint")
    (finding,) = find_mistakes({**compose(), "resume_with": "chekpoint"})
    assert (finding.key, finding.text) == (
        "resume_with",
        "resume_with is 'chekpoint'. Did you mean 'checkpoint'?",
    )


class Named(ToyDataset):
    """A dataset that says of itself what it is told to."""

    def __init__(self, **metainfo: Any) -> None:
        super().__init__()
        self.metainfo = metainfo


def test_other_data_is_warned_of(tmp_path: Path) -> None:
    def train(metainfo: dict[str, Any], seed: int, **changes: Any) -> str:
        loader = loader_config(dataset=Named(**metainfo))
        make_runner(tmp_path, train_dataloader=loader, randomness={"seed": seed}, **changes).train()
        return (tmp_path / "train.log").read_text()

    assert "The training data says" not in train({"classes": ["a", "b"], "size": 1}, 3)
    same = train({"classes": ["a", "b"], "size": 1}, 3, resume=True)
    assert "The training data says" not in same
    assert "The run began with seed" not in same
    log = train({"classes": ["b", "a"], "size": 1}, 4, resume=True)
    assert (
        "The training data says ['b', 'a'] of its classes; it said ['a', 'b'] when the checkpoint "
        "was written."
    ) in log
    assert "of its size" not in log
    assert "The run began with seed 3; it goes on with its own random state, not seed 4." in log


def test_each_of_several_optimizers_takes_the_checkpoints(tmp_path: Path) -> None:
    class Parts(ToyModel):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(1, 1)

        def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
            loss = self.other(self.linear(data["x"])).square().mean()
            loss.backward()
            for wrapper in optim_wrapper.values():
                wrapper.step()
                wrapper.zero_grad()
            return {"loss": loss.detach()}

    def train(lr: float, **changes: Any) -> Runner:
        wrappers = {
            name: {"optimizer": {**SGD, "lr": lr * factor}}
            for name, factor in (("linear", 1), ("other", 2))
        }
        runner = make_runner(
            tmp_path, model=Parts(), train_dataloader=loader(), optim_wrapper=wrappers, **changes
        )
        runner.train()
        return runner

    train(0.01)
    resumed = train(0.05, resume=True, resume_with="checkpoint")
    assert resumed.optim_wrapper.get_lr() == {"linear.lr": [0.01], "other.lr": [0.02]}
