"""From the arguments ``optim_wrapper`` and ``param_scheduler`` to what updates the weights."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol, cast

from torch import nn

from trainkit.config.build import build, find_target, is_config, named, to_plain
from trainkit.dataloader import num_batches
from trainkit.dist import get_world_size
from trainkit.errors import ConfigError, did_you_mean
from trainkit.optim_wrapper import OptimWrapper, OptimWrapperDict, construct
from trainkit.param_scheduler import ParamScheduler, chain
from trainkit.param_scheduler.base import INF

logger = logging.getLogger(__name__)


class Horizon(Protocol):
    """How long a run is: what a train loop tells the schedules."""

    @property
    def by_epoch(self) -> bool:
        """Whether the loop counts epochs, or iterations."""

    @property
    def max_epochs(self) -> int:
        """The number of epochs of the whole run."""

    @property
    def max_iters(self) -> int:
        """The number of iterations of the whole run."""

    @property
    def dataloader(self) -> Any:
        """The training data, whose length is that of an epoch."""


def build_optim_wrapper(node: Any, path: str, model: nn.Module) -> OptimWrapper:
    """Return the wrapper, or several as one; a config's optimizer gets the model's parameters."""
    wrapper = construct(node, path, model) if is_config(node) else node
    if not isinstance(wrapper, OptimWrapper):
        made = f"{path}.constructor gives" if is_config(node) else f"{path} is"
        kind = type(wrapper).__name__
        raise ConfigError(f"{made} a {kind}; expected an OptimWrapper, or a config of one.")
    return _of_model(wrapper, path, model)


def _of_model(wrapper: OptimWrapper, path: str, model: nn.Module) -> OptimWrapper:
    """Return the wrapper, once it is known to train something of the model."""
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in own for group in wrapper.param_groups for p in group["params"]):
        raise ConfigError(
            f"{path} has no parameter of {type(model).__name__}, so training would change nothing. "
            "Make the optimizer from the parameters of the model that the Runner gets."
        )
    wrapper.name_parameters(model)
    return wrapper


def scale_lr(node: Any, path: str, optim_wrapper: OptimWrapper, dataloader: Any) -> float:
    """Scale every learning rate by the samples of a step over ``base_batch_size``; return by what.

    The linear rule of Goyal et al., arXiv:1706.02677, §2.1. A step sees the batch size, times the
    ranks, times the accumulated passes. Of several optimizers, what is returned is the first one's.
    """
    options = to_plain(node, path) or {}
    if not isinstance(options, dict) or options.keys() - {"enable", "base_batch_size"}:
        raise ConfigError(
            f"{path} is {options!r}; expected {{enable: true, base_batch_size: ...}} or null."
        )
    if not options.get("enable", False):
        return 1.0
    base = options.get("base_batch_size")
    size = getattr(dataloader, "batch_size", None) or getattr(
        getattr(dataloader, "batch_sampler", None), "batch_size", None
    )
    if not isinstance(base, int) or base < 1:
        raise ConfigError(
            f"{path}.base_batch_size is {base!r}; expected the batch size that the learning rate "
            "is for."
        )
    if size is None:
        raise ConfigError(
            f"{path} is enabled, but the training loader has no batch_size to scale by. Disable it."
        )
    wrappers = optim_wrapper if isinstance(optim_wrapper, OptimWrapperDict) else {"": optim_wrapper}
    factors = []
    for name, wrapper in wrappers.items():
        seen = size * get_world_size() * wrapper.accumulative_counts
        wrapper.scale_lr(seen / base)
        logger.info(
            "auto_scale_lr:%s learning rates times %g (%d samples a step, made for %d)",
            *(f" {name}:" if name else "", seen / base, seen, base),
        )
        factors.append(float(seen / base))
    return factors[0]


def build_param_schedulers(
    node: Any, path: str, optim_wrapper: OptimWrapper, loop: Horizon
) -> list[ParamScheduler]:
    """Return the schedulers, joined in order; what they leave open is the loop's.

    With several optimizers, ``node`` has what each gets under the optimizer's name; or else each
    gets schedulers of its own from every config in it. The log says which got what.
    """
    names = _names(optim_wrapper)
    schedulers = []
    for where, entry, wrapper in assigned(node, path, optim_wrapper):
        schedulers.append(_scheduler(entry, where, wrapper, loop))
        kind, param_name = type(schedulers[-1]).__name__, schedulers[-1].param_name
        if id(wrapper) in names:
            logger.info("%s: %s of %s.%s", where, kind, names[id(wrapper)], param_name)
    chain(schedulers, lambda scheduler: iterations_of(scheduler, loop))
    return schedulers


def _names(optim_wrapper: OptimWrapper) -> dict[int, str]:
    """Return the names of several optimizers by identity; nothing where there is one."""
    several = optim_wrapper.items() if isinstance(optim_wrapper, OptimWrapperDict) else ()
    return {id(wrapper): name for name, wrapper in several}


def refuse_scaling(options: Any, path: str, schedulers: Iterable[ParamScheduler]) -> None:
    """Raise if ``auto_scale_lr`` is enabled and a schedule does not start from what it scales."""
    for scheduler in schedulers:
        if is_config(options) and options.get("enable", False) and scheduler.ignores_base:
            raise ConfigError(scales_nothing(path, type(scheduler).__name__))


def scales_nothing(path: str, kind: str) -> str:
    """Return the message about a schedule that does not start from the optimizer's value."""
    return (
        f"{path}.enable is true, but {kind} goes by its own values, so there is nothing to scale. "
        "Set it to false, and give the schedule values for this batch size."
    )


