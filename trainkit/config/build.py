"""The one door from a config node to an object.

Hydra finds the target and applies its target policy; the call itself is made here, with live
objects, so that nothing of a run is copied into a config on the way and an error inside a target
keeps its own traceback.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from trainkit.config.policy import check_policy
from trainkit.errors import ConfigError, MissingExtra, TrainkitError, did_you_mean

# What Hydra reads in a node besides arguments. _convert_ has no choice here: containers are always
# plain.
HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})


# Packages that a config may name, and the extra that installs each.
EXTRAS = {
    "torchmetrics": "metrics",
    "torchvision": "vision",
    "pycocotools": "detection",
    "optuna": "sweep",
    "wandb": "wandb",
    "safetensors": "export",
    "onnx": "export",
}


def is_config(node: Any) -> bool:
    """Whether ``node`` describes an object (a mapping) rather than being one."""
    return isinstance(node, Mapping) or type(node).__name__ == "DictConfig"


def to_plain(node: Any, path: str = "") -> Any:
    """Return ``node`` with every OmegaConf container inside replaced by a resolved dict or list.

    Raises:
        ConfigError: An interpolation cannot be resolved or a value is missing (``???``).
    """
    if type(node).__name__ in ("DictConfig", "ListConfig"):
        return _resolved(node, path)
    if isinstance(node, Mapping):
        return {key: to_plain(value, f"{path}.{key}") for key, value in node.items()}
    if type(node) in (list, tuple) and any(map(_is_node, node)):  # else it is data
        return type(node)(to_plain(value, f"{path}[{k}]") for k, value in enumerate(node))
    return node


def _is_node(value: Any) -> bool:
    return is_config(value) or type(value).__name__ == "ListConfig"


def _resolved(node: Any, path: str) -> Any:
    from omegaconf import OmegaConf  # a run from plain objects never loads it
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or path
        raise ConfigError(
            f"{key}: {_first_line(error)}. Give it a value, or mend the interpolation."
        ) from None


def named(nodes: Any) -> list[tuple[Any, Any]]:
    """Return the entries of a dict of named nodes that are not None, or of a list by index."""
    pairs = nodes.items() if isinstance(nodes, Mapping) else enumerate(nodes)
    return [(name, node) for name, node in pairs if node is not None]


class Partial:
    """A target with its arguments from the config, waiting for those that only the run knows."""

    def __init__(self, target: Callable[..., Any], kwargs: Mapping[str, Any], path: str) -> None:
        self.target, self.kwargs, self.path = target, dict(kwargs), path

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the target; what the config gave wins over ``kwargs``.

        Raises:
            ConfigError: Arguments that the target does not take; or values that one of trainkit's
                or torch's own targets refuses. An error of the user's code passes through.
        """
        merged = {**kwargs, **self.kwargs}
        check_arguments(self.target, args, merged, self.path)
        try:
            return self.target(*args, **merged)
        except TrainkitError as error:
            error.key = error.key or self.path
            raise
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            if not _is_library(self.target) or not _is_refusal(error):
                raise
            raise ConfigError(self._refusal(error), key=self.path) from error

    def _refusal(self, error: Exception) -> str:
        plain = (int, float, str, bool, list, dict, type(None))
        given = [f"{k}={v!r}" for k, v in self.kwargs.items() if isinstance(v, plain)]
        name = getattr(self.target, "__name__", repr(self.target))
        return f"{self.path}: {name}({', '.join(given)}) is refused: {_first_line(error)}."

    def bound(self) -> Callable[..., Any]:
        """Return the target with its arguments from the config, for a place that calls it often.

        Its arguments are not checked there, and its errors are its own.
        """
        check_names(self.target, self.kwargs, self.path)
        return functools.partial(self.target, **self.kwargs) if self.kwargs else self.target

    def accepts(self, name: str) -> bool:
        """Whether the target has a parameter ``name`` that the config left open."""
        return name not in self.kwargs and name in _parameters(self.target)


def _is_refusal(error: BaseException) -> bool:
    """Whether the libraries themselves raised it about a value: no frame of the user's is in it."""
    if type(error).__name__ == "OutOfMemoryError":
        return False
    frames = traceback.walk_tb(error.__traceback__)
    roots = {frame.f_globals.get("__name__", "").split(".")[0] for frame, _ in frames}
    return roots <= {"trainkit", "torch", "numpy", *sys.stdlib_module_names} - {"__main__"}


def _is_library(target: Callable[..., Any]) -> bool:
    return (getattr(target, "__module__", None) or "").split(".")[0] in ("trainkit", "torch")


def build(
    node: Any,
    path: str,
    *,
    default: Callable[..., Any] | None = None,
    args: Sequence[Any] = (),
    **runtime: Any,
) -> Any:
    """Turn a config node into the object it describes; what is no config is returned as it is.

    Args:
        node: A mapping with ``_target_`` (a dotted name or the class itself), or any object.
        path: Where the node stands in the config; it begins every message.
        default: The target of a node that names none.
        args: Positional arguments that only the run knows, such as the runner.
        runtime: Keyword arguments of the same kind; the node's own win.

    Raises:
        ConfigError: No such target, or arguments that it does not take.
    """
    if not is_config(node):
        return node
    return partial(node, path, default=default)(*args, **runtime)


