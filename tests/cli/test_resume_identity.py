"""``resume``: which of many runs is gone on with, and where a new one begins."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainkit import compose, train
from trainkit.__main__ import main
from trainkit.run_dir import is_locked, lock, read_status

SHORT = (
    *("env.num_threads=1", "train_cfg.max_epochs=2", "+dataloader.train.num_batch_per_epoch=2"),
    "visualizer=local",
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which one run is finished."""
    place = tmp_path_factory.mktemp("finished")
    before, path = Path.cwd(), [*sys.path]
    os.chdir(place)
    try:
        assert main(list(SHORT)) == 0
        yield place
    finally:
        os.chdir(before)
        sys.path[:] = path


def one_run(finished: Path, **facts: Any) -> Path:
    """Copy the finished run here; ``facts`` of its record win."""
    (source,) = (finished / "outputs" / "digits").iterdir()
    return copied(source, source.name, **facts)


def copied(source: Path, name: str, **facts: Any) -> Path:
    target = Path("outputs", "digits", name)
    shutil.copytree(source, target)
    record = json.loads((target / "status.json").read_text())
    (target / "status.json").write_text(json.dumps({**record, **facts}))
    return target


def stopped_early(run: Path, status: str) -> None:
    """Have a run stand after its first epoch."""
    shutil.rmtree(run / "checkpoints" / "epoch_2")
    record = read_status(run)
    (run / "status.json").write_text(json.dumps({**record, "status": status, "epoch": 1}))


def names() -> list[str]:
    return sorted(path.name for path in Path("outputs", "digits").iterdir())


