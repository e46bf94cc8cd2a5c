"""A loader's place in the data: its epoch, and the batch to start from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any


def data_sampler(dataloader: Any) -> Any:
    """Return the sampler that decides a loader's order, which may be in its batch sampler."""
    batch_sampler = getattr(dataloader, "batch_sampler", None)
    inner = getattr(batch_sampler, "sampler", None)
    return inner if inner is not None else getattr(dataloader, "sampler", None)


def set_epoch(dataloader: Any, epoch: int) -> None:
    """Tell the loader's sampler, if it asks, which epoch comes next."""
    sampler = data_sampler(dataloader)
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)


def batches_from(dataloader: Iterable[Any], start: int) -> Iterator[Any]:
    """Iterate over a loader from batch ``start`` on.

    A sampler with ``skip`` leaves the samples before unread; with any other they are read and
    dropped.
    """
    sampler, batch_size = data_sampler(dataloader), getattr(dataloader, "batch_size", None)
    if start and hasattr(sampler, "skip") and batch_size is not None:
        sampler.skip(start * batch_size)
        return iter(dataloader)
    return itertools.islice(dataloader, start, None)
