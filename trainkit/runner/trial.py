"""Make the light parts of a config, which refuse values that their types allow, and drop them.

Nothing of the user's is made, and nothing that reads data or holds weights: trainkit's own hooks,
its optim_wrappers without an optimizer, its train loops over the length of the data, and torch's
optimizers and data loaders over nothing.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from trainkit import env
from trainkit.config.build import build
from trainkit.config.check import Node
from trainkit.config.findings import Finding
from trainkit.config.origins import is_at_or_below
from trainkit.errors import ConfigError, TrainkitError
from trainkit.hook import get_priority
from trainkit.optim_wrapper import CONSTRUCTOR_KEYS, OptimWrapper, constructor_of
from trainkit.runner.checked import Config
from trainkit.runner.data import check_options
from trainkit.runner.load import LoadOptions
from trainkit.runner.parts import compile_model
from trainkit.runner.stand_in import StandInLoader, StandInModel, build_stand_in_loop

# Arguments of a DataLoader that the run settles with its data; and those that a batch_sampler gets.
_ORDER = frozenset({"dataset", "sampler", "batch_sampler", "shuffle"})
_BATCHES = frozenset({"batch_size", "drop_last"})
# Modules of whose classes nothing holds data or weights.
_LIGHT = tuple(
    f"trainkit.model.{name}" for name in ("image_preprocessor", "initializers", "pretrained")
)
_ENV_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "device": env.check_device,
    "num_threads": env.check_num_threads,
    "mp_start_method": env.check_start_method,
    "mp_cfg": env.check_mp_cfg,
}


def trial(config: Config, told: Collection[str]) -> Iterator[Finding]:
    """Yield what trainkit's and torch's own parts refuse of their values.

    Args:
        config: The config.
        told: Keys with a mistake: parts that hold one are left alone.
    """
    path, loader = config.loader("train")
    stand_in = StandInLoader(loader, path)
    for path, node in config.nodes.items():
        if not config.uses(path):
            continue
        if node.target is DataLoader and node.place.default is DataLoader:
            yield from _loader(node, told)
            yield from _ordered(config, node, told)
        elif not _holds(path, told):
            yield from _part(config, node, stand_in)
    if not _holds("compile", told):
        yield from _compiled(config.plain.get("compile"))


def _part(config: Config, node: Node, stand_in: StandInLoader) -> Iterator[Finding]:
    path = node.path
    if path == "train_cfg" and _is_of(node, "trainkit.loops."):
        yield from _refused(node, partial(build_stand_in_loop, dict(node.content), path, stand_in))
    elif path.startswith("hooks.") and _is_of(node, "trainkit.hooks."):
        yield from _refused(node, partial(_make_hook, node))
    elif node.place.kind is OptimWrapper and _is_of(node, "trainkit.optim_wrapper."):
        yield from _wrapper(config, node)
    elif node.place.kind is torch.optim.Optimizer and _is_of(node, "torch.optim."):
        yield from _optimizer(node)
    elif node.target is LoadOptions:
        yield from _refused(node, partial(LoadOptions, **node.arguments))
    elif node.target is env.setup_env:
        yield from _environment(node)
    elif getattr(node.target, "__module__", None) in _LIGHT:
        yield from _made(node)


def _make_hook(node: Node) -> None:
    build({**node.arguments, "_target_": node.target}, node.path)
    if node.content.get("priority") is not None:
        get_priority(node.content["priority"], f"{node.path}.priority")


def _wrapper(config: Config, node: Node) -> Iterator[Finding]:
    options = {**node.arguments, "optimizer": _NoOptimizer()}
    yield from _refused(node, partial(node.target, **options))
    constructor = config.nodes.get(f"{node.path}.constructor")
    own = constructor is None or _is_of(constructor, "trainkit.optim_wrapper.")
    if own and CONSTRUCTOR_KEYS & node.content.keys():
        yield from _refused(node, partial(constructor_of, node.content, node.path))


class _NoOptimizer(torch.optim.Optimizer):
    """Stands for the optimizer; torch's own constructor takes a second to load what it needs."""

    def __init__(self) -> None:
        self.param_groups = [{"params": [torch.zeros(1)]}]


class _Light:
    """Goes before a class of torch's optimizers, so that it takes its one parameter as it is.

    torch's own way of taking it needs a second to load.
    """

    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.param_groups.append({**self.defaults, **param_group})


