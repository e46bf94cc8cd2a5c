"""Several named sets in the place of one loader: how a config says so, and their evaluators."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from trainkit.config.build import is_config, to_plain
from trainkit.errors import ConfigError, did_you_mean
from trainkit.evaluator import Evaluator
from trainkit.runner.parts import build_evaluator

# Configs inside a data loader; a mapping with one of these is no mapping of sets.
_IN_LOADER = frozenset(
    {"dataset", "sampler", "batch_sampler", "collate_fn", "worker_init_fn", "generator"}
)


def named_sets(node: Any) -> dict[str, Any] | None:
    """Return the loaders of several sets by name; None if ``node`` is one loader.

    Several sets are a mapping without ``_target_`` and ``dataset`` that holds a config or an
    object for each; null leaves a set out.
    """
    if not is_config(node) or "_target_" in node or _IN_LOADER & set(node):
        return None
    sets = {str(name): loader for name, loader in node.items() if loader is not None}
    return sets if any(map(_is_loader, sets.values())) else None


def sets_of(plain: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Return the named sets of a split of a resolved config; empty if there is one loader."""
    loaders = plain.get("dataloader")
    node = loaders.get(split) if isinstance(loaders, Mapping) else None
    return named_sets(plain.get(f"{split}_dataloader", node)) or {}


def set_problem(loader: Any, path: str) -> str | None:
    """Return what is wrong with what stands in the place of a set's loader, in words."""
    if _is_loader(loader):
        return None
    return f"{path} is {loader!r}; expected the data loader of a set, or null to leave it out."


def _is_loader(node: Any) -> bool:
    """Whether a value is a config, or an object that may be a loader."""
    is_object = hasattr(node, "__iter__") and not isinstance(node, str | list | tuple)
    return is_config(node) or is_object


def are_by_set(node: Any, names: Collection[str]) -> bool:
    """Whether an evaluator's config names one for each set, and not metrics."""
    is_named = is_config(node) and "_target_" not in node and "metrics" not in node
    return is_named and bool(set(node) & set(names))


def build_evaluators(
    node: Any, path: str, loader_path: str, names: Collection[str]
) -> dict[str, Evaluator]:
    """Return an evaluator for each set: its own, or one that all sets have in common.

    A config is built for each set anew, of an object each set gets a copy.

    Raises:
        ConfigError: Some sets are named, and others not; or a name is that of no set.
    """
    problems = evaluator_problems(path, node, loader_path, names)
    if problems:
        raise ConfigError(" ".join(problems.values()))
    if are_by_set(node, names):
        return {name: build_evaluator(to_plain(node[name]), f"{path}.{name}") for name in names}
    shared = build_evaluator(node, path)
    return {name: copy.deepcopy(shared) for name in names}


def evaluator_problems(
    path: str, node: Any, loader_path: str, names: Collection[str]
) -> dict[str, str]:
    """Return what is wrong with the names of evaluators by set, by the place in the config."""
    if not is_config(node) or "_target_" in node or "metrics" in node:
        return {}
    if are_by_set(node, names):
        return _unmatched(path, node, names)
    nested = [n for n, one in node.items() if is_config(one) and "_target_" not in one]
    return {
        f"{path}.{name}": f"{path}.{name} has no _target_, so it is no metric; and {loader_path} "
        f"is one loader, so {name!r} is no set either."
        for name in (nested if not names else [])
    }


def _unmatched(path: str, node: Mapping[str, Any], names: Collection[str]) -> dict[str, str]:
    """Return which sets have no evaluator, and which evaluators no set; null is for none."""
    found = {}
    missing = [repr(name) for name in names if node.get(name) is None]
    if missing:
        lacks = ", ".join(missing)
        found[path] = f"{path} has evaluators by set, but none for {lacks}. Give one to each."
    for name in node:
        if name not in names and node[name] is not None:
            near = did_you_mean(str(name), names, listed="There is")
            found[f"{path}.{name}"] = f"{path}.{name}: there is no set {name!r}. {near}"
    return found
