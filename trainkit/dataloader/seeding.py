"""Each sample is read under random numbers of its own, whichever process reads it, and when."""

from __future__ import annotations

import hashlib
import itertools
import operator
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import (
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_convert,
    get_worker_info,
)
from torch.utils.data import default_collate as torch_collate

from trainkit.dataloader.collate import default_collate, pseudo_collate
from trainkit.dataloader.subset import FirstSamples
from trainkit.dataloader.watch import Marks, tell_sample

_WRAPPERS = (Subset, FirstSamples)
_SHOWN = 8  # indices of a batch that a message lists
# Those that draw nothing.
_PLAIN_COLLATES = (default_collate, default_convert, pseudo_collate, torch_collate)


class Request(NamedTuple):
    """What the main process sends for a batch: which samples, and what their seeds come from.

    Args:
        indices: The indices of a batch; or, of a loader that does not batch, one index.
        seed: The run's; None where no sample is random.
        epoch: The pass over the data.
        places: Each sample's place in the pass over all ranks, where an index may come again.
    """

    indices: Any
    seed: int | None
    epoch: int
    places: range | None


def sample_key(*parts: Any) -> int:
    """Return 64 well-mixed bits that depend on all ``parts``, the same in each process.

    The samples of a map-style dataset have the parts ``(seed, epoch, index, place)``, with place
    None where an index comes only once in an epoch.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def seed_generators(key: int) -> None:
    """Seed ``random``, NumPy's global generator and torch's for the CPU, in 7 us.

    ``torch.manual_seed`` would seed every device too, which takes 110 us.
    """
    random.seed(key)
    # NumPy and torch run the same Mersenne Twister from 32 bits of seed, so they get other ones.
    np.random.seed(key >> 32)
    torch.default_generator.manual_seed(key)


_States = tuple[Any, Any, torch.Tensor]


def _generator_states() -> _States:
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state()


def _set_generator_states(states: _States) -> None:
    python, numpy, cpu = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.default_generator.set_state(cpu)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave the three generators of :func:`seed_generators` as they were; it takes 80 us."""
    states = _generator_states()
    try:
        yield
    finally:
        _set_generator_states(states)


