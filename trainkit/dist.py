"""Rank, world size and collectives, valid with and without a process group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist

from trainkit.errors import CheckpointError, ConfigError

T = TypeVar("T")


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


def on_main(action: Callable[[], T]) -> T:
    """Return on every rank what ``action`` gives on rank 0, which alone does it.

    Raises:
        Exception: What it raises on rank 0; on the others, of another kind if it is no error of
            trainkit's.
    """
    if not is_distributed():
        return action()
    outcome: tuple[Any, Exception | None] = None, None
    error: Exception | None = None
    if is_main_process():
        try:
            outcome = action(), None
        except Exception as raised:
            error = raised
            is_plain = isinstance(raised, ConfigError | CheckpointError)
            told = raised if is_plain else RuntimeError(f"{type(raised).__name__}: {raised}")
            outcome = None, told
    value, failure = broadcast_object(outcome)
    if failure is not None:
        raise error or failure
    result: T = value
    return result


def holds_everywhere(flag: torch.Tensor) -> bool:
    """Return whether ``flag``, a tensor of one element, is true on every rank."""
    if is_distributed():
        flag = flag.to(torch.int32)
        torch_dist.all_reduce(flag, op=torch_dist.ReduceOp.MIN)
    return bool(flag)


def all_gather_object(value: Any) -> list[Any]:
    """Return every rank's ``value``, in rank order."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * get_world_size()
    torch_dist.all_gather_object(gathered, value)
    return gathered
