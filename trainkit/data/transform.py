"""Transforms of a sample, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainkit.config.build import Partial, build, is_config, named, partial
from trainkit.errors import ConfigError


class Compose:
    """Call transforms in order, each with what the one before gave.

    A transform that returns None drops the sample: the others are not called. What a transform
    raises says in a note which one it was.

    Args:
        transforms: A list, or a mapping of names to transforms, of which a null one is left out.
            Each is something to call, or a config of it.

    Raises:
        ConfigError: An entry cannot be called.
    """

    def __init__(self, transforms: Sequence[Any] | Mapping[str, Any] | None = None) -> None:
        transforms = () if transforms is None else transforms
        is_one = isinstance(transforms, str) or (is_config(transforms) and "_target_" in transforms)
        if is_one or not isinstance(transforms, Sequence | Mapping):
            shown = transforms if is_one else type(transforms).__name__
            raise ConfigError(
                f"The transforms are {shown!r}; expected a list of them, or a mapping of names to "
                "them."
            )
        self._names: list[str] = []
        self.transforms: list[Callable[[Any], Any]] = []
        for name, node in named(transforms):
            transform = _made(node, name)
            self._names.append(f"{name!r} ({_name_of(transform)})")
            self.transforms.append(transform)
        self.dropped_by = ""  # the transform that dropped the last sample that was, for messages

    def __call__(self, data: Any) -> Any:
        """Return the transformed sample; None if a transform dropped it."""
        for name, transform in zip(self._names, self.transforms, strict=True):
            try:
                result = transform(data)
            except Exception as error:
                if hasattr(error, "add_note"):  # Python 3.10 has no notes
                    error.add_note(f"In the transform {name} of {_sample(data)}.")
                raise
            if result is None:
                self.dropped_by = name
                return None
            data = result
        return data

    def __repr__(self) -> str:
        return f"Compose({', '.join(self._names)})"


def _made(node: Any, name: Any) -> Callable[[Any], Any]:
    path = f"transforms[{name!r}]"
    waits = is_config(node) and node.get("_partial_")
    transform = partial(node, path) if waits else build(node, path)
    if isinstance(transform, Partial):
        return transform.bound()  # its arguments are checked once, and not for every sample
    if not callable(transform):
        raise ConfigError(
            f"The transform {name!r} is {transform!r}; expected something to call with a sample, "
            "or a config of it with _target_."
        )
    return transform  # type: ignore[no-any-return]  # callable() does not narrow Any


def _name_of(transform: Any) -> str:
    function = getattr(transform, "func", transform)  # of a functools.partial
    return str(getattr(function, "__name__", type(function).__name__))


def _sample(data: Any) -> str:
    index = data.get("sample_idx") if isinstance(data, Mapping) else None
    return "a sample" if index is None else f"sample {index}"
