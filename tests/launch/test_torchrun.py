"""``torchrun -m trainkit``: real processes, started as people start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
FAILING = """
from trainkit import Hook

class Failing(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.rank == 1 and runner.iter == 3:
            raise ValueError("the second rank has had enough")
"""


def torchrun(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, "-m", "trainkit", *words],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_torchrun_trains_one_run_on_all_ranks(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "train_cfg.max_epochs=2", "hooks=sync_buffers")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs" / "digits").iterdir()
    status = json.loads((run / "status.json").read_text())
    assert (status["status"], status["epoch"]) == ("finished", 2)
    assert done.stdout.count("Epoch(val)  [2]") == 1
    for log in ("train.log", "rank_1.log"):
        assert "Epoch(val)  [2]" in (run / log).read_text()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum("val/accuracy" in line for line in lines) == 2
    assert {path.name for path in (run / "checkpoints" / "epoch_2").glob("rank_*")} == {
        "rank_0.pt",
        "rank_1.pt",
    }


def test_an_error_on_one_rank_ends_all_and_is_shown(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    begun = time.monotonic()
    done = torchrun(tmp_path, "+hooks.failing._target_=failing.Failing")
    assert done.returncode != 0
    assert time.monotonic() - begun < 60  # torch's own time-out is half an hour
    assert "ValueError: the second rank has had enough" in done.stderr
    assert "This came on rank 1 of 2" in done.stderr
    (run,) = (tmp_path / "outputs" / "digits").iterdir()
    assert "the second rank has had enough" in (run / "rank_1.log").read_text()
    assert json.loads((run / "status.json").read_text())["status"] == "failed"
