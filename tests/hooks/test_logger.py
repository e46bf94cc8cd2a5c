"""LoggerHook, IterTimerHook and RuntimeInfoHook: what the log says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.toy import make_runner
from trainkit import ConfigError, Runner
from trainkit.hooks import LoggerHook


def lines(runner: Runner, kind: str) -> list[str]:
    text = (runner.work_dir / "train.log").read_text().splitlines()
    return [line.partition("INFO    ")[2] for line in text if f"({kind})" in line]


def scalars(runner: Runner) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (runner.work_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_line_has_everything_in_order(tmp_path: Path) -> None:
    clip = {"type": "norm", "max_norm": 1.0}
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.1}
    runner = make_runner(
        tmp_path,
        default_hooks={"logger": {"interval": 3}},
        optim_wrapper={"optimizer": optimizer, "clip_grad": clip},
    )
    runner.train()
    number = r"\d+\.\d{4}"
    assert re.fullmatch(
        rf"Epoch\(train\)  \[1\]\[3/3\]  lr: 1\.0000e-01  eta: \d:\d\d:\d\d  time: {number}  "
        rf"data_time: {number}  memory: \d+  loss: {number}  grad_norm: {number}",
        lines(runner, "train")[0],
    )
    validation = rf"Epoch\(val\)  \[2\]\[3/3\]  mse: {number}  data_time: {number}  time: {number}"
    assert re.fullmatch(validation, lines(runner, "val")[-1])


def test_an_iteration_run_counts_iterations(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": False, "max_iters": 12, "val_interval": 6},
        default_hooks={"logger": {"interval": 4}},
    )
    runner.train()
    starts = [line.split("  lr")[0] for line in lines(runner, "train")]
    assert starts == ["Iter(train)  [ 4/12]", "Iter(train)  [ 8/12]", "Iter(train)  [12/12]"]
    assert lines(runner, "val")[-1].startswith("Iter(val)  [3/3]  mse: ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"interval": 1}, [1, 2, 3, 4, 5, 6]),
        ({"interval": 2}, [2, 5]),
        ({"interval": 2, "ignore_last": False}, [2, 3, 5, 6]),
        ({"interval": 10}, [3, 6]),
    ],
)
def test_the_interval_counts_within_an_epoch(
    tmp_path: Path, options: dict[str, Any], expected: list[int]
) -> None:
    runner = make_runner(tmp_path, default_hooks={"logger": options})
    runner.train()
    assert [entry["step"] for entry in scalars(runner) if "loss" in entry] == expected


def test_scalars_carry_every_axis(tmp_path: Path) -> None:
    processor = {"log_with_hierarchy": True}
    runner = make_runner(tmp_path, log_processor=processor)
    runner.train()
    train, val = scalars(runner)[-2:]
    axes = {"step", "epoch", "iter"}
    losses = {"train/lr", "train/loss", "train/time", "train/data_time", "memory"}
    assert train.keys() == axes | losses
    assert (train["step"], train["epoch"], train["iter"]) == (6, 2, 6)
    assert val.keys() == axes | {"val/mse", "val/time", "val/data_time"}
    assert (val["step"], val["epoch"], val["iter"]) == (2, 2, 6)


def test_validations_can_be_given_by_iteration(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, default_hooks={"logger": {"log_metric_by_epoch": False}})
    runner.train()
    assert [entry["step"] for entry in scalars(runner) if "mse" in entry] == [3, 6]


def test_the_logged_loss_is_the_mean_of_the_window(tmp_path: Path) -> None:
    single = make_runner(tmp_path / "single", default_hooks={"logger": {"interval": 1}})
    single.log_processor.window_size = 1
    single.train()
    mean = make_runner(tmp_path / "mean", default_hooks={"logger": {"interval": 3}})
    mean.train()
    losses = [entry["loss"] for entry in scalars(single) if "loss" in entry]
    expected = [sum(losses[:3]) / 3, sum(losses) / 6]
    assert [e["loss"] for e in scalars(mean) if "loss" in e] == pytest.approx(expected)


def test_a_test_is_written_as_json(runner: Runner) -> None:
    runner.train()
    metrics = runner.test()
    (file,) = runner.work_dir.glob("test_*.json")
    assert json.loads(file.read_text()) == metrics


def test_the_experiment_is_named_now_and_then(tmp_path: Path) -> None:
    options = {"logger": {"interval_exp_name": 4}}
    runner = make_runner(tmp_path, experiment_name="mine", default_hooks=options)
    runner.train()
    assert (tmp_path / "train.log").read_text().count("Exp name: mine") == 1


def test_an_interval_must_be_whole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="interval is 0"):
        LoggerHook(interval=0)


def test_times_are_of_the_iterations_alone(runner: Runner) -> None:
    runner.train()
    hub = runner.message_hub
    assert len(hub.get_scalar("train/time")) == 6
    assert len(hub.get_scalar("val/time")) == 6
    data, whole = hub.get_scalar("train/data_time"), hub.get_scalar("train/time")
    assert 0 <= data.mean() <= whole.mean()
    assert hub.get_info("eta") == 0
