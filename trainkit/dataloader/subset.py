"""A dataset cut to its first samples, for debugging."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch.utils.data import Dataset


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
