"""The values that a config schedules, step by step: without model, data, or training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainkit.config.build import is_config
from trainkit.errors import ConfigError
from trainkit.optim_wrapper import OptimWrapper, OptimWrapperDict, bare
from trainkit.param_scheduler import ParamScheduler
from trainkit.runner.from_config import arguments
from trainkit.runner.optim import (
    Horizon,
    assigned,
    build_optim_wrapper,
    build_param_schedulers,
    iterations_of,
    refuse_scaling,
    scale_lr,
)
from trainkit.runner.stand_in import StandInLoader, StandInModel, build_stand_in_loop

MAX_POINTS = 2000  # of a curve, beside those where a schedule begins, ends or turns
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Curve:
    """A value of the optimizer over the run.

    Attributes:
        name: Such as ``"lr"``.
        steps: Where the value is known, in order, from 0 to the last step of the run.
        values: The value at each of them, which holds up to the next step.
        marks: What begins, ends or turns at some of them, as config keys; empty where no schedule
            moves the value.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    marks: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a config schedules.

    Attributes:
        unit: ``"epoch"`` or ``"iteration"``: what a step is.
        length: Steps of the run.
        epoch_length: Iterations of an epoch, where a run by epochs is told by iterations.
        curves: The learning rate, and whatever else is scheduled.
        notes: What had to be reckoned, a sentence each.
    """

    unit: str
    length: int
    epoch_length: int | None
    curves: Sequence[Curve]
    notes: Sequence[str]


def plan(cfg: Any, iters_per_epoch: int | None = None) -> Plan:
    """Return what a composed config schedules, by the very schedulers of a run.

    Args:
        cfg: As ``compose()`` returns it.
        iters_per_epoch: Iterations of an epoch; None: what the config tells.

    Raises:
        ConfigError: A part of the config is wrong; or the length of an epoch is needed, and neither
            given nor told by the config.
    """
    given = arguments(cfg, work_dir=".")  # which nobody makes
    for name in ("train_cfg", "optim_wrapper"):
        if given.get(name) is None:
            raise ConfigError(f"{name} is null, so nothing is trained and there is no schedule.")
    where = given["paths"].get("train_dataloader", "train_dataloader")
    loader = StandInLoader(given.get("train_dataloader"), where, iters_per_epoch)
    loop = build_stand_in_loop(given["train_cfg"], "train_cfg", loader)
    cfg, names = bare(given["optim_wrapper"])
    wrapper = build_optim_wrapper(cfg, "optim_wrapper", StandInModel(names))
    factor = scale_lr(given.get("auto_scale_lr"), "auto_scale_lr", wrapper, loader)
    node = given.get("param_scheduler")
    schedulers = build_param_schedulers(node, "param_scheduler", wrapper, loop)
    refuse_scaling(given.get("auto_scale_lr"), "auto_scale_lr", schedulers)
    by_epoch = loop.by_epoch and all(scheduler.by_epoch for scheduler in schedulers)
    notes = [] if factor == 1 else [f"auto_scale_lr: lr times {factor:g}, in one process."]
    if loader.source is not None and not by_epoch:
        notes.append(f"An epoch has {len(loader):,} iterations: {loader.source}.")
    if schedulers and _is_removed("param_scheduler", given["default_hooks"]):
        notes.append("hooks.param_scheduler is null, so no schedule ever moves.")
        schedulers = []
    paths = [path for path, _, _ in assigned(node, "param_scheduler", wrapper)]
    labelled = [(_label(*pair), pair[1]) for pair in zip(paths, schedulers, strict=False)]
    notes += [_unknown(label, each) for label, each in labelled if each.monitors]
    return _told(labelled, wrapper, loop, by_epoch, notes)


def _is_removed(hook: str, hooks: Any) -> bool:
    return is_config(hooks) and hook in hooks and hooks[hook] is None


def _label(path: str, scheduler: ParamScheduler) -> str:
    """Return the name of a scheduler in the config, or its class and place where it has none."""
    name, kind = path.removeprefix("param_scheduler").lstrip("."), type(scheduler).__name__
    if not name:
        return kind
    return f"{kind}[{name}]" if name.isdigit() else name


def _unknown(label: str, scheduler: ParamScheduler) -> str:
    watched = " and ".join(repr(getattr(scheduler, name)) for name in scheduler.monitors)
    return (
        f"{label} follows {watched}, which only a run tells: it is drawn as if it never reduced "
        f"{scheduler.param_name}."
    )


def _told(
    schedulers: Sequence[tuple[str, ParamScheduler]],
    wrapper: OptimWrapper,
    loop: Horizon,
    by_epoch: bool,
    notes: Sequence[str],
) -> Plan:
    length = loop.max_epochs if by_epoch else loop.max_iters
    chains: dict[int, list[_Told]] = {}
    told = [_Told(*pair, 1 if by_epoch else iterations_of(pair[1], loop)) for pair in schedulers]
    for each in told:
        chains.setdefault(id(each.scheduler.last), []).append(each)
    optimizers = dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {"": wrapper}
    curves = [_curve(chain, length, optimizers) for chain in chains.values()]
    for name, optimizer in optimizers.items():
        lr, value = _value_name(name, "lr"), optimizer.param_groups[0].get("lr")
        if value is not None and all(curve.name != lr for curve in curves):
            curves.append(Curve(lr, [0], [float(value)]))
    return Plan(
        unit="epoch" if by_epoch else "iteration",
        length=length,
        epoch_length=length // loop.max_epochs if loop.by_epoch and not by_epoch else None,
        curves=sorted(curves, key=lambda curve: curve.name.rpartition(".")[2] != "lr"),
        notes=[*notes, *_late(told, length)],
    )


def _value_name(optimizer: str, param_name: str) -> str:
    return f"{optimizer}.{param_name}" if optimizer else param_name


@dataclass(frozen=True)
class _Told:
    """A scheduler with its name, and how many steps of the plan one of its own lasts."""

    label: str
    scheduler: ParamScheduler
    unit: int

    def turns(self) -> Iterator[tuple[int, str]]:
        """Yield the steps of the plan at which something turns, with the argument for it."""
        for step, key in self.scheduler.turns():
            yield int(step) * self.unit, key


def _late(schedulers: Sequence[_Told], length: int) -> Iterator[str]:
    """Yield what the run ends before."""
    for each in schedulers:
        for step, key in each.turns():
            never = step == length and key in ("milestones", "step_size")
            # An end in updates may be that of the last ones, which are fewer.
            if never or step >= length + each.unit or (step > length and key != "end"):
                yield f"The run ends before {each.label}.{key} is reached, at {step:,}."


def _curve(chain: Sequence[_Told], length: int, optimizers: Mapping[str, OptimWrapper]) -> Curve:
    """Return the values of the schedulers of one value."""
    marks: dict[int, list[str]] = {}
    for each in chain:
        for step, key in each.turns():
            if step < length:
                marks.setdefault(step, []).append(f"{each.label}.{key}")
    last = chain[0].scheduler.last
    group = last.optimizer.param_groups[0]
    owner = next((n for n, o in optimizers.items() if o.param_groups[0] is group), "")

    def value(step: int) -> float:
        for each in chain:
            each.scheduler.last_step = step // each.unit
        last.apply()
        return last.get_last_value()[0]

    known = {step: value(step) for step in _sampled(length, marks)}
    for extreme in (max, min):
        while between := _around(extreme(known.values()), known):
            known |= {step: value(step) for step in between}
    texts = {step: ", ".join(keys) for step, keys in sorted(marks.items())}
    name = _value_name(owner, last.param_name)
    return Curve(name, sorted(known), [known[step] for step in sorted(known)], texts)


def _sampled(length: int, turns: Iterable[int]) -> list[int]:
    """Return all steps, or of very many some in each part of the run, and those beside a turn."""
    if length <= MAX_POINTS:
        return list(range(length))
    # Not evenly, which could fall in step with a schedule that repeats itself.
    spread = {int((i + i * _GOLDEN % 1) * length / MAX_POINTS) for i in range(MAX_POINTS)}
    beside = {step for turn in turns for step in (turn - 1, turn) if step >= 0}
    return sorted(spread | beside | {0, length - 1})


def _around(value: float, known: Mapping[int, float]) -> list[int]:
    """Return steps between the first that has ``value`` and its neighbours, if there are any."""
    steps = sorted(known)
    at = next(index for index, step in enumerate(steps) if known[step] == value)
    first, last = steps[max(at - 1, 0)], steps[min(at + 1, len(steps) - 1)]
    stride = max((last - first) // MAX_POINTS, 1)
    return [step for step in range(first, last, stride) if step not in known]
