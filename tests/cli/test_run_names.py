"""A run that is named by its directory, a checkpoint, or a part of its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainkit.cli.run_names import find_named_run, runs_below
from trainkit.errors import ConfigError
from trainkit.run_dir import RunRecord


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_run(path: str, time: int = 0) -> Path:
    run = Path(path)
    (run / "checkpoints" / "epoch_1").mkdir(parents=True)
    (run / "checkpoints" / "epoch_1" / "model.pt").write_text("")
    RunRecord(run).begin()
    os.utime(run / "status.json", (time, time))
    return run


@pytest.mark.parametrize(
    "text",
    [
        *("outputs/digits/2026_1", "outputs/digits/2026_1/", "./outputs/digits/2026_1"),
        *("digits/2026_1", "2026_1", "outputs/digits/2026_1/checkpoints/epoch_1"),
        *("outputs/digits/2026_1/checkpoints", "digits/2026_1/checkpoints/epoch_1/model.pt"),
    ],
)
def test_a_run_is_named_in_many_ways(text: str) -> None:
    run = make_run("outputs/digits/2026_1")
    make_run("outputs/digits/2026_1_1")
    make_run("outputs/other/2026_2")
    assert find_named_run(text).resolve() == run.resolve()


@pytest.mark.parametrize("text", ["05-45-49", "2026-11-24_05", "digits/2026", "26-11"])
def test_a_part_of_the_name_is_enough(text: str) -> None:
    run = make_run("outputs/digits/2026-11-24_05-45-49")
    make_run("outputs/other/2025-01-01_01-01-01")
    assert find_named_run(text) == run


def test_a_path_names_a_run_outside_of_the_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("mine")
    assert find_named_run("mine") == run
    assert find_named_run(str(tmp_path / "mine/checkpoints/epoch_1")) == tmp_path / "mine"
    monkeypatch.chdir("mine")
    assert find_named_run(".") == Path()


def test_a_trial_is_named_by_its_number_and_sweep() -> None:
    make_run("outputs/digits/sweep_1/0_seed=1")
    run = make_run("outputs/digits/sweep_2/0_seed=1")
    assert find_named_run("sweep_2/0_") == run


def test_a_run_that_was_copied_without_its_status_is_one_too() -> None:
    run = make_run("outputs/digits/a")
    (run / "status.json").unlink()
    for name in ("config.yaml", "env.json"):
        (run / name).write_text("{}")
    assert find_named_run("outputs/digits/a") == run


def message(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        find_named_run(text)
    return str(caught.value)


def test_several_are_told_newest_first() -> None:
    for number in (3, 1, 4, 2):
        make_run(f"outputs/digits/2026_{number}", number)
    assert message("2026") == (
        "'2026' names 4 runs: outputs/digits/2026_4, outputs/digits/2026_3, outputs/digits/2026_2 "
        "and 1 more. Give more of the name, or the run's directory."
    )


def test_none_is_told_with_the_newest() -> None:
    make_run("outputs/digits/a", 1)
    make_run("outputs/digits/b", 2)
    assert message("2027") == (
        "There is no run '2027'. The newest below outputs/: outputs/digits/b, outputs/digits/a. "
        "trainkit runs lists them all."
    )


def test_a_directory_that_holds_runs_is_told_so(tmp_path: Path) -> None:
    make_run("elsewhere/sweep_1/0_seed=1")
    assert message("elsewhere/sweep_1") == (
        "'elsewhere/sweep_1' is no run, but holds some: elsewhere/sweep_1/0_seed=1. Name one of "
        "them."
    )
    assert message("x") == (
        f"There is no run 'x', and none below outputs/ in {tmp_path}. Expected the directory of a "
        "run."
    )


@pytest.mark.parametrize("text", ["", "a\0b", "x" * 5000, "~nobody-at-all/x", "\ud800"])
def test_what_is_no_name_is_just_not_found(text: str) -> None:
    make_run("outputs/digits/a")
    assert message(text).startswith(f"There is no run {text!r}. The newest below outputs/: ")


def test_checkpoints_and_hidden_directories_are_not_looked_into() -> None:
    run = make_run("outputs/a")
    make_run("outputs/a/checkpoints/b")
    make_run("outputs/.hidden/c")
    inside = make_run("outputs/a/nested")
    assert sorted(runs_below(Path("outputs"))) == [run, inside]