def _optimizer(node: Node) -> Iterator[Finding]:
    given = node.arguments
    unknown = [k for k, v in given.items() if isinstance(v, float) and math.isnan(v)]
    for name in unknown:  # of which torch takes some
        yield Finding(f"{node.path}.{name}", f"{node.path}.{name} is nan; expected a number.")
    if not unknown and all(map(_is_plain, given.values())):
        target: Any = node.target
        light = type(target.__name__, (_Light, target), {})
        yield from _constructed(light, node.path, given, [StandInModel().weight])


def _loader(node: Node, told: Collection[str]) -> Iterator[Finding]:
    of_run = _ORDER | (_BATCHES if node.content.get("batch_sampler") is not None else set())
    given = {k: v for k, v in node.arguments.items() if k not in of_run and _is_plain(v)}
    if not any(_holds(f"{node.path}.{name}", told) for name in given):
        yield from _constructed(node.target, node.path, given, [None])


def _ordered(config: Config, node: Node, told: Collection[str]) -> Iterator[Finding]:
    """Yield which of a loader's arguments would be left without effect."""
    if not any(_holds(f"{node.path}.{name}", told) for name in _ORDER | _BATCHES):
        dataset = config.nodes.get(f"{node.path}.dataset")
        kind = dataset.target if dataset is not None else None
        is_stream = inspect.isclass(kind) and issubclass(kind, IterableDataset)
        check = partial(check_options, node.content, node.path, is_stream=is_stream)
        yield from _refused(node, check)


def _made(node: Node) -> Iterator[Finding]:
    text = _refusal(partial(build, {**node.arguments, "_target_": node.target}, node.path))
    name = text.partition(" ")[0]
    if node.schema is not None and name in node.schema.parameters:
        yield Finding(f"{node.path}.{name}", f"{node.path}.{text}")
    elif text:
        yield Finding(node.path, text if text.startswith(node.path) else f"{node.path}: {text}")


def _environment(node: Node) -> Iterator[Finding]:
    for name, check in _ENV_CHECKS.items():
        if name in node.arguments:
            text = _refusal(partial(check, node.arguments[name]))
            if text:
                yield Finding(f"{node.path}.{name}", text)


def _compiled(options: Any) -> Iterator[Finding]:
    """Yield what is no option of torch.compile, and a backend or mode that there is not."""
    if options is None or options is False or not _is_plain(options):
        return
    looked_up = ("backend", "mode", "options")  # to load what knows them takes two seconds
    if options is True or (isinstance(options, Mapping) and not any(map(options.get, looked_up))):
        return
    text = _refusal(partial(compile_model, StandInModel(), options, "compile"))
    if text:
        yield Finding("compile", text)


def _is_plain(value: Any) -> bool:
    """Whether a value stands for itself, and not for an object that is to be made."""
    if isinstance(value, Mapping):
        return "_target_" not in value and all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _is_of(node: Node, package: str) -> bool:
    return str(getattr(node.target, "__module__", "")).startswith(package)


def _holds(path: str, told: Collection[str]) -> bool:
    """Whether a mistake is told of what stands at or below ``path``."""
    return any(is_at_or_below(key, path) for key in told)


def _constructed(
    target: Callable[..., Any], path: str, given: Mapping[str, Any], first: Any
) -> Iterator[Finding]:
    """Yield what a class of torch's refuses: one argument, if it takes the others without that."""

    def refusal(left_out: str = "") -> str:
        node = {key: value for key, value in given.items() if key != left_out}
        return _refusal(partial(build, {**node, "_target_": target}, path, args=[first]))

    text = refusal()
    if text:
        alone = [name for name in given if not refusal(name)]
        yield Finding(f"{path}.{alone[0]}" if len(alone) == 1 else path, text)


def _refusal(make: Callable[[], Any]) -> str:
    """Return what is said to a mistake; empty if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run gives them
            make()
    except ConfigError as error:
        return str(error)
    return ""


def _refused(node: Node, make: Callable[[], Any]) -> Iterator[Finding]:
    try:
        make()
    except TrainkitError as error:
        place, text = str(error).partition(" ")[0].rstrip(":"), str(error)
        if place.partition(".")[0] in node.arguments:
            place, text = f"{node.path}.{place}", f"{node.path}.{text}"
        if is_at_or_below(place, node.path):  # else it is about the data, or another part
            yield Finding(place, text)
