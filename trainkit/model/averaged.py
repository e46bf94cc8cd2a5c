"""Averages of a model's weights over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from trainkit.errors import ConfigError


class BaseAveragedModel(AveragedModel):
    """Base of the averages: a frozen copy of a model, which :meth:`update_parameters` renews.

    The first update copies, and after it every ``interval``-th one averages; the others leave the
    weights. Buffers are copied at each update, unless they are averaged too. ``n_averaged`` counts
    the updates, averaging or not. An average of one's own overrides :meth:`average`.

    Args:
        model: The model whose copy holds the average.
        interval: Updates from one averaging to the next.
        device: Where the copy is kept; None: where the model is.
        update_buffers: Average floating-point buffers as well, instead of copying them.
    """

    def __init__(
        self,
        model: nn.Module,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,
    ) -> None:
        if type(interval) is not int or interval < 1:
            raise ConfigError(
                f"interval is {interval!r}; expected a whole number of updates, at least 1."
            )
        super().__init__(model, multi_avg_fn=self._renew, use_buffers=update_buffers)
        self.interval = interval
        self.module.requires_grad_(False)
        if device is not None:  # the counter stays on the CPU, where it is read without waiting
            self.module.to(device)

    def average(
        self, averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], steps: int
    ) -> None:
        """Renew floating-point tensors of the average in place; all on one device, of one dtype.

        Args:
            averaged: The average so far.
            current: The model's values, in the same order.
            steps: Updates before this one.
        """
        raise NotImplementedError(f"{type(self).__name__} has no average().")

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the model's present weights into the average, if it is time."""
        if self._steps % self.interval == 0:
            super().update_parameters(model)
            return
        if not self.use_buffers:
            for ours, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
                ours.copy_(theirs)
        self.n_averaged += 1

    @property
    def _steps(self) -> int:
        return int(self.n_averaged)

    @torch.no_grad()
    def _renew(self, averaged: Any, current: Any, num_averaged: Any) -> None:
        # torch hands over tensors grouped by device and dtype, so the first speaks for all.
        if torch.is_floating_point(averaged[0]) or torch.is_complex(averaged[0]):
            self.average(averaged, current, self._steps)
        else:
            torch._foreach_copy_(averaged, current)


class ExponentialMovingAverage(BaseAveragedModel):
    """Exponential moving average of a model's parameters: ``a += momentum * (x - a)``.

    ``momentum`` is MMEngine's, that is one minus the decay that others speak of.

    Args:
        model: See :class:`BaseAveragedModel`.
        momentum: Weight of the newest values, in (0, 1).
        interval: See :class:`BaseAveragedModel`.
        device: See :class:`BaseAveragedModel`.
        update_buffers: See :class:`BaseAveragedModel`.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,
    ) -> None:
        if not 0.0 < momentum < 1.0:
            raise ConfigError(
                f"momentum is {momentum}; expected a weight of the newest values in (0, 1), as "
                "0.0002."
            )
        self.momentum = momentum
        super().__init__(model, interval, device, update_buffers)

    def weight(self, steps: int) -> float:
        """Return the weight of the newest values after ``steps`` updates."""
        return self.momentum

    def average(
        self, averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], steps: int
    ) -> None:
        """Renew the average in place."""
        torch._foreach_lerp_(list(averaged), list(current), self.weight(steps))


class MomentumAnnealingEMA(ExponentialMovingAverage):
    """Exponential moving average that is quick at first.

    The weight of the newest values is ``max(momentum, gamma / (gamma + steps))``, where ``steps``
    counts the updates before.

    Args:
        model: See :class:`BaseAveragedModel`.
        momentum: Weight of the newest values in the end, in (0, 1).
        gamma: Updates after which the weight is one half; the more, the slower it comes down.
        interval: See :class:`BaseAveragedModel`.
        device: See :class:`BaseAveragedModel`.
        update_buffers: See :class:`BaseAveragedModel`.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        gamma: int = 100,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,
    ) -> None:
        if gamma <= 0:
            raise ConfigError(f"gamma is {gamma}; expected a number of updates above 0.")
        self.gamma = gamma
        super().__init__(model, momentum, interval, device, update_buffers)

    def weight(self, steps: int) -> float:
        """Return the weight of the newest values after ``steps`` updates."""
        return max(self.momentum, self.gamma / (self.gamma + steps))


class StochasticWeightAverage(BaseAveragedModel):
    """The plain mean of the weights: ``a += (x - a) / (n + 1)`` after ``n`` averagings.

    Source: P. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    UAI 2018, https://arxiv.org/abs/1803.05407. Its constant or cyclical learning rate is the
    schedulers' part.
    """

    def average(
        self, averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], steps: int
    ) -> None:
        """Renew the average in place."""
        # Not lerp, which rounds otherwise for weights of one half and more.
        differences = torch._foreach_sub(list(current), list(averaged))
        torch._foreach_add_(list(averaged), differences, alpha=1 / (steps // self.interval + 1))


def trained_weights(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights that were trained, from what a checkpoint keeps beside an average."""
    return {name.removeprefix("module."): v for name, v in saved.items() if name != "n_averaged"}