def iterations_of(scheduler: ParamScheduler, loop: Horizon) -> int:
    """Return how many iterations a step of a scheduler lasts."""
    if scheduler.unit == "update":
        return cast(OptimWrapper, scheduler.optimizer).accumulative_counts
    return loop.max_iters // loop.max_epochs if scheduler.unit == "epoch" else 1


def assigned(
    node: Any, path: str, optim_wrapper: OptimWrapper
) -> Iterator[tuple[str, Any, OptimWrapper]]:
    """Yield each scheduler that ``param_scheduler`` gives, with its path and its optimizer."""
    if not isinstance(optim_wrapper, OptimWrapperDict):
        yield from ((where, entry, optim_wrapper) for where, entry in _entries(node, path))
        return
    plain = to_plain(node, path) if is_config(node) else node
    names = set(optim_wrapper)
    for text in misnamed(plain, path, names).values():
        raise ConfigError(text)
    if isinstance(plain, Mapping) and "_target_" not in plain and names & plain.keys():
        for name, own in named(plain):
            for where, entry in _entries(own, f"{path}.{name}"):
                yield where, entry, optim_wrapper[name]
        return
    for where, entry in _entries(node, path):
        # A ready scheduler has its optimizer already.
        for wrapper in optim_wrapper.values() if is_config(entry) else [optim_wrapper]:
            yield where, entry, wrapper


def misnamed(schedulers: Any, path: str, optimizers: Collection[str]) -> dict[str, str]:
    """Return what is wrong with the names of schedulers, of several optimizers, by config key.

    A name that is nearly an optimizer's would silently be taken for a schedule of all of them.
    """
    if not isinstance(schedulers, Mapping) or "_target_" in schedulers:
        return {}
    given = [str(name) for name, _ in named(schedulers)]
    by_optimizer, found = any(name in optimizers for name in given), {}
    for name in given:
        hint, key = did_you_mean(name, optimizers), f"{path}.{name}"
        if by_optimizer and name not in optimizers:
            found[key] = f"{key}: {path} goes by optimizer, and there is none of this name. {hint}"
        elif not by_optimizer and hint.startswith("Did you mean"):
            found[key] = (
                f"{key}: there are several optimizers, and none of this name. {hint} A schedule of "
                "all of them has a name that is unlike theirs, or stands in a list."
            )
    return found


def _entries(node: Any, path: str) -> list[tuple[str, Any]]:
    """Return each scheduler of one optimizer, with its path."""
    if node is None:
        return []
    plain = to_plain(node, path) if is_config(node) or isinstance(node, list | tuple) else node
    single = not isinstance(plain, Mapping | list) or (
        isinstance(plain, Mapping) and "_target_" in plain
    )
    return (
        [(path, plain)] if single else [(f"{path}.{name}", entry) for name, entry in named(plain)]
    )


