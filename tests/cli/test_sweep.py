"""Sweeps: a run for each combination, and a line for each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainkit.__main__ import main

SHORT = ("env.num_threads=1", "fast_dev_run=2")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def test_each_combination_is_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *SHORT, "optim_wrapper.optimizer.lr=0.1,0.01", "seed=1,2"]) == 0
    (sweep,) = Path("outputs/digits").iterdir()
    assert sweep.name.startswith("sweep_")
    trials = sorted(path.name for path in sweep.iterdir())
    assert trials == [
        f"{number}_env.num_threads=1,fast_dev_run=2,optim_wrapper.optimizer.lr={lr},seed={seed}"
        for number, (lr, seed) in enumerate([(0.1, 1), (0.1, 2), (0.01, 1), (0.01, 2)])
    ]
    for trial in trials:
        assert json.loads((sweep / trial / "status.json").read_text())["status"] == "finished"
    table = capsys.readouterr().out.partition("\nSweep outputs")[2].splitlines()
    assert len(table) == 5
    assert all("accuracy 0." in line for line in table[1:])


FAILING = """
from trainkit import ConfigError, Hook


class Failing(Hook):
    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.fails:
            raise ConfigError("as it was told")
"""


def test_a_failing_trial_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "failing_by_test.py").write_text(FAILING)
    hook = ["+hooks.mine._target_=failing_by_test.Failing", "+hooks.mine.fails=true,false"]
    assert main(["-m", *SHORT, *hook]) == 2
    output = capsys.readouterr()
    assert "as it was told" in output.err
    statuses = [
        json.loads(path.read_text())["status"]
        for path in sorted(Path("outputs").glob("*/*/*/status.json"))
    ]
    assert statuses == ["failed", "finished"]


def test_a_trial_that_is_wrong_keeps_all_from_starting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["-m", *SHORT, "optim_wrapper.accumulative_counts=1,2,0"]) == 2
    assert capsys.readouterr().err == (
        "ConfigError: optim_wrapper.accumulative_counts is 0; expected a whole number of at least "
        "1.\n   Set by the override optim_wrapper.accumulative_counts=0.\n"
    )
    assert not Path("outputs").exists()


def test_what_a_file_sweeps_over_is_checked_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my" / "experiment").mkdir(parents=True)
    (tmp_path / "my" / "experiment" / "search.yaml").write_text(
        "# @package _global_\n"
        "hydra: {sweeper: {params: {seed: '1,2', optim_wrapper.optimizer.lr: '0.1,abc'}}}\n"
    )
    argv = ["--config-dir", "my", "-m", "experiment=search"]
    assert main([*argv, *SHORT]) == 2
    assert capsys.readouterr().err.startswith(
        "ConfigError: optim_wrapper.optimizer.lr is 'abc'; SGD takes a number."
    )
    assert not Path("outputs").exists()
    assert main(["check", *argv, "optim_wrapper.optimizer.lr=0.1,0.2,0.3"]) == 0
    assert capsys.readouterr().out == "No mistake found in 6 trials.\n"


def test_glob_sweeps_over_the_options_of_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-m", "optim_wrapper=glob(*)"]) == 0
    assert capsys.readouterr().out == "No mistake found in 2 trials.\n"


@pytest.mark.parametrize(
    "override", ["hydra.sweeper.params={seed: 1}", "+hydra.sweeper.params.a=1"]
)
def test_params_that_cannot_be_read_are_refused(
    override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-m", override, "seed=1,2"]) == 2
    told = capsys.readouterr().err  # Hydra 1.4 refuses it earlier than 1.3
    assert "hydra.sweeper.params cannot be read; expected texts by key" in told or (
        f"{override}: Hydra has no such setting, or takes no such value" in told
    )
    assert not Path("outputs").exists()


def test_work_dir_names_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", *SHORT, "work_dir=mine", "seed=1,2"]) == 0
    assert len(list(Path("mine").glob("*/status.json"))) == 2
    assert main(["-m", *SHORT, "work_dir=mine", "seed=1,2"]) == 2
    assert "work_dir is 'mine', which exists already" in capsys.readouterr().err


def test_a_sweep_is_refused_among_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for name, value in {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert main(["-m", "seed=1,2"]) == 2
    assert "A sweep runs in one process, and this is one of 2" in capsys.readouterr().err
