"""EarlyStoppingHook: when it stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.hooks.test_checkpoint import Scores
from tests.toy import make_runner
from trainkit import ConfigError
from trainkit.hooks import EarlyStoppingHook


def epochs(tmp_path: Path, scores: list[float], **options: Any) -> int:
    hook = EarlyStoppingHook(**{"monitor": "accuracy", **options})
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": len(scores)},
        val_evaluator=Scores(scores),
        custom_hooks=[hook],
    )
    runner.train()
    return runner.epoch


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4], {"patience": 1}, 4),
        ([0.1, 0.2, 0.2, 0.4], {"patience": 1}, 3),
        ([0.1, 0.2, 0.2, 0.1, 0.5], {"patience": 2}, 4),
        ([0.1, 0.2, 0.2, 0.3, 0.3, 0.5], {"patience": 2}, 6),
        ([0.1, 0.15, 0.2, 0.5], {"patience": 2, "min_delta": 0.2}, 3),
        ([0.5, 0.4, 0.4, 0.1], {"patience": 1, "rule": "less"}, 3),
        ([0.1, float("nan"), 0.5], {}, 2),
        ([0.1, float("nan"), 0.5], {"check_finite": False}, 3),
        ([0.1, 0.9, 0.95], {"stopping_threshold": 0.8}, 2),
        ([0.1, 0.8, 0.95], {"stopping_threshold": 0.8}, 3),
        ([0.9, 0.5, 0.1], {"stopping_threshold": 0.6, "rule": "less"}, 2),
        ([float("nan")] * 3, {"check_finite": False, "patience": 2}, 2),
        ([float("nan"), 0.2, 0.1, 0.3], {"check_finite": False, "patience": 2}, 4),
        ([0, 0, 0], {"patience": 2}, 3),
    ],
)
def test_it_stops_when_nothing_improves(
    tmp_path: Path, scores: list[float], options: dict[str, Any], expected: int
) -> None:
    assert epochs(tmp_path, scores, **options) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("stopping_threshold", "x"), ("stopping_threshold", True), ("min_delta", None)],
)
def test_what_is_compared_with_a_metric_is_a_number(name: str, value: Any) -> None:
    options: dict[str, Any] = {"monitor": "accuracy", name: value}
    with pytest.raises(ConfigError) as caught:
        EarlyStoppingHook(**options)
    assert str(caught.value) == f"hooks.early_stopping.{name} is {value!r}; expected a number."


def test_a_monitor_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"monitor is 'accurac'.* Did you mean 'accuracy'"):
        epochs(tmp_path, [0.1, 0.2], monitor="accurac")


def test_unless_only_a_warning_is_wanted(tmp_path: Path) -> None:
    assert epochs(tmp_path, [0.1, 0.2], monitor="auc", strict=False) == 2
    assert "monitor is 'auc'" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize(
    "options",
    [
        *({"patience": 0}, {"patience": 2.5}, {"min_delta": -1.0}, {"min_delta": float("nan")}),
        {"rule": "more"},
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="early_stopping"):
        EarlyStoppingHook("accuracy", **options)


def test_the_early_stop_is_saved(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 9},
        val_evaluator=Scores([0.5, 0.4]),
        custom_hooks=[EarlyStoppingHook("accuracy", patience=1)],
        default_hooks={"checkpoint": {"interval": 7}},
    )
    runner.train()
    assert (runner.checkpoint_dir / "epoch_2").is_dir()


def goes_on(tmp_path: Path, scores: list[float], **options: Any) -> int:
    """Stop after 0.5, 0.4, 0.4; resume with other options; return the epochs."""
    epochs_of = {"by_epoch": True, "max_epochs": 3 + len(scores)}
    first = EarlyStoppingHook("accuracy", patience=2)
    make_runner(
        tmp_path, train_cfg=epochs_of, val_evaluator=Scores([0.5, 0.4, 0.4]), custom_hooks=[first]
    ).train()
    hook = EarlyStoppingHook(**{"monitor": "accuracy", "patience": 2, **options})
    runner = make_runner(
        tmp_path,
        train_cfg=epochs_of,
        val_evaluator=Scores([0.4, *scores]),  # the last epoch is validated again
        custom_hooks=[hook],
        resume=True,
    )
    runner.train()
    return runner.epoch


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 3),
        ({"patience": 4}, 5),
        ({"stopping_threshold": 0.3, "patience": 9}, 3),
        ({"rule": "less"}, 5),
    ],
)
def test_a_resumed_run_stays_stopped_unless_it_would_not_have_stopped(
    tmp_path: Path, options: dict[str, Any], expected: int
) -> None:
    assert goes_on(tmp_path, [0.4, 0.4, 0.4, 0.4], **options) == expected


def test_a_monitor_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        epochs(tmp_path, [[1, 2], [1, 2]])  # type: ignore[list-item]
    assert str(caught.value) == (
        "hooks.early_stopping.monitor is 'accuracy', whose value is a list; expected a metric that "
        "is a number."
    )


def test_evaluating_alone_stops_nothing(tmp_path: Path) -> None:
    hook = EarlyStoppingHook("accuracy", patience=1)
    runner = make_runner(tmp_path, val_evaluator=Scores([0.5, 0.1]), custom_hooks=[hook])
    runner.val(load=False)
    runner.val(load=False)
    assert (hook.best, hook.stale) == (None, 0)
