"""Losses of an evaluation: their means over all samples, of all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainkit.dist import all_gather_object
from trainkit.errors import ConfigError


class LossAverage:
    """The mean of each loss over the samples of an evaluation.

    A batch counts by its samples where all batches tell how many they have, else each counts once,
    as in MMEngine. Sums stay on the device until the mean is asked for.
    """

    def __init__(self) -> None:
        # By name: the sum over batches, the sum weighted by samples, the batches, the samples.
        self._sums: dict[str, tuple[torch.Tensor, torch.Tensor, int, int]] = {}
        self._sized = True  # whether every batch has told its size

    def update(self, losses: Mapping[str, Any], samples: int | None) -> None:
        """Add the losses of one batch.

        Args:
            losses: A tensor, or a list of tensors that counts with its mean, by name.
            samples: Samples of the batch; None where that is not known.
        """
        self._sized = self._sized and samples is not None
        for name, value in losses.items():
            mean = _mean(name, value)
            zero, size = torch.zeros_like(mean), samples or 0
            total, weighted, batches, count = self._sums.get(name, (zero, zero, 0, 0))
            self._sums[name] = (total + mean, weighted + size * mean, batches + 1, count + size)

    def compute(self) -> dict[str, float]:
        """Return the means over all ranks, by name."""
        own = {
            name: (total.item(), weighted.item(), batches, count)
            for name, (total, weighted, batches, count) in self._sums.items()
        }
        ranks = all_gather_object((own, self._sized))
        first = 1 if all(sized for _, sized in ranks) else 0  # weighted sums, or plain ones
        names = dict.fromkeys(name for sums, _ in ranks for name in sums)
        means = {}
        for name in names:
            found = [sums[name] for sums, _ in ranks if name in sums]
            count = sum(entry[2 + first] for entry in found)
            means[name] = sum(entry[first] for entry in found) / count if count else float("nan")
        return means


def batch_size(data_batch: Any) -> int | None:
    """Return the samples of a batch as a collate function makes it; None where that is not told.

    It is the length that all entries with a length have: of a mapping, of a pair of tensors, or of
    what ``pseudo_collate`` gives. Where they differ, none is taken for that of the batch.
    """
    parts: list[Any] = [data_batch]
    if isinstance(data_batch, Mapping):
        parts = list(data_batch.values())
    elif isinstance(data_batch, list | tuple) and data_batch:
        parts = [data_batch] if isinstance(data_batch[0], Mapping) else list(data_batch)
    lengths = {_length(part) for part in parts} - {None}
    return lengths.pop() if len(lengths) == 1 else None


def _length(part: Any) -> int | None:
    """Return how many samples an entry of a batch may stand for; None if it tells nothing."""
    if isinstance(part, torch.Tensor):
        return len(part) if part.dim() else None
    return len(part) if isinstance(part, list | tuple) and part else None


def split_losses(outputs: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return a step's predictions, and the losses that it put behind them.

    MMEngine's convention: the last entry of a list of predictions holds nothing but ``loss``: the
    losses by name, or one tensor.
    """
    if not isinstance(outputs, list | tuple) or not outputs:
        return outputs, {}
    last = outputs[-1]
    keys = last.keys() if callable(getattr(last, "keys", None)) else ()
    if list(keys) != ["loss"]:
        return outputs, {}
    losses = last["loss"] if isinstance(last, Mapping) else last.loss
    return outputs[:-1], dict(losses.items()) if hasattr(losses, "items") else {"loss": losses}


def _mean(name: str, value: Any) -> torch.Tensor:
    """Return a loss as one number, in the widest type of its device (MPS has no float64)."""
    parts = value if isinstance(value, list | tuple) else [value]
    if not parts or not all(isinstance(part, torch.Tensor) for part in parts):
        raise ConfigError(
            f"The evaluation's loss {name!r} is a {type(value).__name__}; expected a tensor or a "
            "list of tensors."
        )
    wide = torch.float32 if parts[0].device.type == "mps" else torch.float64
    return torch.stack([part.detach().to(wide).mean() for part in parts]).mean()
