"""ProfilerHook: which iterations are measured, and where the traces are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.toy import make_runner
from trainkit import ConfigError, Hook, Runner
from trainkit.hooks import ProfilerHook

EPOCHS = {"by_epoch": True, "max_epochs": 3}
ITERATIONS = {"by_epoch": False, "max_iters": 9}


def run(tmp_path: Path, loop: dict[str, Any], *hooks: Hook, **options: Any) -> Runner:
    runner = make_runner(
        tmp_path / "run", train_cfg=loop, custom_hooks=[*hooks, ProfilerHook(**options)]
    )
    runner.train()
    return runner


def steps(trace: Path) -> int:
    """The iterations in a trace."""
    events = json.loads(trace.read_text())["traceEvents"]
    names = {e["name"] for e in events if str(e.get("name")).startswith("ProfilerStep#")}
    return len(names)


def traces(runner: Runner) -> list[Path]:
    return sorted((runner.work_dir / "profiler").glob("rank_0.*.pt.trace.json"))


@pytest.mark.parametrize(
    ("loop", "options", "expected"),
    [
        (EPOCHS, {"profile_times": 1, "schedule": {"wait": 0, "warmup": 1, "active": 2}}, [2]),
        (EPOCHS, {"profile_times": 2, "schedule": {"wait": 1, "warmup": 1, "active": 1}}, [1, 1]),
        (
            EPOCHS,
            {
                "by_epoch": False,
                "profile_times": 4,
                "schedule": {"wait": 1, "warmup": 1, "active": 2},
            },
            [2],
        ),
        (
            ITERATIONS,
            {
                "profile_times": 8,
                "schedule": {"wait": 1, "warmup": 1, "active": 1, "skip_first": 1, "repeat": 1},
            },
            [1],
        ),
    ],
)
def test_the_schedule_decides_what_is_traced(
    tmp_path: Path, loop: dict[str, Any], options: dict[str, Any], expected: list[int]
) -> None:
    assert [steps(trace) for trace in traces(run(tmp_path, loop, **options))] == expected


def test_without_a_schedule_all_is_one_trace_and_the_log_has_a_table(tmp_path: Path) -> None:
    runner = run(tmp_path, ITERATIONS, profile_times=2)
    assert len(traces(runner)) == 1
    log = (runner.work_dir / "train.log").read_text()
    assert "Self CPU time total" in log
    assert f"Wrote a profile to {runner.work_dir / 'profiler'}" in log


def test_the_profiler_is_closed_after_the_last_that_is_wanted(tmp_path: Path) -> None:
    class Look(Hook):
        priority = "LOWEST"

        def __init__(self) -> None:
            self.written: list[int] = []

        def after_train_iter(self, runner: Runner, *args: Any) -> None:
            self.written.append(len(traces(runner)))

    look = Look()
    run(tmp_path, ITERATIONS, look, profile_times=3)
    assert look.written == [0, 0, 1, 1, 1, 1, 1, 1, 1]


def test_a_table_can_be_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = run(tmp_path, ITERATIONS, on_trace_ready="log_trace")
    assert "Self CPU time total" in capsys.readouterr().out
    assert not (runner.work_dir / "profiler").exists()


def test_a_trace_can_be_handed_over(tmp_path: Path) -> None:
    taken: list[Any] = []
    runner = run(tmp_path, ITERATIONS, on_trace_ready=taken.append, record_shapes=True)
    (trace,) = taken
    assert any(event.key == "aten::addmm" for event in trace.key_averages())
    assert not (runner.work_dir / "profiler").exists()


def test_a_trace_can_be_a_file_of_a_name(tmp_path: Path) -> None:
    schedule = {"wait": 0, "warmup": 1, "active": 1}
    runner = run(tmp_path, ITERATIONS, profile_times=4, schedule=schedule, json_trace_path="t.json")
    assert [steps(runner.work_dir / name) for name in ("t.json", "t_2.json")] == [1, 1]
    assert not (runner.work_dir / "profiler").exists()


def test_an_end_before_the_schedule_is_said(tmp_path: Path) -> None:
    schedule = {"wait": 4, "warmup": 1, "active": 1}
    runner = run(tmp_path, EPOCHS, schedule=schedule)
    assert traces(runner) == []
    assert (
        "hooks.ProfilerHook: training ended before the schedule recorded anything, so there is no "
        "trace." in (runner.work_dir / "train.log").read_text()
    )


def test_profiling_changes_no_bit(tmp_path: Path) -> None:
    plain = make_runner(tmp_path / "plain", train_cfg=EPOCHS)
    plain.train()
    profiled = run(tmp_path, EPOCHS)
    assert plain.model.linear.weight.equal(profiled.model.linear.weight)


def test_a_run_that_fails_leaves_the_profiler_to_the_next(tmp_path: Path) -> None:
    class Bomb(Hook):
        def after_train_iter(self, runner: Runner, *args: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:
        run(tmp_path / "a", ITERATIONS, Bomb(), profile_times=4)
    assert len(traces(run(tmp_path / "b", ITERATIONS))) == 1
    assert kept is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile_times": 0}, "profile_times is 0; expected a whole number of at least 1."),
        (
            {"activity_with_cpu": False, "activity_with_cuda": False},
            "activity_with_cpu and activity_with_cuda are both false, so nothing is measured. Set "
            "one of them to true.",
        ),
        (
            {"schedule": {"wait": 1, "warm_up": 1, "active": 1}},
            "schedule has 'warm_up', which is no part of a schedule. Did you mean 'warmup'?",
        ),
        (
            {"schedule": {"wait": 1}},
            "schedule has no warmup, active. Give the number of iterations.",
        ),
        (
            {"schedule": {"wait": 1, "warmup": 0, "active": 0}},
            "schedule has active=0; expected a number of iterations of at least 1.",
        ),
        (
            {"schedule": {"wait": 0.5, "warmup": 0, "active": 1}},
            "schedule has wait=0.5; expected a number of iterations of at least 0.",
        ),
        (
            {"on_trace_ready": "tb_trac"},
            "on_trace_ready is 'tb_trac'; expected something to call, or a name. Did you mean "
            "'tb_trace'?",
        ),
        (
            {"on_trace_ready": "tb_trace", "json_trace_path": "x.json"},
            "json_trace_path is given beside on_trace_ready: tb_trace, and torch writes each trace "
            "once. Drop one of them.",
        ),
        (
            {"json_trace_path": "/etc/x"},
            "json_trace_path is '/etc/x'; expected the name of a file, without a directory: it "
            "lies in the run's own.",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ProfilerHook(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("loop", "options", "message"),
    [
        (
            ITERATIONS,
            {"by_epoch": True},
            "hooks.ProfilerHook.by_epoch is true, but the train loop counts iterations, so the "
            "whole run would be profiled. Set by_epoch: false, and profile_times in iterations.",
        ),
        (
            EPOCHS,
            {"profile_times": 4},
            "hooks.ProfilerHook.profile_times is 4, but the run ends at 3. Lower it.",
        ),
        (
            ITERATIONS,
            {"profile_times": 3, "schedule": {"wait": 2, "warmup": 1, "active": 3}},
            "hooks.ProfilerHook.profile_times is 3, but the schedule waits for 3 iterations before "
            "it records any. Raise profile_times.",
        ),
    ],
)
def test_options_that_do_not_fit_the_run_are_refused(
    tmp_path: Path, loop: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, loop, **options)
    assert str(caught.value) == message
