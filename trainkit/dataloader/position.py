"""A loader's place in the data: its epoch, and the batch to start from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from trainkit.seed import isolated_rng


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
    if start == 0:
        return iter(dataloader)
    sampler, batch_size = data_sampler(dataloader), getattr(dataloader, "batch_size", None)
    skips = hasattr(sampler, "skip") and batch_size is not None
    if skips:
        sampler.skip(start * batch_size)
    with (
        isolated_rng()
    ):  # making the iterator draws a number, which the stopped run had drawn already
        batches = iter(dataloader)
    return batches if skips else itertools.islice(batches, start, None)