def test_a_finished_run_says_so_with_its_metric(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = one_run(finished)
    before = (run / "status.json").read_bytes()
    assert main([*SHORT, "resume=true"]) == 0
    told = capsys.readouterr().out
    assert f"{run} is finished already, so there is nothing to resume. Its metric: 0." in told
    assert (run / "status.json").read_bytes() == before
    assert names() == [run.name]


@pytest.mark.parametrize("status", ["failed", "preempted", "running"])
def test_a_run_that_ended_early_goes_on_in_its_own_directory(finished: Path, status: str) -> None:
    run = one_run(finished)
    stopped_early(run, status)
    assert main([*SHORT, "resume=true"]) == 0
    assert names() == [run.name]
    assert read_status(run)["status"] == "finished"
    assert (run / "checkpoints" / "epoch_2").is_dir()


def test_a_run_that_left_no_checkpoint_begins_again_in_its_own_directory(finished: Path) -> None:
    run = one_run(finished, status="failed")
    shutil.rmtree(run / "checkpoints")
    assert main([*SHORT, "resume=true"]) == 0
    assert names() == [run.name]
    assert read_status(run)["iter"] == 4


def test_the_right_one_of_many_is_gone_on_with(finished: Path) -> None:
    old = one_run(finished, number=1)
    copied(old, "of_another_identity", number=9, identity_digest="0" * 64)
    in_use = copied(old, "in_use", number=8)
    trial = copied(old, "sweep_1/0_x", number=3)
    stopped_early(trial, "preempted")
    with lock(in_use):
        assert main([*SHORT, "resume=true"]) == 0
    assert read_status(trial)["status"] == "finished"
    assert len(names()) == 4


def test_where_the_clock_was_set_back_the_last_run_is_the_one(finished: Path) -> None:
    old = one_run(finished, number=1, created=4e9)
    assert main([*SHORT, "resume=fresh"]) == 0
    (new,) = {*names()} - {old.name}
    run = Path("outputs", "digits", new)
    assert read_status(run)["number"] == 2
    stopped_early(run, "failed")
    assert main([*SHORT, "resume=true"]) == 0
    assert read_status(run)["number"] == 2
    assert read_status(run)["status"] == "finished"
    assert len(names()) == 2


def test_no_run_of_that_identity_begins_one(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = one_run(finished)
    assert main([*SHORT, "seed=9", "resume=true"]) == 0
    assert "no earlier run of digits" in capsys.readouterr().out
    assert len(names()) == 2
    assert read_status(run)["status"] == "finished"


@pytest.mark.parametrize(
    "spelling", ["", "checkpoints/epoch_1", "epoch_1", "epoch_1.pth", "checkpoints/epoch_1.pth"]
)
def test_a_path_names_the_run_in_any_spelling(finished: Path, spelling: str) -> None:
    run = one_run(finished)
    longer = "train_cfg.max_epochs=3"
    argv = [text for text in SHORT if "max_epochs" not in text]
    assert main([*argv, longer, f"resume={run / spelling}"]) == 0
    assert names() == [run.name]
    assert read_status(run)["epoch"] == 3
    came_from = "epoch_1" if spelling else "epoch_2"
    assert f"{came_from}: epoch" in (run / "train.log").read_text()


@pytest.mark.parametrize("spelling", ["epoch_7.pth", "epoch_7", "checkpoints/epoch_7"])
def test_a_checkpoint_that_is_not_there_is_told(
    finished: Path, spelling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = one_run(finished)
    assert main([*SHORT, f"resume={run / spelling}"]) == 3
    assert f"resume is '{run / spelling}', which does not exist" in capsys.readouterr().err


def start(*argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trainkit", *SHORT, *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


@pytest.mark.slow
def test_two_runs_that_start_at_once_share_no_directory() -> None:
    processes = [start(), start()]
    for process in processes:
        _, told = process.communicate()
        assert (process.returncode, told) == (0, "")
    runs = [read_status(Path("outputs", "digits", name)) for name in names()]
    assert [run["status"] for run in runs] == ["finished", "finished"]
    assert {run["pid"] for run in runs} == {process.pid for process in processes}


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_lock_that_keeps_the_next_one_out() -> None:
    with start("work_dir=here", "dataloader.val.batch_size=1") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Epoch(val)  [1]" in line:
                break
        process.send_signal(signal.SIGSTOP)
        assert is_locked(Path("here"))
        assert main([*SHORT[:1], "work_dir=here", "resume=true"]) == 3
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not is_locked(Path("here"))
    assert read_status(Path("here"))["status"] == "running"
    assert main([*SHORT, "work_dir=here", "dataloader.val.batch_size=1", "resume=true"]) == 0
    assert read_status(Path("here"))["status"] == "finished"


# --------------------------------------------------------------------------- what makes it the same


def primary(name: str, **values: Any) -> None:
    Path("mine").mkdir(exist_ok=True)
    lines = ["defaults: [config, _self_]", *(f"{key}: {value}" for key, value in values.items())]
    Path("mine", f"{name}.yaml").write_text("\n".join(lines))


def test_runs_of_two_primary_configs_are_two(capsys: pytest.CaptureFixture[str]) -> None:
    primary("a", seed=5)
    primary("b", seed=6)
    for name in "ab":
        assert main(["--config-dir", "mine", "--config-name", name, *SHORT, "resume=true"]) == 0
    assert "finished already" not in capsys.readouterr().out
    assert len(list(Path("outputs", "digits").iterdir())) == 2


def test_a_finished_run_says_what_a_file_has_changed_since(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--config-dir", "mine", "--config-name", "a", *SHORT, "resume=true"]
    for seed in (5, 6):
        primary("a", seed=seed)
        assert main(given) == 0
    (run,) = Path("outputs", "digits").iterdir()
    told = f"Its config had other values of seed; resume={run} takes yours."
    assert told in capsys.readouterr().out


def test_composed_configs_are_one_run_where_they_say_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for lr in (0.1, 0.2, 0.1):
        train(compose([*SHORT, f"optim_wrapper.optimizer.lr={lr}", "resume=true"]))
    assert capsys.readouterr().out.count("is finished already") == 1
    assert len(list(Path("outputs", "digits").iterdir())) == 2


def test_a_fresh_start_leaves_a_named_directory_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main([*SHORT, "work_dir=named", "resume=fresh"]) == 0
    assert "named holds a run, so this one is in named_1." in capsys.readouterr().out
    assert read_status(Path("named_1"))["status"] == "finished"
