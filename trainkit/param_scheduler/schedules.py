"""The schedules: ``s`` steps since ``begin``, ``L = end - begin``, ``v`` the value before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from typing_extensions import Unpack  # typing has it from Python 3.11 on

from trainkit.errors import ConfigError
from trainkit.param_scheduler.base import HasParamGroups, ParamScheduler, SchedulerOptions


def _is_step(value: float) -> bool:
    return isinstance(value, int | float) and value >= 0 and value == int(value)


class LinearLR(ParamScheduler):
    """``v * (a + (b - a) * s / (L - 1))``: from a share ``a`` of the value to a share ``b`` of it.

    Args:
        optimizer: See :class:`ParamScheduler`.
        start_factor: ``a``, in [0, 1].
        end_factor: ``b``, in [0, 1], reached in the last step of the window.
        options: ``param_name, begin, end, by_epoch`` of :class:`ParamScheduler`.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        for name, factor in (("start_factor", start_factor), ("end_factor", end_factor)):
            if not 0.0 <= factor <= 1.0:
                raise ConfigError(f"LinearLR has {name}={factor}; expected a share in [0, 1].")
        self.start_factor, self.end_factor = start_factor, end_factor
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        if s == self.length - 1 and s > 0:
            return value * self.end_factor
        return value * (
            self.start_factor + (self.end_factor - self.start_factor) * s / max(self.length - 1, 1)
        )


class MultiStepLR(ParamScheduler):
    """``v * gamma ** (number of milestones <= s)``.

    Args:
        optimizer: See :class:`ParamScheduler`.
        milestones: Steps since ``begin``; one that stands twice counts twice.
        gamma: Factor of each milestone.
        options: ``param_name, begin, end, by_epoch`` of :class:`ParamScheduler`.
    """

    step_arguments: ClassVar[tuple[str, ...]] = ("begin", "end", "milestones")

    def __init__(
        self,
        optimizer: HasParamGroups,
        milestones: Sequence[int],
        gamma: float = 0.1,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        if isinstance(milestones, int | float | str) or not all(map(_is_step, milestones)):
            raise ConfigError(
                f"MultiStepLR has milestones={milestones!r}; expected a list of steps: [8, 11]."
            )
        self.milestones, self.gamma = Counter(map(int, milestones)), gamma
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        passed = sum(count for milestone, count in self.milestones.items() if milestone <= s)
        return value * float(self.gamma**passed)


class CosineAnnealingLR(ParamScheduler):
    """``m + (v - m) * (1 + cos(pi * s / T_max)) / 2``: from ``v`` to ``m`` in ``T_max`` steps.

    Args:
        optimizer: See :class:`ParamScheduler`.
        T_max: Steps of half a cosine; None: ``L``.
        eta_min: ``m``.
        eta_min_ratio: ``m`` as a share of the value that the optimizer was made with, instead of
            ``eta_min``.
        options: ``param_name, begin, end, by_epoch`` of :class:`ParamScheduler`.

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


class PolyLR(ParamScheduler):
    """``m + (v - m) * (1 - s / (L - 1)) ** power``: exactly ``m`` in the last step of the window.

    Args:
        optimizer: See :class:`ParamScheduler`.
        power: 1 falls on a line.
        eta_min: ``m``.
        options: ``param_name, begin, end, by_epoch`` of :class:`ParamScheduler`.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        power: float = 1.0,
        eta_min: float = 0.0,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        if power < 0:
            raise ConfigError(f"PolyLR has power={power}; expected 0 or more.")
        self.power, self.eta_min = power, eta_min
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        share = 1 - s / max(self.length - 1, 1)
        return self.eta_min + (value - self.eta_min) * float(share**self.power)


class OneCycleLR(ParamScheduler):
    """From ``eta_max / div_factor`` up to ``eta_max``, then down to a tiny value.

    Each phase goes from ``a`` to ``b`` over its share ``p`` of steps: ``b + (a - b) * (1 + cos(pi *
    p)) / 2``, or on a line.

    Args:
        optimizer: See :class:`ParamScheduler`.
        eta_max: The highest value.
        total_steps: Steps of the cycle; None: ``L``.
        pct_start: Share of the cycle that goes up.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        div_factor: ``eta_max`` over the first value.
        final_div_factor: The first value over the last.
        three_phase: Go down to the first value as fast as up, and only then to the last.
        options: ``begin, end, by_epoch`` of :class:`ParamScheduler`; only ``lr`` can be scheduled.

    Source: Smith and Topin, Super-Convergence, arXiv:1708.07120; phases as in
        ``torch.optim.lr_scheduler.OneCycleLR``.
    """

    step_arguments: ClassVar[tuple[str, ...]] = ("begin", "end", "total_steps")

    def __init__(
        self,
        optimizer: HasParamGroups,
        eta_max: float = 0.0,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        if options.get("param_name", "lr") != "lr":
            raise ConfigError(
                f"OneCycleLR has param_name={options['param_name']!r}; it schedules 'lr' only."
            )
        for name, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if value <= 0:
                raise ConfigError(f"OneCycleLR has {name}={value}; expected a number above 0.")
        if not 0.0 <= pct_start <= 1.0:
            raise ConfigError(f"OneCycleLR has pct_start={pct_start}; expected a share in [0, 1].")
        if anneal_strategy not in ("cos", "linear"):
            raise ConfigError(
                f"OneCycleLR has anneal_strategy={anneal_strategy!r}; expected 'cos' or 'linear'."
            )
        if total_steps is not None and total_steps < 1:
            raise ConfigError(f"OneCycleLR has total_steps={total_steps}; expected at least 1.")
        self.eta_max, self.total_steps, self.pct_start = eta_max, total_steps, pct_start
        self.anneal_strategy, self.three_phase = anneal_strategy, three_phase
        self.first = eta_max / div_factor
        self.final = self.first / final_div_factor
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        start = 0.0
        for end, low, high in self._phases():
            if s <= end or end == self._phases()[-1][0]:
                return self._anneal(
                    low, high, 1.0 if end <= start else min((s - start) / (end - start), 1.0)
                )
            start = end
        raise AssertionError("the last phase ends the loop")

    def _phases(self) -> list[tuple[float, float, float]]:
        """Return, for each phase, its last step, its first value and its last value."""
        total = self.total_steps or self.length
        peak = self.pct_start * total - 1
        if self.three_phase:
            back = 2 * self.pct_start * total - 2
            return [
                (peak, self.first, self.eta_max),
                (back, self.eta_max, self.first),
                (total - 1, self.first, self.final),
            ]
        return [(peak, self.first, self.eta_max), (total - 1, self.eta_max, self.final)]

    def _anneal(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * share
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