class OwnGenerators:
    """Random numbers for something that draws from the global generators, apart from theirs."""

    def __init__(self, key: int) -> None:
        self._key = key
        self._states: _States | None = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from these generators meanwhile."""
        with generators_kept():
            if self._states is None:
                seed_generators(self._key)
            else:
                _set_generator_states(self._states)
            yield
            self._states = _generator_states()


def draws_nothing(dataset: Any, collate_fn: Any) -> bool:
    """Whether reading is known to draw no random number, so that seeding can be left out.

    It is known of a ``TensorDataset`` and of a dataset whose class says ``deterministic = True``,
    unless a subclass reads otherwise.
    """
    while type(dataset) in _WRAPPERS:
        dataset = dataset.dataset
    known = type(dataset) is TensorDataset or _says_so(dataset)
    return known and any(collate_fn is plain for plain in _PLAIN_COLLATES)


def _says_so(dataset: Any) -> bool:
    for cls in type(dataset).__mro__:
        if "deterministic" in vars(cls):
            return vars(cls)["deterministic"] is True
        if {"__getitem__", "__getitems__"} & vars(cls).keys():
            return False
    return False


def _fetches_batches(dataset: Any) -> bool:
    while type(dataset) in _WRAPPERS:  # they pass a batch on, and else read sample by sample
        dataset = dataset.dataset
    return callable(getattr(dataset, "__getitems__", None))


class SeededSamples(Dataset[Any]):
    """A map-style dataset that is asked by :class:`Request`.

    A dataset with ``__getitems__`` reads a batch at once, under one seed from all its indices.

    Args:
        dataset: The dataset.
        marks: Where a worker says what it reads.
    """

    def __init__(self, dataset: Any, marks: Marks) -> None:
        self.dataset, self.marks = dataset, marks
        self._whole_batches = _fetches_batches(dataset)

    def __getitem__(self, request: Request) -> Any:
        """Read one sample, of a loader that does not batch."""
        return self._read(request, request.indices, _first(request))

    def __getitems__(self, request: Request) -> Any:
        """Read a batch."""
        indices, places = request.indices, request.places
        if self._whole_batches:
            _seed(request, [_plain(index) for index in indices], _first(request))
            return self._told(_batch_of, indices, "the samples")
        if request.seed is None and not self.marks.in_worker:
            return self._read_plainly(indices)
        return [
            self._read(request, index, place)
            for index, place in zip(indices, places or itertools.repeat(None), strict=False)
        ]

    def _read(self, request: Request, index: Any, place: int | None) -> Any:
        _seed(request, index, place)
        return self._told(operator.getitem, index, "sample")

    def _told(self, read: Callable[[Any, Any], Any], index: Any, kind: str) -> Any:
        """Read, while it can be told what is read."""
        if self.marks.in_worker:
            self.marks.reading(_worded(kind, index))
        try:
            sample = read(self.dataset, index)
        except Exception as error:
            tell_sample(error, _worded(kind, index), self.dataset)
            raise
        self.marks.done()
        return sample

    def _read_plainly(self, indices: Any) -> list[Any]:
        """Read a batch here, where nothing is to be seeded or marked, as fast as torch does."""
        samples = []
        index = None
        try:
            for index in indices:
                samples.append(self.dataset[index])
        except Exception as error:
            tell_sample(error, _worded("sample", index), self.dataset)
            raise
        return samples


def _batch_of(dataset: Any, indices: Any) -> Any:
    return dataset.__getitems__(indices)


def _worded(kind: str, index: Any) -> str:
    """Return a sample, or a batch of them, in words."""
    if isinstance(index, list):
        shown = ", ".join(str(_plain(each)) for each in index[:_SHOWN])
        return f"{kind} {shown}{', ...' if len(index) > _SHOWN else ''}"
    return f"{kind} {_plain(index)!r}"


def _first(request: Request) -> int | None:
    return None if request.places is None else request.places[0]


def _seed(request: Request, index: Any, place: int | None) -> None:
    if request.seed is not None:
        key = sample_key(request.seed, request.epoch, _plain(index), place)
        seed_generators(key)


def _plain(index: Any) -> Any:
    """Return an index that is written alike wherever it came from."""
    return int(index) if isinstance(index, torch.Tensor | np.integer) and index.ndim == 0 else index


class SeededStream(IterableDataset[Any]):
    """An iterable dataset whose samples are read under (seed, epoch, rank, worker, place).

    The place is the sample's in its worker, so what is drawn does depend on how many there are, as
    does a stream's order.
    """

    def __init__(self, dataset: Any, rank: int, marks: Marks) -> None:
        self.dataset, self.rank, self.marks = dataset, rank, marks
        self.begin(0, 0, 0)

    def begin(self, seed: int, epoch: int, read: int) -> None:
        """Say which pass is next, and how many of its samples were read before a resume."""
        self._seed, self._epoch, self._read = seed, epoch, read

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        where = (self._seed, self._epoch, self.rank, 0 if info is None else info.id)
        first, self._read = self._read, 0
        self._epoch += 1  # a persistent worker, which has a copy, is not told the next pass
        seed_generators(sample_key(*where))
        samples = iter(self.dataset)
        for place in itertools.count(first):
            seed_generators(sample_key(*where, place))
            what = f"sample {place} of the stream"
            self.marks.reading(what)
            try:
                sample = next(samples)
            except StopIteration:
                return
            except Exception as error:
                tell_sample(error, what, self.dataset)
                raise
            self.marks.done()
            yield sample


class WorkerStart:
    """What a worker does first: the user's ``worker_init_fn``, which sees the user's dataset."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, worker_id: int) -> None:
        """Prepare the worker."""
        info: Any = get_worker_info()
        info.dataset.marks.begin(worker_id)
        # The class of torch is frozen; get_worker_info().dataset shall be what it is in any loader.
        object.__setattr__(info, "dataset", info.dataset.dataset)
        if self.function is not None:
            self.function(worker_id)
