"""From the arguments ``optim_wrapper`` and ``param_scheduler`` to what updates the weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import nn

from trainkit.config import Partial, build, is_config, named, to_plain
from trainkit.config.build import find_target, partial
from trainkit.dataloader import num_batches
from trainkit.dist import get_world_size
from trainkit.errors import ConfigError
from trainkit.optim_wrapper import OptimWrapper
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
    """Return the wrapper; a config's ``optimizer`` gets the model's parameters."""
    if not is_config(node):
        if not isinstance(node, OptimWrapper):
            kind = type(node).__name__
            raise ConfigError(f"{path} is a {kind}; expected an OptimWrapper, or a config of one.")
        return _of_model(node, path, model)
    node = to_plain(node, path)
    if "optimizer" not in node:
        raise ConfigError(
            f"{path} has no optimizer. It has: {', '.join(node)}. Give it one, as optimizer: "
            f"{{_target_: …}}."
        )
    optimizer = node.pop("optimizer")
    if is_config(optimizer) or isinstance(optimizer, Partial):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained:
            raise ConfigError(
                f"{type(model).__name__} has no parameter that requires a gradient; nothing can be "
                "trained."
            )
        make = (
            optimizer if isinstance(optimizer, Partial) else partial(optimizer, f"{path}.optimizer")
        )
        optimizer = make(trained)
    wrapper = build(node, path, default=OptimWrapper, optimizer=optimizer)
    if not isinstance(wrapper, OptimWrapper):
        raise ConfigError(
            f"{path}._target_ gives a {type(wrapper).__name__}; expected an OptimWrapper."
        )
    return _of_model(wrapper, path, model)


def _of_model(wrapper: OptimWrapper, path: str, model: nn.Module) -> OptimWrapper:
    """Return the wrapper, once it is known to train something of the model."""
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in own for group in wrapper.param_groups for p in group["params"]):
        raise ConfigError(
            f"{path} has no parameter of {type(model).__name__}, so training would change nothing. "
            "Make the optimizer from the parameters of the model that the Runner gets."
        )
    return wrapper


def scale_lr(node: Any, path: str, optim_wrapper: OptimWrapper, dataloader: Any) -> float:
    """Scale every learning rate by the samples of a step over ``base_batch_size``; return by what.

    The linear rule of Goyal et al., arXiv:1706.02677, §2.1. A step sees the batch size, times the
    ranks, times the accumulated passes.
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
    seen = size * get_world_size() * optim_wrapper.accumulative_counts
    optim_wrapper.scale_lr(seen / base)
    logger.info(
        "auto_scale_lr: learning rates times %g (%d samples a step, made for %d)",
        seen / base,
        seen,
        base,
    )
    return float(seen / base)


def build_param_schedulers(
    node: Any, path: str, optim_wrapper: OptimWrapper, loop: Horizon
) -> list[ParamScheduler]:
    """Return the schedulers, joined in order; what they leave open is the loop's."""
    schedulers = [
        _scheduler(entry, where, optim_wrapper, loop)
        for where, entry in scheduler_nodes(node, path)
    ]
    chain(schedulers)
    return schedulers


def scheduler_nodes(node: Any, path: str) -> list[tuple[str, Any]]:
    """Return each scheduler that ``param_scheduler`` gives, with its path."""
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
        if not isinstance(node, ParamScheduler):
            raise ConfigError(
                f"{path} is a {type(node).__name__}; expected a ParamScheduler, or a config with "
                "_target_."
            )
        node.by_epoch = loop.by_epoch if node.by_epoch is None else node.by_epoch
        if node.end == INF:
            node.end = _end(node.begin, _horizon(loop, node.by_epoch), path)
        return node
    node = dict(node)
    convert = node.pop("convert_to_iter_based", False)
    node["by_epoch"] = loop.by_epoch if node.get("by_epoch") is None else node["by_epoch"]
    target: Any = find_target(node, path)
    if convert:
        _convert_to_iterations(node, path, getattr(target, "step_arguments", ()), loop)
    if node["by_epoch"] and not loop.by_epoch:
        raise ConfigError(
            f"{path}.by_epoch is true, but the train loop counts iterations, so it would never "
            "step. "
            "Set convert_to_iter_based: true beside it, or by_epoch: false and give all numbers in "
            "iterations."
        )
    if node.get("end") is None:
        node["end"] = _end(node.get("begin", 0), _horizon(loop, node["by_epoch"]), path)
    scheduler = build(node, path, args=(optim_wrapper,))
    if not isinstance(scheduler, ParamScheduler):
        raise ConfigError(
            f"{path}._target_ gives a {type(scheduler).__name__}; expected a ParamScheduler."
        )
    return scheduler


def _horizon(loop: Horizon, by_epoch: bool) -> int:
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
