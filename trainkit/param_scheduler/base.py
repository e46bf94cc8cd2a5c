"""ParamScheduler: a schedule on one value of every parameter group."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypedDict, cast

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
    by_update: bool


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
            ``betas[0]`` where an optimizer has betas and no momentum.
        begin: First step of the window.
        end: Step at which the window ends; None: the end of the run, which the Runner fills in.
        by_epoch: Whether steps are epochs or iterations; None: what the train loop counts.
        by_update: Steps are the updates of ``optimizer``, which is then an OptimWrapper: with
            ``accumulative_counts=4`` there is one in four iterations.
    """

    # Arguments that count steps and so are multiplied when epochs are turned into iterations.
    step_arguments: ClassVar[tuple[str, ...]] = ("begin", "end")
    # Arguments that name metrics of the validation, so that a wrong name is found early.
    monitors: ClassVar[tuple[str, ...]] = ()
    # Whether its values are its own, so that the optimizer's do not matter, however scaled.
    ignores_base: ClassVar[bool] = False

    def __init__(
        self,
        optimizer: HasParamGroups,
        param_name: str = "lr",
        *,
        begin: int = 0,
        end: int | None = None,
        by_epoch: bool | None = None,
        by_update: bool = False,
    ) -> None:
        end, name = INF if end is None else end, type(self).__name__
        if not 0 <= begin < end:
            raise ConfigError(f"{name} has begin={begin} and end={end}; expected 0 <= begin < end.")
        if by_update and by_epoch:
            raise ConfigError(f"{name} has both by_epoch and by_update; a step is one of them.")
        if by_update and not hasattr(optimizer, "update_count"):
            raise ConfigError(
                f"{name} has by_update=True, but {type(optimizer).__name__} does not count its "
                "updates. Make the schedule with the OptimWrapper."
            )
        self.optimizer, self.param_name = optimizer, param_name
        self.begin, self.end = begin, end
        self.by_epoch, self.by_update = False if by_update else by_epoch, by_update
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

    @property
    def unit(self) -> Literal["epoch", "iteration", "update"]:
        """What a step is."""
        return "update" if self.by_update else "epoch" if self.by_epoch else "iteration"

    @property
    def needs_validation(self) -> bool:
        """Whether the schedule waits for the metrics of validations."""
        return False

    @abstractmethod
    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value at step ``s``, with ``0 <= s < length``.

        Args:
            value: What the schedulers before give; ``base`` if there are none.
            base: What the optimizer was made with.
            s: Steps since ``begin``.
        """

    def transform_group(self, group: int, value: float, base: float, s: int) -> float:
        """Return the value of one parameter group; overridden where groups have their own options.

        Args:
            group: The number of the group.
            value: See :meth:`transform`.
            base: See :meth:`transform`.
            s: See :meth:`transform`.
        """
        return self.transform(value, base, s)

    def step(self) -> None:
        """Go to the next step and write its value into the groups."""
        self.last_step += 1
        self.apply()

    def catch_up(self) -> None:
        """Step once for each update that was made since; see ``by_update``."""
        while self.last_step < self.updates_made:
            self.step()

    @property
    def updates_made(self) -> int:
        """The updates of the optimizer, which is an OptimWrapper where updates are counted."""
        return int(cast(Any, self.optimizer).update_count)

    def observe_outputs(self, outputs: Mapping[str, Any]) -> None:  # noqa: B027 - may be left
        """Take what a train step has returned; a schedule of time alone leaves it."""

    def observe_metrics(self, metrics: Mapping[str, Any]) -> None:  # noqa: B027 - may be left
        """Take what a validation has given; a schedule of time alone leaves it."""

    def apply(self) -> None:
        """Write the value of the current step, by way of the last scheduler of the chain."""
        for index, group in enumerate(self.optimizer.param_groups):
            base = group[f"initial_{self.param_name}"]
            self._write(group, self.last.value(base, index))

    def value(self, base: float, group: int = 0) -> float:
        """Return the value of a group at the current step, for the optimizer's own ``base``."""
        value = base if self.before is None else self.before.value(base, group)
        if self.last_step < self.begin:
            return value
        s = min(self.last_step, self.end - 1) - self.begin
        return self.transform_group(group, value, base, s)

    def turns(self) -> Iterator[tuple[int, str]]:
        """Yield the steps at which the schedule begins, ends or turns, with the argument for it."""
        for key in self.step_arguments:
            found = getattr(self, key)
            for step in found if isinstance(found, Iterable) else [found]:
                if step is not None:
                    yield (step if key in ("begin", "end") else self.begin + step), key

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

    def _require(self, fits: bool, name: str, value: Any, expected: str) -> None:
        """Raise unless an argument fits; a constructor calls it before it is made."""
        if not fits:
            kind = type(self).__name__
            raise ConfigError(f"{kind} has {name}={value!r}; expected {expected}.")

    def _group_key(self) -> str:
        groups = self.optimizer.param_groups
        shared = [key for key in groups[0] if all(key in group for group in groups)]
        if self.param_name == "momentum" and "momentum" not in shared and "betas" in shared:
            return "betas"
        if self.param_name not in shared:
            have = ", ".join(
                key for key in shared if key != "params" and not key.startswith("initial_")
            )
            raise ConfigError(
                f"{type(self).__name__} has param_name={self.param_name!r}; the optimizer has "
                f"{have}."
            )
        self._require(
            self.param_name != "betas",
            "param_name",
            "betas",
            "the name of a number; 'momentum' is the first of the betas",
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
            first, *others = group["betas"]
            if isinstance(first, torch.Tensor):
                first.fill_(value)
            else:
                group["betas"] = (value, *others)
        elif isinstance(group[self._key], torch.Tensor):
            group[self._key].fill_(value)  # capturable optimizers hold on to the tensor
        else:
            group[self._key] = value


def chain(
    schedulers: Sequence[ParamScheduler],
    iterations: Callable[[ParamScheduler], int] = lambda _: 1,
) -> None:
    """Join schedulers of the same value of the same optimizer.

    They are applied in the order given; where no two of them overlap, in the order of time.

    Args:
        schedulers: The schedulers.
        iterations: How many iterations a step of a scheduler lasts; asked for if units are mixed.
    """
    joined: dict[tuple[int, str], list[ParamScheduler]] = {}
    for scheduler in schedulers:
        # A group, as an optimizer and its wrapper share them.
        key = (id(scheduler.optimizer.param_groups[0]), scheduler.param_name)
        joined.setdefault(key, []).append(scheduler)
    for given in joined.values():
        mixed = len({scheduler.unit for scheduler in given}) > 1
        steps = [iterations(scheduler) if mixed else 1 for scheduler in given]
        windows = [(s.begin * n, s.end * n, s) for s, n in zip(given, steps, strict=True)]
        in_time = sorted(windows, key=lambda window: window[0])
        apart = all(a[1] <= b[0] for a, b in itertools.pairwise(in_time))
        members = [scheduler for *_, scheduler in in_time] if apart else given
        for before, scheduler in zip([None, *members], members, strict=False):
            scheduler.before, scheduler.last = before, members[-1]
        members[-1].apply()


def is_step(value: Any) -> bool:
    """Whether ``value`` is a number of steps: whole, and not below 0; 3.0 is."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value >= 0 and value == int(value)


def per_group(
    scheduler: ParamScheduler,
    optimizer: HasParamGroups,
    name: str,
    given: float | Sequence[float],
) -> list[float]:
    """Return an option for each parameter group; a number stands for all.

    Raises:
        ConfigError: It is a list of another length.
    """
    groups = len(optimizer.param_groups)
    if isinstance(given, int | float):
        return [given] * groups
    if len(given) == groups - 1 and not optimizer.param_groups[-1]["params"]:
        return [*given, given[-1]]  # the wrapper's base_param_settings go along
    if len(given) != groups:
        raise ConfigError(
            f"{type(scheduler).__name__} has {len(given)} values of {name}; the optimizer has "
            f"{groups} parameter groups. Give a value for each, or one number for all."
        )
    return list(given)
