"""Rank, world size and collectives, valid with and without a process group."""

from __future__ import annotations

from typing import Any

import torch.distributed as torch_dist


def is_distributed() -> bool:
    """Whether a process group exists."""
    return torch_dist.is_available() and torch_dist.is_initialized()


def get_rank() -> int:
    """Return this process's rank; 0 without a process group."""
    return torch_dist.get_rank() if is_distributed() else 0


def get_world_size() -> int:
    """Return the number of ranks; 1 without a process group."""
    return torch_dist.get_world_size() if is_distributed() else 1


def is_main_process() -> bool:
    """Whether this is rank 0, which writes what is written once."""
    return get_rank() == 0


def barrier() -> None:
    """Wait until every rank is here."""
    if is_distributed():
        torch_dist.barrier()


def broadcast_object(value: Any) -> Any:
    """Return rank 0's ``value`` on every rank."""
    if not is_distributed():
        return value
    box = [value]
    torch_dist.broadcast_object_list(box, src=0)
    return box[0]


def all_gather_object(value: Any) -> list[Any]:
    """Return every rank's ``value``, in rank order."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * get_world_size()
    torch_dist.all_gather_object(gathered, value)
    return gathered
