"""What the Runner does with each place of a config, for the check before a run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader

from trainkit.config.build import find_target
from trainkit.config.check import Place
from trainkit.dataloader import DefaultSampler
from trainkit.env import setup_env
from trainkit.errors import TrainkitError
from trainkit.evaluator import BaseMetric, Evaluator
from trainkit.hook import Hook
from trainkit.log_processor import LogProcessor
from trainkit.loops import (
    BaseTrainLoop,
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    TestLoop,
    ValLoop,
)
from trainkit.model import DistributedDataParallel
from trainkit.optim_wrapper import (
    CONSTRUCTOR_KEYS,
    DefaultOptimWrapperConstructor,
    OptimWrapper,
    OptimWrapperDict,
    is_several,
)
from trainkit.param_scheduler import ParamScheduler
from trainkit.runner.assembly import Assembly
from trainkit.runner.from_config import SAME_NAME
from trainkit.runner.load import LoadOptions
from trainkit.runner.parts import DEFAULT_HOOKS
from trainkit.runner.sets import are_by_set, named_sets, sets_of
from trainkit.seed import set_random_seed
from trainkit.visualizer import Visualizer

SPLITS = ("train", "val", "test")
_LOADER = Place(DataLoader, read=frozenset({"num_batch_per_epoch"}))
_SCHEDULER = Place(
    positional=1,
    read=frozenset({"convert_to_iter_based"}),
    kind=ParamScheduler,
    noun="a parameter scheduler, a subclass of trainkit.param_scheduler.ParamScheduler",
)
_OPTIMIZER = Place(
    positional=1,
    kind=torch.optim.Optimizer,
    noun="an optimizer, a subclass of torch.optim.Optimizer",
)
_OPTIM_WRAPPER = Place(
    OptimWrapper,
    read=CONSTRUCTOR_KEYS,
    kind=OptimWrapper,
    noun="an optim_wrapper, a subclass of trainkit.optim_wrapper.OptimWrapper",
)
_CONSTRUCTOR = Place(
    DefaultOptimWrapperConstructor,
    passed=frozenset({"optim_wrapper_cfg", "paramwise_cfg", "modules", "path"}),
)


@runtime_checkable
class _Loop(Protocol):
    """Whatever runs."""

    def run(self) -> Any:
        """Train, validate or test."""


_TRAIN_LOOP = Place(
    positional=2,
    kind=_Loop,
    not_kind=(ValLoop, TestLoop),
    noun="a train loop, such as trainkit.loops.EpochBasedTrainLoop",
)


def _evaluation(default: Any) -> Place:
    name = default.__name__
    return Place(
        default,
        positional=3,
        kind=_Loop,
        not_kind=(BaseTrainLoop,),
        noun=f"a loop such as trainkit.loops.{name}",
    )


# Places that are one node each, by their path.
_FIXED = {
    "model": Place(
        passed=frozenset({"data_preprocessor"}),
        kind=torch.nn.Module,
        noun="a model, a subclass of torch.nn.Module",
    ),
    "val_cfg": _evaluation(ValLoop),
    "test_cfg": _evaluation(TestLoop),
    "visualizer": Place(
        Visualizer,
        kind=Visualizer,
        noun="a visualizer, a subclass of trainkit.visualizer.Visualizer",
    ),
    "env": Place(setup_env),
    "env_cfg": Place(setup_env),
    "randomness": Place(set_random_seed, passed=frozenset({"seed"})),
    "log_processor": Place(
        LogProcessor,
        kind=LogProcessor,
        noun="a log processor, a subclass of trainkit.log_processor.LogProcessor",
    ),
    "model_wrapper_cfg": Place(DistributedDataParallel, passed=frozenset({"module"})),
    "compile": Place(torch.compile, positional=1),
    "load_cfg": Place(LoadOptions),
    "runner": Place(
        passed=frozenset({*SAME_NAME, "cfg", "paths"}),
        kind=Assembly,
        noun="a class of runs, a subclass of trainkit.Runner",
    ),
}
# Places inside a data loader, by their last name.
_IN_LOADER = {
    "dataset": Place(),
    "sampler": Place(
        DefaultSampler, positional=1, passed=frozenset({"seed", "round_up", "in_blocks"})
    ),
    "batch_sampler": Place(positional=1, passed=frozenset({"batch_size", "drop_last"})),
    "collate_fn": Place(needs_all=False),
    "worker_init_fn": Place(needs_all=False),
}


class Places:
    """What the Runner does with each place of one config.

    Args:
        plain: The resolved config.
    """

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self.plain = plain

    def __call__(self, path: str, node: Any) -> Place | None:
        """Return what is done with ``node`` at ``path``; None where it is left to others."""
        if not isinstance(node, Mapping):
            return None
        head, *rest = re.findall(r"[^.\[\]]+", path) or [""]
        if path in _FIXED:
            is_plain_runner = path == "runner" and "_target_" not in node
            return None if is_plain_runner else _FIXED[path]
        if path == "train_cfg":
            return _train_loop(node)
        if head == "optim_wrapper":
            return self._in_optim_wrapper(rest, node)
        if head == "param_scheduler":
            return self._in_schedulers(rest, node)
        if head in ("hooks", "default_hooks", "custom_hooks") and len(rest) == 1:
            return _hook(rest[0])
        if head in ("evaluator", "val_evaluator", "test_evaluator"):
            return _in_evaluator(self._without_set(head, rest), node)
        return self._in_loader(head, rest)

    @property
    def _optimizers(self) -> Mapping[str, Any]:
        """The configs of several optimizers by name; empty if there is one."""
        whole = self.plain.get("optim_wrapper")
        return whole if isinstance(whole, Mapping) and is_several(whole) else {}

    def _in_optim_wrapper(self, rest: list[str], node: Mapping[str, Any]) -> Place | None:
        wrapper: Any = self.plain["optim_wrapper"]
        if self._optimizers:
            if not rest:
                return Place(OptimWrapperDict)
            wrapper, rest = self._optimizers[rest[0]], rest[1:]
        if "optimizer" not in wrapper and wrapper.get("constructor") is not None:
            # What else is there is for the constructor, which says nothing of it.
            other = Place(needs_all=False) if "_target_" in node else None
            return _CONSTRUCTOR if rest == ["constructor"] else other
        if rest == ["paramwise_cfg"]:
            return _paramwise(wrapper)
        places = {"": _OPTIM_WRAPPER, "optimizer": _OPTIMIZER, "constructor": _CONSTRUCTOR}
        return places.get(".".join(rest))

    def _in_schedulers(self, rest: list[str], node: Mapping[str, Any]) -> Place | None:
        named = rest[1:] if rest and rest[0] in self._optimizers else rest
        is_one = len(named) == 1 or (not named and "_target_" in node)
        return _SCHEDULER if is_one else None

    def _without_set(self, head: str, rest: list[str]) -> list[str]:
        """Return a path inside an evaluator without the split and the set that it is for."""
        split = head.removesuffix("_evaluator")
        evaluator = self.plain.get(head)
        if head == "evaluator" and rest[:1] in (["val"], ["test"]):
            split, rest = rest[0], rest[1:]
            evaluator = evaluator.get(split) if isinstance(evaluator, Mapping) else None
        splits = ("val", "test") if split == "evaluator" else (split,)
        names = {name for one in splits for name in sets_of(self.plain, one)}
        if rest and rest[0] in names and are_by_set(evaluator, names):
            return rest[1:]
        return rest

    def _in_loader(self, head: str, rest: list[str]) -> Place | None:
        """Return the place inside a data loader; what is in a loader of another kind is its own."""
        loader, split = self.plain.get(head), head.removesuffix("_dataloader")
        if head == "dataloader" and rest:
            split = rest.pop(0)
            loader = loader.get(split) if isinstance(loader, Mapping) else None
        elif head not in {f"{split}_dataloader" for split in SPLITS}:
            return None
        named = named_sets(loader)
        if named is not None and split != "train":
            loader = named.get(rest.pop(0)) if rest else None
        if not isinstance(loader, Mapping) or not _is_torchs(loader):
            return None
        if not rest:
            return _LOADER
        return _IN_LOADER.get(rest[0]) if len(rest) == 1 else None


def _is_torchs(loader: Mapping[str, Any]) -> bool:
    """Whether a node is a config of a DataLoader, as far as can be told."""
    try:
        target = find_target(loader, "", DataLoader)
    except TrainkitError:  # told where the node itself is looked at
        return True
    return inspect.isclass(target) and issubclass(target, DataLoader)


def _paramwise(wrapper: Mapping[str, Any]) -> Place | None:
    """Return what takes ``paramwise_cfg``, if the constructor says so."""
    try:
        constructor = find_target(
            wrapper.get("constructor") or {}, "", DefaultOptimWrapperConstructor
        )
    except TrainkitError:  # told where the node itself is looked at
        return None
    options = getattr(constructor, "paramwise", None)
    return None if options is None else Place(options)


def _train_loop(node: Mapping[str, Any]) -> Place:
    if "_target_" in node or "by_epoch" not in node:
        return _TRAIN_LOOP
    by_epoch = node["by_epoch"]
    if not isinstance(by_epoch, bool):  # told when the loop is tried
        by_epoch = "max_iters" not in node
    loop = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
    return Place(loop, positional=2, read=frozenset({"by_epoch"}))


def _hook(name: str) -> Place:
    default = DEFAULT_HOOKS.get(name, {}).get("_target_")
    return Place(
        default,
        read=frozenset({"priority"}),
        kind=Hook,
        noun="a hook, a subclass of trainkit.Hook",
    )


def _in_evaluator(rest: list[str], node: Mapping[str, Any]) -> Place | None:
    if not rest and "metrics" in node:
        return Place(Evaluator)
    inside = rest[1:] if rest[:1] == ["metrics"] else rest
    is_metric = len(inside) == 1 or (not rest and "_target_" in node)
    if not is_metric or "_target_" not in node:
        return None
    return Place(kind=BaseMetric, noun="a metric, a subclass of trainkit.evaluator.BaseMetric")