def partial(node: Any, path: str, *, default: Callable[..., Any] | None = None) -> Partial:
    """Turn a mapping into a :class:`Partial`: target found, nested nodes built, not yet called."""
    node = to_plain(node, path)
    target = find_target(node, path, default)
    nested: Callable[[Any, str], Any] = (
        _build_nested if node.get("_recursive_", True) else lambda value, _: value
    )
    kwargs = {
        key: nested(value, f"{path}.{key}") for key, value in node.items() if key not in HYDRA_KEYS
    }
    return Partial(target, kwargs, path)


def find_target(
    node: Mapping[str, Any], path: str, default: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Return the class or function that a node names."""
    name = node.get("_target_", default)
    if name is None:
        hint = (
            f" (MMEngine's 'type: {node['type']}' is '_target_: <full import path>' here)"
            if "type" in node
            else ""
        )
        raise ConfigError(
            f"{path} has no _target_, so nothing says what to build{hint}. It has: {_listed(node)}."
        )
    if isinstance(name, str):
        return locate(name, f"{path}._target_")
    if not callable(name):
        raise ConfigError(
            f"{path}._target_ is {name!r}; expected the import path of a class or function."
        )
    return name  # type: ignore[no-any-return]  # a class given directly, from Python


def locate(name: str, path: str) -> Callable[..., Any]:
    """Import the target ``name``.

    An error raised by the user's own module while it is imported passes through with its traceback.

    Raises:
        ConfigError: Nothing of that name, not callable, or refused by Hydra's target policy.
    """
    found = import_named(name, path)
    if not callable(found):
        raise ConfigError(
            f"{path}: {name!r} is a {type(found).__name__}; expected a class or function."
        )
    check_policy(name, path, found)
    target: Callable[..., Any] = found
    return target


def import_named(name: str, path: str) -> Any:
    """Return what the dotted ``name`` leads to, whatever it is.

    Raises:
        ConfigError: Nothing of that name.
    """
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(
            f"{path} is {name!r}; expected a full import path such as 'torch.optim.SGD'."
        )
    module, rest = _longest_module(parts)
    if module is None and parts[0] in EXTRAS:
        raise MissingExtra(parts[0], EXTRAS[parts[0]], f"{path}: {name}")
    if module is None:
        raise ConfigError(
            f"{path}: {name!r} cannot be imported: no module {parts[0]!r}. Install it, or mend the "
            "name."
        )
    found: Any = module
    for depth, part in enumerate(rest):
        if not hasattr(found, part):
            owner = ".".join(parts[: len(parts) - len(rest) + depth])
            raise ConfigError(
                f"{path}: {name!r} cannot be imported: {owner} has no {part!r}. "
                f"{_near(found, part, last=depth + 1 == len(rest))}"
            )
        found = getattr(found, part)
    return found


def _longest_module(parts: Sequence[str]) -> tuple[ModuleType | None, Sequence[str]]:
    """Import the longest prefix of ``parts`` that is a module; return it and what is left."""
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            return importlib.import_module(name), parts[length:]
        except ModuleNotFoundError as error:
            absent = error.name is not None and f"{name}.".startswith(f"{error.name}.")
            if not absent:
                raise  # the module is there; what is missing is something it imports
    return None, parts


def _near(owner: Any, name: str, *, last: bool) -> str:
    """Return the nearest name in ``owner``; for the last part of a path, of what can be called."""
    names = [entry for entry in dir(owner) if not entry.startswith("_")]
    if last:
        names = [entry for entry in names if callable(getattr(owner, entry, None))]
    elif isinstance(owner, ModuleType) and hasattr(owner, "__path__"):
        names += [module.name for module in pkgutil.iter_modules(owner.__path__)]
    return did_you_mean(name, names, listed="It has")


def _build_nested(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            part = partial(value, path)
            return part if value.get("_partial_") else part(*value.get("_args_", ()))
        return {key: _build_nested(child, f"{path}.{key}") for key, child in value.items()}
    if type(value) is list:
        return [_build_nested(child, f"{path}[{index}]") for index, child in enumerate(value)]
    return value


def check_arguments(
    target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], path: str
) -> None:
    """Raise a ConfigError if ``target`` does not take these arguments, or needs more."""
    check_names(target, kwargs, path, positional=len(args))
    signature = _signature(target)
    if signature is None:
        return  # a builtin without one: the call itself decides
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(target, "__qualname__", repr(target))
        raise ConfigError(
            f"{path}: {name} cannot be called so: {error}. "
            f"Its arguments: {_listed(signature.parameters)}.",
            key=path,
        ) from None


def check_names(
    target: Callable[..., Any], kwargs: Mapping[str, Any], path: str, *, positional: int = 0
) -> None:
    """Raise a ConfigError if ``target`` has no argument of one of these names."""
    signature = _signature(target)
    if signature is None:
        return
    parameters = signature.parameters
    name = getattr(target, "__qualname__", repr(target))
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        free = list(parameters)[positional:]
        for key in kwargs:
            if key not in parameters:
                near = did_you_mean(key, free, listed="It takes")
                text = f"{path}.{key}: {name} has no argument {key!r}. {near}"
                raise ConfigError(text, key=f"{path}.{key}")


def _signature(target: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    signature = _signature(target)
    return {} if signature is None else signature.parameters


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "nothing"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