def _scheduler(node: Any, path: str, optim_wrapper: OptimWrapper, loop: Horizon) -> ParamScheduler:
    if not is_config(node):
        return _given(node, path, optim_wrapper, loop)
    node = dict(node)
    convert, by_update = node.pop("convert_to_iter_based", False), node.get("by_update", False)
    if node.get("by_epoch") is None:
        node["by_epoch"] = loop.by_epoch and not by_update
    if by_update and (convert or node["by_epoch"]):
        other = "convert_to_iter_based" if convert else "by_epoch: true"
        raise ConfigError(
            f"{path} has by_update and {other}; a step is one of them. Drop {other}, and give all "
            "numbers in updates."
        )
    target: Any = find_target(node, path)
    if inspect.isclass(target) and not issubclass(target, ParamScheduler):
        raise ConfigError(
            f"{path} is a config of {target.__qualname__}; expected a parameter scheduler, a "
            "subclass of trainkit.param_scheduler.ParamScheduler."
        )
    if convert:
        _convert_to_iterations(node, path, getattr(target, "step_arguments", ()), loop)
    _check_steps(node["by_epoch"], path, loop)
    if node.get("end") is None:
        horizon = _horizon(loop, node["by_epoch"], by_update, optim_wrapper)
        node["end"] = _end(node.get("begin", 0), horizon, path)
    scheduler = build(node, path, args=(optim_wrapper,))
    if not isinstance(scheduler, ParamScheduler):
        raise ConfigError(
            f"{path}._target_ gives a {type(scheduler).__name__}; expected a ParamScheduler."
        )
    return scheduler


def _given(node: Any, path: str, optim_wrapper: OptimWrapper, loop: Horizon) -> ParamScheduler:
    """Return a ready scheduler, with what it has left open."""
    if not isinstance(node, ParamScheduler):
        raise ConfigError(
            f"{path} is a {type(node).__name__}; expected a ParamScheduler, or a config with "
            "_target_."
        )
    node.by_epoch = loop.by_epoch if node.by_epoch is None else node.by_epoch
    _check_steps(node.by_epoch, path, loop)
    if node.end == INF:
        own = node.optimizer if isinstance(node.optimizer, OptimWrapper) else optim_wrapper
        node.end = _end(node.begin, _horizon(loop, node.by_epoch, node.by_update, own), path)
    return node


def _check_steps(by_epoch: bool, path: str, loop: Horizon) -> None:
    if by_epoch and not loop.by_epoch:
        raise ConfigError(
            f"{path}.by_epoch is true, but the train loop counts iterations, so it would never "
            "step. Set convert_to_iter_based: true beside it, or by_epoch: false and give all "
            "numbers in iterations."
        )


def _horizon(loop: Horizon, by_epoch: bool, by_update: bool, wrapper: OptimWrapper) -> int:
    """Return the length of the run; in updates, that of a model with one pass an iteration."""
    if by_update:
        return -(-loop.max_iters // wrapper.accumulative_counts)
    return loop.max_epochs if by_epoch else loop.max_iters


def _end(begin: Any, horizon: int, path: str) -> int:
    """Return the end of the run, or one that is never reached where a schedule begins after it."""
    if isinstance(begin, int) and begin >= horizon:
        logger.warning(
            "%s begins at %d; the run ends at %d, so it does nothing.", path, begin, horizon
        )
        return begin + 1
    return horizon


def _convert_to_iterations(
    node: dict[str, Any], path: str, names: Iterable[str], loop: Horizon
) -> None:
    """Turn what is counted in epochs into iterations."""
    if node["by_epoch"] is not True:
        raise ConfigError(
            f"{path} has convert_to_iter_based, but it counts iterations already. Set by_epoch: "
            "true, or drop it."
        )
    if not names:
        raise ConfigError(
            f"{path} has convert_to_iter_based, but it counts no epochs that could be converted. "
            "Set by_epoch: false, and give all numbers in iterations."
        )
    length = num_batches(loop.dataloader)
    if length is None:
        raise ConfigError(f"{path} converts epochs to iterations, but the data has no length.")
    node["by_epoch"] = False
    for name in names:
        value = node.get(name)
        if isinstance(value, list):
            node[name] = [step * length for step in value]
        elif isinstance(value, int | float) and name != "milestones":
            node[name] = value * length
