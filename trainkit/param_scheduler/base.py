"""ParamScheduler: a schedule on one value of every parameter group."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypedDict

import torch

from trainkit.errors import ConfigError

INF = int(1e9)  # an end that no run reaches, as in MMEngine


class HasParamGroups(Protocol):
    """An optimizer, or a wrapper of one."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups whose values are scheduled."""

    @property
    def defaults(self) -> dict[str, Any]:
        """The optimizer's default options."""


class SchedulerOptions(TypedDict, total=False):
    """What every schedule passes on to :class:`ParamScheduler`, which describes it."""

    param_name: str
    begin: int
    end: int | None
    by_epoch: bool | None


class ParamScheduler(ABC):
    """A schedule of one value of an optimizer's parameter groups.

    A subclass gives :meth:`transform`: the value at step ``s`` of the schedule's own window, from
    the value that stood before it. Before ``begin`` the value is left alone; from ``end`` on it
    stays what it was in the last step of the window. Schedulers of the same value, joined by
    :func:`chain`, are applied one to the other's result in order, starting from the value that the
    optimizer was made with: ``v = f_k(t, ... f_1(t, base))``. So the value at a step depends on the
    step alone, and resuming is setting the step.

    Args:
        optimizer: The optimizer, or its wrapper.
        param_name: The value, such as ``"lr"`` or ``"weight_decay"``; ``"momentum"`` is
            ``betas[0]`` where an optimizer has betas.
        begin: First step of the window.
        end: Step at which the window ends; None: the end of the run, which the Runner fills in.
        by_epoch: Whether steps are epochs or iterations; None: what the train loop counts.
    """

    # Arguments that count steps and so are multiplied when epochs are turned into iterations.
    step_arguments: ClassVar[tuple[str, ...]] = ("begin", "end")

    def __init__(
        self,
        optimizer: HasParamGroups,
        param_name: str = "lr",
        *,
        begin: int = 0,
        end: int | None = None,
        by_epoch: bool | None = None,
    ) -> None:
        end = INF if end is None else end
        if not 0 <= begin < end:
            name = type(self).__name__
            raise ConfigError(f"{name} has begin={begin} and end={end}; expected 0 <= begin < end.")
        self.optimizer, self.param_name = optimizer, param_name
        self.begin, self.end, self.by_epoch = begin, end, by_epoch
        self.last_step = 0
        self.before: ParamScheduler | None = None
        self.last = self  # of the chain: the one that writes the value
        self._key = self._group_key()
        for group in optimizer.param_groups:
            group.setdefault(f"initial_{param_name}", self._read(group))
        self.apply()

    @property
    def length(self) -> int:
        """The number of steps of the window."""
        return self.end - self.begin

    @abstractmethod
    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``, with ``0 <= s < length``.

        Args:
            value: What the schedulers before give; ``base`` if there are none.
            base: What the optimizer was made with.
            s: Steps since ``begin``.
        """

    def step(self) -> None:
        """Go to the next step and write its value into the groups."""
        self.last_step += 1
        self.apply()

    def apply(self) -> None:
        """Write the value of the current step, by way of the last scheduler of the chain."""
        for group in self.optimizer.param_groups:
            base = group[f"initial_{self.param_name}"]
            self._write(group, self.last.value(base))

    def value(self, base: float) -> float:
        """Return the value at the current step for the optimizer's own value ``base``."""
        value = base if self.before is None else self.before.value(base)
        if self.last_step < self.begin:
            return value
        return self.transform(value, base, min(self.last_step, self.end - 1) - self.begin)

    def get_last_value(self) -> list[float]:
        """Return the value of each group as it is now."""
        return [self._read(group) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the step; the schedule itself is the config's."""
        return {"last_step": self.last_step}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to the step of :meth:`state_dict`."""
        self.last_step = int(state_dict["last_step"])
        self.apply()

    def _group_key(self) -> str:
        group = self.optimizer.param_groups[0]
        if self.param_name == "momentum" and "momentum" not in group and "betas" in group:
            return "betas"
        if self.param_name not in group:
            have = ", ".join(
                key for key in group if key != "params" and not key.startswith("initial_")
            )
            raise ConfigError(
                f"{type(self).__name__} has param_name={self.param_name!r}; the optimizer has "
                f"{have}."
            )
        return self.param_name

    def _read(self, group: Mapping[str, Any]) -> float:
        value = group[self._key][0] if self._key == "betas" else group[self._key]
        number = isinstance(value, int | float | torch.Tensor) and not isinstance(value, bool)
        if not number:
            name = type(self).__name__
            raise ConfigError(
                f"{name} has param_name={self.param_name!r}, whose value is {value!r}; "
                "expected the name of a number, such as 'lr'."
            )
        return float(value)

    def _write(self, group: dict[str, Any], value: float) -> None:
        if self._key == "betas":
            group["betas"] = (value, *group["betas"][1:])
        elif isinstance(group[self._key], torch.Tensor):
            group[self._key].fill_(value)  # capturable optimizers hold on to the tensor
        else:
            group[self._key] = value


def chain(schedulers: Sequence[ParamScheduler]) -> None:
    """Join schedulers of the same value of the same optimizer.

    They are applied in the order given; where no two of them overlap, in the order of time.
    """
    joined: dict[tuple[int, str], list[ParamScheduler]] = {}
    for scheduler in schedulers:
        # The groups, as an optimizer and its wrapper share them.
        key = (id(scheduler.optimizer.param_groups), scheduler.param_name)
        joined.setdefault(key, []).append(scheduler)
    for given in joined.values():
        in_time = sorted(given, key=lambda scheduler: scheduler.begin)
        apart = all(a.end <= b.begin for a, b in itertools.pairwise(in_time))
        one_unit = len({scheduler.by_epoch for scheduler in given}) == 1
        members = in_time if apart and one_unit else given
        for before, scheduler in zip([None, *members], members, strict=False):
            scheduler.before, scheduler.last = before, members[-1]
        members[-1].apply()
