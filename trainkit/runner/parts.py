"""How each argument of the Runner becomes a part: an object is taken as it is, a config is built by MMEngine's rules.

Every function takes the argument and its path in the config, with which messages begin.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from trainkit import hooks as default
from trainkit.config import Partial, build, is_config, to_plain
from trainkit.config.build import find_target, partial
from trainkit.dataloader import DefaultSampler, FirstSamples, pseudo_collate
from trainkit.dist import get_world_size
from trainkit.errors import ConfigError
from trainkit.evaluator import BaseMetric, Evaluator
from trainkit.hook import Hook, HookList
from trainkit.log_processor import LogProcessor
from trainkit.loops import BaseTrainLoop, EpochBasedTrainLoop, IterBasedTrainLoop, TestLoop, ValLoop
from trainkit.optim_wrapper import OptimWrapper
from trainkit.param_scheduler import ParamScheduler, chain
from trainkit.param_scheduler.base import INF
from trainkit.visualizer import LocalVisBackend, Visualizer

if TYPE_CHECKING:
    from trainkit.runner.runner import Runner

logger = logging.getLogger(__name__)

DEFAULT_HOOKS: dict[str, type[Hook]] = {
    "runtime_info": default.RuntimeInfoHook,
    "timer": default.IterTimerHook,
    "sampler_seed": default.DistSamplerSeedHook,
    "logger": default.LoggerHook,
    "param_scheduler": default.ParamSchedulerHook,
    "checkpoint": default.CheckpointHook,
}


def build_model(node: Any, path: str, data_preprocessor: Any = None) -> nn.Module:
    """Return the model. ``data_preprocessor`` goes into a config that has none of its own."""
    if is_config(node) and data_preprocessor is not None:
        node = {"data_preprocessor": data_preprocessor, **to_plain(node, path)}
    model = build(node, path)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{path} is a {type(model).__name__}; expected a torch.nn.Module, or a config of one.")
    return model


def build_dataloader(node: Any, path: str, *, seed: int | None, training: bool) -> Any:
    """Return the loader.

    A config of a ``DataLoader`` may leave the sampler out (shuffled for training, in order and unpadded for
    evaluation); its ``sampler``, ``batch_sampler`` and ``collate_fn`` need no ``_partial_``.
    """
    if not is_config(node):
        return node
    node = to_plain(node, path)
    target = find_target(node, path, DataLoader)
    if not (inspect.isclass(target) and issubclass(target, DataLoader)):
        return build(node, path)
    options = dict(node)
    dataset = _dataset(options, path)
    sampler = _sampler(options, path, dataset, seed, training)
    if options.get("batch_sampler") is not None:
        size, drop = options.pop("batch_size", 1), options.pop("drop_last", False)
        batched = partial(options.pop("batch_sampler"), f"{path}.batch_sampler")
        options["batch_sampler"] = batched(sampler, size, drop_last=drop) if batched.accepts("drop_last") else batched(
            sampler, size
        )
    else:
        options["sampler"] = sampler
    for name, fallback in (("collate_fn", pseudo_collate), ("worker_init_fn", None)):
        function = options.get(name)
        options[name] = partial(function, f"{path}.{name}") if is_config(function) else function or fallback
    loader = build(options, path, default=DataLoader, args=(dataset,))
    if len(loader) == 0:
        raise ConfigError(
            f"{path} gives no batch: {len(dataset)} samples, batch_size={loader.batch_size}, drop_last={loader.drop_last}."
            " Lower batch_size, or set drop_last=false."
        )
    return loader


def _dataset(options: dict[str, Any], path: str) -> Any:
    if "dataset" not in options:
        raise ConfigError(f"{path} has no dataset. Give it one: a Dataset, or a config with _target_.")
    dataset = build(options.pop("dataset"), f"{path}.dataset")
    batches = options.pop("num_batch_per_epoch", None)
    if batches is not None:
        if type(batches) is not int or batches < 1:
            raise ConfigError(f"{path}.num_batch_per_epoch is {batches!r}; expected at least 1, or null for all.")
        return FirstSamples(dataset, batches * options.get("batch_size", 1) * get_world_size())
    return dataset


def _sampler(options: dict[str, Any], path: str, dataset: Dataset[Any], seed: int | None, training: bool) -> Any:
    node = options.pop("sampler", None)
    if node is not None and not is_config(node):
        return node
    part = partial(node or {"shuffle": options.pop("shuffle", training)}, f"{path}.sampler", default=DefaultSampler)
    runtime: dict[str, Any] = {"seed": seed} if part.accepts("seed") else {}
    if not training and part.accepts("round_up"):
        runtime["round_up"] = False  # a padded sample would be counted twice
    return part(dataset, **runtime)


def build_train_loop(node: Any, path: str, runner: Runner, dataloader: Any) -> Any:
    """Return the train loop: by ``_target_``, or by ``by_epoch``."""
    if not is_config(node):
        return node
    node = to_plain(node, path)
    if "_target_" in node and "by_epoch" in node:
        raise ConfigError(f"{path} has both _target_ and by_epoch; the loop that _target_ names knows its unit. Drop one.")
    if "_target_" in node:
        return build(node, path, args=(runner, dataloader))
    by_epoch = node.pop("by_epoch", None)
    if not isinstance(by_epoch, bool):
        raise ConfigError(f"{path} has by_epoch={by_epoch!r} and no _target_; expected by_epoch: true or false.")
    default_loop = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
    return build(node, path, default=default_loop, args=(runner, dataloader))


def build_val_loop(node: Any, path: str, runner: Runner, dataloader: Any, evaluator: Any) -> Any:
    """Return the val loop; ``{}`` is a plain ValLoop."""
    return build(node, path, default=ValLoop, args=(runner, dataloader, evaluator))


def build_test_loop(node: Any, path: str, runner: Runner, dataloader: Any, evaluator: Any) -> Any:
    """Return the test loop; ``{}`` is a plain TestLoop."""
    return build(node, path, default=TestLoop, args=(runner, dataloader, evaluator))


def build_evaluator(node: Any, path: str) -> Evaluator:
    """Return the evaluator: one as it is, a metric, a list or dict of metrics, or a config of any of these."""
    if isinstance(node, Evaluator):
        return node
    if is_config(node) or isinstance(node, list | tuple):
        plain = to_plain(node, path)
        if isinstance(plain, Mapping) and "_target_" not in plain and "metrics" in plain:
            node = build(plain, path, default=Evaluator)
        elif isinstance(plain, Mapping) and "_target_" in plain:
            node = build(plain, path)
        else:
            node = [build(metric, f"{path}.{name}") for name, metric in _named(plain)]
    if isinstance(node, Evaluator):
        return node
    if isinstance(node, BaseMetric | list | tuple | Mapping):
        return Evaluator(node)
    raise ConfigError(f"{path} is a {type(node).__name__}; expected metrics, an Evaluator, or a config of one.")


def build_optim_wrapper(node: Any, path: str, model: nn.Module) -> OptimWrapper:
    """Return the wrapper; its ``optimizer`` may be an object or a config, to which the model's parameters are given."""
    if not is_config(node):
        if not isinstance(node, OptimWrapper):
            raise ConfigError(f"{path} is a {type(node).__name__}; expected an OptimWrapper, or a config of one.")
        return node
    node = to_plain(node, path)
    if "optimizer" not in node:
        raise ConfigError(f"{path} has no optimizer. It has: {', '.join(node)}. Give it one, as optimizer: {{_target_: …}}.")
    optimizer = node.pop("optimizer")
    if is_config(optimizer) or isinstance(optimizer, Partial):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained:
            raise ConfigError(f"{type(model).__name__} has no parameter that requires a gradient; nothing can be trained.")
        make = optimizer if isinstance(optimizer, Partial) else partial(optimizer, f"{path}.optimizer")
        optimizer = make(trained)
    wrapper = build(node, path, default=OptimWrapper, optimizer=optimizer)
    if not isinstance(wrapper, OptimWrapper):
        raise ConfigError(f"{path}._target_ gives a {type(wrapper).__name__}; expected an OptimWrapper.")
    return wrapper


