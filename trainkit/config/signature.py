"""A target's signature as the schema of its config node: names, and types of plain values."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, TypeVar

import typing_extensions

REQUIRED = inspect.Parameter.empty
_PLAIN_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    complex: "a number",
    str: "a text",
    bool: "true or false",
    type(None): "null",
    dict: "a mapping",
    list: "a list",
}
_PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}
_UNPACKS = (getattr(typing, "Unpack", None), typing_extensions.Unpack)
_ANY = (Any, object, inspect.Parameter.empty)
_NAMES = {**_PLAIN_NAMES, **dict.fromkeys(_ANY, "anything")}
_CONTAINER_MODULES = ("builtins", "typing", "collections.abc", "collections")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target, with its type where that can be read."""

    name: str
    hint: Any = Any
    default: Any = REQUIRED


@dataclass(frozen=True)
class Schema:
    """What a target takes.

    Args:
        name: The target's name, for messages.
        positional: Names that positional arguments fill, in order.
        parameters: Every parameter that can be given by name.
        is_open: Whether it takes other names too (``**kwargs``).
    """

    name: str
    positional: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    is_open: bool


def schema_of(target: Callable[..., Any]) -> Schema | None:
    """Return what ``target`` takes; None for a builtin that does not say.

    ``**options: Unpack[SomeTypedDict]`` (PEP 692) counts as the names of that TypedDict.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None
    scope = _scope(target)
    positional, parameters, is_open = [], {}, False
    for parameter in signature.parameters.values():
        hint = _evaluated(parameter.annotation, scope)
        if parameter.kind is parameter.VAR_KEYWORD:
            unpacked = _unpacked(hint)
            parameters.update(unpacked or {})
            is_open = unpacked is None
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append(parameter.name)
            parameters[parameter.name] = Parameter(parameter.name, hint, parameter.default)
    name = getattr(target, "__qualname__", repr(target))
    return Schema(name, tuple(positional), parameters, is_open)


def _scope(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the names that the annotations of ``target`` may use."""
    function = target.__init__ if inspect.isclass(target) else target
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    function = getattr(function, "func", function)  # of a functools.partial
    return dict(getattr(function, "__globals__", {}))


