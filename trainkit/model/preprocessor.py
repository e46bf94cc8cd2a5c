"""What happens to a batch between the loader and the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class BaseDataPreprocessor(nn.Module):
    """Move every tensor of a batch, and whatever else has ``to(device)``, to the model's device.

    Args:
        non_blocking: Copy asynchronously; of use with pinned memory.
    """

    def __init__(self, non_blocking: bool = False) -> None:
        super().__init__()
        self.non_blocking = non_blocking
        # An empty buffer follows .to() and .cuda() like any other, so it always knows the device.
        self.register_buffer("_where", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device that batches are moved to."""
        where = self._where
        assert isinstance(where, torch.Tensor)
        return where.device

    def forward(self, data: Any, training: bool = False) -> Any:
        """Return ``data`` on the device; a subclass may normalise, pad or augment."""
        return self.cast_data(data)

    def cast_data(self, data: Any) -> Any:
        """Move what has ``to()`` inside nested mappings, lists and tuples; leave other values."""
        if isinstance(data, torch.Tensor):
            return data.to(self.device, non_blocking=self.non_blocking)
        if callable(getattr(data, "to", None)) and not isinstance(data, type):
            # A data sample of the user's, a graph, a PackedSequence.
            options = {"non_blocking": True} if self.non_blocking else {}
            return data.to(self.device, **options)
        if isinstance(data, Mapping):
            return {key: self.cast_data(value) for key, value in data.items()}
        if isinstance(data, tuple) and hasattr(data, "_fields"):
            return type(data)(*(self.cast_data(value) for value in data))
        if isinstance(data, list | tuple):
            return type(data)(self.cast_data(value) for value in data)
        return data
