"""Make the light parts of a config, which refuse values that their types allow, and drop them.

Nothing of the user's is made, and nothing that reads data or holds weights: trainkit's own hooks,
its optim_wrappers without an optimizer, and its train loops over the length of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch

from trainkit.config import build
from trainkit.config.check import Node
from trainkit.config.findings import Finding
from trainkit.config.origins import is_at_or_below
from trainkit.errors import TrainkitError
from trainkit.hook import get_priority
from trainkit.optim_wrapper import CONSTRUCTOR_KEYS, OptimWrapper, constructor_of
from trainkit.runner.rules import Config
from trainkit.runner.stand_in import StandInLoader, build_stand_in_loop


def trial(config: Config, told: Collection[str]) -> Iterator[Finding]:
    """Yield what trainkit's hooks, loops and optim_wrappers refuse of their values.

    Args:
        config: The config.
        told: Keys with a mistake: parts that hold one are left alone.
    """
    path, loader = config.loader("train")
    stand_in = StandInLoader(loader, path)
    for path, node in config.nodes.items():
        if any(is_at_or_below(key, path) for key in told):
            continue
        if path == "train_cfg" and _is_of(node, "trainkit.loops."):
            yield from _refused(
                node, partial(build_stand_in_loop, dict(node.content), path, stand_in)
            )
        elif path.startswith("hooks.") and _is_of(node, "trainkit.hooks."):
            yield from _refused(node, partial(_make_hook, node))
        elif node.place.kind is OptimWrapper and _is_of(node, "trainkit.optim_wrapper."):
            options = {**node.arguments, "optimizer": _NoOptimizer()}
            yield from _refused(node, partial(node.target, **options))
            constructor = config.nodes.get(f"{path}.constructor")
            own = constructor is None or _is_of(constructor, "trainkit.optim_wrapper.")
            if own and CONSTRUCTOR_KEYS & node.content.keys():
                yield from _refused(node, partial(constructor_of, node.content, path))


def _make_hook(node: Node) -> None:
    build({**node.arguments, "_target_": node.target}, node.path)
    if node.content.get("priority") is not None:
        get_priority(node.content["priority"], f"{node.path}.priority")


class _NoOptimizer(torch.optim.Optimizer):
    """Stands for the optimizer; torch's own constructor takes a second to load what it needs."""

    def __init__(self) -> None:
        self.param_groups = [{"params": [torch.zeros(1)]}]


def _is_of(node: Node, package: str) -> bool:
    return str(getattr(node.target, "__module__", "")).startswith(package)


def _refused(node: Node, make: Callable[[], Any]) -> Iterator[Finding]:
    try:
        make()
    except TrainkitError as error:
        place, text = str(error).partition(" ")[0].rstrip(":"), str(error)
        if place in node.arguments:
            place, text = f"{node.path}.{place}", f"{node.path}.{text}"
        if is_at_or_below(place, node.path):  # else it is about the data, or another part
            yield Finding(place, text)
