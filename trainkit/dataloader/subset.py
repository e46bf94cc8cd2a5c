"""Datasets cut to their first samples, for debugging."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sized
from typing import Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info


class FirstSamples(Dataset[Any]):
    """The first ``length`` samples of ``dataset``, with its attributes such as ``metainfo``."""

    def __init__(self, dataset: Any, length: int) -> None:
        self.dataset = dataset
        self.length = min(length, len(dataset)) if isinstance(dataset, Sized) else length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if not -self.length <= index < self.length:
            raise IndexError(f"index {index} of {self.length} samples")
        return self.dataset[index % self.length]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet while being unpickled in a worker
            raise AttributeError(name)
        return getattr(self.dataset, name)


class FirstOfStream(IterableDataset[Any]):
    """The first samples of an iterable ``dataset``, with its attributes such as ``metainfo``.

    A pass that is left in the midst begins again: a cut stream keeps no state.

    Args:
        dataset: The dataset.
        batches: How many batches a loader shall read; its workers share them.
        batch_size: Samples of a batch.
    """

    def __init__(self, dataset: Any, batches: int, batch_size: int) -> None:
        self.dataset, self.batches, self.batch_size = dataset, batches, batch_size

    def __len__(self) -> int:
        length = self.batches * self.batch_size
        return min(length, len(self.dataset)) if isinstance(self.dataset, Sized) else length

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        own = len(range(worker, self.batches, workers))  # a loader asks the workers in turn
        return itertools.islice(self.dataset, own * self.batch_size)

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "state_dict", "load_state_dict"):
            raise AttributeError(name)
        return getattr(self.dataset, name)
