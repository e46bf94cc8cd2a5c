"""Datasets that read at random and remember what was read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset


def draws() -> list[float]:
    """One number from each generator that augmentations draw from."""
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


class Noisy(Dataset[Any]):
    """Each sample is its index and what it draws; ``log`` is a file that its readings go to."""

    def __init__(self, length: int = 10, log: Path | None = None) -> None:
        self.length, self.log = length, log

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{index}\n")
        return torch.tensor([float(index), *draws()])


class NoisyBatches(Noisy):
    """The same, read a batch at a time."""

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        noise = draws()
        return [torch.tensor([float(index), *noise]) for index in indices]


class NoisyStream(IterableDataset[Any]):
    """The same as a stream."""

    def __init__(self, length: int = 10) -> None:
        self.length = length

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in range(self.length):
            yield torch.tensor([float(index), *draws()])


class RememberingStream(NoisyStream):
    """A stream that knows where it is."""

    def __init__(self, length: int = 10) -> None:
        super().__init__(length)
        self.next = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.next < self.length:
            self.next += 1
            yield torch.tensor([float(self.next - 1), *draws()])
        self.next = 0

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["next"]
