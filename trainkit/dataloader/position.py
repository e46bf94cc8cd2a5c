"""A loader's place in the data: its epoch, and the batch to start from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

from trainkit.dataloader.loader import SeededLoader, is_stateful
from trainkit.dataloader.sampler import InfiniteSampler
from trainkit.dataloader.watch import watched
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


def batch_sizes(dataloader: Any) -> tuple[int, int, int] | None:
    """Return the samples of a batch, the batches of a pass, and the samples of its last batch.

    None where a loader does not tell: a stream, or one whose batch sampler makes the batches.
    """
    size, batches = getattr(dataloader, "batch_size", None), num_batches(dataloader)
    sampler = data_sampler(dataloader)
    if type(size) is not int or batches is None or not isinstance(sampler, Sized):
        return None
    if isinstance(sampler, InfiniteSampler):  # whose passes have no end
        return size, batches, size
    return size, batches, min(size, len(sampler) - (batches - 1) * size)


def set_epoch(dataloader: Any, epoch: int) -> None:
    """Tell the loader, its sampler and batch sampler, if they ask, which epoch comes next."""
    batch_sampler = getattr(dataloader, "batch_sampler", None)
    for part in (dataloader, batch_sampler, data_sampler(dataloader)):
        announce = getattr(part, "set_epoch", None)
        if announce is not None:
            announce(epoch)


def batches_from(
    dataloader: Iterable[Any], start: int = 0, *, epoch: int = 0, stop: int | None = None
) -> Iterator[Any]:
    """Iterate over a pass of a loader from batch ``start`` on.

    A :class:`SeededLoader` leaves the samples before it unread, a loader with a state of its own
    goes on where that was taken, and of any other the batches before it are read and dropped.

    Args:
        dataloader: What gives the batches.
        start: The first batch to give.
        epoch: Which pass it is.
        stop: The batch to stop before; None: the loader ends by itself.
    """
    stateful = is_stateful(dataloader)
    if isinstance(dataloader, SeededLoader):
        # A loader that is asked to leave a whole pass out is not to begin it.
        batches = dataloader.read(epoch, start) if stop is None or start < stop else iter(())
    elif start == 0:
        batches = watched(dataloader)
    else:
        # Making the iterator draws a number, which the run that was stopped had drawn already.
        with isolated_rng():
            batches = watched(dataloader)
        batches = batches if stateful else itertools.islice(batches, start, None)
    if stop is None or (stateful and not isinstance(dataloader, SeededLoader)):
        return batches  # what keeps its state must come to its own end
    return itertools.islice(batches, max(stop - start, 0))


def place_of(dataloader: Any, batch: int) -> dict[str, Any] | None:
    """Return where a loader stands, for a checkpoint; None if it does not tell.

    Args:
        dataloader: The loader.
        batch: Batches of this epoch that were trained on; 0 between two epochs.
    """
    if not is_stateful(dataloader):
        return None
    place = dict(dataloader.state_dict())
    # Whoever else iterated over the loader meanwhile moved its own count.
    return {**place, "batch": batch} if isinstance(dataloader, SeededLoader) and batch else place


def go_to(
    dataloader: Any, place: Mapping[str, Any] | None, batch: int, warn: Callable[[str], None]
) -> int:
    """Bring a loader to where an earlier run left it; return the batch to start from.

    Args:
        dataloader: The loader.
        place: What :func:`place_of` returned for that run's loader.
        batch: Batches of the epoch that it had trained on.
        warn: Takes what cannot be brought back, in words.
    """
    ours = isinstance(dataloader, SeededLoader)
    if place is not None and is_stateful(dataloader):
        if ("global_batch" in place) == ours:
            dataloader.load_state_dict(place)
        else:
            place = None
            warn(
                "The training data are loaded by another kind of loader than when the checkpoint "
                "was written, so their place in it is not known: "
                f"{f'batch {batch} of the epoch is next' if ours else 'they begin again'}."
            )
    if not ours or batch == 0:
        return batch
    if dataloader.begins_again:
        warn(
            f"The run was stopped after batch {batch} of an epoch, and its data, an iterable "
            f"{type(dataloader.dataset).__name__}, cannot be read from there: the epoch's data "
            "begin again. To go on exactly, load it by a DataLoader with state_dict() and "
            "load_state_dict(), such as torchdata's StatefulDataLoader, or give the dataset these "
            "two and num_workers=0."
        )
    return batch if place is None else dataloader.batch
