"""Small checkpoints, and what can happen to them."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trainkit.checkpoint import (
    write_checkpoint,
)

FILES = ("model.pt", "state.pt", "rank_0.pt")


def states(value: float = 1.0) -> dict[str, Any]:
    return {
        "model.pt": collections.OrderedDict(weight=torch.full((4, 3), value), bias=torch.ones(3)),
        "state.pt": {"meta": {"epoch": 1, "cfg": "a: 1"}, "hooks": {"best": None}},
        "rank_0.pt": {"rng": [1, 2, (3, "x")]},
    }


def write(directory: Path, iteration: int = 1, value: float = 1.0) -> Path:
    return write_checkpoint(directory, states(value), {"iter": iteration, "epoch": iteration})


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def flip_bit(path: Path, bit: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
