"""LoggerHook, IterTimerHook and RuntimeInfoHook: what the log says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import MeanSquaredError, loader, loader_config, make_runner
from trainkit import ConfigError, Hook, Runner
from trainkit.hooks import LoggerHook
from trainkit.log_processor import LogProcessor
from trainkit.visualizer import VisBackend, Visualizer


def lines(runner: Runner, kind: str) -> list[str]:
    text = (runner.work_dir / "train.log").read_text().splitlines()
    return [line.partition("INFO    ")[2] for line in text if f"({kind})" in line]


def scalars(runner: Runner) -> list[dict[str, Any]]:
    return scalars_of(runner.work_dir)


def scalars_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class Worse(MeanSquaredError):
    """A metric that is worse than any before."""

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"mse": 1e9}


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
    axes = {"step", "epoch", "iter", "samples"}
    losses = {"train/lr", "train/loss", "train/time", "train/data_time", "memory"}
    assert train.keys() == axes | losses
    assert (train["step"], train["epoch"], train["iter"]) == (6, 2, 6)
    assert val.keys() == axes | {"val/mse", "val/time", "val/data_time"}
    assert (val["step"], val["epoch"], val["iter"]) == (2, 2, 6)
    assert (train["samples"], val["samples"]) == (24, 24)


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


def test_arrays_among_a_tests_metrics_are_written_as_lists(tmp_path: Path) -> None:
    class Table(MeanSquaredError):
        def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
            return {"table": torch.eye(2), "mse": torch.tensor(0.5), "name": Path("a")}

    runner = make_runner(tmp_path, test_evaluator=[Table()])
    runner.test(load=False)
    (file,) = tmp_path.glob("test_*.json")
    assert json.loads(file.read_text()) == {"table": [[1, 0], [0, 1]], "mse": 0.5, "name": "a"}


def test_a_test_after_training_is_no_point_of_the_validations_curve_on_purpose(
    runner: Runner,
) -> None:
    runner.train()
    runner.test()
    last = scalars(runner)[-1]
    assert last.keys() == {"step", "test/mse", "test/time", "test/data_time", *COUNTERS}
    assert (last["iter"], last["samples"]) == (6, 24)


COUNTERS = ("epoch", "iter", "samples")


@pytest.mark.parametrize("option", ["out_dir", "out_suffix", "keep_local", "backend_args"])
def test_logs_are_not_copied_elsewhere_on_purpose(tmp_path: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"hooks\.logger\.{option}: LoggerHook has no"):
        make_runner(tmp_path, default_hooks={"logger": {option: "x"}})


@pytest.mark.parametrize(
    ("loop", "changes", "expected"),
    [
        ({"by_epoch": True, "max_epochs": 2}, {}, [5, 10, 12, 17, 22, 24]),
        ({"by_epoch": True, "max_epochs": 2}, {"drop_last": True}, [5, 10, 15, 20]),
        ({"by_epoch": False, "max_iters": 4}, {}, [5, 10, 12, 17]),
        (
            {"by_epoch": False, "max_iters": 4},
            {"sampler": {"_target_": "trainkit.dataloader.InfiniteSampler"}},
            [5, 10, 15, 20],
        ),
        ({"by_epoch": True, "max_epochs": 1}, {"num_batch_per_epoch": 2}, [5, 10]),
    ],
    ids=str,
)
def test_samples_are_counted_as_they_are_seen(
    tmp_path: Path, loop: dict[str, Any], changes: dict[str, Any], expected: list[int]
) -> None:
    runner = make_runner(
        tmp_path,
        train_cfg=loop,
        train_dataloader=loader_config(batch_size=5, **changes),
        optim_wrapper={
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
            "accumulative_counts": 2,
        },
        default_hooks={"logger": {"interval": 1}},
    )
    runner.train()
    assert [line["samples"] for line in scalars(runner) if "loss" in line] == expected


@pytest.mark.parametrize("given", [None, {"window_size": 2}], ids=str)
def test_train_and_val_are_kept_apart_unless_told_otherwise(tmp_path: Path, given: Any) -> None:
    runner = make_runner(
        tmp_path,
        log_processor=given,
        val_cfg={"loss": True},
        default_hooks={"logger": {"interval": 3}},
    )
    runner.train()
    written = scalars(runner)
    assert [sorted(line.keys() & {"train/loss", "val/loss", "loss"}) for line in written] == [
        ["train/loss"],
        ["val/loss"],
    ] * 2
    plain = make_runner(tmp_path / "plain", log_processor=LogProcessor(), val_cfg={"loss": True})
    assert not plain.log_processor.log_with_hierarchy


def test_samples_that_nobody_can_tell_are_left_out(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, train_dataloader=list(loader()))
    runner.train()
    assert all("samples" not in line for line in scalars(runner))


@pytest.mark.parametrize("at", [2, 4, 5])
def test_lines_after_a_resume_are_those_of_a_run_that_went_on(tmp_path: Path, at: int) -> None:
    class Bomb(Hook):
        priority = "LOWEST"

        def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            if runner.iter + 1 == at:
                raise KeyboardInterrupt

    custom: dict[str, dict[str, Any]] = {
        "mean": {"data_src": "loss", "window_size": "epoch"},
        "all": {"data_src": "loss"},
        "least": {"data_src": "loss", "method_name": "min", "window_size": 4},
    }
    options: dict[str, Any] = {
        "default_hooks": {
            "logger": {"interval": 1},
            "checkpoint": {"interval": 1, "by_epoch": False},
        },
        "log_processor": LogProcessor(window_size=5, custom_cfg=custom),
    }
    whole = make_runner(tmp_path / "whole", **options)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        make_runner(tmp_path / "stopped", custom_hooks=[Bomb()], **options).train()
    resumed = make_runner(tmp_path / "stopped", resume=True, **options)
    resumed.train()
    times = ("time", "data_time", "memory")
    one, other = (
        [{k: v for k, v in line.items() if k not in times} for line in scalars(runner)]
        for runner in (whole, resumed)
    )
    assert one == other
    assert {"mean", "all", "least"} <= one[0].keys()


class Compared(VisBackend):
    """Keep what a run is compared by."""

    def __init__(self) -> None:
        self.hparams: list[tuple[dict[str, Any], dict[str, float], int]] = []

    def open(self, save_dir: Path, resume_step: int | None) -> None: ...

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None: ...

    def add_hparams(
        self, hparams: Mapping[str, Any], metrics: Mapping[str, float], step: int
    ) -> None:
        self.hparams.append((dict(hparams), dict(metrics), step))

    def close(self) -> None: ...


def test_a_run_is_compared_once_by_its_plain_values_and_best_metrics(tmp_path: Path) -> None:
    cfg = {
        "seed": 3,
        "model": {"width": 64, "name": "a" * 65, "token": "secret", "layers": [1, 2]},
        "work_dir": "/somewhere",
        "amp": False,
    }
    backend = Compared()
    runner = make_runner(tmp_path, visualizer=Visualizer([backend]), cfg=cfg)
    runner.train()
    runner.test()
    ((values, metrics, step),) = backend.hparams
    assert values == {"seed": 3, "model.width": 64, "model.token": "<redacted>", "amp": False}
    kept = runner.message_hub.get_scalar("val/mse")
    assert (metrics, step) == ({"best/mse": kept.min()}, 6)


def test_the_best_is_that_of_the_whole_run_after_a_resume(tmp_path: Path) -> None:
    make_runner(tmp_path).train()
    before = min(line["mse"] for line in scalars_of(tmp_path) if "mse" in line)
    backend = Compared()
    runner = make_runner(
        tmp_path,
        resume=True,
        train_cfg={"by_epoch": True, "max_epochs": 3},
        visualizer=Visualizer([backend]),
        val_evaluator=[Worse()],
    )
    runner.train()
    assert backend.hparams[0][1] == {"best/mse": before}


class Several(MeanSquaredError):
    """Metrics that go up and down again, some with names that tell no rule."""

    values = (2.0, 1.0, 3.0, 2.0)

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        names = ("odd", "strange", "accuracy", "mse")
        self.round = getattr(self, "round", -1) + 1
        return {"text": "a", **dict.fromkeys(names, self.values[self.round])}


STOPPING = {"_target_": "trainkit.hooks.EarlyStoppingHook", "monitor": "strange", "patience": 9}
ALL = {"last/odd": 2.0, "last/strange": 2.0, "best/accuracy": 3.0, "best/mse": 1.0}


@pytest.mark.parametrize(
    ("hooks", "expected"),
    [
        ({}, ALL),
        ({"checkpoint": {"save_best": "odd", "rule": "less"}}, {"best/odd": 1.0}),
        ({"checkpoint": {"save_best": "auto", "rule": "less"}}, {"best/odd": 1.0}),
        ({"checkpoint": {"save_best": "odd", "greater_keys": ["od"]}}, {"best/odd": 3.0}),
        (
            {"checkpoint": {"save_best": ["mse", "odd"], "rule": ["less", "greater"]}},
            {"best/odd": 3.0},
        ),
        ({"stop": {**STOPPING, "rule": "greater"}}, {"best/strange": 3.0}),
    ],
    ids=str,
)
def test_the_best_is_by_the_rule_that_a_hook_was_given_else_by_the_name(
    tmp_path: Path, hooks: dict[str, Any], expected: dict[str, float]
) -> None:
    backend = Compared()
    make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 4},
        val_evaluator=[Several()],
        default_hooks=hooks,
        visualizer=Visualizer([backend]),
    ).train()
    told = {name.partition("/")[2] for name in expected}
    others = {name: value for name, value in ALL.items() if name.partition("/")[2] not in told}
    assert backend.hparams[0][1] == {**others, **expected}


def test_facts_of_the_run_are_published(runner: Runner) -> None:
    runner.train()
    info = runner.message_hub.get_info
    assert (info("seed"), info("experiment_name")) == (3, "run")
    assert (info("max_epochs"), info("max_iters"), info("loop_stage")) == (2, 6, "train")
    assert info("dataset_meta") == {"name": "toy"}
    assert info("trainkit_version")
    assert info("cfg") == ""


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
