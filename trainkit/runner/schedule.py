"""The values that a config schedules, step by step: without model, data, or training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainkit.config import is_config
from trainkit.errors import ConfigError
from trainkit.optim_wrapper import OptimWrapper
from trainkit.param_scheduler import ParamScheduler
from trainkit.runner.from_config import arguments
from trainkit.runner.optim import (
    Horizon,
    build_optim_wrapper,
    build_param_schedulers,
    scale_lr,
    scheduler_nodes,
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
    wrapper = build_optim_wrapper(given["optim_wrapper"], "optim_wrapper", StandInModel())
    factor = scale_lr(given.get("auto_scale_lr"), "auto_scale_lr", wrapper, loader)
    node = given.get("param_scheduler")
    schedulers = build_param_schedulers(node, "param_scheduler", wrapper, loop)
    by_epoch = loop.by_epoch and all(scheduler.by_epoch for scheduler in schedulers)
    notes = [] if factor == 1 else [f"auto_scale_lr: lr times {factor:g}, in one process."]
    if loader.source is not None and not by_epoch:
        notes.append(f"An epoch has {len(loader):,} iterations: {loader.source}.")
    if schedulers and _is_removed("param_scheduler", given["default_hooks"]):
        notes.append("hooks.param_scheduler is null, so no schedule ever moves.")
        schedulers = []
    paths = [path for path, _ in scheduler_nodes(node, "param_scheduler")]
    labelled = [(_label(*pair), pair[1]) for pair in zip(paths, schedulers, strict=False)]
    return _told(labelled, wrapper, loop, by_epoch, notes)


def _is_removed(hook: str, hooks: Any) -> bool:
    return is_config(hooks) and hook in hooks and hooks[hook] is None


def _label(path: str, scheduler: ParamScheduler) -> str:
    """Return the name of a scheduler in the config, or its class and place where it has none."""
    name, kind = path.removeprefix("param_scheduler").lstrip("."), type(scheduler).__name__
    if not name:
        return kind
    return f"{kind}[{name}]" if name.isdigit() else name


def _told(
    schedulers: Sequence[tuple[str, ParamScheduler]],
    wrapper: OptimWrapper,
    loop: Horizon,
    by_epoch: bool,
    notes: Sequence[str],
) -> Plan:
    length = loop.max_epochs if by_epoch else loop.max_iters
    epoch = 1 if by_epoch else length // loop.max_epochs  # steps: in an iteration run, all of them
    chains: dict[int, list[tuple[str, ParamScheduler]]] = {}
    for label, scheduler in schedulers:
        chains.setdefault(id(scheduler.last), []).append((label, scheduler))
    curves = [_curve(chain, length, epoch) for chain in chains.values()]
    lr = wrapper.param_groups[0].get("lr")
    if lr is not None and all(curve.name != "lr" for curve in curves):
        curves.append(Curve("lr", [0], [float(lr)]))
    return Plan(
        unit="epoch" if by_epoch else "iteration",
        length=length,
        epoch_length=epoch if loop.by_epoch and not by_epoch else None,
        curves=sorted(curves, key=lambda curve: curve.name != "lr"),
        notes=[*notes, *_late(schedulers, length, epoch)],
    )


def _late(
    schedulers: Sequence[tuple[str, ParamScheduler]], length: int, epoch: int
) -> Iterator[str]:
    """Yield what the run ends before."""
    for label, scheduler in schedulers:
        for step, key in _turns(scheduler, epoch):
            if step > length or (step == length and key == "milestones"):
                yield f"The run ends before {label}.{key} is reached, at {step:,}."


def _curve(chain: Sequence[tuple[str, ParamScheduler]], length: int, epoch: int) -> Curve:
    """Return the values of the schedulers of one value; ``epoch`` is in steps."""
    marks: dict[int, list[str]] = {}
    for label, scheduler in chain:
        for step, key in _turns(scheduler, epoch):
            if step < length:
                marks.setdefault(step, []).append(f"{label}.{key}")
    last = chain[0][1].last

    def value(step: int) -> float:
        for _, scheduler in chain:
            scheduler.last_step = step // epoch if scheduler.by_epoch else step
        last.apply()
        return last.get_last_value()[0]

    known = {step: value(step) for step in _sampled(length, marks)}
    for extreme in (max, min):
        while between := _around(extreme(known.values()), known):
            known |= {step: value(step) for step in between}
    texts = {step: ", ".join(keys) for step, keys in sorted(marks.items())}
    return Curve(last.param_name, sorted(known), [known[step] for step in sorted(known)], texts)


def _turns(scheduler: ParamScheduler, epoch: int) -> Iterator[tuple[int, str]]:
    """Yield the steps that the scheduler's arguments name, with the argument."""
    unit = epoch if scheduler.by_epoch else 1
    for key in scheduler.step_arguments:
        found = getattr(scheduler, key, None)
        for step in found if isinstance(found, Iterable) else [found]:
            if isinstance(step, int | float):
                start = 0 if key in ("begin", "end") else scheduler.begin
                yield int(start + step) * unit, key


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
