"""Rules between schedules and the length of the run: units that fit, and steps that are reached."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainkit.config.check import Node
from trainkit.config.findings import Finding, shown
from trainkit.errors import TrainkitError
from trainkit.param_scheduler import ParamScheduler
from trainkit.runner.checked import Config
from trainkit.runner.stand_in import StandInLoader


@dataclass(frozen=True)
class Horizon:
    """How long a run is, as far as its config tells.

    Args:
        by_epoch: Whether the train loop counts epochs.
        epochs: Epochs of the run; None where that is not known.
        iterations: Iterations of the run; None where that is not known.
        updates: Updates of the run; None where that is not known.
    """

    by_epoch: bool
    epochs: float | None
    iterations: float | None
    updates: float | None = None

    def of(self, by_epoch: bool) -> float | None:
        """Return the length of the run in epochs or in iterations."""
        return self.epochs if by_epoch else self.iterations


def horizon_of(config: Config) -> Horizon | None:
    """Return the horizon; None for a run that does not train, or whose loop does not say."""
    node = config.nodes.get("train_cfg")
    by_epoch = getattr(node.target, "by_epoch", None) if node is not None else None
    if node is None or not isinstance(by_epoch, bool):
        return None
    end = node.content.get("max_epochs" if by_epoch else "max_iters")
    if isinstance(end, bool) or not isinstance(end, int | float) or not end >= 1:
        return Horizon(by_epoch, None, None)  # the loop itself tells what it is to be
    path, loader = config.loader("train")
    try:
        length: int | None = len(StandInLoader(loader, path))
    except TrainkitError:  # not known without the data; or wrong, and told of as such
        length = None
    if by_epoch:
        return Horizon(True, end, None if length is None else end * length)
    return Horizon(False, None if length is None else end / length, end)


def horizons(config: Config) -> Iterator[Finding]:
    """Schedules and loops must count what the run counts, and turn before it ends."""
    horizon = horizon_of(config)
    if horizon is None:
        return
    if horizon.iterations is not None:
        horizon = replace(horizon, updates=_updates(config, horizon.iterations))
    for path, node in config.below("param_scheduler"):
        if inspect.isclass(node.target) and issubclass(node.target, ParamScheduler):
            yield from _schedule(path, node, horizon, reaches=not config.is_shortened)
    if not config.is_shortened:
        yield from _loop(config.nodes["train_cfg"], horizon)
        for path, node in config.below("hooks"):
            yield from _begins(path, node, horizon)


def _updates(config: Config, iterations: float) -> float | None:
    """Return the updates of a model with one pass an iteration, where there is one optimizer."""
    wrapper = config.nodes.get("optim_wrapper")
    passes = wrapper.content.get("accumulative_counts", 1) if wrapper is not None else None
    single = wrapper is not None and "optimizer" in wrapper.content
    return -(-iterations // passes) if single and type(passes) is int and passes > 0 else None


def _schedule(path: str, node: Node, horizon: Horizon, *, reaches: bool) -> Iterator[Finding]:
    by_epoch, by_update = node.content.get("by_epoch"), node.content.get("by_update") is True
    by_epoch = horizon.by_epoch and not by_update if by_epoch is None else by_epoch
    converts = node.content.get("convert_to_iter_based", False)
    if not isinstance(by_epoch, bool) or not isinstance(converts, bool):
        return
    if by_update and (converts or by_epoch):
        other = "convert_to_iter_based" if converts else "by_epoch: true"
        text = (
            f"{path} has by_update and {other}; a step is one of them. Drop {other}, and give all "
            "numbers in updates."
        )
        yield Finding(f"{path}.by_update", text)
    elif converts and not by_epoch:
        text = (
            f"{path} has convert_to_iter_based, but it counts iterations already. Set by_epoch: "
            "true, or drop it."
        )
        yield Finding(f"{path}.convert_to_iter_based", text)
    elif converts and not getattr(node.target, "step_arguments", ()):
        text = (
            f"{path} has convert_to_iter_based, but it counts no epochs that could be converted. "
            "Set by_epoch: false, and give all numbers in iterations."
        )
        yield Finding(f"{path}.convert_to_iter_based", text)
    elif by_epoch and not converts and not horizon.by_epoch:
        text = (
            f"{path}.by_epoch is true, but the train loop counts iterations, so it would never "
            "step. Set convert_to_iter_based: true beside it, or by_epoch: false and give all "
            "numbers in iterations."
        )
        yield Finding(f"{path}.by_epoch", text)
    elif reaches and by_update:
        yield from _reached(path, node.content, horizon.updates, "updates")
    elif reaches:
        yield from _reached(path, node.content, horizon.of(by_epoch), _unit(by_epoch))


def _reached(
    path: str, content: Mapping[str, Any], end: float | None, unit: str
) -> Iterator[Finding]:
    """A schedule must begin, and turn, before the run ends."""
    begin, stop = content.get("begin", 0), content.get("end")
    if not isinstance(begin, int):
        return
    if isinstance(stop, int) and begin >= stop:
        text = f"{path} has begin={begin} and end={stop}; expected begin < end."
        yield Finding(f"{path}.end", text)
    if end is None:
        return
    if begin >= end:
        text = f"{path}.begin is {begin}, but the run ends after {end:g} {unit}"
        yield Finding(
            f"{path}.begin", f"{text}, so it would do nothing. Begin earlier, or drop it."
        )
        return
    for key, verb, them in (("milestones", "has", "them"), ("step_size", "is", "it")):
        late = [step for step in _steps(content.get(key)) if begin + step >= end]
        if late:
            text = (
                f"{path}.{key} {verb} {', '.join(map(shown, late))}, but the run ends after "
                f"{end:g} {unit}: never reached. Lower {them}, train longer, or choose a schedule "
                "that ends with the run, such as param_scheduler=cosine."
            )
            yield Finding(f"{path}.{key}", text)


def _steps(milestones: Any) -> list[float]:
    if isinstance(milestones, int | float):
        return [milestones]
    if not isinstance(milestones, Sequence) or isinstance(milestones, str):
        return []
    return [step for step in milestones if isinstance(step, int | float)]


def _loop(node: Node, horizon: Horizon) -> Iterator[Finding]:
    """Validation must begin, and its intervals change, before the run ends."""
    end = horizon.of(horizon.by_epoch)
    begin, intervals = node.content.get("val_begin"), node.content.get("dynamic_intervals")
    unit = _unit(horizon.by_epoch)
    if end is None:
        return
    if isinstance(begin, int | float) and begin > end:
        text = f"train_cfg.val_begin is {begin}, but the run ends after {end:g} {unit}"
        yield Finding("train_cfg.val_begin", f"{text}: it would never validate. Lower it.")
    for pair in intervals if isinstance(intervals, list) else []:
        milestone = pair[0] if isinstance(pair, list) and pair else None
        if isinstance(milestone, int | float) and milestone > end:
            text = f"train_cfg.dynamic_intervals changes at {milestone}, but the run ends after"
            text = f"{text} {end:g} {unit}: never reached. Lower it."
            yield Finding("train_cfg.dynamic_intervals", text)


def _begins(path: str, node: Node, horizon: Horizon) -> Iterator[Finding]:
    """What a hook waits for must come."""
    for name, by_epoch in (("begin_epoch", True), ("begin_iter", False)):
        begin, end = node.arguments.get(name), horizon.of(by_epoch)
        if isinstance(begin, int) and end is not None and begin > end:
            text = f"{path}.{name} is {begin}, but the run ends after {end:g} {_unit(by_epoch)}"
            yield Finding(f"{path}.{name}", f"{text}: it would never begin. Lower it.")


def _unit(by_epoch: bool) -> str:
    return "epochs" if by_epoch else "iterations"
