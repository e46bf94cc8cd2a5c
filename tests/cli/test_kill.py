"""A run that is killed for real goes on with the same command and ends with the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (
    *(sys.executable, "-m", "trainkit", "train_cfg.max_epochs=4", "env.num_threads=1"),
    *("hooks=[ema]", "visualizer=local", "resume=true"),
)


def start(directory: Path) -> subprocess.Popen[str]:
    directory.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(COMMAND, cwd=directory, stdout=pipe, text=True, env=environment)


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    with start(tmp_path / "whole") as whole:
        whole.communicate()
    with start(tmp_path / "killed") as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if "Epoch(train)" in line and "[3][10/20]" in line:
                killed.kill()
                break
    with start(tmp_path / "killed") as resumed:
        printed, _ = resumed.communicate()
    assert "Resumed from" in printed
    (one,) = (tmp_path / "whole").glob("outputs/digits/*")
    (other,) = (tmp_path / "killed").glob("outputs/digits/*")
    for name in ("model.pt", "rank_0.pt"):
        path = Path("checkpoints") / "epoch_4" / name
        assert (one / path).read_bytes() == (other / path).read_bytes()
    counts = [len((run / "metrics.jsonl").read_text().splitlines()) for run in (one, other)]
    assert counts == [12, 12]
