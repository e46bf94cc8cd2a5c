"""HistoryBuffer: the values of one scalar, and statistics over windows of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

Values = npt.NDArray[np.float64]
# A function of values, and of how many samples each stands for.
Statistic = Callable[[Values, Values], float]
# The last so many values, those of the present epoch, or all.
Window = int | Literal["epoch", "global"]
KEPT = 10_000  # values of a scalar, unless a window is longer

_STATISTICS: dict[str, Statistic] = {
    "mean": lambda values, counts: float((values * counts).sum() / counts.sum()),
    "min": lambda values, counts: float(values.min()),
    "max": lambda values, counts: float(values.max()),
    "current": lambda values, counts: float(values[-1]),
}
METHODS = tuple(_STATISTICS)


class HistoryBuffer:
    """The last values of one scalar, and the mean, least and greatest of all and of an epoch.

    A tensor is kept on its device until a statistic is asked for, so that writing a value never
    waits for the device. Memory is bounded, and an update takes constant time.

    Args:
        max_length: Values kept for statistics over a window.
        name: Of the scalar, for messages.
    """

    # Values that wait for conversion; as many 0-dim tensors are a few hundred kB on a device.
    _MAX_PENDING = 1000

    def __init__(self, max_length: int = KEPT, name: str = "A scalar") -> None:
        self.name = name
        self._values: deque[float] = deque(maxlen=max_length)
        self._counts: deque[float] = deque(maxlen=max_length)
        self._pending: list[tuple[Any, float]] = []
        self._running = {"global": _Running(), "epoch": _Running()}

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
        if not count > 0:
            raise ValueError(f"{self.name} stands for {count} samples; expected more than 0.")
        self._pending.append((kept, count))
        if len(self._pending) >= self._MAX_PENDING:
            self._convert()

    def begin_epoch(self) -> None:
        """Begin the window ``"epoch"`` anew."""
        self._convert()
        self._running["epoch"] = _Running()

    def __len__(self) -> int:
        self._convert()
        return len(self._values)

    @property
    def data(self) -> tuple[Values, Values]:
        """The values that are kept, and how many samples each stands for."""
        values, counts = self._window(len(self))
        return np.asarray(values), np.asarray(counts)

    def current(self) -> float:
        """Return the newest value."""
        return self.statistics("current", 1)

    def mean(self, window_size: Window | None = None) -> float:
        """Return the weighted mean over a window; None: over all values."""
        return self.statistics("mean", window_size)

    def min(self, window_size: Window | None = None) -> float:
        """Return the least value of a window; None: of all."""
        return self.statistics("min", window_size)

    def max(self, window_size: Window | None = None) -> float:
        """Return the greatest value of a window; None: of all."""
        return self.statistics("max", window_size)

    def statistics(self, method: str | Statistic, window_size: Window | None = None) -> float:
        """Return a statistic over a window.

        Args:
            method: One of :data:`METHODS`, or a function of the values and of how many samples each
                stands for, as arrays; it sees no more than the values that are kept.
            window_size: The last so many values; ``"epoch"``: those since :meth:`begin_epoch`;
                ``"global"`` or None: all.
        """
        self._convert()
        if not self._values:
            raise ValueError(f"{self.name} has no value yet.")
        if not isinstance(window_size, int):
            running = self._running[window_size or "global"]
            if method in ("mean", "min", "max") and running.number:
                return running.get(str(method))
            window_size = running.number
        values, counts = self._window(window_size)
        function = _STATISTICS[method] if isinstance(method, str) else method
        return float(function(np.asarray(values), np.asarray(counts)))

    def state_dict(self, window: int) -> dict[str, Any]:
        """Return the last ``window`` values, and what windows without a size need."""
        self._convert()
        values, counts = self._window(window)
        running = {name: running.state_dict() for name, running in self._running.items()}
        return {"values": values, "counts": counts, **running}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._pending.clear()
        for own, kept in ((self._values, "values"), (self._counts, "counts")):
            own.clear()
            own.extend(state_dict[kept])
        for name, running in self._running.items():
            running.load_state_dict(state_dict[name])

    def _window(self, size: int) -> tuple[list[float], list[float]]:
        skip = max(len(self._values) - max(size, 1), 0)
        return list(islice(self._values, skip, None)), list(islice(self._counts, skip, None))

    def _convert(self) -> None:
        tensors = [_scalar(value) for value, _ in self._pending if isinstance(value, torch.Tensor)]
        # One stack and one copy, so the device is waited for once and not for each value.
        numbers = iter(torch.stack(tensors).tolist() if tensors else ())
        for value, count in self._pending:
            number = next(numbers) if isinstance(value, torch.Tensor) else float(value)
            self._values.append(number)
            self._counts.append(float(count))
            for running in self._running.values():
                running.add(number, float(count))
        self._pending.clear()


def _scalar(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor of one element in the widest type of its device (MPS has no float64)."""
    return value.reshape(()).to(torch.float32 if value.device.type == "mps" else torch.float64)


class _Running:
    """The mean, the least and the greatest of any number of values, in constant memory."""

    _FIELDS = ("number", "total", "lost", "weight", "least", "greatest")

    def __init__(self) -> None:
        self.number = 0
        self.total, self.lost = 0.0, 0.0  # the sum, and what rounding took from it (Neumaier 1974)
        self.weight = 0.0
        self.least, self.greatest = math.inf, -math.inf

    def add(self, value: float, count: float) -> None:
        """Add a value that stands for ``count`` samples."""
        term = value * count
        total = self.total + term
        if abs(self.total) >= abs(term):
            self.lost += (self.total - total) + term
        else:
            self.lost += (term - total) + self.total
        self.total = total
        self.number += 1
        self.weight += count
        # NaN comes in, and does not go again.
        self.least = value if value < self.least or value != value else self.least
        self.greatest = value if value > self.greatest or value != value else self.greatest

    def get(self, method: str) -> float:
        """Return ``"mean"``, ``"min"`` or ``"max"``."""
        if method == "mean":
            lost = self.lost if math.isfinite(self.lost) else 0.0
            return (self.total + lost) / self.weight
        return self.least if method == "min" else self.greatest

    def state_dict(self) -> list[float]:
        """Return all numbers."""
        return [float(getattr(self, name)) for name in self._FIELDS]

    def load_state_dict(self, state: Iterable[float]) -> None:
        """Take the numbers of :meth:`state_dict`."""
        for name, value in zip(self._FIELDS, state, strict=True):
            setattr(self, name, value)
        self.number = int(self.number)
