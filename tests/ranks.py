"""Real ranks for tests: processes of one gloo group, and what each of them found."""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch.distributed as torch_dist


def on_ranks(work: Callable[[int], Any], directory: Path, world_size: int = 2) -> list[Any]:
    """Return what ``work(rank)``, a function of a module, gave on each rank, as JSON holds it."""
    context, port = multiprocessing.get_context("spawn"), _free_port()
    arguments = [(work, rank, world_size, port, str(directory)) for rank in range(world_size)]
    ranks = [context.Process(target=_rank, args=given) for given in arguments]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0] * world_size
    return [json.loads(_found(directory, rank).read_text()) for rank in range(world_size)]


def _rank(work: Callable[[int], Any], rank: int, world: int, port: int, directory: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with _group(rank, world):
        found = work(rank)
    _found(Path(directory), rank).write_text(json.dumps(found))


@contextlib.contextmanager
def _group(rank: int, world_size: int) -> Iterator[None]:
    torch_dist.init_process_group("gloo", rank=rank, world_size=world_size)
    yield
    torch_dist.barrier()
    torch_dist.destroy_process_group()
    # The group's threads end with the last reference to it, which a cycle holds. One that frees a
    # tensor while the interpreter shuts down aborts the process (seen in torch 2.13).
    gc.collect()


def _found(directory: Path, rank: int) -> Path:
    return directory / f"rank_{rank}.json"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
