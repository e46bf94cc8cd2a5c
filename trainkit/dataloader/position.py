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


def num_batches(dataloader: Any) -> int | None:
    """Return a loader's number of batches; None for a stream, which does not know it."""
    try:
        return len(dataloader)
    except TypeError:  # a DataLoader has __len__ even where its dataset has none
        return None


def set_epoch(dataloader: Any, epoch: int) -> None:
    """Tell the loader's sampler and batch sampler, if they ask, which epoch comes next."""
    for sampler in (getattr(dataloader, "batch_sampler", None), data_sampler(dataloader)):
        announce = getattr(sampler, "set_epoch", None)
        if announce is not None:
            announce(epoch)


def batches_from(dataloader: Iterable[Any], start: int) -> Iterator[Any]:
    """Iterate over a loader from batch ``start`` on.

    A sampler with ``skip`` leaves the samples before unread; with any other they are read and
    dropped.
    """
    if start == 0:
        return iter(dataloader)
    sampler, batch_size = data_sampler(dataloader), getattr(dataloader, "batch_size", None)
    skips = hasattr(sampler, "skip") and isinstance(batch_size, int)
    if skips:
        sampler.skip(start * (batch_size or 0))
    # Making the iterator draws a number, which the run that was stopped had drawn already.
    with isolated_rng():
        batches = iter(dataloader)
    return batches if skips else itertools.islice(batches, start, None)
