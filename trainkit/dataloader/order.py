"""In which order a loader reads: its own samplers', as a pure function of (seed, epoch, batch)."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from trainkit.dataloader.sampler import DefaultSampler, InfiniteSampler
from trainkit.dataloader.seeding import OwnGenerators, Request, sample_key
from trainkit.dist import get_rank, get_world_size

_DRAW_NOTHING = (DefaultSampler, DistributedSampler, InfiniteSampler, SequentialSampler)
_OWN_GENERATOR = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
_ONCE_EACH = (DefaultSampler, DistributedSampler, SequentialSampler, SubsetRandomSampler)
_END = object()
# Ranks draw different numbers, those of rank 0 as DefaultSampler does; torch's generator for the
# CPU takes the lower 32 bits of its seed. Odd, so that the multiples differ there.
_RANK_STRIDE = 0x9E3779B1


class Order:
    """The requests of a loader: those of its batch sampler, or its sampler if it does not batch.

    What samplers draw from the global generators they draw from ones of their own here, seeded by
    (seed, rank, epoch); torch's samplers, and a ``generator`` that was given to any, are seeded by
    their seed plus the epoch. So a shuffled loader's order is that of :class:`DefaultSampler`.

    Args:
        loader: The loader; neither it nor torch's samplers in it are changed.
        random: Whether samples are to be seeded.
    """

    def __init__(self, loader: DataLoader[Any], random: bool) -> None:
        self.rank, self.world_size = get_rank(), get_world_size()
        self.random = random
        self.batched = loader.batch_sampler is not None
        self.batch_size = nominal_batch_size(loader)
        self._generators: list[tuple[torch.Generator, int | None]] = []  # and what seeds them
        self._source, self._plain = self._own_source(loader)
        inner = getattr(self._source, "sampler", None) if self.batched else self._source
        self.sampler: Any = self._source if inner is None else inner
        self._draws = not (self._plain and type(self.sampler) in _DRAW_NOTHING + _OWN_GENERATOR)
        self._once = self._plain and _reads_once(self.sampler)
        self._next: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def is_endless(self) -> bool:
        """Whether the sampler is one stream through all epochs."""
        return isinstance(self.sampler, InfiniteSampler)

    @property
    def sampler_seed(self) -> int | None:
        """The seed of trainkit's own sampler, which a run that drew its seed must go on with."""
        return int(self.sampler.seed) if self._is_ours else None

    @sampler_seed.setter
    def sampler_seed(self, seed: int | None) -> None:
        if self._is_ours and seed is not None:
            self.sampler.seed = seed

    @property
    def _is_ours(self) -> bool:
        return isinstance(self.sampler, DefaultSampler | InfiniteSampler)

    def _own_source(self, loader: DataLoader[Any]) -> tuple[Any, bool]:
        """Return what gives the indices, and whether it is a sampler in torch's BatchSampler."""
        source: Any = loader.batch_sampler if self.batched else loader.sampler
        plain = not self.batched or type(source) is BatchSampler
        inner = source.sampler if self.batched and plain else source
        if plain and type(inner) in _OWN_GENERATOR:
            given = inner.generator
            inner = copy.copy(inner)
            inner.generator = torch.Generator()
            seed = None if given is None else given.initial_seed()
            self._generators.append((inner.generator, seed))
            if self.batched:
                return BatchSampler(inner, source.batch_size, source.drop_last), plain
            return inner, plain
        for part in (source, getattr(source, "sampler", None)):
            generator = getattr(part, "generator", None)
            if isinstance(generator, torch.Generator):
                self._generators.append((generator, generator.initial_seed()))
        return source, plain

    def begin(self, seed: int, epoch: int, start: int, drawn: int) -> None:
        """Choose the next pass.

        Args:
            seed: The run's.
            epoch: Which pass it is.
            start: Its first batch; the ones before are left out, and their samples unread.
            drawn: Samples that all ranks together took of an endless stream before the pass.
        """
        self._next = (seed, epoch, start, drawn)

    def __iter__(self) -> Iterator[Request]:
        seed, epoch, start, drawn = self._next
        for generator, own in self._generators:
            base = seed + self.rank * _RANK_STRIDE if own is None else own
            generator.manual_seed((base + epoch) % 2**63)
        skip, sent = start, 0
        if self.is_endless:
            exact = self._plain and self.batch_size is not None
            skip, sent = (0, start * (self.batch_size or 0)) if exact else (start, 0)
            self.sampler.seek(drawn + sent * self.world_size)
        key = sample_key("order", seed, self.rank, epoch)
        apart = OwnGenerators(key).active if self._draws else contextlib.nullcontext
        return self._requests(apart, seed if self.random else None, epoch, (skip, sent, drawn))

    def _requests(
        self, apart: Any, seed: int | None, epoch: int, place: tuple[int, int, int]
    ) -> Iterator[Request]:
        skip, sent, drawn = place
        with apart():
            source = iter(self._source)
            for indices in itertools.islice(source, skip):
                sent += self._size(indices)
        while True:
            with apart():
                indices = next(source, _END)
            if indices is _END:
                return
            size = self._size(indices)
            first = drawn + sent * self.world_size + self.rank
            places = range(first, first + size * self.world_size, self.world_size)
            sent += size
            yield Request(indices, seed, epoch, None if self._once or seed is None else places)

    def _size(self, indices: Any) -> int:
        return len(indices) if self.batched else 1


def nominal_batch_size(loader: DataLoader[Any]) -> int | None:
    """Return how many samples a batch has, but for the last; None if that is not known."""
    if loader.batch_sampler is None:
        return 1
    size = getattr(loader.batch_sampler, "batch_size", None)
    return size if isinstance(size, int) else None


def _reads_once(sampler: Any) -> bool:
    """Whether an index is known to come only once in a pass."""
    if type(sampler) is RandomSampler:
        data: Sized = sampler.data_source
        return not sampler.replacement and sampler.num_samples <= len(data)
    return type(sampler) in _ONCE_EACH
