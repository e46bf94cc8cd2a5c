"""In which order, and by which rank, the samples of a dataset are read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from trainkit.dist import get_rank, get_world_size
from trainkit.errors import ConfigError


class DefaultSampler(Sampler[int]):
    """Every sample once per epoch, dealt out over the ranks in turn or in blocks.

    The order is a pure function of ``seed`` and the epoch, which :meth:`set_epoch` sets.

    Args:
        dataset: What is sampled; only its length is used.
        shuffle: Draw a new order each epoch.
        seed: Of the shuffle; the same on all ranks.
        round_up: Repeat samples from the start so that every rank has the same number. Without it,
            ranks may differ by one, and no sample is read twice.
        in_blocks: Each rank reads a run of samples that follow each other, so that what the ranks
            found, one rank after the other, is in the order of the whole: for evaluation.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
        in_blocks: bool = False,
    ) -> None:
        if len(dataset) == 0:
            raise ConfigError(
                f"The dataset {type(dataset).__name__} is empty; there is nothing to sample."
            )
        self.rank, self.world_size = get_rank(), get_world_size()
        self.dataset, self.shuffle, self.round_up = dataset, shuffle, round_up
        self.in_blocks = in_blocks
        self.seed = 0 if seed is None else seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)
        if self.shuffle:
            generator = torch.Generator().manual_seed((self.seed + self.epoch) % 2**64)
            indices = torch.randperm(size, generator=generator).tolist()
        else:
            indices = list(range(size))
        if self.round_up:
            total = math.ceil(size / self.world_size) * self.world_size
            indices = list(itertools.islice(itertools.cycle(indices), total))
        if not self.in_blocks:
            return iter(indices[self.rank :: self.world_size])
        # The ranks before have as many as if dealt in turn: one more where it does not come out.
        each, left = divmod(len(indices), self.world_size)
        start = self.rank * each + min(self.rank, left)
        return iter(indices[start : start + len(self)])

    def __len__(self) -> int:
        """Return this rank's number of samples in a whole epoch."""
        size = len(self.dataset)
        if self.round_up:
            return math.ceil(size / self.world_size)
        return math.ceil((size - self.rank) / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch


class InfiniteSampler(Sampler[int]):
    """An endless stream of permutations, dealt out over the ranks in turn.

    Args:
        dataset: What is sampled; only its length is used.
        shuffle: Draw a new order for each pass over the dataset.
        seed: Of the shuffle; the same on all ranks.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        if len(dataset) == 0:
            raise ConfigError(
                f"The dataset {type(dataset).__name__} is empty; there is nothing to sample."
            )
        self.rank, self.world_size = get_rank(), get_world_size()
        self.dataset, self.shuffle = dataset, shuffle
        self.seed = 0 if seed is None else seed
        # One stream for the sampler's life: a new iterator goes on where the last one was left, as
        # in MMEngine.
        self.seek(0)

    def _indices(self, drawn: int) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        size = len(self.dataset)
        if self.shuffle:
            for _ in range(drawn // size):
                torch.randperm(size, generator=generator)
        start = drawn % size
        while True:
            order = torch.randperm(size, generator=generator).tolist() if self.shuffle else None
            yield from range(start, size) if order is None else order[start:]
            start = 0

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._stream, 0, None)

    def __len__(self) -> int:
        """Return the dataset's length, which is what an epoch is measured by."""
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the stream has no epochs."""

    def seek(self, drawn: int) -> None:
        """Go to where all ranks together have drawn ``drawn`` samples; none is read."""
        self._stream = itertools.islice(self._indices(drawn), self.rank, None, self.world_size)
