"""What happens to a batch between the loader and the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class BaseDataPreprocessor(nn.Module):
    """Move every tensor of a batch to the device of the model.

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
        """Move the tensors inside nested mappings, lists and tuples; leave other values."""
        if isinstance(data, torch.Tensor):
            return data.to(self.device, non_blocking=self.non_blocking)
        if isinstance(data, Mapping):
            return {key: self.cast_data(value) for key, value in data.items()}
        if isinstance(data, tuple) and hasattr(data, "_fields"):
            return type(data)(*(self.cast_data(value) for value in data))
        if isinstance(data, list | tuple):
            return type(data)(self.cast_data(value) for value in data)
        return data
