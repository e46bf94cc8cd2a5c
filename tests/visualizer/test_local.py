"""JSON lines: one for each call, whole after a kill, continued after a resume."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from trainkit import ConfigError
from trainkit.visualizer import LocalVisBackend


def lines(directory: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def opened(directory: Path, resume_step: int | None = None) -> LocalVisBackend:
    backend = LocalVisBackend()
    backend.open(directory, resume_step)
    return backend


@pytest.mark.parametrize("name", ["../x.jsonl", "/etc/x", "a/b", "", "..", ".hidden"])
def test_the_file_stays_in_the_runs_directory(name: str) -> None:
    with pytest.raises(ConfigError, match="expected the name of a file, without a directory"):
        LocalVisBackend(name)


def test_each_call_is_one_line(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.add_scalars({"loss": 0.5, "iter": 10}, step=10)
    backend.add_scalars({"accuracy": 1, "epoch": 2}, step=2)
    backend.close()
    assert lines(tmp_path) == [
        {"step": 10, "loss": 0.5, "iter": 10},
        {"step": 2, "accuracy": 1, "epoch": 2},
    ]


def test_the_file_can_be_named(tmp_path: Path) -> None:
    backend = LocalVisBackend("scalars.json")
    backend.open(tmp_path, None)
    backend.add_scalars({"loss": 1.0}, 1)
    backend.close()
    assert lines(tmp_path, "scalars.json") == [{"step": 1, "loss": 1.0}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_does_not_know_is_a_string_that_float_reads(tmp_path: Path, value: float) -> None:
    backend = opened(tmp_path)
    backend.add_scalars({"loss": value}, 1)
    backend.close()
    (line,) = lines(tmp_path)
    assert isinstance(line["loss"], str)
    assert float(line["loss"]) == value or math.isnan(value)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_run_loses_no_line(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            backend = opened(tmp_path)
            backend.add_scalars({"loss": 1.0}, 1)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    for step in (1, 2, 3):
        backend.add_scalars({"loss": float(step), "iter": 10 * step}, 10 * step)
        backend.add_scalars({"accuracy": 0.5, "epoch": step, "iter": 10 * step}, step)
    backend.close()
    backend = opened(tmp_path, resume_step=20)
    backend.add_scalars({"loss": 9.0, "iter": 21}, 21)
    backend.close()
    assert [(line["step"], line["iter"]) for line in lines(tmp_path)] == [
        (10, 10),
        (1, 10),
        (20, 20),
        (2, 20),
        (21, 21),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "garbage\n", "[]\n", "null\n", "3\n", "\n"])
def test_a_resumed_run_drops_what_cannot_be_read(tmp_path: Path, torn: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n' + torn)
    backend = opened(tmp_path, resume_step=5)
    backend.add_scalars({"loss": 2.0}, 6)
    backend.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 6]


def test_an_earlier_file_is_set_aside_by_a_run_that_does_not_resume(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        backend = opened(tmp_path)
        backend.add_scalars({"loss": 1.0}, step)
        backend.close()
    assert lines(tmp_path) == [{"step": 3, "loss": 1.0}]
    kept = [path.read_text() for path in tmp_path.iterdir()]
    assert len(kept) == 3
    assert sorted(json.loads(text)["step"] for text in kept) == [1, 2, 3]


def test_a_checkpoint_knows_its_lines_also_those_of_the_same_iteration(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.add_scalars({"loss": 1.0, "iter": 10}, 10)
    state = backend.state_dict()
    backend.add_scalars({"accuracy": 0.5, "iter": 10}, 1)
    backend.close()
    resumed = LocalVisBackend()
    resumed.load_state_dict(state)
    resumed.open(tmp_path, resume_step=10)
    assert resumed.state_dict() == state
    resumed.add_scalars({"accuracy": 0.75, "iter": 10}, 1)
    resumed.close()
    assert [line.get("accuracy") for line in lines(tmp_path)] == [None, 0.75]


def test_opening_again_keeps_what_a_resumed_run_wrote(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.add_scalars({"loss": 1.0}, 1)
    backend.load_state_dict(backend.state_dict())
    for step in (2, 3):
        backend.close()
        backend.open(tmp_path, resume_step=step)
        backend.add_scalars({"loss": 1.0}, step)
    backend.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_resuming_without_a_file_begins_one(tmp_path: Path) -> None:
    opened(tmp_path, resume_step=5).close()
    assert lines(tmp_path) == []


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.close()
    backend.close()
    LocalVisBackend().close()


def test_a_line_that_the_disk_refuses_comes_with_a_later_one(tmp_path: Path) -> None:
    backend = LocalVisBackend()
    backend.open(tmp_path, None)
    backend.add_scalars({"loss": 1.0}, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            backend.add_scalars({"loss": 2.0}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    backend.add_scalars({"loss": 3.0}, 3)
    backend.close()
    assert [line["loss"] for line in lines(tmp_path)] == [1.0, 2.0, 3.0]
    assert backend.state_dict() == {"lines": 3}
