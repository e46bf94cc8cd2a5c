"""LogProcessor: which statistics are logged, under which names, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.toy import make_runner
from trainkit import ConfigError, Runner
from trainkit.history import Values
from trainkit.log_processor import LogProcessor


def median(values: Values, counts: Values) -> float:
    return float(np.median(values))


def logged(tmp_path: Path, losses: list[float], **options: Any) -> tuple[dict[str, Any], str]:
    """Return what is logged after some iterations of the second epoch."""
    runner: Runner = make_runner(tmp_path, log_processor=LogProcessor(**options))
    _ = runner.train_loop
    for index, loss in enumerate(losses):
        if index == len(losses) - 2:
            runner.message_hub.begin_epoch("train", 1)
        runner.message_hub.update_scalar("train/loss", loss)
    return runner.log_processor.get_log_after_iter(runner, 1, "train")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"data_src": "loss", "window_size": 2}, {"loss": 6.5}),
        ({"data_src": "loss", "window_size": "global"}, {"loss": 4.0}),
        ({"data_src": "loss"}, {"loss": 4.0}),
        ({"data_src": "loss", "window_size": "epoch"}, {"loss": 6.5}),
        ({"data_src": "loss", "method_name": "max", "window_size": 3}, {"loss": 9.0}),
        ({"data_src": "loss", "method_name": "min", "log_name": "low"}, {"loss": 5.0, "low": 1.0}),
        ({"data_src": "loss", "method_name": "current"}, {"loss": 4.0}),
        ({"data_src": "loss", "method_name": median, "window_size": 4}, {"loss": 3.0}),
    ],
    ids=str,
)
def test_a_statistic_of_ones_own_is_logged(
    tmp_path: Path, entry: dict[str, Any], expected: dict[str, float]
) -> None:
    tag, line = logged(tmp_path, [1.0, 2.0, 9.0, 4.0], window_size=3, custom_cfg=[entry])
    assert {name: tag[name] for name in expected} == expected
    assert f"{list(expected)[-1]}: {list(expected.values())[-1]:.4f}" in line


def test_statistics_can_be_given_by_name_and_switched_off(tmp_path: Path) -> None:
    custom = {
        "loss": {"window_size": 2},
        "highest": {"data_src": "loss", "method_name": "max"},
        "lowest": None,
    }
    tag, _ = logged(tmp_path, [1.0, 2.0, 9.0, 4.0], custom_cfg=custom)
    assert (tag["loss"], tag["highest"]) == (6.5, 9.0)
    assert "lowest" not in tag


def test_a_function_is_named_in_a_config(tmp_path: Path) -> None:
    method = {"_target_": "tests.test_log_processor.median", "_partial_": True}
    custom = [{"data_src": "loss", "method_name": method, "log_name": "median", "window_size": 3}]
    runner = make_runner(
        tmp_path,
        log_processor={"custom_cfg": custom},
        default_hooks={"logger": {"interval": 1}},
    )
    runner.train()
    assert (tmp_path / "train.log").read_text().count("  median: ") == 6


def test_digits_and_names_are_chosen(tmp_path: Path) -> None:
    tag, line = logged(tmp_path, [1.0, 1 / 3], num_digits=2, log_with_hierarchy=True)
    assert "  loss: 0.67" in line
    assert tag["train/loss"] == pytest.approx(2 / 3)
    assert tag.keys() == {"train/loss", "epoch", "iter", "memory"}


def test_only_what_the_pattern_finds_is_smoothed(tmp_path: Path) -> None:
    tag, _ = logged(tmp_path, [1.0, 3.0], mean_pattern="time")
    assert tag["loss"] == 3.0


def test_the_unit_is_the_loops_unless_told(tmp_path: Path) -> None:
    _, line = logged(tmp_path, [1.0, 2.0])
    assert line.startswith("Epoch(train)  [1][2/3]")
    _, line = logged(tmp_path, [1.0, 2.0], by_epoch=False)
    assert line.startswith("Iter(train)  [1/6]")


def test_an_array_among_the_metrics_has_lines_of_its_own(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    _ = runner.train_loop
    table = np.eye(2)
    runner.message_hub.update_info("val/table", table, resumed=False)
    runner.message_hub.update_scalar("val/acc", 0.5)
    metrics = {"acc": 0.5, "table": table}
    tag, line = runner.log_processor.get_log_after_epoch(runner, 3, "val", metrics)
    assert re.search(r"acc: 0\.5000  table:\n\[\[1\. 0\.\]\n \[0\. 1\.\]\]", line)
    assert "table" not in tag


def test_what_is_not_measured_now_is_not_logged(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    _ = runner.train_loop
    runner.message_hub.update_scalars({"val/acc": 0.5, "val/old": 0.1, "val/time": 1.0})
    tag, line = runner.log_processor.get_log_after_epoch(runner, 3, "val", {"acc": 0.5})
    assert tag.keys() == {"acc", "time", "epoch", "iter"}
    assert "old" not in line


def test_the_longest_window_goes_into_checkpoints(tmp_path: Path) -> None:
    custom = [{"data_src": "loss", "window_size": 30}]
    runner = make_runner(tmp_path, log_processor={"window_size": 5, "custom_cfg": custom})
    assert (runner.log_processor.longest_window, runner.message_hub.window) == (30, 30)
    assert LogProcessor(window_size=5).longest_window == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_size": 0}, r"log_processor\.window_size is 0"),
        ({"num_digits": True}, r"log_processor\.num_digits is True"),
        ({"mean_pattern": "("}, r"log_processor\.mean_pattern is '\('; expected a regular"),
        ({"custom_cfg": "loss"}, r"custom_cfg is 'loss'; expected a list of mappings"),
        ({"custom_cfg": ["loss"]}, r"custom_cfg\.0 is 'loss'; expected a mapping with data_src"),
        ({"custom_cfg": [{}]}, r"custom_cfg\.0\.data_src is None; expected the name of a scalar"),
        (
            {"custom_cfg": [{"data_src": "a", "windw_size": 1}]},
            r"custom_cfg\.0\.windw_size: .*Did you mean 'window_size'",
        ),
        (
            {"custom_cfg": [{"data_src": "a", "method_name": "maen"}]},
            r"custom_cfg\.0\.method_name is 'maen'; expected a statistic\. Did you mean 'mean'",
        ),
        (
            {"custom_cfg": [{"data_src": "a", "window_size": 0}]},
            r"custom_cfg\.0\.window_size is 0; expected a number of values, 'epoch' or 'global'",
        ),
        (
            {"custom_cfg": [{"data_src": "a"}, {"data_src": "b", "log_name": "a"}]},
            r"several entries that are logged as 'a'\. Give all but one of them another log_name",
        ),
        *(
            (
                {"custom_cfg": [{"data_src": "loss", "log_name": name}]},
                rf"custom_cfg logs a statistic of 'loss' as '{name}', which is the name of another",
            )
            for name in ("lr", "time", "memory", "epoch", "iter", "samples", "step")
        ),
        (
            {"custom_cfg": {"a": {"window_size": 3}, "b": {"log_name": "a"}}},
            r"several entries that are logged as 'a'",
        ),
        (
            {"by_epoch": False, "custom_cfg": [{"data_src": "a", "window_size": "epoch"}]},
            r"the window_size of 'a' is 'epoch', but the run counts iterations",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LogProcessor(**options)


def test_a_statistic_takes_the_place_of_no_other_scalar(tmp_path: Path) -> None:
    custom = [{"data_src": "lr", "log_name": "loss"}]
    runner = make_runner(
        tmp_path,
        log_processor=LogProcessor(custom_cfg=custom),
        default_hooks={"logger": {"interval": 1}},
    )
    with pytest.raises(ConfigError, match="as 'loss', which is the name of another scalar"):
        runner.train()


@pytest.mark.parametrize("split", ["with", "before", "without"])
def test_a_source_that_there_is_not_is_told_of_once(tmp_path: Path, split: str) -> None:
    custom: list[dict[str, Any]] = [
        {"data_src": "los", "log_name": "long"},
        {"data_src": "loss", "window_size": 5},
        {"data_src": "grad_norm"},
        *([{"data_src": "mse"}] if split != "without" else []),
    ]
    changes: dict[str, Any] = {
        "train_cfg": {"by_epoch": True, "max_epochs": 3, "val_before_train": split == "before"},
        "log_processor": LogProcessor(custom_cfg=custom),
        "optim_wrapper": {
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
            "clip_grad": {"max_norm": 1.0},
            "accumulative_counts": 8,
        },
    }
    if split == "without":
        changes |= {"val_dataloader": None, "val_cfg": None, "val_evaluator": None}
    runner = make_runner(tmp_path, **changes)
    runner.train()
    runner.test()
    text = (tmp_path / "train.log").read_text()
    assert text.count("no scalar has that name so far") == 1
    assert "'long' is a statistic of 'los', but no scalar" in text
    assert "Did you mean 'loss'" in text


def test_a_window_of_an_epoch_is_refused_before_an_iteration_run(tmp_path: Path) -> None:
    custom = [{"data_src": "loss", "window_size": "epoch"}]
    loop = {"by_epoch": False, "max_iters": 3}
    runner = make_runner(tmp_path, train_cfg=loop, log_processor={"custom_cfg": custom})
    with pytest.raises(ConfigError, match="but the run counts iterations"):
        runner.train()
    assert runner.iter == 0
