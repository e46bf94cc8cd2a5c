"""From the config ``optim_wrapper`` to the wrapper, or several of them, for a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from trainkit.config.build import HYDRA_KEYS, Partial, find_target, is_config, partial, to_plain
from trainkit.errors import ConfigError
from trainkit.optim_wrapper.amp import AmpOptimWrapper
from trainkit.optim_wrapper.base import OptimWrapper
from trainkit.optim_wrapper.constructor import DefaultOptimWrapperConstructor
from trainkit.optim_wrapper.several import OptimWrapperDict

logger = logging.getLogger(__name__)

# Keys beside the wrapper's own arguments: what makes it, and what that is told.
CONSTRUCTOR_KEYS = frozenset({"constructor", "paramwise_cfg", "modules"})
_SHOWN = 5  # names in a message


def construct(node: Any, path: str, model: nn.Module) -> Any:
    """Return what a config describes: a wrapper of an optimizer of ``model``, or several.

    Args:
        node: Config of an OptimWrapper, with its ``optimizer``, and ``constructor``,
            ``paramwise_cfg`` and ``modules``; or such a config (or a wrapper) for each of several
            names, whose ``modules`` are by default the submodule of that name.
        path: Where it stands; it begins every message.
        model: The model whose parameters are trained.
    """
    node = to_plain(node, path)
    return _several(node, path, model) if is_several(node) else constructor_of(node, path)(model)


def is_several(node: Mapping[str, Any]) -> bool:
    """Whether a config describes several wrappers by name."""
    target = node.get("_target_")
    if target is not None:
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        return str(name).rpartition(".")[2] == OptimWrapperDict.__name__
    entries = [value for key, value in node.items() if value is not None]
    are_wrappers = [
        isinstance(entry, OptimWrapper) or (is_config(entry) and "optimizer" in entry)
        for entry in entries
    ]
    return bool(entries) and all(are_wrappers)


def _entries(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the wrappers, or their configs, of a config of several."""
    return {
        str(name): entry
        for name, entry in node.items()
        if name not in HYDRA_KEYS and entry is not None
    }


def constructor_of(node: Mapping[str, Any], path: str, modules: str | None = None) -> Any:
    """Return what will make the wrapper of a config, once it is called with the model.

    Args:
        node: See :func:`construct`.
        path: See :func:`construct`.
        modules: What the constructor is told of ``modules`` where the config is silent.
    """
    given = {key: node[key] for key in CONSTRUCTOR_KEYS & node.keys() if node[key] is not None}
    cfg = {key: value for key, value in node.items() if key not in CONSTRUCTOR_KEYS}
    constructor = _constructor(given.get("constructor", {}), f"{path}.constructor")
    arguments = {"optim_wrapper_cfg": cfg, "paramwise_cfg": given.get("paramwise_cfg")}
    optional = {"modules": modules, "path": path}
    arguments |= {key: value for key, value in optional.items() if constructor.accepts(key)}
    if "modules" in given:
        arguments["modules"] = given["modules"]
    return constructor(**arguments)


def _constructor(given: Any, path: str) -> Partial:
    if isinstance(given, Partial):
        return given
    if is_config(given):
        return partial(given, path, default=DefaultOptimWrapperConstructor)
    if not isinstance(given, type):
        raise ConfigError(
            f"{path} is {given!r}; expected a config, such as {{_target_: "
            "trainkit.optim_wrapper.LearningRateDecayOptimWrapperConstructor}, or a class."
        )
    return Partial(given, {}, path)


def bare(node: Any) -> tuple[Any, list[str]]:
    """Return a config without what only the real model fits, and the names of several optimizers.

    What is left makes the wrappers with their base values, of any model; of several, each takes the
    submodule of its own name.
    """
    if not is_config(node):
        return node, []
    plain = {key: value for key, value in node.items() if key not in CONSTRUCTOR_KEYS}
    if not is_several(plain):
        return plain, []
    entries = {name: bare(entry)[0] for name, entry in _entries(plain).items()}
    return {**plain, **entries}, list(entries)


def with_amp(node: Any, path: str, *, tell: bool = True) -> Any:
    """Return a config ``optim_wrapper`` with mixed precision; where it is on already, as it is.

    Args:
        node: The config.
        path: Where it stands.
        tell: Warn where it is on already.

    Raises:
        ConfigError: A wrapper of another class than OptimWrapper, which cannot be told to.
    """
    if is_config(node) and is_several(node):
        own = {
            name: with_amp(entry, f"{path}.{name}", tell=tell)
            for name, entry in _entries(node).items()
        }
        return {**node, **own}
    target = find_target(node, path, OptimWrapper) if is_config(node) else type(node)
    name = getattr(target, "__name__", repr(target))
    if isinstance(target, type) and issubclass(target, AmpOptimWrapper):
        if tell:
            logger.warning("amp is true, and %s is an %s already: nothing to change.", path, name)
        return node
    if target is not OptimWrapper or not is_config(node):
        given = "an object" if not is_config(node) else f"of class {name}"
        raise ConfigError(
            f"amp is true, but {path} is {given}, which cannot be told to use mixed precision: "
            "only a config of an OptimWrapper can. Drop amp, or use an AmpOptimWrapper there.",
            key="amp",
        )
    return {**node, "_target_": AmpOptimWrapper}


def _several(node: Mapping[str, Any], path: str, model: nn.Module) -> OptimWrapperDict:
    wrappers: dict[str, OptimWrapper] = {}
    owner: dict[int, str] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, entry in _entries(node).items():
        where = f"{path}.{name}"
        if not isinstance(entry, OptimWrapper):
            if not is_config(entry):
                kind = type(entry).__name__
                raise ConfigError(f"{where} is a {kind}; expected an OptimWrapper, or its config.")
            entry = constructor_of(entry, where, name)(model)
        if not isinstance(entry, OptimWrapper):
            kind = type(entry).__name__
            raise ConfigError(f"{where}.constructor gives a {kind}; expected an OptimWrapper.")
        wrappers[name] = entry
        for parameter in (p for group in entry.param_groups for p in group["params"]):
            first = owner.setdefault(id(parameter), name)
            if first != name:
                raise ConfigError(
                    f"{path}: {names.get(id(parameter), 'a parameter')} is in the optimizers "
                    f"{first} and {name}. Name the modules of each: {where}.modules=[...]"
                )
    _tell_left_out([n for key, n in names.items() if key not in owner], path, model)
    return OptimWrapperDict(**wrappers)


def _tell_left_out(names: Sequence[str], path: str, model: nn.Module) -> None:
    trained = [name for name in names if model.get_parameter(name).requires_grad]
    if trained:
        more = f" and {len(trained) - _SHOWN} more" if len(trained) > _SHOWN else ""
        logger.warning(
            "%s: no optimizer has %s%s, so nothing changes them.",
            *(path, ", ".join(trained[:_SHOWN]), more),
        )
