"""Schedules by factors: ``s`` steps since ``begin``, ``L = end - begin``, ``v`` the value then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from typing_extensions import Unpack  # typing has it from Python 3.11 on

from trainkit.errors import ConfigError
from trainkit.param_scheduler.base import HasParamGroups, ParamScheduler, SchedulerOptions, is_step

_MAX_TURNS = 100  # of a schedule that turns again and again


def _power(gamma: float, exponent: int) -> float:
    try:
        return float(gamma**exponent)
    except OverflowError:
        return float("inf")


class ConstantLR(ParamScheduler):
    """``v * factor``, and ``v`` again from the last step of the window on.

    A window of one step has the factor in it, and keeps it.

    Args:
        optimizer: See :class:`ParamScheduler`.
        factor: A share of the value, in [0, 1].
        options: ``param_name, begin, end, by_epoch, by_update`` of :class:`ParamScheduler`.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        factor: float = 1 / 3,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        self._require(0.0 <= factor <= 1.0, "factor", factor, "a share in [0, 1]")
        self.factor = factor
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        return value if 0 < s == self.length - 1 else value * self.factor


class LinearLR(ParamScheduler):
    """``v * (a + (b - a) * s / (L - 1))``: from a share ``a`` of the value to a share ``b`` of it.

    Args:
        optimizer: See :class:`ParamScheduler`.
        start_factor: ``a``, in [0, 1].
        end_factor: ``b``, in [0, 1], reached in the last step of the window.
        options: ``param_name, begin, end, by_epoch, by_update`` of :class:`ParamScheduler`.
    """

    def __init__(
        self,
        optimizer: HasParamGroups,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        for name, factor in (("start_factor", start_factor), ("end_factor", end_factor)):
            self._require(0.0 <= factor <= 1.0, name, factor, "a share in [0, 1]")
        self.start_factor, self.end_factor = start_factor, end_factor
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        if s == self.length - 1 and s > 0:
            return value * self.end_factor
        return value * (
            self.start_factor + (self.end_factor - self.start_factor) * s / max(self.length - 1, 1)
        )


class ExponentialLR(ParamScheduler):
    """``v * gamma ** s``.

    Args:
        optimizer: See :class:`ParamScheduler`.
        gamma: Factor of each step, whatever a step is: where ``convert_to_iter_based`` makes
            iterations of epochs, it is the factor of an iteration.
        options: ``param_name, begin, end, by_epoch, by_update`` of :class:`ParamScheduler`.
    """

    def __init__(
        self, optimizer: HasParamGroups, gamma: float, **options: Unpack[SchedulerOptions]
    ) -> None:
        self._require(gamma >= 0, "gamma", gamma, "0 or more")
        self.gamma = gamma
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        return value * _power(self.gamma, s)


class StepLR(ParamScheduler):
    """``v * gamma ** (s // step_size)``.

    Args:
        optimizer: See :class:`ParamScheduler`.
        step_size: Steps between two multiplications.
        gamma: Factor of each.
        options: ``param_name, begin, end, by_epoch, by_update`` of :class:`ParamScheduler`.
    """

    step_arguments: ClassVar[tuple[str, ...]] = ("begin", "end", "step_size")

    def __init__(
        self,
        optimizer: HasParamGroups,
        step_size: int,
        gamma: float = 0.1,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        fits = is_step(step_size) and step_size >= 1
        self._require(fits, "step_size", step_size, "a whole number of steps of at least 1")
        self._require(gamma >= 0, "gamma", gamma, "0 or more")
        self.step_size, self.gamma = int(step_size), gamma
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        return value * _power(self.gamma, s // self.step_size)

    def turns(self) -> Iterator[tuple[int, str]]:
        """Yield where the schedule begins and ends, and the first steps that multiply."""
        yield from ((self.begin, "begin"), (self.end, "end"))
        first = self.begin + self.step_size  # told even if the window ends before
        last = min(self.end, first + _MAX_TURNS * self.step_size)
        for step in [first, *range(first + self.step_size, last, self.step_size)]:
            yield step, "step_size"


class MultiStepLR(ParamScheduler):
    """``v * gamma ** (number of milestones <= s)``.

    Args:
        optimizer: See :class:`ParamScheduler`.
        milestones: Steps since ``begin``; one that stands twice counts twice.
        gamma: Factor of each milestone.
        options: ``param_name, begin, end, by_epoch, by_update`` of :class:`ParamScheduler`.
    """

    step_arguments: ClassVar[tuple[str, ...]] = ("begin", "end", "milestones")

    def __init__(
        self,
        optimizer: HasParamGroups,
        milestones: Sequence[int],
        gamma: float = 0.1,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        if isinstance(milestones, int | float | str) or not all(map(is_step, milestones)):
            raise ConfigError(
                f"MultiStepLR has milestones={milestones!r}; expected a list of steps: [8, 11]."
            )
        self.milestones, self.gamma = Counter(map(int, milestones)), gamma
        super().__init__(optimizer, **options)

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``."""
        passed = sum(count for milestone, count in self.milestones.items() if milestone <= s)
        return value * float(self.gamma**passed)


class PolyLR(ParamScheduler):
    """``m + (v - m) * (1 - s / (L - 1)) ** power``: exactly ``m`` in the last step of the window.

    Args:
        optimizer: See :class:`ParamScheduler`.
        power: 1 falls on a line.
        eta_min: ``m``.
        options: ``param_name, begin, end, by_epoch, by_update`` of :class:`ParamScheduler`.
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
