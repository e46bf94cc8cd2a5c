"""The train loops: when they validate, what they count, what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from tests.toy import Recorder, ToyDataset, ToyModel, loader_config, make_runner
from trainkit import ConfigError, Hook, Runner


def validated_after(tmp_path: Path, train_cfg: dict[str, Any]) -> list[int]:
    recorder = Recorder()
    runner = make_runner(tmp_path, train_cfg=train_cfg, custom_hooks=[recorder])
    runner.train()
    counters = [(epoch, i) for name, epoch, i in recorder.calls if name == "before_val"]
    return [epoch if train_cfg["by_epoch"] else i for epoch, i in counters]


@pytest.mark.parametrize(
    ("train_cfg", "expected"),
    [
        ({"max_epochs": 4}, [1, 2, 3, 4]),
        ({"max_epochs": 5, "val_interval": 2}, [2, 4, 5]),
        ({"max_epochs": 5, "val_begin": 3, "val_interval": 2}, [4, 5]),
        ({"max_epochs": 4, "val_begin": 9}, []),
        # An entry holds from the check before its milestone on; YAML gives lists.
        ({"max_epochs": 7, "val_interval": 3, "dynamic_intervals": [[5, 1]]}, [3, 4, 5, 6, 7]),
        ({"max_iters": 7, "val_interval": 3}, [3, 6, 7]),
    ],
)
def test_validation_comes_when_it_is_due(
    tmp_path: Path, train_cfg: dict[str, Any], expected: list[int]
) -> None:
    train_cfg["by_epoch"] = "max_epochs" in train_cfg
    assert validated_after(tmp_path, train_cfg) == expected


@pytest.mark.parametrize(
    ("train_cfg", "message"),
    [
        ({"by_epoch": True, "max_epochs": 0}, "max_epochs is 0"),
        ({"by_epoch": True, "max_epochs": True}, "max_epochs is True"),
        ({"by_epoch": True, "max_epochs": "3"}, "max_epochs is '3'"),
        ({"by_epoch": True, "max_epochs": 3, "val_interval": 0}, "val_interval is 0"),
        ({"by_epoch": False, "max_iters": -1}, "max_iters is -1"),
        ({"by_epoch": False, "max_iters": 3, "val_begin": -1}, "val_begin is -1"),
    ],
)
def test_a_count_must_be_a_whole_number(
    tmp_path: Path, train_cfg: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_runner(tmp_path, train_cfg=train_cfg).train()


@pytest.mark.parametrize("intervals", [[3, 1], [[3, 1, 2]], ["31", 1], "31", 3])
def test_dynamic_intervals_are_pairs(tmp_path: Path, intervals: Any) -> None:
    train_cfg = {"by_epoch": True, "max_epochs": 3, "dynamic_intervals": intervals}
    with pytest.raises(ConfigError, match="expected pairs of a milestone and the interval"):
        make_runner(tmp_path, train_cfg=train_cfg).train()


@pytest.mark.parametrize(
    ("train_cfg", "end"),
    [
        ({"by_epoch": True, "max_epochs": 2, "val_begin": 9}, "9, but the run ends after 2 epochs"),
        (
            {"by_epoch": False, "max_iters": 1, "val_begin": 2},
            "2, but the run ends after 1 iterations",
        ),
    ],
)
def test_a_validation_that_would_begin_after_the_end_is_told(
    tmp_path: Path, train_cfg: dict[str, Any], end: str
) -> None:
    make_runner(tmp_path / "told", train_cfg=train_cfg).train()
    told = f"train_cfg.val_begin is {end}: it will not validate on the way. Lower it."
    assert told in (tmp_path / "told" / "train.log").read_text()
    nothing = dict.fromkeys(("val_dataloader", "val_cfg", "val_evaluator"))
    make_runner(tmp_path / "none", train_cfg=train_cfg, **nothing).train()
    assert "val_begin" not in (tmp_path / "none" / "train.log").read_text()


def test_a_whole_float_counts(tmp_path: Path) -> None:
    train_cfg = {"by_epoch": True, "max_epochs": 2.0}
    assert make_runner(tmp_path, train_cfg=train_cfg).train_loop.max_epochs == 2


def test_an_iteration_run_begins_the_data_again_in_a_new_order(tmp_path: Path) -> None:
    class Batches(Hook):
        def __init__(self) -> None:
            self.seen: list[list[float]] = []

        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            self.seen.append(data_batch["x"][:, 0].tolist())

    hook = Batches()
    runner = make_runner(
        tmp_path,
        train_dataloader=loader_config(sampler={"shuffle": True}),
        train_cfg={"by_epoch": False, "max_iters": 7},
        custom_hooks=[hook],
    )
    runner.train()
    first, second = (
        [x for batch in part for x in batch] for part in (hook.seen[:3], hook.seen[3:6])
    )
    assert sorted(first) == sorted(second) == sorted(ToyDataset().x[:, 0].tolist())
    assert first != second
    assert runner.epoch == 2


class Stream(IterableDataset[Any]):
    """Samples without a length."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        data = ToyDataset()
        return (data[index] for index in range(self.samples))


def test_an_iteration_run_needs_no_length(tmp_path: Path) -> None:
    stream: Any = DataLoader(Stream(8), batch_size=4)
    train_cfg = {"by_epoch": False, "max_iters": 5, "val_interval": 2}
    runner = make_runner(tmp_path, train_dataloader=stream, train_cfg=train_cfg)
    runner.train()
    assert (runner.iter, runner.epoch) == (5, 2)


def test_data_without_a_batch_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    empty: Any = DataLoader(Stream(0), batch_size=4)
    train_cfg = {"by_epoch": False, "max_iters": 5}
    with pytest.raises(ConfigError, match="gives no batch at all"):
        make_runner(tmp_path, train_dataloader=empty, train_cfg=train_cfg).train()


def test_the_last_window_of_accumulated_gradients_is_flushed(tmp_path: Path) -> None:
    wrapper = {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
        "accumulative_counts": 4,
    }
    runner = make_runner(tmp_path, optim_wrapper=wrapper)
    runner.train()
    assert runner.iter == 6
    assert runner.optim_wrapper.update_count == 2


def test_validation_does_not_change_training(tmp_path: Path) -> None:
    class Draw(Hook):
        def before_val(self, runner: Runner) -> None:
            torch.rand(100)

    weights = []
    for name, changes in (("with", {}), ("without", {"val_interval": 9})):
        train_cfg = {"by_epoch": True, "max_epochs": 3, **changes}
        runner = make_runner(
            tmp_path / name, model=ToyModel(0.5), train_cfg=train_cfg, custom_hooks=[Draw()]
        )
        runner.train()
        weights.append(runner.model.linear.weight)
    assert weights[0].equal(weights[1])


def test_a_step_does_not_ask_the_loader_for_its_state(tmp_path: Path) -> None:
    class Stateful(DataLoader[Any]):  # of which a state may be dear
        asked = 0

        def state_dict(self) -> dict[str, Any]:
            self.asked += 1
            return {}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            pass

    data = Stateful(ToyDataset(), batch_size=5)  # whose last batch is shorter
    loop = {"by_epoch": False, "max_iters": 7, "val_interval": 3}
    hooks = {"checkpoint": None}
    make_runner(tmp_path, train_dataloader=data, train_cfg=loop, default_hooks=hooks).train()
    assert data.asked == 0