def scale_lr(node: Any, path: str, optim_wrapper: OptimWrapper, dataloader: Any) -> None:
    """Scale every learning rate by what a step sees, over ``base_batch_size`` (Goyal et al., arXiv:1706.02677, §2.1).

    A step sees the batch size, times the ranks, times the accumulated passes.
    """
    options = to_plain(node, path) or {}
    if not options.get("enable", False):
        return
    base = options.get("base_batch_size")
    size = getattr(dataloader, "batch_size", None) or getattr(getattr(dataloader, "batch_sampler", None), "batch_size", None)
    if not isinstance(base, int) or base < 1:
        raise ConfigError(f"{path}.base_batch_size is {base!r}; expected the batch size that the learning rate is for.")
    if size is None:
        raise ConfigError(f"{path} is enabled, but the training loader has no batch_size to scale by. Disable it.")
    seen = size * get_world_size() * optim_wrapper.accumulative_counts
    for group in optim_wrapper.param_groups:
        group["lr"] *= seen / base
    logger.info("auto_scale_lr: learning rates times %g (%d samples a step, made for %d)", seen / base, seen, base)


def build_param_schedulers(
    node: Any, path: str, optim_wrapper: OptimWrapper, loop: BaseTrainLoop
) -> list[ParamScheduler]:
    """Return the schedulers, joined in order. What they leave open is the loop's: the unit, and the end."""
    if node is None:
        return []
    plain = to_plain(node, path) if is_config(node) or isinstance(node, list | tuple) else node
    single = not isinstance(plain, Mapping | list) or (isinstance(plain, Mapping) and "_target_" in plain)
    entries = [(path, plain)] if single else [(f"{path}.{name}", entry) for name, entry in _named(plain)]
    schedulers = [_scheduler(entry, where, optim_wrapper, loop) for where, entry in entries]
    chain(schedulers)
    return schedulers


