"""Cosine schedules: ``s`` steps since ``begin``, ``L = end - begin``, ``v`` the value before."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from typing_extensions import Unpack  # typing has it from Python 3.11 on

from trainkit.errors import ConfigError
from trainkit.param_scheduler.base import HasParamGroups, ParamScheduler, SchedulerOptions, is_step


class CosineAnnealingLR(ParamScheduler):
    """``m + (v - m) * (1 + cos(pi * s / T_max)) / 2``: from ``v`` to ``m`` in ``T_max`` steps.

    Args:
        optimizer: See :class:`ParamScheduler`.
        T_max: Steps of half a cosine; None: ``L``.
        eta_min: ``m``.
        eta_min_ratio: ``m`` as a share of the value that the optimizer was made with, instead of
            ``eta_min``.
        options: ``param_name, begin, end, by_epoch, by_update`` of :class:`ParamScheduler`.

    Source: Loshchilov and Hutter, SGDR, arXiv:1608.03983, equation 5.
    """

    step_arguments: ClassVar[tuple[str, ...]] = ("begin", "end", "T_max")

    def __init__(
        self,
        optimizer: HasParamGroups,
        T_max: int | None = None,
        eta_min: float | None = None,
        eta_min_ratio: float | None = None,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        if eta_min is not None and eta_min_ratio is not None:
            raise ConfigError(
                "CosineAnnealingLR has both eta_min and eta_min_ratio; give one of them."
            )
        if T_max is not None and T_max < 1:
            raise ConfigError(
                f"CosineAnnealingLR has T_max={T_max}; expected a number of steps of at least 1."
            )
        self.T_max, self.eta_min, self.eta_min_ratio = T_max, eta_min or 0.0, eta_min_ratio
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        low = self.eta_min if self.eta_min_ratio is None else base * self.eta_min_ratio
        return low + (value - low) * (1 + math.cos(math.pi * s / (self.T_max or self.length))) / 2


class CosineRestartLR(ParamScheduler):
    """``m + (w * base - m) * (1 + cos(pi * k / P)) / 2``, ``k`` steps after the start of a period.

    Each period, of ``P`` steps, begins anew at a share ``w`` of ``base``, the value that the
    optimizer was made with, whatever the schedules before it in the list give; those after it are
    applied to its value. After the last period the value stays.

    Args:
        optimizer: See :class:`ParamScheduler`.
        periods: ``P`` of each period.
        restart_weights: ``w`` of each period; a single one is that of all.
        eta_min: ``m``.
        eta_min_ratio: ``m`` as a share of ``base``; give it, or ``eta_min``.
        options: ``param_name, begin, end, by_epoch, by_update`` of :class:`ParamScheduler`.

    Source: Loshchilov and Hutter, SGDR, arXiv:1608.03983, equation 5.
    """

    step_arguments: ClassVar[tuple[str, ...]] = ("begin", "end", "periods")

    def __init__(
        self,
        optimizer: HasParamGroups,
        periods: Sequence[int],
        restart_weights: Sequence[float] = (1,),
        eta_min: float | None = None,
        eta_min_ratio: float | None = None,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        fits = isinstance(periods, Sequence) and not isinstance(periods, str) and len(periods) > 0
        fits = fits and all(is_step(period) and period >= 1 for period in periods)
        self._require(fits, "periods", periods, "a list of whole numbers of steps: [10, 20]")
        if len(restart_weights) not in (1, len(periods)):
            raise ConfigError(
                f"CosineRestartLR has {len(periods)} periods and {len(restart_weights)} "
                "restart_weights; expected a weight for each period, or one for all."
            )
        if (eta_min is None) == (eta_min_ratio is None):
            have = "neither eta_min nor" if eta_min is None else "both eta_min and"
            raise ConfigError(f"CosineRestartLR has {have} eta_min_ratio; give one of them.")
        self.periods = [int(period) for period in periods]
        self.weights = list(restart_weights) * (len(periods) if len(restart_weights) == 1 else 1)
        self.eta_min, self.eta_min_ratio = eta_min, eta_min_ratio
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        low = self.eta_min if self.eta_min_ratio is None else base * self.eta_min_ratio
        assert low is not None, "the constructor has seen to it"
        ends = list(itertools.accumulate(self.periods))
        s = min(s, ends[-1] - 1)
        index = bisect.bisect_right(ends, s)
        period = self.periods[index]
        k = s - (ends[index] - period)
        high = base * self.weights[index]
        return low + (high - low) * (1 + math.cos(math.pi * k / period)) / 2

    def turns(self) -> Iterator[tuple[int, str]]:
        """Yield where the schedule begins and ends, and the end of each period."""
        yield from ((self.begin, "begin"), (self.end, "end"))
        for steps in itertools.accumulate(self.periods):
            yield self.begin + steps, "periods"
