"""TimeLimitHook: training is saved and ends when its time is up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runner.test_interrupt import assert_same_end, saved
from tests.runner.test_resume import run_of
from trainkit import ConfigError, Hook, Preempted, Runner
from trainkit.hooks import TimeLimitHook, time_limit


class Clock:
    """A monotonic clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1e6

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The hook's own clock."""
    made = Clock()
    monkeypatch.setattr(time_limit, "time", made)
    return made


class Pass(Hook):
    """Let time pass at a point of iteration ``at``."""

    priority = "HIGHEST"

    def __init__(self, clock: Clock, seconds: float, point: str, at: int) -> None:
        self.clock, self.seconds, self.point, self.at = clock, seconds, point, at

    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        if (self.point, self.at) == ("train", runner.iter):
            self.clock.now += self.seconds

    def before_val_iter(self, runner: Runner, *args: Any) -> None:
        if (self.point, self.at) == ("val", runner.iter):
            self.clock.now += self.seconds


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        *(("01:30:00", 5400), ("100:00:05", 360005), ("1-00:00:30", 86430), ("0:01:00", 60)),
        *((90, 90), (0.5, 0.5), (1e3, 1000)),
    ],
)
def test_limits_are_read_as_people_and_slurm_write_them(limit: Any, seconds: float) -> None:
    assert TimeLimitHook(limit).limit == seconds


@pytest.mark.parametrize(
    "limit", ["1:30", "90", "01:60:00", "1-00", "-1:00:00", "", 0, -5, float("inf"), True, None]
)
def test_other_limits_are_refused(limit: Any) -> None:
    with pytest.raises(ConfigError, match=r"time_limit\.limit is .* expected HH:MM:SS"):
        TimeLimitHook(limit)


@pytest.mark.parametrize(("point", "at", "name"), [("train", 4, "iter_5"), ("val", 6, "epoch_2")])
def test_training_is_saved_at_the_limit_and_goes_on_exactly(
    tmp_path: Path, clock: Clock, point: str, at: int, name: str
) -> None:
    run_of(tmp_path / "whole").train()
    runner = run_of(tmp_path / "stopped")
    runner.register_hook(TimeLimitHook("00:10:00"))
    runner.register_hook(Pass(clock, 600, point, at))
    with pytest.raises(Preempted, match="Stopped by the time limit of 00:10:00 after iteration"):
        runner.train()
    assert saved(tmp_path / "stopped")[-1] == name
    again = run_of(tmp_path / "stopped", resume=True)
    again.register_hook(TimeLimitHook("00:10:00"))
    again.register_hook(Pass(clock, 599, "train", 7))  # the whole limit again
    again.train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_time_before_the_run_does_not_count(tmp_path: Path, clock: Clock) -> None:
    runner = run_of(tmp_path)
    runner.register_hook(TimeLimitHook(10))
    clock.now += 1000
    runner.train()


def test_an_evaluation_alone_has_no_limit(tmp_path: Path, clock: Clock) -> None:
    runner = run_of(tmp_path)
    runner.register_hook(TimeLimitHook(10))
    runner.register_hook(Pass(clock, 1000, "val", 0))
    assert runner.val(load=False)


def test_an_early_stop_is_saved_where_no_interval_saves(tmp_path: Path) -> None:
    class Stop(Hook):
        def after_train_iter(self, runner: Runner, *args: Any) -> None:
            if runner.iter == 4:
                runner.request_stop("enough")

    runner = run_of(tmp_path, default_hooks={"checkpoint": {"interval": 50}})
    runner.register_hook(Stop())
    runner.train()
    assert saved(tmp_path) == ["epoch_2"]