def _scheduler(node: Any, path: str, optim_wrapper: OptimWrapper, loop: BaseTrainLoop) -> ParamScheduler:
    if not is_config(node):
        if not isinstance(node, ParamScheduler):
            raise ConfigError(f"{path} is a {type(node).__name__}; expected a ParamScheduler, or a config with _target_.")
        node.by_epoch = loop.by_epoch if node.by_epoch is None else node.by_epoch
        if node.end == INF:
            node.end = max(_horizon(loop, node.by_epoch), node.begin + 1)
        return node
    node = dict(node)
    convert = node.pop("convert_to_iter_based", False)
    node["by_epoch"] = loop.by_epoch if node.get("by_epoch") is None else node["by_epoch"]
    target: Any = find_target(node, path)
    if convert:
        _convert_to_iterations(node, path, getattr(target, "step_arguments", ()), loop)
    if node["by_epoch"] and not loop.by_epoch:
        raise ConfigError(
            f"{path}.by_epoch is true, but the train loop counts iterations, so it would never step. "
            "Set convert_to_iter_based: true beside it, or by_epoch: false and give all numbers in iterations."
        )
    if node.get("end") is None:
        node["end"] = _horizon(loop, node["by_epoch"])
    scheduler = build(node, path, args=(optim_wrapper,))
    if not isinstance(scheduler, ParamScheduler):
        raise ConfigError(f"{path}._target_ gives a {type(scheduler).__name__}; expected a ParamScheduler.")
    return scheduler


def _horizon(loop: BaseTrainLoop, by_epoch: bool) -> int:
    return loop.max_epochs if by_epoch else loop.max_iters


