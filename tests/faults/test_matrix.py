"""Wherever a run is stopped, and however, it goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.runs import ITERATIONS, VARIANTS, differences, ledger_of, make, results
from trainkit import Hook, Preempted, Runner
from trainkit.run_dir import read_status

pytestmark = [
    pytest.mark.slow,
    # A machine with fewer cores than workers is told so.
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard"),
]

SAVE_EVERY = 5  # iterations, so that most stops are between two checkpoints


class Broken(RuntimeError):
    """The user's code failed."""


class Stop(Hook):
    """End training at a point of iteration ``at``: by SIGTERM, or by an error."""

    def __init__(self, how: str, point: str, at: int) -> None:
        self.how, self.point, self.at, self.done = how, point, at, False

    def _stop(self, runner: Runner, point: str) -> None:
        if self.done or point != self.point or runner.iter != self.at:
            return
        self.done = True
        if self.how == "error":
            raise Broken
        os.kill(os.getpid(), signal.SIGTERM)

    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        self._stop(runner, "step")

    def after_train_epoch(self, runner: Runner) -> None:
        self._stop(runner, "epoch")

    def before_val_iter(self, runner: Runner, *args: Any) -> None:
        self._stop(runner, "validation")


@dataclass
class Whole:
    left: dict[str, Any]
    ledger: list[list[str]]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    """Each variant, trained without a stop."""
    torch.set_num_threads(1)  # this is set up before what each test sets up
    root = tmp_path_factory.mktemp("whole")
    found = {}
    for variant in VARIANTS:
        make(variant, root / variant, save_every=SAVE_EVERY).train()
        left = results(root / variant, broken_off=True)
        found[variant] = Whole(left, ledger_of(root / variant).read())
    return found


def steps(ledger: list[list[str]]) -> list[list[str]]:
    return [words for words in ledger if words[0] == "step"]


# Epochs have 7 batches; iteration runs validate every 5. Windows of accumulation: of scaler
# (9, 10, 11), of several's first optimizer (8, 9). Workers: before the stop, and after it.
CASES = [
    ("scaler-epochs", "signal", "step", 10, (0, 0)),  # inside a window
    ("scaler-epochs", "error", "step", 9, (0, 2)),
    ("scaler-epochs", "signal", "epoch", 14, (1, 0)),
    ("scaler-epochs", "signal", "validation", 7, (0, 0)),
    ("scaler-epochs", "error", "validation", 14, (0, 0)),
    ("scaler-iters", "signal", "step", 10, (2, 1)),
    ("scaler-iters", "signal", "validation", 10, (0, 0)),
    ("scaler-iters", "error", "step", 16, (0, 0)),
    ("plateau-epochs", "signal", "step", 9, (4, 4)),
    ("plateau-epochs", "error", "epoch", 14, (0, 0)),
    ("plateau-epochs", "signal", "validation", 14, (0, 0)),
    ("plateau-iters", "signal", "step", 6, (0, 0)),  # between two passes over the data
    ("plateau-iters", "error", "step", 12, (0, 4)),
    ("plateau-iters", "error", "validation", 15, (0, 0)),
    ("several-epochs", "signal", "step", 8, (0, 1)),  # inside a window
    ("several-epochs", "error", "epoch", 7, (0, 0)),
    ("several-epochs", "signal", "validation", 14, (0, 0)),
    ("several-iters", "signal", "step", 9, (1, 2)),
    ("several-iters", "error", "step", 16, (0, 0)),
    ("several-iters", "signal", "validation", 15, (0, 0)),
]


@pytest.mark.parametrize(("variant", "how", "point", "at", "workers"), CASES)
def test_a_run_that_is_stopped_anywhere_ends_as_one_that_was_not(
    tmp_path: Path,
    wholes: dict[str, Whole],
    variant: str,
    how: str,
    point: str,
    at: int,
    workers: tuple[int, int],
) -> None:
    work_dir, whole = tmp_path / variant, wholes[variant]
    runner = make(variant, work_dir, workers=workers[0], save_every=SAVE_EVERY)
    runner.register_hook(Stop(how, point, at))
    with pytest.raises(Broken if how == "error" else Preempted):
        runner.train()
    assert read_status(work_dir)["status"] == ("failed" if how == "error" else "preempted")
    make(variant, work_dir, workers=workers[1], save_every=SAVE_EVERY).train()
    found = list(differences(whole.left, results(work_dir, broken_off=True)))
    assert not found, "\n".join(found)
    ledger = ledger_of(work_dir).read()
    expected = steps(whole.ledger)
    assert all(row in expected for row in steps(ledger)), "other samples were trained on"
    if how == "signal":  # nothing is trained on again, and nothing read for nothing
        assert steps(ledger) == expected
        reads = [words for words in ledger if words[0] == "read"]
        if workers == (0, 0):
            assert reads == [words for words in whole.ledger if words[0] == "read"]
    else:
        assert len(steps(ledger)) <= ITERATIONS + SAVE_EVERY


def test_the_runs_have_what_a_resume_has_to_bring_back(wholes: dict[str, Whole]) -> None:
    for loop in ("epochs", "iters"):
        scaler, plateau, several = (
            wholes[f"{features}-{loop}"].left for features in ("scaler", "plateau", "several")
        )
        end = scaler["checkpoints"][f"iter_{ITERATIONS}"]
        assert end["optimizer"]["loss_scaler"]["scale"] != 1024
        assert "ema_state_dict" in end
        rates = [row["lr"] for row in plateau["metrics"] if "lr" in row]
        assert rates[-1] < rates[0]
        assert len(several["checkpoints"][f"iter_{ITERATIONS}"]["optimizer"]) == 2
