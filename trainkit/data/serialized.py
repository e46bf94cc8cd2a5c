"""A list in one buffer, which worker processes share instead of copying."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Iterable
from typing import Any

import torch

from trainkit.errors import ConfigError


class SerializedList:
    """Items pickled into one buffer; each read gives a fresh copy.

    A list of Python objects is copied into every forked worker bit by bit, as reading an object
    changes the count of its references. Bytes have none. They are a tensor because torch sends a
    tensor to spawned workers as a handle of shared memory, whatever its size.

    Args:
        items: What is kept.

    Raises:
        ConfigError: An item cannot be pickled.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        buffer, ends = bytearray(), []
        for number, item in enumerate(items):
            buffer += _pickled(item, number)
            ends.append(len(buffer))
        self._bytes = torch.frombuffer(buffer, dtype=torch.uint8) if buffer else _no_bytes()
        self._ends = torch.tensor(ends, dtype=torch.int64)  # item n is [ends[n - 1], ends[n])

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
        return pickle.loads(self._piece(index).numpy().data)  # our own bytes

    def _piece(self, index: int) -> torch.Tensor:
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} of {len(self)} samples")
        position %= len(self)
        begin = int(self._ends[position - 1]) if position else 0
        return self._bytes[begin : int(self._ends[position])]

    def subset(self, positions: Iterable[int]) -> SerializedList:
        """Return the items at ``positions`` in a buffer of their own."""
        pieces = [self._piece(position) for position in positions]
        other = SerializedList(())
        other._bytes = torch.cat(pieces) if pieces else _no_bytes()
        sizes = torch.tensor([len(piece) for piece in pieces], dtype=torch.int64)
        other._ends = sizes.cumsum(0)
        return other


def _no_bytes() -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8)


def _pickled(item: Any, number: int) -> bytes:
    try:
        return pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"Sample {number} cannot be serialized: {error}. Keep plain data in it, or set "
            "serialize_data: false."
        ) from error
