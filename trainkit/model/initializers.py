"""The kinds of initial weights, by torch.nn.init, under MMEngine's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from trainkit.errors import ConfigError, did_you_mean
from trainkit.model.init import BaseInit

Distribution = Literal["normal", "uniform"]


@dataclass(frozen=True)
class ConstantInit(BaseInit):
    """Set weights to a constant.

    Args:
        val: What weights are set to.
        layer: See :class:`BaseInit`, also for the others.
    """

    val: float

    def fill(self, weight: torch.Tensor) -> None:
        """Set a weight in place."""
        nn.init.constant_(weight, self.val)


@dataclass(frozen=True)
class XavierInit(BaseInit):
    """Draw weights with the variance ``2 * gain**2 / (fan_in + fan_out)``.

    Source: X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward
    neural networks", AISTATS 2010.

    Args:
        gain: Factor of the standard deviation.
        distribution: ``"normal"`` or ``"uniform"``.
        layer: See :class:`BaseInit`, also for the others.
    """

    gain: float = 1.0
    distribution: Distribution = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("distribution", self.distribution, ("normal", "uniform"))

    def fill(self, weight: torch.Tensor) -> None:
        """Set a weight in place."""
        draw = nn.init.xavier_uniform_ if self.distribution == "uniform" else nn.init.xavier_normal_
        draw(weight, gain=self.gain)


@dataclass(frozen=True)
class NormalInit(BaseInit):
    """Draw weights from a normal distribution.

    Args:
        mean: Its mean.
        std: Its standard deviation, at least 0.
        layer: See :class:`BaseInit`, also for the others.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.std >= 0:
            raise ConfigError(f"std is {self.std}; expected a standard deviation of at least 0.")

    def fill(self, weight: torch.Tensor) -> None:
        """Set a weight in place."""
        nn.init.normal_(weight, self.mean, self.std)


@dataclass(frozen=True)
class TruncNormalInit(BaseInit):
    """Draw weights from a normal distribution that is cut off at both ends.

    A uniform draw goes through the inverse of the distribution function, as in MMEngine, so that
    the same seed gives the same weights. (``torch.nn.init.trunc_normal_`` draws otherwise since
    2.13.)

    Args:
        mean: Mean of the whole distribution.
        std: Standard deviation of the whole distribution, above 0.
        a: Least value.
        b: Greatest value.
        layer: See :class:`BaseInit`, also for the others.
    """

    mean: float = 0.0
    std: float = 1.0
    a: float = -2.0
    b: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.std > 0:
            raise ConfigError(f"std is {self.std}; expected a standard deviation above 0.")
        if not self.a < self.b:
            raise ConfigError(f"a is {self.a} and b is {self.b}; expected a below b.")

    @torch.no_grad()
    def fill(self, weight: torch.Tensor) -> None:
        """Set a weight in place."""
        low, high = self._share_below(self.a), self._share_below(self.b)
        weight.uniform_(2 * low - 1, 2 * high - 1).erfinv_()
        weight.mul_(self.std * math.sqrt(2.0)).add_(self.mean).clamp_(self.a, self.b)

    def _share_below(self, value: float) -> float:
        return (1 + math.erf((value - self.mean) / self.std / math.sqrt(2.0))) / 2


@dataclass(frozen=True)
class UniformInit(BaseInit):
    """Draw weights from a uniform distribution.

    Args:
        a: Least value.
        b: Greatest value.
        layer: See :class:`BaseInit`, also for the others.
    """

    a: float = 0.0
    b: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.a <= self.b:
            raise ConfigError(f"a is {self.a} and b is {self.b}; expected a not above b.")

    def fill(self, weight: torch.Tensor) -> None:
        """Set a weight in place."""
        nn.init.uniform_(weight, self.a, self.b)


@dataclass(frozen=True)
class KaimingInit(BaseInit):
    """Draw weights with the variance ``gain**2 / fan``, for layers before a rectifier.

    Source: K. He et al., "Delving Deep into Rectifiers", ICCV 2015,
    https://arxiv.org/abs/1502.01852.

    Args:
        a: Slope of the rectifier below 0; of use with ``"leaky_relu"`` only.
        mode: ``"fan_in"`` keeps the variance in the forward pass, ``"fan_out"`` in the backward.
        nonlinearity: What follows; it gives the gain (``torch.nn.init.calculate_gain``).
        distribution: ``"normal"`` or ``"uniform"``.
        layer: See :class:`BaseInit`, also for the others.
    """

    a: float = 0.0
    mode: Literal["fan_in", "fan_out"] = "fan_out"
    nonlinearity: str = "relu"
    distribution: Distribution = "normal"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("mode", self.mode, ("fan_in", "fan_out"))
        _check_choice("distribution", self.distribution, ("normal", "uniform"))
        try:
            nn.init.calculate_gain(self.nonlinearity, self.a)  # type: ignore[arg-type]  # a text until then
        except ValueError as error:
            raise ConfigError(
                f"nonlinearity is {self.nonlinearity!r}, a={self.a}: {error}. Expected a name that "
                "torch.nn.init.calculate_gain takes, as 'relu' or 'leaky_relu'."
            ) from None

    def fill(self, weight: torch.Tensor) -> None:
        """Set a weight in place."""
        uniform = self.distribution == "uniform"
        draw = nn.init.kaiming_uniform_ if uniform else nn.init.kaiming_normal_
        draw(weight, a=self.a, mode=self.mode, nonlinearity=self.nonlinearity)  # type: ignore[arg-type]  # checked


@dataclass(frozen=True)
class Caffe2XavierInit(BaseInit):
    """Draw weights as Caffe2's XavierFill: uniformly, with the variance ``1 / fan_in``.

    Args:
        layer: See :class:`BaseInit`, also for the others.
    """

    def fill(self, weight: torch.Tensor) -> None:
        """Set a weight in place."""
        nn.init.kaiming_uniform_(weight, a=1, mode="fan_in", nonlinearity="leaky_relu")


def _check_choice(name: str, given: str, options: Sequence[str]) -> None:
    if given not in options:
        raise ConfigError(f"{name} is {given!r}. {did_you_mean(str(given), options)}")
