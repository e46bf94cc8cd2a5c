"""How long training stands still for a checkpoint, beside plain ``torch.save``.

    python -m benchmarks.checkpoint [--size MIB] [--repeat N] [--directory DIR]

Each round saves the same state (weights and the two moments of Adam) in every way, one after the
other, so that what else the machine does meets all of them. Shown are medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainkit.checkpoint import CheckpointWriter, compact, non_finite, write_checkpoint

MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=300, help="MiB of a checkpoint")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    parser.add_argument("--directory", type=Path, default=None, help="the disk to measure")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        rounds = measured(Path(directory), states(options.size), options.repeat)
    print_table(rounds, options.size)


def states(size: int) -> dict[str, Any]:
    """Return the files of a checkpoint of ``size`` MiB, in tensors as a small network has them."""
    layers = max(size // 12, 1)  # each of 4 MiB, three times
    rows = size * MIB // layers // 12 // 1024
    weights = {f"layers.{i}.weight": torch.randn(rows, 1024) for i in range(layers)}
    moments = {
        i: {"step": torch.tensor(9.0), "exp_avg": value * 0.1, "exp_avg_sq": value**2}
        for i, value in enumerate(weights.values())
    }
    return {
        "model.pt": weights,
        "state.pt": {"optimizer": {"state": moments, "param_groups": [{"lr": 1e-3}]}},
    }


def measured(directory: Path, files: dict[str, Any], repeat: int) -> list[dict[str, float]]:
    """Return the seconds of each way in each round; a round before them is not counted."""
    writer = CheckpointWriter()
    rounds = []
    for _ in range(repeat + 1):
        rounds.append(
            {
                "torch.save": timed(partial(plain, directory, files)),
                "trainkit": timed(partial(save, writer, directory, files, background=False)),
                "trainkit, async_save": timed(
                    partial(save, writer, directory, files, background=True)
                ),
            }
        )
        start = time.perf_counter()
        writer.settle(wait=True)
        rounds[-1]["(its writing, beside training)"] = time.perf_counter() - start
    return rounds[1:]


def timed(action: Callable[[], object]) -> float:
    """Return how long a call takes, with nothing left to write of what was before it."""
    os.sync()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def plain(directory: Path, files: dict[str, Any]) -> None:
    """Save as most scripts do: into one file, not flushed, not verified."""
    torch.save(files, directory / "plain.pt")


def save(
    writer: CheckpointWriter, directory: Path, files: dict[str, Any], *, background: bool
) -> None:
    """Save as a run does: whole or not at all, flushed to the disk, with digests."""

    def write(state: dict[str, Any]) -> None:
        state = compact(state)
        bad = non_finite(state["model.pt"])
        write_checkpoint(directory / "epoch_1", state, {"iter": 1, "non_finite": bad})

    def prepare() -> Callable[[], None]:
        return partial(write, writer.snapshot.take(files) if background else files)

    writer.write(prepare, lambda: None, background=background)


def print_table(rounds: list[dict[str, float]], size: int) -> None:
    """Print the median of each way, and its ratio to torch.save."""
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    base = medians["torch.save"]
    print(f"A checkpoint of {size} MiB, median of {len(rounds)} rounds, torch {torch.__version__}")
    print(f"{'':32}{'seconds':>8}{'/ torch.save':>14}")
    for name, seconds in medians.items():
        print(f"{name:32}{seconds:8.3f}{seconds / base:14.2f}")


if __name__ == "__main__":
    main()
