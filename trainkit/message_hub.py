"""MessageHub: the scalars and facts of one run, from those who make them to those who show them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch


class HistoryBuffer:
    """The last values of one scalar.

    A tensor is kept on its device until a statistic is asked for, so that writing a value never
    waits for the device. Memory is bounded, and an update takes constant time.

    Args:
        max_length: Values kept for statistics over a window.
        name: Of the scalar, for messages.
    """

    # Values that wait for conversion; as many 0-dim tensors are a few hundred kB on a device.
    _MAX_PENDING = 1000

    def __init__(self, max_length: int = 10_000, name: str = "A scalar") -> None:
        self.name = name
        self._values: deque[float] = deque(maxlen=max_length)
        self._counts: deque[float] = deque(maxlen=max_length)
        self._pending: list[tuple[Any, float]] = []

    def update(self, value: Any, count: float = 1) -> None:
        """Append a number or a tensor of one element, which stands for ``count`` samples."""
        # A copy: what the model changes in place later is not history.
        kept = value.detach().clone() if isinstance(value, torch.Tensor) else value
        single = kept.numel() == 1 if isinstance(kept, torch.Tensor) else hasattr(kept, "__float__")
        if not single:
            raise TypeError(
                f"{self.name} is a {type(value).__name__}: {str(value)[:40]!r}; expected a number "
                "or a tensor of one element."
            )
        self._pending.append((kept, count))
        if len(self._pending) >= self._MAX_PENDING:
            self._convert()

    def __len__(self) -> int:
        self._convert()
        return len(self._values)

    def current(self) -> float:
        """Return the newest value."""
        self._convert()
        return self._values[-1]

    def mean(self, window_size: int | None = None) -> float:
        """Return the weighted mean of the last ``window_size`` values; None: of all kept."""
        values, counts = self._window(window_size)
        total = sum(counts)
        return sum(value * count for value, count in zip(values, counts, strict=True)) / total

    def min(self, window_size: int | None = None) -> float:
        """Return the least of the last ``window_size`` values."""
        return min(self._window(window_size)[0])

    def max(self, window_size: int | None = None) -> float:
        """Return the greatest of the last ``window_size`` values."""
        return max(self._window(window_size)[0])

    def _window(self, size: int | None) -> tuple[list[float], list[float]]:
        self._convert()
        skip = 0 if size is None else max(len(self._values) - size, 0)
        return list(islice(self._values, skip, None)), list(islice(self._counts, skip, None))

    def _convert(self) -> None:
        tensors = [_scalar(value) for value, _ in self._pending if isinstance(value, torch.Tensor)]
        # One stack and one copy, so the device is waited for once and not for each value.
        numbers = iter(torch.stack(tensors).tolist() if tensors else ())
        for value, count in self._pending:
            self._values.append(next(numbers) if isinstance(value, torch.Tensor) else float(value))
            self._counts.append(count)
        self._pending.clear()


def _scalar(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor of one element in the widest type of its device (MPS has no float64)."""
    return value.reshape(()).to(torch.float32 if value.device.type == "mps" else torch.float64)


class MessageHub:
    """Scalars with a history (``train/loss``) and facts without one (``epoch``) of one Runner."""

    def __init__(self) -> None:
        self.log_scalars: dict[str, HistoryBuffer] = {}
        self.runtime_info: dict[str, Any] = {}
        self._resumed: set[str] = set()

    def update_scalar(self, key: str, value: Any, count: float = 1) -> None:
        """Append ``value`` to the history of ``key``, such as ``"train/loss"``."""
        buffer = self.log_scalars.get(key)
        if buffer is None:
            buffer = self.log_scalars[key] = HistoryBuffer(name=key)
        buffer.update(value, count)

    def update_scalars(self, values: Mapping[str, Any]) -> None:
        """Append each value to the history of its key."""
        for key, value in values.items():
            self.update_scalar(key, value)

    def get_scalar(self, key: str) -> HistoryBuffer:
        """Return the history of ``key``.

        Raises:
            KeyError: There is none yet.
        """
        if key not in self.log_scalars:
            raise KeyError(
                f"No scalar {key!r} yet. There are: {', '.join(self.log_scalars) or 'none'}."
            )
        return self.log_scalars[key]

    def update_info(self, key: str, value: Any, resumed: bool = True) -> None:
        """Set a fact; a ``resumed`` one goes into checkpoints and must be plain data."""
        self.runtime_info[key] = value
        (self._resumed.add if resumed else self._resumed.discard)(key)

    def get_info(self, key: str, default: Any = None) -> Any:
        """Return a fact."""
        return self.runtime_info.get(key, default)

    def state_dict(self) -> dict[str, Any]:
        """Return the facts that a resumed run needs; histories stay out."""
        return {key: self.runtime_info[key] for key in sorted(self._resumed)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set the facts of :meth:`state_dict`."""
        for key, value in state_dict.items():
            self.update_info(key, value)
