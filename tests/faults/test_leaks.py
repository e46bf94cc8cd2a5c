"""A long run needs no more of anything at its end than soon after its beginning."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.faults.runs import make
from trainkit import Hook, Runner
from trainkit.checkpoint import list_checkpoints

WARM = 100  # iterations after which everything has been used once


class Meter(Hook):
    """Note what the process has open, and its memory."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.files: dict[int, int] = {}
        self.threads: dict[int, int] = {}
        self.memory: dict[int, float] = {}  # MiB

    def after_train_iter(self, runner: Runner, *args: Any) -> None:
        self.files[runner.iter] = len(os.listdir("/proc/self/fd"))
        self.threads[runner.iter] = threading.active_count()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory[runner.iter] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(tmp_path: Path, iterations: int) -> Meter:
    runner = make("plateau-iters", tmp_path / "run", save_every=50)
    meter = Meter()
    runner.register_hook(meter)
    runner.train_loop.end_at(iterations)
    runner.train_loop.val_interval = 50
    runner.train()
    return meter


def assert_flat(meter: Meter, tmp_path: Path, growth: float) -> None:
    last = max(meter.files)
    assert meter.files[last] == meter.files[WARM]
    assert meter.threads[last] == meter.threads[WARM]
    assert meter.memory[last] - meter.memory[WARM] < growth
    directory = tmp_path / "run" / "checkpoints"
    best = list(directory.glob("best_*"))
    # Two that are kept, two of the best, and the name of the last.
    assert len(list_checkpoints(directory)) == len(best) == 2
    assert len(list(directory.iterdir())) == 5


@pytest.mark.slow
def test_six_hundred_iterations_leave_nothing_open(tmp_path: Path) -> None:
    assert_flat(run(tmp_path, 600), tmp_path, growth=8.0)


@pytest.mark.soak
def test_twenty_thousand_iterations_leave_nothing_open(tmp_path: Path) -> None:
    assert_flat(run(tmp_path, 20_000), tmp_path, growth=20.0)
