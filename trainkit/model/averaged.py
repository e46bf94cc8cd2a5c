"""Averages of a model's weights over training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from trainkit.errors import ConfigError


class ExponentialMovingAverage(AveragedModel):
    """Exponential moving average of a model's parameters: ``a += momentum * (x - a)``.

    The first update copies. ``momentum`` is MMEngine's, that is one minus the decay that others
    speak of.

    Args:
        model: The model whose copy holds the average.
        momentum: Weight of the newest values, in (0, 1).
        update_buffers: Average floating-point buffers as well, instead of copying them.
    """

    def __init__(
        self, model: nn.Module, momentum: float = 0.0002, update_buffers: bool = False
    ) -> None:
        if not 0.0 < momentum < 1.0:
            raise ConfigError(
                f"momentum is {momentum}; expected a weight of the newest values in (0, 1), as "
                "0.0002."
            )
        self.momentum = momentum
        super().__init__(model, multi_avg_fn=self._average, use_buffers=update_buffers)

    @torch.no_grad()
    def _average(self, averaged: Any, current: Any, num_averaged: Any) -> None:
        # torch hands over tensors grouped by device and dtype, so the first speaks for all.
        if torch.is_floating_point(averaged[0]):
            torch._foreach_lerp_(averaged, current, self.momentum)
        else:
            torch._foreach_copy_(averaged, current)


def trained_weights(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights that were trained, from what a checkpoint keeps beside an average."""
    return {name.removeprefix("module."): v for name, v in saved.items() if name != "n_averaged"}
