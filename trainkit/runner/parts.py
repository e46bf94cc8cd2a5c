"""How each argument of the Runner becomes a part: taken as an object, or built.

Every function takes the argument and its path in the config, with which messages begin.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainkit import hooks as default
from trainkit.config.build import build, find_target, is_config, named, partial, to_plain
from trainkit.config.signature import with_article
from trainkit.dist import get_world_size, is_distributed
from trainkit.errors import ConfigError, did_you_mean
from trainkit.evaluator import BaseMetric, Evaluator
from trainkit.hook import Hook, HookList, get_priority
from trainkit.log_processor import LogProcessor
from trainkit.loops import (
    BaseTrainLoop,
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    Progress,
    TestLoop,
    ValLoop,
)
from trainkit.model import (
    DistributedDataParallel,
    check_init_cfg,
    convert_sync_batchnorm,
    has_checkpointed,
    mark_wrapper,
    revert_sync_batchnorm,
)
from trainkit.visualizer import LocalVisBackend, Visualizer

if TYPE_CHECKING:
    from trainkit.runner.runner import Runner

logger = logging.getLogger(__name__)

DEFAULT_HOOKS: dict[str, dict[str, Any]] = {
    "runtime_info": {"_target_": default.RuntimeInfoHook},
    "timer": {"_target_": default.IterTimerHook},
    "sampler_seed": {"_target_": default.DistSamplerSeedHook},
    "logger": {"_target_": default.LoggerHook},
    "param_scheduler": {"_target_": default.ParamSchedulerHook},
    "checkpoint": {"_target_": default.CheckpointHook, "interval": None},
}


# The arguments that a split needs, which are given together or not at all.
SPLIT_ARGUMENTS = (
    ("train_dataloader", "train_cfg", "optim_wrapper"),
    ("val_dataloader", "val_cfg", "val_evaluator"),
    ("test_dataloader", "test_cfg", "test_evaluator"),
)


def together(given: Mapping[str, Any], path: Callable[[str], str]) -> str | None:
    """Return what is wrong with the arguments as a whole, in words; None if nothing is.

    Args:
        given: The Runner's arguments; None stands for one that is not given.
        path: Where an argument stands in the config.
    """
    for names in SPLIT_ARGUMENTS:
        have = [path(name) for name in names if given.get(name) is not None]
        if 0 < len(have) < len(names):
            missing = ", ".join(path(name) for name in names if given.get(name) is None)
            return (
                f"{', '.join(have)} given, but not {missing}. Give all of "
                f"{', '.join(map(path, names))}, or none of them."
            )
    if given.get("param_scheduler") is not None and given.get("optim_wrapper") is None:
        return f"{path('param_scheduler')} given, but no {path('optim_wrapper')} to schedule."
    return None


def build_model(node: Any, path: str, data_preprocessor: Any = None) -> nn.Module:
    """Return the model. ``data_preprocessor`` goes into a config that has none of its own.

    Raises:
        ConfigError: No module; or a preprocessor beside a model that is an object.
    """
    if data_preprocessor is not None:
        if not is_config(node):
            raise ConfigError(
                f"data_preprocessor is for a {path} that is a config; this one is an object. "
                "Give it to the model's constructor."
            )
        node = to_plain(node, path)
        if node.get("data_preprocessor") is None:
            node = {**node, "data_preprocessor": data_preprocessor}
    model = build(node, path)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{path} is a {type(model).__name__}; expected a torch.nn.Module, or a config of one."
        )
    check_init_cfg(model)
    return model


def with_batchnorm(model: nn.Module, sync_bn: str | None, device: torch.device) -> nn.Module:
    """Return the model with batch norm that fits the run: over all ranks, or in one process.

    Raises:
        ConfigError: ``sync_bn`` on a device for which torch has none.
    """
    if not is_distributed():
        return revert_sync_batchnorm(model)
    if sync_bn is None:
        return model
    if device.type == "cpu":
        raise ConfigError(
            f"sync_bn is {sync_bn!r}, but the device is the CPU, for which torch has no "
            "SyncBatchNorm. Set sync_bn to null."
        )
    return convert_sync_batchnorm(model)


def wrap_model(
    model: nn.Module, node: Any, path: str, find_unused_parameters: bool = False
) -> nn.Module:
    """Return the model as several ranks train it; DDP wraps nothing in one process.

    Args:
        model: On its device.
        node: A config that is called with the model as ``module``; without a ``_target_``, of
            trainkit's ``DistributedDataParallel``.
        path: Where it stands in the config.
        find_unused_parameters: For a wrapper that takes it, unless ``node`` says otherwise.
    """
    if node is not None and not is_config(node):
        raise ConfigError(f"{path} is a {type(node).__name__}; expected a config of a wrapper.")
    wrapper = partial(node or {}, path, default=DistributedDataParallel)
    target: Any = wrapper.target
    is_ddp = isinstance(target, type) and issubclass(target, nn.parallel.DistributedDataParallel)
    is_trained = any(parameter.requires_grad for parameter in model.parameters())
    if is_ddp and (get_world_size() == 1 or not is_trained):
        return model
    open_options = {"find_unused_parameters": find_unused_parameters}
    given = {name: value for name, value in open_options.items() if wrapper.accepts(name)}
    wrapped: nn.Module = wrapper(module=model, **given)
    if wrapped is not model:
        mark_wrapper(wrapped)
    return wrapped


def build_train_loop(node: Any, path: str, runner: Runner, dataloader: Any) -> Any:
    """Return the train loop: by ``_target_``, or by ``by_epoch``."""
    if not is_config(node):
        return _as_train_loop(node, path)
    node = to_plain(node, path)
    if "type" in node:
        find_target(node, path)  # which says what MMEngine's type is here
    if "_target_" in node and "by_epoch" in node:
        raise ConfigError(
            f"{path} has both _target_ and by_epoch; the loop that _target_ names knows its unit. "
            "Drop one."
        )
    if "_target_" in node:
        target = find_target(node, path)
        if isinstance(target, type):
            _check_train_loop(target, path)
        return _as_train_loop(build(node, path, args=(runner, dataloader)), path)
    by_epoch = node.pop("by_epoch", None)
    if not isinstance(by_epoch, bool):
        raise ConfigError(
            f"{path} has by_epoch={by_epoch!r} and no _target_; expected by_epoch: true or false."
        )
    default_loop = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
    return build(node, path, default=default_loop, args=(runner, dataloader))


def _as_train_loop(loop: Any, path: str) -> Any:
    _check_train_loop(type(loop), path)
    return loop


def _check_train_loop(cls: type, path: str) -> None:
    """Raise if a class is no train loop, or lacks what each has to say itself."""
    if not issubclass(cls, BaseTrainLoop):
        raise ConfigError(
            f"{path} is {with_article(cls.__name__)}; expected a loop derived from "
            "trainkit.loops.BaseTrainLoop, which knows how far it has come, for checkpoints, and "
            "when to validate. A loop of one's own has to add run(), max_epochs, max_iters and "
            "by_epoch only."
        )
    missing = sorted(cls.__abstractmethods__)
    missing += [] if hasattr(cls, "by_epoch") else ["by_epoch"]
    if missing:
        raise ConfigError(
            f"{path}: {cls.__name__} has no {', '.join(missing)}. A train loop says itself how it "
            "runs, run(), until when, max_epochs and max_iters, and by by_epoch = True or False "
            "what it counts."
        )


def build_val_loop(node: Any, path: str, runner: Runner, dataloader: Any, evaluator: Any) -> Any:
    """Return the val loop; ``{}`` is a plain ValLoop."""
    loop = build(node, path, default=ValLoop, args=(runner, dataloader, evaluator))
    return _as_loop(loop, path)


def build_test_loop(node: Any, path: str, runner: Runner, dataloader: Any, evaluator: Any) -> Any:
    """Return the test loop; ``{}`` is a plain TestLoop."""
    loop = build(node, path, default=TestLoop, args=(runner, dataloader, evaluator))
    return _as_loop(loop, path)


def _as_loop(loop: Any, path: str) -> Any:
    if not callable(getattr(loop, "run", None)):
        raise ConfigError(f"{path} is {loop!r}; expected a loop with run(), or a config of one.")
    return loop


def build_evaluator(node: Any, path: str) -> Evaluator:
    """Return the evaluator: given as such, as metrics, or as a config of either."""
    if isinstance(node, Evaluator):
        return node
    if is_config(node) or isinstance(node, list | tuple):
        plain = to_plain(node, path)
        if isinstance(plain, Mapping) and "_target_" not in plain and "metrics" in plain:
            node = build(plain, path, default=Evaluator)
        elif isinstance(plain, Mapping) and "_target_" in plain:
            node = build(plain, path)
        else:
            node = [build(metric, f"{path}.{name}") for name, metric in named(plain)]
    if isinstance(node, Evaluator):
        return node
    if isinstance(node, BaseMetric | list | tuple | Mapping):
        return Evaluator(node)
    raise ConfigError(
        f"{path} is a {type(node).__name__}; expected metrics, an Evaluator, or a config of one."
    )


def build_hooks(default_hooks: Any, custom_hooks: Any, paths: tuple[str, str]) -> HookList:
    """Return all hooks: the defaults, as changed by ``default_hooks``, then the custom ones.

    None in the place of a default removes it; a config without ``_target_`` changes its arguments.
    """
    nodes: dict[str, tuple[Any, str]] = {
        name: (node, f"{paths[0]}.{name}") for name, node in DEFAULT_HOOKS.items()
    }
    if default_hooks is not None and not is_config(default_hooks):
        kind = type(default_hooks).__name__
        raise ConfigError(f"{paths[0]} is a {kind}; expected a mapping of hooks by name.")
    for name, node in dict(default_hooks or {}).items():
        nodes[str(name)] = (_changed(str(name), node, paths[0]), f"{paths[0]}.{name}")
    if custom_hooks is not None and not isinstance(custom_hooks, list | tuple | Mapping):
        kind = type(custom_hooks).__name__
        raise ConfigError(f"{paths[1]} is a {kind}; expected a list of hooks, or a dict by name.")
    for name, node in named(custom_hooks or []):
        key = str(name) if isinstance(custom_hooks, Mapping) else _class_name(node)
        while key in nodes:
            key += "_"
        nodes[key] = (node, f"{paths[1]}.{name}")
    hooks: dict[str, Hook] = {}
    priorities: dict[str, int | str] = {}
    for name, (node, path) in nodes.items():
        if node is not None:
            hooks[name], priority = _hook(node, path)
            priorities.update({} if priority is None else {name: priority})
    return HookList(hooks, priorities, first=Progress())


def _changed(name: str, node: Any, path: str) -> Any:
    """Return what ``default_hooks`` makes of the default ``name``."""
    if node is None and name not in DEFAULT_HOOKS:
        near = did_you_mean(name, DEFAULT_HOOKS)
        raise ConfigError(f"{path}.{name} is null, but there is no hook {name!r} to remove. {near}")
    if is_config(node) and "_target_" not in node:
        return {**DEFAULT_HOOKS.get(name, {}), **to_plain(node, path)}
    return node


def _hook(node: Any, path: str) -> tuple[Hook, int | str | None]:
    priority = None
    if is_config(node):
        node = to_plain(node, path)
        priority = node.pop("priority", None)
        if priority is not None:
            priority = get_priority(priority, f"{path}.priority")
        node = build(node, path)
    if not isinstance(node, Hook):
        kind = type(node).__name__
        raise ConfigError(f"{path} is a {kind}; expected a Hook, or a config of one.")
    return node, priority


def _class_name(node: Any) -> str:
    target = node.get("_target_", "hook") if is_config(node) else type(node)
    return getattr(target, "__name__", str(target).rpartition(".")[2])


def build_visualizer(node: Any, path: str) -> Visualizer:
    """Return the visualizer; None is one with the local backend."""
    visualizer = (
        Visualizer([LocalVisBackend()]) if node is None else build(node, path, default=Visualizer)
    )
    if not isinstance(visualizer, Visualizer):
        raise ConfigError(
            f"{path} is a {type(visualizer).__name__}; expected a Visualizer, or a config of one."
        )
    return visualizer


def build_log_processor(node: Any, path: str) -> LogProcessor:
    """Return the log processor; without a ``_target_`` it keeps train and val apart."""
    node = {} if node is None else node
    is_default = is_config(node) and "_target_" not in node
    given: dict[str, Any] = {"log_with_hierarchy": True} if is_default else {}
    processor = build(node, path, default=LogProcessor, **given)
    if not isinstance(processor, LogProcessor):
        raise ConfigError(
            f"{path} is a {type(processor).__name__}; expected a LogProcessor, or a config of one."
        )
    return processor


def compile_model(model: nn.Module, node: Any, path: str) -> None:
    """Compile the model in place, for training and evaluation; its state dict keeps its names."""
    options = to_plain(node, path)
    if options is False or options is None:
        return
    if options is not True and not isinstance(options, Mapping):
        raise ConfigError(
            f"{path} is {options!r}; expected true, false, or arguments of torch.compile."
        )
    given: dict[str, Any] = {} if options is True else dict(options)
    if given.get("backend") == "eager" and not given.get("disable") and has_checkpointed(model):
        raise ConfigError(
            f"{path}.backend is 'eager', which would compute what activation_checkpointing names "
            "with changed running statistics. Take 'aot_eager', which is as simple."
        )
    try:
        model.compile(**given)
    except (TypeError, RuntimeError) as error:  # torch's InvalidBackend is a RuntimeError
        raise ConfigError(
            f"{path} is {options!r}: {str(error).splitlines()[0].rstrip('.')}."
        ) from None


def as_device(device: Any) -> torch.device:
    """Return what ``env`` gave as a device."""
    if isinstance(device, torch.device):
        return device
    raise ConfigError(
        f"env gives a {type(device).__name__}; its _target_ must return the torch.device of the "
        "run."
    )
