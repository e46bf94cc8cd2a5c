"""Rules between parts of a config that no signature tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset

from tests.runner.test_horizons import config_of
from trainkit import CheckpointError
from trainkit.checkpoint import MANIFEST
from trainkit.config.findings import Finding
from trainkit.evaluator import BaseMetric
from trainkit.runner import rules
from trainkit.runner.checked import Config

Rule = Callable[[Config], Iterator[Finding]]


class Folder(Dataset[Any]):
    """Reads a folder, so to speak."""

    def __init__(self, root: str = "", ann_file: str = "", name: str = "") -> None: ...


class Loss(BaseMetric):
    """Declares a name that a loss has too."""

    names = ("loss",)

    def process(self, data_batch: Any, data_samples: Any) -> None: ...

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {"loss": 0.0}


def told(rule: Rule, *overrides: str, **changes: Any) -> list[str]:
    return [finding.key for finding in rule(config_of([*overrides], **changes))]


def test_a_loader_that_drops_everything_is_told() -> None:
    large = "dataloader.train.batch_size=1260"
    assert told(rules.batch_sizes, large) == []
    drops = "+dataloader.train.drop_last=true"
    assert told(rules.batch_sizes, large, drops) == ["dataloader.train.batch_size"]
    assert told(rules.batch_sizes, drops) == []


def test_a_batch_has_a_sample() -> None:
    assert told(rules.batch_sizes, "dataloader.val.batch_size=0") == ["dataloader.val.batch_size"]


def test_a_monitor_is_a_metric_that_is_declared() -> None:
    stopping = "hooks=early_stopping"
    assert told(rules.monitors, stopping) == []
    key = "hooks.early_stopping.monitor"
    assert told(rules.monitors, stopping, f"{key}=loss") == [key]
    assert told(rules.monitors, stopping, "val_cfg=none") == [key]
    best = "hooks.checkpoint.save_best"
    assert told(rules.monitors, f"{best}=[accuracy,loss]") == [best]
    assert told(rules.monitors, f"{best}=auto", "val_cfg=none") == []


def test_names_of_metrics_that_are_declared_differ() -> None:
    second = {"_target_": "trainkit.evaluator.Accuracy"}
    loops = {"test_cfg": None}
    assert told(rules.metric_names, val_evaluator={"one": second}, **loops) == []
    two = {"one": second, "two": second}
    (finding,) = rules.metric_names(config_of([], val_evaluator=two, **loops))
    assert (finding.key, finding.text) == (
        "val_evaluator",
        "val_evaluator: Two metrics give 'accuracy'. Give one of them a prefix, such as prefix: "
        "second.",
    )
    apart = {"one": second, "two": {**second, "prefix": "second"}}
    assert told(rules.metric_names, val_evaluator=apart, **loops) == []
    taken = {"one": {"_target_": f"{__name__}.Loss", "prefix": ""}}
    assert told(rules.metric_names, val_evaluator=taken, **loops) == []
    computes = {"_target_": "trainkit.loops.ValLoop", "loss": True}
    (finding,) = rules.metric_names(config_of([], val_evaluator=taken, val_cfg=computes, **loops))
    assert "val_cfg.loss is true, and a metric is named 'loss' too" in finding.text


def test_the_advice_of_a_monitor_is_one_that_can_be_followed() -> None:
    overrides = ["hooks=early_stopping", "hooks.checkpoint.save_best=accuracy", "val_cfg=none"]
    found = [finding.text for finding in rules.monitors(config_of(overrides))]
    assert [text.partition(". ")[2] for text in found] == [
        "Set hooks.checkpoint.save_best to null, or validate.",
        "Set hooks.early_stopping to null, or validate.",
    ]


def test_a_metric_with_a_prefix_is_monitored_with_it() -> None:
    key = "hooks.early_stopping.monitor"
    prefixed = ["hooks=early_stopping", "+evaluator.metrics.accuracy.prefix=val"]
    assert told(rules.monitors, *prefixed) == [key]
    assert told(rules.monitors, *prefixed, f"{key}=val/accuracy") == []


def test_a_metric_that_declares_none_leaves_every_monitor() -> None:
    odd = {"_target_": "tests.runner.unusual.Odd"}
    assert told(rules.monitors, "hooks=early_stopping", evaluator=odd) == []


def test_the_paths_of_a_dataset_are_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()

    def paths(**arguments: str) -> list[str]:
        node = {"_target_": "tests.runner.test_rules.Folder", **arguments}
        found = told(rules.paths, dataloader__train__dataset=node)
        return [key.rpartition(".")[2] for key in found]

    assert paths(root=str(tmp_path), ann_file="a.json") == []
    assert paths(root=str(tmp_path), ann_file="b.json") == ["ann_file"]
    assert paths(root="nowhere", name="nowhere") == ["root"]
    assert paths(root="", ann_file="s3://bucket/a.json") == []
    assert paths(rooot="nowhere", data_dir="nowhere") == []  # no arguments of it: told as such


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (None, []),
        ({"enable": False}, []),
        ({"enable": True, "base_batch_size": 64}, []),
        ({"enable": True}, ["auto_scale_lr.base_batch_size"]),
        ({"enable": True, "base_batch_size": True}, ["auto_scale_lr.base_batch_size"]),
        ({"enable": "yes"}, ["auto_scale_lr.enable"]),
        ({"base_batchsize": 64}, ["auto_scale_lr.base_batchsize"]),
        (True, ["auto_scale_lr"]),
    ],
)
def test_scaling_needs_the_batch_size_that_a_rate_is_for(options: Any, keys: list[str]) -> None:
    assert told(rules.scaled_lr, auto_scale_lr=options) == keys


def test_a_level_is_one_of_logging() -> None:
    assert told(rules.log_level, "log_level=debug") == []
    assert told(rules.log_level, "log_level=15") == []
    assert told(rules.log_level, "log_level=LOUD") == ["log_level"]


def test_weights_are_a_checkpoint(tmp_path: Path) -> None:
    assert told(rules.weights) == []
    assert told(rules.weights, f"load_from={tmp_path}/none.pt") == ["load_from"]


def test_a_run_goes_on_with_what_is_there(tmp_path: Path) -> None:
    (found,) = rules.resume(config_of(["resume=maybe"]))
    assert (found.key, found.error) == ("resume", CheckpointError)
    assert found.text == (
        "resume is 'maybe', which does not exist. Expected true, fresh, a run or a checkpoint."
    )
    assert told(rules.resume, f"resume={'x' * 300}") == ["resume"]
    for right in ("true", "false", "fresh", str(tmp_path)):
        assert told(rules.resume, f"resume={right}") == []
    checkpoint = tmp_path / "checkpoints" / "epoch_5"
    checkpoint.mkdir(parents=True)
    (checkpoint / MANIFEST).touch()
    assert told(rules.resume, f"resume={tmp_path}/epoch_5.pth") == []  # MMEngine's spelling


def test_what_only_evaluates_goes_on_with_nothing() -> None:
    assert told(rules.resume, "resume=maybe", train_cfg=None) == []


def test_a_work_dir_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    for name in ("file", "file/below/it", "gone"):
        (found,) = rules.work_dir(config_of([f"work_dir={tmp_path}/{name}"]))
        there = tmp_path / name.partition("/")[0]
        assert found.key == "work_dir"
        assert found.text == (
            f"work_dir is '{tmp_path}/{name}', but {there} is no directory. Name a directory, "
            "which need not be there yet."
        )
    for right in (tmp_path, tmp_path / "new" / "one", "relative"):
        assert told(rules.work_dir, f"work_dir={right}") == []
    assert told(rules.work_dir) == []


def test_a_work_dir_has_a_name() -> None:
    (found,) = rules.work_dir(config_of([f"work_dir={'x' * 300}"]))
    assert found.key == "work_dir"
    assert "File name too long: 300 bytes, where 255 are allowed." in found.text


def test_what_the_runner_gets_beside_a_config_is_not_looked_up(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wrong = [f"work_dir={tmp_path}/file", "resume=maybe", "load_from=none.pt"]
    config = replace(config_of(wrong), given=("work_dir", "resume", "load_from"))
    for rule in (rules.work_dir, rules.resume, rules.weights):
        assert list(rule(config)) == []
