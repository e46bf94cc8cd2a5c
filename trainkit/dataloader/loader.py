"""Loaders whose place in the data can be saved, and gone on from to the bit."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, IterDataPipe, MapDataPipe

from trainkit.dataloader.order import Order, nominal_batch_size
from trainkit.dataloader.seeding import (
    SeededSamples,
    SeededStream,
    WorkerStart,
    draws_nothing,
    generators_kept,
    sample_key,
)
from trainkit.dataloader.watch import Marks, WatchedBatches
from trainkit.dist import get_rank, get_world_size

_END = object()
# The batch size and the samplers are settled apart.
_SAME_OPTIONS = (
    *("num_workers", "collate_fn", "pin_memory", "multiprocessing_context"),
    *("prefetch_factor", "persistent_workers", "pin_memory_device", "in_order"),
)


def take_over(loader: Any, seed: int) -> Any:
    """Return a loader that reads as ``loader`` does, in an order that can be gone back to.

    Left as they are: loaders that keep their own state (``state_dict``), that are no ``DataLoader``
    or read in their own way, and those of data pipes, which torch seeds itself.

    Args:
        loader: Whatever gives the batches.
        seed: The run's seed.
    """
    if isinstance(loader, SeededLoader):  # of another runner
        return SeededLoader(loader.given, seed)
    if not isinstance(loader, DataLoader) or is_stateful(loader):
        return loader
    reads = ("__iter__", "_get_iterator")
    own = any(getattr(type(loader), name) is not getattr(DataLoader, name) for name in reads)
    pipe = isinstance(loader.dataset, IterDataPipe | MapDataPipe)
    return loader if own or pipe else SeededLoader(loader, seed)


def is_stateful(part: Any) -> bool:
    """Whether a loader or a dataset keeps its place itself, as torchdata's loaders do."""
    methods = (getattr(part, name, None) for name in ("state_dict", "load_state_dict"))
    return all(callable(method) for method in methods)


