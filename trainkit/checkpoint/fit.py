"""How the weights of a checkpoint fit a model: which names, which shapes, and what to do."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from trainkit.errors import CheckpointError

Rename = tuple[str, str]
"""A regular expression, and what takes the place of what it finds."""

# What DistributedDataParallel puts before every name; and what torch.compile, FSDP and activation
# checkpointing put before those of a submodule.
_WRAPPER = "module."
_WRAPPERS_INSIDE = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_SHOWN = 8  # names, or groups of them, that a message lists


@dataclass(frozen=True)
class Fit:
    """The entries of a checkpoint beside those of a model.

    Args:
        own: The model's, by name.
        loaded: The checkpoint's, by the names that they are to have in the model.
    """

    own: Mapping[str, Any]
    loaded: Mapping[str, Any]

    @cached_property
    def fitting(self) -> frozenset[str]:
        """Names of the checkpoint's entries that the model can take."""
        return frozenset(
            name
            for name, value in self.loaded.items()
            if name in self.own and _fits(self.own[name], value)
        )

    def taken(self) -> dict[str, Any]:
        """Return what the model can take, as ``load_state_dict`` reads it."""
        found = {name: value for name, value in self.loaded.items() if name in self.fitting}
        return _with_versions(found, _versions(self.loaded))

    @property
    def missing(self) -> list[str]:
        """Names of the model that the checkpoint has not; counters of batch norm may be so."""
        return [
            name
            for name in self.own
            if name not in self.loaded and not name.endswith("num_batches_tracked")
        ]

    @property
    def unexpected(self) -> list[str]:
        """Names of the checkpoint that the model has not."""
        return [name for name in self.loaded if name not in self.own]

    @property
    def mismatched(self) -> list[str]:
        """Names that both have, of another shape or kind of numbers."""
        return [name for name in self.loaded if name in self.own and name not in self.fitting]

    @property
    def summary(self) -> str:
        """How much of the model the checkpoint gives."""
        count = sum(1 for name in self.own if name in self.fitting)
        return f"{count} of {len(self.own)} entries"

    def problems(self) -> list[str]:
        """Return what does not fit, each kind in a clause; nothing if all does."""
        pairs = [(name, self.own[name], self.loaded[name]) for name in self.mismatched]
        shapes = [
            f"{name} {_shape(loaded)} for {_shape(own)}"
            for name, own, loaded in pairs
            if not _same_shape(own, loaded)
        ]
        types = [
            f"{name} {loaded.dtype} for {own.dtype}"
            for name, own, loaded in pairs
            if _same_shape(own, loaded)
        ]
        kinds = (
            ("missing in it", self.missing, listed),
            ("not in the model", self.unexpected, listed),
            ("of another shape", shapes, some),
            ("of another type", types, some),
        )
        return [f"{len(names)} {kind}: {say(names)}" for kind, names, say in kinds if names]

    def advice(self) -> str:
        """Return what would make more of it fit, if anything is seen; empty otherwise."""
        rename = nearest_rename(self)
        if rename is not None:
            more = len(Fit(self.own, renamed(self.loaded, [rename])).fitting) - len(self.fitting)
            if more > 0:
                pattern, new = rename
                key = f"load_cfg.revise_keys=[['{pattern}', '{new}']]"
                return f"With {key}, {more} more fit."
        inside = [str(name) for name, value in self.loaded.items() if _is_state(value)]
        if inside:
            return f"It holds weights under {some(inside)}: choose by load_cfg.key={inside[0]}."
        return ""


def without_wrappers(weights: Mapping[str, Any], own: Iterable[str]) -> dict[str, Any]:
    """Return weights under names without what wrappers put into them, as the model has none."""
    known = frozenset(own)
    return _under(weights, {name: _bare(str(name), known) for name in weights}, "")


def _bare(name: str, known: frozenset[str]) -> str:
    if name in known:
        return name
    bare = _WRAPPERS_INSIDE.sub("", name)
    while bare not in known and bare.startswith(_WRAPPER):
        bare = bare.removeprefix(_WRAPPER)
    return bare


def renamed(weights: Mapping[str, Any], renames: Sequence[Rename]) -> dict[str, Any]:
    """Return weights under names that every rename, in order, was applied to.

    Raises:
        CheckpointError: Two entries get the same name.
    """
    names = {name: str(name) for name in weights}
    for pattern, replacement in renames:
        names = {name: re.sub(pattern, replacement, new) for name, new in names.items()}
    return _under(weights, names, " Mend load_cfg.revise_keys.")