def _evaluated(annotation: Any, scope: dict[str, Any]) -> Any:
    """Return an annotation as a type; Any where it names what is imported only for typing."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, scope)  # the annotation of a target that is imported already
    except Exception:  # whatever an annotation may raise, it is a type that cannot be read
        return Any


def _unpacked(hint: Any) -> dict[str, Parameter] | None:
    if typing.get_origin(hint) not in _UNPACKS:
        return None
    (names,) = typing.get_args(hint)
    required = set(getattr(names, "__required_keys__", ()))
    hints = typing_extensions.get_type_hints(names, include_extras=True)
    # Where annotations are texts, the class itself has not seen what they say of a key.
    marks: dict[str, Any] = {name: typing.get_origin(kind) for name, kind in hints.items()}
    required |= {name for name, mark in marks.items() if mark is typing_extensions.Required}
    required -= {name for name, mark in marks.items() if mark is typing_extensions.NotRequired}
    return {
        name: Parameter(name, kind, REQUIRED if name in required else None)
        for name, kind in typing_extensions.get_type_hints(names).items()
    }


def fits(value: Any, hint: Any) -> bool:
    """Whether a config's value can be what ``hint`` says; True where a config cannot tell.

    A mapping with ``_target_`` stands for whatever it builds.
    """
    if (
        hint in _ANY
        or isinstance(hint, TypeVar)
        or (isinstance(value, dict) and "_target_" in value)
    ):
        return True
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if origin in (typing.Annotated, typing_extensions.Required, typing_extensions.NotRequired):
        return fits(value, args[0])
    if origin is None and hint in (None, *_PLAIN_NAMES):
        return _is_plain(value, hint)
    return _fits_container(value, origin or hint, args)


def _is_plain(value: Any, hint: Any) -> bool:
    if hint in (float, complex):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if hint is None else isinstance(value, hint)


def _fits_container(value: Any, kind: Any, args: Sequence[Any]) -> bool:
    if not inspect.isclass(kind):
        return True
    if kind is Callable:
        return not isinstance(value, str | int | float | list | dict) and value is not None
    if kind is tuple and isinstance(value, list | tuple) and args and args[-1] is not Ellipsis:
        return len(value) == len(args) and all(map(fits, value, args))
    if issubclass(kind, Mapping):
        item = args[1] if len(args) == 2 else Any
        return isinstance(value, Mapping) and all(fits(v, item) for v in value.values())
    if issubclass(kind, Iterable) and kind.__module__ in _CONTAINER_MODULES:
        item = args[0] if args else Any
        return isinstance(value, list | tuple) and all(fits(v, item) for v in value)
    return _fits_class(value, kind)


def _fits_class(value: Any, kind: type) -> bool:
    """Whether a plain value may stand for an instance of a class."""
    if isinstance(value, kind):
        return True
    if value is None or issubclass(kind, types.FunctionType | type):
        return False
    if issubclass(kind, PurePath):
        return isinstance(value, str)
    # torch's classes take no plain value, but for names of devices. Of other classes nobody knows.
    is_device = kind.__name__ == "device" and isinstance(value, str | int)
    return is_device or not _is_torchs(kind)


def _is_torchs(kind: Any) -> bool:
    return inspect.isclass(kind) and kind.__module__.split(".")[0] == "torch"


def describe(hint: Any) -> str:
    """Return a type in the words of a message: ``float | None`` is "a number or null"."""
    if hint is None or hint in _NAMES:
        return _NAMES[type(None) if hint is None else hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # What no text of a config can be, such as a Tensor, is of no help where there is another.
        plain = [arg for arg in args if not _is_torchs(arg)]
        return _either([describe(arg) for arg in plain or args])
    if origin is Literal:
        return _either([repr(arg) for arg in args])
    kind = origin or hint
    if kind is Callable:
        return "something to call: a mapping with _target_ and _partial_: true"
    if not inspect.isclass(kind):
        return str(hint).replace("typing.", "")
    if issubclass(kind, Mapping):
        return (
            f"a mapping of names to {_PLURALS[args[1]]}"
            if args[1:] and args[1] in _PLURALS
            else "a mapping"
        )
    if kind.__module__ in _CONTAINER_MODULES and kind is not type:
        return _list_of(kind, args)
    return with_article(kind.__name__)


def with_article(noun: str) -> str:
    """Return a noun with "a" or "an", as far as its first letter tells."""
    sounds = noun[:1].lower() in "aeio" or (noun[:2].isupper() and noun[0] in "FHLMNRSX")
    return f"{'an' if sounds else 'a'} {noun}"


def _either(names: Sequence[str]) -> str:
    """Join alternatives, each named once; a whole number is a number."""
    kept = list(dict.fromkeys(names))
    if _PLAIN_NAMES[float] in kept and _PLAIN_NAMES[int] in kept:
        kept.remove(_PLAIN_NAMES[int])
    if _PLAIN_NAMES[bool] in kept and len(kept) > 1:  # "true, false or null"
        place = kept.index(_PLAIN_NAMES[bool])
        kept[place : place + 1] = ["true", "false"]
    return " or ".join([", ".join(kept[:-1]), kept[-1]] if len(kept) > 1 else kept)


def _list_of(kind: type, args: Sequence[Any]) -> str:
    if kind is tuple and args and args[-1] is not Ellipsis:
        return f"a list of {len(args)}: {', '.join(map(describe, args))}"
    if not args or args[0] in _ANY or isinstance(args[0], TypeVar):
        return "a list"
    return f"a list of {_PLURALS.get(args[0], f'entries that are each {describe(args[0])}')}"