class SeededLoader(DataLoader[Any]):
    """A ``DataLoader`` of another's options, read in an order that can be gone back to.

    Each sample is read under random numbers seeded by (seed, epoch, index), by whichever worker, so
    augmentations do not depend on the number of workers, differ between epochs and come again after
    a resume. Where an index may come twice in an epoch (drawn with replacement, an endless stream,
    a batch sampler of one's own), its place in the epoch counts too, so that the two differ.
    Covered are ``random``, NumPy's global generator and torch's for the CPU; not generators that a
    dataset, or a sampler without ``set_epoch``, keeps to itself. Training's random numbers are left
    alone.

    The attributes are those of ``given``, which stays as it was.

    Args:
        given: The loader.
        seed: The run's seed.
    """

    def __init__(self, given: DataLoader[Any], seed: int) -> None:
        vars(self).update(vars(given))  # whatever options this version of torch has
        self._iterator = None
        self.given, self.seed = given, seed
        self.epoch = 0
        self.batch = 0  # batches of this pass that were handed out, or that a resume left out
        self._drawn = 0  # samples that all ranks took of an endless stream before this pass
        self._worker_seeds = torch.Generator()

    def __getattr__(self, name: str) -> Any:
        if name == "given":  # not there yet while being copied
            raise AttributeError(name)
        return getattr(self.given, name)  # what a subclass of DataLoader adds

    def __len__(self) -> int:
        return len(self.given)

    @cached_property
    def _order(self) -> Order:
        random = not draws_nothing(self.dataset, self.collate_fn)
        return Order(self.given, random=random)

    @cached_property
    def _stream(self) -> SeededStream | None:
        is_stream = isinstance(self.dataset, IterableDataset)
        return SeededStream(self.dataset, get_rank(), self._marks) if is_stream else None

    @cached_property
    def _marks(self) -> Marks:
        return Marks(self.num_workers)

    @cached_property
    def _reader(self) -> DataLoader[Any]:
        """The loader that does the reading; one for all passes, for it keeps the workers."""
        options: dict[str, Any] = {name: getattr(self, name) for name in _SAME_OPTIONS}
        if self._stream is not None:
            options |= {"batch_size": self.batch_size, "drop_last": self.drop_last}
        elif self.batch_sampler is not None:
            options["batch_sampler"] = self._order
        else:
            options |= {"batch_size": None, "sampler": self._order}
        reader = DataLoader(
            self._stream or SeededSamples(self.dataset, self._marks),
            worker_init_fn=WorkerStart(self.worker_init_fn),
            generator=self._worker_seeds,
            **options,
        )
        # Persistent workers that end with a cycle of objects, as a Runner is, end with their queues
        # already closed and are each waited for in vain for 5 s. So they end right after it.
        weakref.finalize(self, list.clear, [reader]).atexit = False
        return reader

    def set_epoch(self, epoch: int) -> None:
        """Say which pass is next, for augmentations and torch's samplers."""
        self.epoch = epoch

    def __iter__(self) -> Any:
        return self.read(self.epoch)

    def read(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Read a pass over the data from batch ``start`` on; no sample before it is read."""
        self.epoch = epoch
        if self._stream is not None:
            read = 0 if self.begins_again else start * (self.batch_size or 1)
            self._stream.begin(self.seed, epoch, read)
        else:
            self._begin(self._order, start)
        self.batch = start
        if start == 0:
            # The number that a DataLoader draws when it is iterated over, so that training's random
            # numbers are those of a bare loop. The run that a resume goes on with has drawn it.
            torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        self._worker_seeds.manual_seed(sample_key(self.seed, epoch, get_rank()) % 2**62)
        batches: Iterator[Any] = iter(self._reader)
        if self.num_workers:
            batches = WatchedBatches(batches, self.dataset, self._marks, self.timeout)
        return self._hand_out(batches)

    def _begin(self, order: Order, start: int) -> None:
        if order.is_endless and start == 0:
            self._drawn += self.batch * (self.global_batch or 0)
        order.begin(self.seed, self.epoch, start, self._drawn)

    def _hand_out(self, batches: Iterator[Any]) -> Iterator[Any]:
        here = self.num_workers == 0 and (self._stream is not None or self._order.random)
        reading = generators_kept if here else contextlib.nullcontext
        while True:
            try:
                with reading():
                    batch = next(batches, _END)
            except Exception:
                vars(self).pop("_reader", None)  # its workers have ended
                raise
            if batch is _END:
                return
            self.batch += 1
            yield batch

    @property
    def global_batch(self) -> int | None:
        """Samples of a batch over all ranks; None if the batch sampler does not tell."""
        size = nominal_batch_size(self.given)
        return None if size is None else size * get_world_size()

    @property
    def begins_again(self) -> bool:
        """Whether a pass that was left can only begin again: that of a stream without a state."""
        return self._stream is not None and not self._keeps_place

    @property
    def _keeps_place(self) -> bool:
        # Workers have copies of the dataset, whose states do not come back.
        return self._stream is not None and self.num_workers == 0 and is_stateful(self.dataset)

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data, after the batches that were handed out."""
        place = {"seed": self.seed, "batch": self.batch, "global_batch": self.global_batch}
        if self._stream is None:
            return {**place, "drawn": self._drawn, "sampler_seed": self._order.sampler_seed}
        dataset: Any = self.dataset
        return {**place, "dataset": dataset.state_dict()} if self._keeps_place else place

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the place of an earlier run; :attr:`batch` is where :meth:`read` is to start.

        The number of ranks may be another one; with another number of samples in the batches of all
        ranks together, the place is rounded down to a whole batch.
        """
        self.seed, self.batch = int(state_dict["seed"]), int(state_dict["batch"])
        self._drawn = int(state_dict.get("drawn", 0))
        before, now = state_dict["global_batch"], self.global_batch
        if before and now:
            self.batch = self.batch * int(before) // now
        if self._stream is None:
            self._order.sampler_seed = state_dict.get("sampler_seed")
        elif self._keeps_place and "dataset" in state_dict:
            dataset: Any = self.dataset
            dataset.load_state_dict(state_dict["dataset"])