def _convert_to_iterations(node: dict[str, Any], path: str, names: Iterable[str], loop: BaseTrainLoop) -> None:
    """Turn what is counted in epochs into iterations."""
    if node["by_epoch"] is not True:
        raise ConfigError(f"{path} has convert_to_iter_based, but it counts iterations already. Set by_epoch: true, or drop it.")
    length = len(loop.dataloader)
    node["by_epoch"] = False
    for name in names:
        value = node.get(name)
        if value is not None:
            node[name] = [step * length for step in value] if isinstance(value, list) else value * length


def build_hooks(default_hooks: Any, custom_hooks: Any, paths: tuple[str, str]) -> HookList:
    """Return all hooks: the defaults, as changed by ``default_hooks``, then the custom ones.

    None in the place of a default removes it. Entries without ``_target_`` are arguments of the default.
    """
    nodes = {name: ({}, f"{paths[0]}.{name}", make) for name, make in DEFAULT_HOOKS.items()}
    entries: dict[str, tuple[Any, str, type[Hook] | None]] = dict(nodes)
    for name, node in dict(default_hooks or {}).items():
        entries[str(name)] = (node, f"{paths[0]}.{name}", DEFAULT_HOOKS.get(str(name)))
    for name, node in _named(custom_hooks or []):
        key = str(name) if isinstance(custom_hooks, Mapping) else _class_name(node)
        while key in entries:
            key += "_"
        entries[key] = (node, f"{paths[1]}.{name}", None)
    hooks: dict[str, Hook] = {}
    priorities: dict[str, int | str] = {}
    for name, (node, path, make) in entries.items():
        if node is None:
            continue
        hook, priority = _hook(node, path, make)
        hooks[name] = hook
        if priority is not None:
            priorities[name] = priority
    return HookList(hooks, priorities)


def _hook(node: Any, path: str, make: type[Hook] | None) -> tuple[Hook, int | str | None]:
    priority = None
    if is_config(node):
        node = to_plain(node, path)
        priority = node.pop("priority", None)
        node = build(node, path, default=make)
    if not isinstance(node, Hook):
        raise ConfigError(f"{path} is a {type(node).__name__}; expected a Hook, or a config of one.")
    return node, priority


def _class_name(node: Any) -> str:
    if is_config(node):
        return str(node.get("_target_", "hook")).rpartition(".")[2]
    return type(node).__name__


def build_visualizer(node: Any, path: str) -> Visualizer:
    """Return the visualizer; None is one with the local backend."""
    visualizer = Visualizer([LocalVisBackend()]) if node is None else build(node, path, default=Visualizer)
    if not isinstance(visualizer, Visualizer):
        raise ConfigError(f"{path} is a {type(visualizer).__name__}; expected a Visualizer, or a config of one.")
    return visualizer


def build_log_processor(node: Any, path: str) -> LogProcessor:
    """Return the log processor; None is one with the defaults."""
    processor = build({} if node is None else node, path, default=LogProcessor)
    if not isinstance(processor, LogProcessor):
        raise ConfigError(f"{path} is a {type(processor).__name__}; expected a LogProcessor, or a config of one.")
    return processor


def compile_model(model: nn.Module, node: Any, path: str) -> None:
    """Compile the model in place, for training and evaluation; its state dict keeps its names."""
    options = to_plain(node, path)
    if options is False or options is None:
        return
    if options is not True and not isinstance(options, Mapping):
        raise ConfigError(f"{path} is {options!r}; expected true, false, or arguments of torch.compile.")
    model.compile(**({} if options is True else options))


def _named(nodes: Any) -> list[tuple[Any, Any]]:
    """Return the entries of a dict of named nodes that are not None, or of a list by index."""
    pairs = nodes.items() if isinstance(nodes, Mapping) else enumerate(nodes)
    return [(name, node) for name, node in pairs if node is not None]


def as_device(device: Any) -> torch.device:
    """Return what ``env`` gave as a device."""
    if isinstance(device, torch.device):
        return device
    raise ConfigError(f"env gives a {type(device).__name__}; its _target_ must return the torch.device of the run.")