def below(weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the weights whose names begin with the prefix, without it."""
    names = {str(name): str(name).removeprefix(prefix) for name in weights}
    return _under(weights, {old: new for old, new in names.items() if old.startswith(prefix)}, "")


def put(model: nn.Module, fit: Fit, source: str) -> None:
    """Write what fits into the model; if the model refuses one of the values, none is changed.

    Args:
        model: The model.
        fit: Of its own entries, as ``state_dict()`` returns them, and of a checkpoint's.
        source: What the checkpoint is called in a message.

    Raises:
        CheckpointError: The model refused.
    """
    before = {
        name: value.clone()
        for name, value in fit.own.items()
        if isinstance(value, torch.Tensor) and not is_lazy(value)
    }
    try:
        model.load_state_dict(fit.taken(), strict=False)
    except BaseException as error:
        for name, value in before.items():
            fit.own[name].copy_(value)  # the model's own memory
        if isinstance(error, RuntimeError):  # how torch tells all that a module refused
            reason = str(error).splitlines()[-1].strip()
            text = f"{source} does not fit {type(model).__name__}: {reason} Nothing was loaded."
            raise CheckpointError(text) from error
        raise


def _under(weights: Mapping[str, Any], names: Mapping[Any, str], advice: str) -> dict[str, Any]:
    """Return the weights that ``names`` has, under their new names.

    Raises:
        CheckpointError: Two entries get the same name; it ends with the advice.
    """
    found: dict[str, Any] = {}
    taken: dict[str, str] = {}
    for name, new in names.items():
        if new in found:
            raise CheckpointError(
                f"The checkpoint's {taken[new]} and {name} would both be {new}.{advice}"
            )
        found[new], taken[new] = weights[name], str(name)
    owners = {new.rpartition(".")[0]: old.rpartition(".")[0] for new, old in taken.items()}
    versions = _versions(weights)
    return _with_versions(
        found, {new: versions[old] for new, old in owners.items() if old in versions}
    )


def _versions(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the versions of modules, by which some read what older ones have written."""
    return getattr(weights, "_metadata", {})


def _with_versions(entries: Mapping[str, Any], versions: Mapping[str, Any]) -> dict[str, Any]:
    found: Any = OrderedDict(entries)
    found._metadata = versions  # where torch keeps them
    return cast("dict[str, Any]", found)


def nearest_rename(fit: Fit) -> Rename | None:
    """Return the one change of a prefix that most names which do not fit have in common.

    Names are compared from their end, part by part, among entries of the same shape.
    """
    by_ending: dict[str, list[str]] = {}
    for name in fit.missing:
        for _, ending in _splits(name):
            by_ending.setdefault(ending, []).append(name)
    votes: Counter[tuple[str, str]] = Counter()
    for name in fit.unexpected:
        for head, ending in _splits(name):
            same = [
                own for own in by_ending.get(ending, ()) if _fits(fit.own[own], fit.loaded[name])
            ]
            votes.update((head, own.removesuffix(ending)) for own in same)
            if same:  # a longer ending says more than a shorter one
                break
    if not votes:
        return None
    (old, new), _ = votes.most_common(1)[0]
    return f"^{re.escape(old)}", new


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Yield a dotted name as beginning and end, with the longest end first."""
    parts = name.split(".")
    for at in range(len(parts)):
        head = "".join(f"{part}." for part in parts[:at])
        yield head, name[len(head) :]


def listed(names: Sequence[str]) -> str:
    """Return names in words; many of them by what they begin with, and how many those are."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    depth, most = 1, max(name.count(".") for name in names)
    groups = _grouped(names, depth)
    while len(groups) == 1 and depth < most:
        depth += 1
        groups = _grouped(names, depth)
    words = [f"{head}.* ({len(each)})" if each[1:] else each[0] for head, each in groups.items()]
    return some(words)


def _grouped(names: Iterable[str], depth: int) -> dict[str, list[str]]:
    """Return the names by their first ``depth`` parts."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return groups


def some(words: Sequence[str]) -> str:
    """Return the first of the words, and how many more there are."""
    more = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _fits(own: Any, loaded: Any) -> bool:
    """Whether an entry has the shape and the kind of numbers that the model wants there.

    Floating-point numbers of any precision are one kind, and so are integers of any size.
    """
    if not _same_shape(own, loaded):
        return False
    both = isinstance(own, torch.Tensor) and isinstance(loaded, torch.Tensor)
    return not both or is_lazy(own) or _kind(own.dtype) == _kind(loaded.dtype)


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point or dtype.is_complex:
        return "float" if dtype.is_floating_point else "complex"
    return "bool" if dtype == torch.bool else "integer"


def _same_shape(own: Any, loaded: Any) -> bool:
    # A lazy parameter has no shape yet and takes any.
    return bool(is_lazy(own)) or _shape(own) == _shape(loaded)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) and not is_lazy(value) else None


def _is_state(value: Any) -> bool:
    """Whether an entry is itself a state dict."""
    return isinstance(value, Mapping) and any(
        isinstance(item, torch.Tensor) for item in value.values()
    )
