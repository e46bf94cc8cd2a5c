"""OneCycleLR: up, and down again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from typing_extensions import Unpack  # typing has it from Python 3.11 on

from trainkit.errors import ConfigError
from trainkit.param_scheduler.base import (
    HasParamGroups,
    ParamScheduler,
    SchedulerOptions,
    per_group,
)


class OneCycleLR(ParamScheduler):
    """From ``eta_max / div_factor`` up to ``eta_max``, then down to a tiny value.

    Each phase goes from ``a`` to ``b`` over its share ``p`` of steps: ``b + (a - b) * (1 + cos(pi *
    p)) / 2``, or on a line.

    Args:
        optimizer: See :class:`ParamScheduler`.
        eta_max: The highest value; a list has one for each parameter group.
        total_steps: Steps of the cycle; None: ``L``.
        pct_start: Share of the cycle that goes up.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        div_factor: ``eta_max`` over the first value.
        final_div_factor: The first value over the last.
        three_phase: Go down to the first value as fast as up, and only then to the last.
        options: ``begin, end, by_epoch, by_update`` of :class:`ParamScheduler`; only ``lr`` can be
            scheduled.

    Source: Smith and Topin, Super-Convergence, arXiv:1708.07120; phases as in
        ``torch.optim.lr_scheduler.OneCycleLR``.
    """

    step_arguments: ClassVar[tuple[str, ...]] = ("begin", "end", "total_steps")
    ignores_base: ClassVar[bool] = True

    def __init__(
        self,
        optimizer: HasParamGroups,
        eta_max: float | Sequence[float] = 0.0,
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
            self._require(value > 0, name, value, "a number above 0")
        self._require(0.0 <= pct_start <= 1.0, "pct_start", pct_start, "a share in [0, 1]")
        known = anneal_strategy in ("cos", "linear")
        self._require(known, "anneal_strategy", anneal_strategy, "'cos' or 'linear'")
        at_least_1 = total_steps is None or total_steps >= 1
        self._require(at_least_1, "total_steps", total_steps, "at least 1")
        self.peaks = per_group(self, optimizer, "eta_max", eta_max)
        self.total_steps, self.pct_start = total_steps, pct_start
        self.anneal_strategy, self.three_phase = anneal_strategy, three_phase
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value of the first group at step ``s``."""
        return self.transform_group(0, value, base, s)

    def transform_group(self, group: int, value: float, base: float, s: int) -> float:
        """Return the value of a group at step ``s``."""
        phases, start = self._phases(self.peaks[group]), 0.0
        for end, low, high in phases:
            if s <= end or end == phases[-1][0]:
                share = 1.0 if end <= start else min((s - start) / (end - start), 1.0)
                return self._anneal(low, high, share)
            start = end
        raise AssertionError("the last phase ends the loop")

    def _phases(self, highest: float) -> list[tuple[float, float, float]]:
        """Return, for each phase, its last step, its first value and its last value."""
        total = self.total_steps or self.length
        first = highest / self.div_factor
        final = first / self.final_div_factor
        peak = self.pct_start * total - 1
        if self.three_phase:
            back = 2 * self.pct_start * total - 2
            return [(peak, first, highest), (back, highest, first), (total - 1, first, final)]
        return [(peak, first, highest), (total - 1, highest, final)]

    def _anneal(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return start + (end - start) * share
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
