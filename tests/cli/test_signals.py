"""Real processes that are asked to end: saved, exit code 75, and the same bits when resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runner.test_resume import TIMES
from trainkit.__main__ import main
from trainkit.checkpoint import verify_checkpoint
from trainkit.run_dir import read_status

pytestmark = pytest.mark.slow

OVERRIDES = (
    *("train_cfg.max_epochs=3", "env.num_threads=1", "hooks=[ema]", "visualizer=local"),
    "resume=true",
)
WAITS = """
import time

from trainkit import Hook


class Waits(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 25:
            print("waiting", flush=True)
            time.sleep(60)
"""


def start(directory: Path, *overrides: str) -> subprocess.Popen[str]:
    directory.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        (sys.executable, "-m", "trainkit", *overrides),
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], *parts: str) -> None:
    """Read what a process prints up to a line with these parts."""
    assert process.stdout is not None
    assert any(all(part in line for part in parts) for line in process.stdout)


def run_in(directory: Path) -> Path:
    (run,) = directory.glob("outputs/digits/*")
    return run


def scalars(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody asked to end."""
    directory = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert main(list(OVERRIDES)) == 0
    return run_in(directory)


@pytest.mark.parametrize(
    ("name", "workers", "whole_group"),
    [("SIGTERM", 0, False), ("SIGUSR1", 2, True), ("SIGINT", 2, True), ("SIGTERM", 2, True)],
)
def test_a_signal_costs_nothing(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    workers: int,
    whole_group: bool,
) -> None:
    """Also where the data workers get it, as from a terminal or a scheduler."""
    with start(tmp_path, *OVERRIDES, f"dataloader.train.num_workers={workers}") as process:
        wait_for(process, "Epoch(train)", "[2][10/20]")
        (os.killpg if whole_group else os.kill)(process.pid, getattr(signal, name))
        _, errors = process.communicate()
    assert process.returncode == 75, errors
    told = "Ctrl-C" if name == "SIGINT" else name
    assert f"{told}: training ends after this step, and is saved." in errors
    assert errors.rstrip().splitlines()[-1].startswith(f"Stopped by {told} after iteration")
    assert read_status(run_in(tmp_path))["status"] == "preempted"
    monkeypatch.chdir(tmp_path)
    assert main([*OVERRIDES, f"dataloader.train.num_workers={workers}"]) == 0
    for file in ("model.pt", "rank_0.pt"):
        path = Path("checkpoints") / "epoch_3" / file
        assert (whole / path).read_bytes() == (run_in(tmp_path) / path).read_bytes()
    assert scalars(whole) == scalars(run_in(tmp_path))


def test_a_second_ctrl_c_stops_at_once_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(WAITS)
    with start(tmp_path, *OVERRIDES, "+hooks.waits._target_=own.Waits") as process:
        wait_for(process, "waiting")
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr is not None
        assert any("A second one ends it at once." in line for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    run = run_in(tmp_path)
    assert read_status(run)["status"] == "failed"
    assert verify_checkpoint(run / "checkpoints" / "epoch_1")["iter"] == 20


def test_a_sweep_ends_with_the_trial_that_was_asked_to_end(tmp_path: Path) -> None:
    with start(tmp_path, "-m", "seed=1,2", *OVERRIDES[:-1]) as process:
        wait_for(process, "Epoch(train)", "[2][10/20]")
        process.terminate()
        _, errors = process.communicate()
    assert process.returncode == 75, errors
    (sweep,) = tmp_path.glob("outputs/digits/sweep_*")
    (trial,) = (path for path in sweep.iterdir() if path.is_dir())
    assert "Stopped by SIGTERM in trial 0; the trials after it are not started." in errors
    assert f"resume='{trial}' and its overrides" in errors
    assert read_status(trial)["status"] == "preempted"
