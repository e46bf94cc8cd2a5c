"""Attempts at a run, each in a process of its own that is forked in milliseconds, to be killed.

``multiprocessing``'s fork server imports torch and trainkit once; it has one thread, and never
computes.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.faults.runs import (
    ITERATIONS,
    VARIANTS,
    differences,
    ledger_of,
    make,
    results,
)

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["pytest", "hydra", "torch.utils.tensorboard", "torch._dynamo", "tests.faults.runs"]
)
_PATIENCE = 120  # seconds until an attempt that nobody killed counts as hanging
_HALF_DONE = (".tmp-", ".del-", ".old-")
_PREFETCH = 2  # batches that a worker reads ahead


def _attempt(variant: str, work_dir: Path, workers: int) -> None:
    torch.set_num_threads(1)
    # Else data workers would be forked by the server, and outlive the attempt.
    multiprocessing.set_start_method("fork", force=True)
    with work_dir.with_suffix(".out").open("a") as out:
        for stream in (1, 2):
            os.dup2(out.fileno(), stream)
    make(variant, work_dir, workers=workers).train()


def attempt(variant: str, work_dir: Path, *, kill_after: float | None, workers: int = 0) -> bool:
    """Train until the end or a SIGKILL; return whether it ended by itself.

    Raises:
        RuntimeError: It ended by itself, but not well.
    """
    work_dir.parent.mkdir(parents=True, exist_ok=True)
    process = _context.Process(target=_attempt, args=(variant, work_dir, workers))
    process.start()
    process.join(_PATIENCE if kill_after is None else kill_after)
    killed = process.is_alive()
    if killed:
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    if killed and kill_after is not None:
        return False
    if code != 0:
        text = work_dir.with_suffix(".out").read_text()[-3000:]
        raise RuntimeError(f"An attempt at {variant} hung or failed with exit code {code}: {text}")
    return True


@dataclass
class Whole:
    """A run that nobody killed."""

    left: dict[str, Any]  # what it has left
    trained: list[list[str]]  # the samples of each iteration
    seconds: float


@dataclass
class Summary:
    """What became of the runs that were killed."""

    seed: int
    kills: int = 0
    inside_a_save: int = 0  # of the kills
    finished: int = 0
    lost: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    misread: list[str] = field(default_factory=list)  # attempts that read what they had no need of
    most_again: int = 0  # iterations that were trained again after one kill

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.kills} kills, {self.inside_a_save} of them inside a save; "
            f"{self.finished} runs finished, {len(self.lost)} lost, {len(self.differences)} "
            f"differences, {len(self.misread)} attempts that read too much; at most "
            f"{self.most_again} iterations again.\n"
            + "\n".join([*self.lost, *self.differences, *self.misread][:20])
        )


def killed_runs(root: Path, kills: int, seed: int) -> Summary:
    """Kill runs of every variant at random times until there were so many kills; finish them."""
    summary, chance = Summary(seed), random.Random(seed)
    wholes: dict[str, Whole] = {}
    number = 0
    while summary.kills < kills:
        variant = VARIANTS[number % len(VARIANTS)]
        if variant not in wholes:
            wholes[variant] = _whole(variant, root / "whole" / variant)
        work_dir = root / str(number) / variant
        try:
            _kill_until_it_ends(variant, work_dir, wholes[variant], summary, kills, chance)
        except RuntimeError as error:
            summary.lost.append(f"run {number}: {error}")
        number += 1
    return summary


def _whole(variant: str, work_dir: Path) -> Whole:
    begin = time.monotonic()
    attempt(variant, work_dir, kill_after=None)
    seconds = time.monotonic() - begin
    steps = [words[2:] for words in ledger_of(work_dir).read() if words[0] == "step"]
    assert len(steps) == ITERATIONS
    return Whole(results(work_dir), steps, seconds)


def _kill_until_it_ends(
    variant: str, work_dir: Path, whole: Whole, summary: Summary, kills: int, chance: random.Random
) -> None:
    workers = [0]
    ended = False
    while not ended:
        last = summary.kills == kills
        kill_after = None if last else chance.uniform(0, 0.9 * whole.seconds)
        ended = attempt(variant, work_dir, kill_after=kill_after, workers=workers[-1])
        if not ended:
            summary.kills += 1
            leftovers = (work_dir / "checkpoints").glob(".*")
            summary.inside_a_save += any(path.name.startswith(_HALF_DONE) for path in leftovers)
            # The number of workers may change. (What one reads beyond the end of an endless
            # sampler's run is in no ledger to compare with.)
            workers.append(0 if variant == "several-iters" else chance.choice((0, 0, 0, 1)))
        ledger_of(work_dir).write("end")
    summary.finished += 1
    where = str(work_dir.relative_to(work_dir.parents[1]))
    summary.differences += differences(whole.left, results(work_dir), where)
    _audit(ledger_of(work_dir).read(), workers, whole.trained, summary, where)


def _audit(
    ledger: list[list[str]],
    workers: list[int],
    trained: list[list[str]],
    summary: Summary,
    where: str,
) -> None:
    """Compare what each attempt read and trained on with the run that nobody killed."""
    done = 0
    for number, (rows, num_workers) in enumerate(zip(_attempts(ledger), workers, strict=True)):
        name = f"{where}, attempt {number}"
        start = next((int(words[1]) for words in rows if words[0] == "start"), None)
        if start is None:
            continue
        summary.most_again = max(summary.most_again, done - start)
        steps = {int(words[1]): words[2:] for words in rows if words[0] == "step"}
        summary.differences += [
            f"{name}: other samples in iteration {i}"
            for i, row in steps.items()
            if row != trained[i]
        ]
        done = max(steps, default=start - 1) + 1
        read = [words[1] for words in rows if words[0] == "read"]
        ahead = done + 1 + _PREFETCH * num_workers
        allowed = [index for row in trained[start:ahead] for index in row]
        in_order = num_workers > 0 or read == allowed[: len(read)]
        if not in_order or Counter(read) - Counter(allowed):
            summary.misread.append(f"{name}, from iteration {start} on: {read}")


def _attempts(ledger: list[list[str]]) -> Iterator[list[list[str]]]:
    rows: list[list[str]] = []
    for words in ledger:
        if words == ["end"]:
            yield rows
            rows = []
        else:
            rows.append(words)
