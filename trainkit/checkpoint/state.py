"""What the files of a checkpoint hold: plain data and tensors, which load back without pickle."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Container, Iterator, Mapping
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, TypeVar

import torch
from torch.nn.parameter import is_lazy

from trainkit.errors import CheckpointError

T = TypeVar("T")

_TENSORS = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
_ATOMS = (float, str, bool, complex, type(None), torch.Size, torch.dtype, torch.device)
_MAPPINGS = (dict, OrderedDict, Counter)
_SEQUENCES = (list, tuple, set)
_MAX_INT = 2000  # bits; the safe loader refuses longer numbers
_MAX_DEPTH = 100  # pickle itself gives up at a few hundred
# What to say of the usual kinds that the safe loader refuses.
_INSTEAD: tuple[tuple[Any, str], ...] = (
    (Integral, "int(x)"),
    (Real, "float(x)"),
    ((str, PurePath), "str(x)"),
    (Mapping, "dict(x)"),
    ((tuple, list, deque, frozenset, range), "list(x)"),
    (bytearray, "bytes(x)"),
)


def check_plain(value: Any, path: str = "", *, depth: int = 0) -> None:
    """Raise if a state holds what could not be loaded back without pickle, naming the key.

    Raises:
        CheckpointError: A value is no tensor, number, string, None, or a container of these.
    """
    kind = type(value)
    if kind in _TENSORS:
        _check_tensor(value, path)
    elif _is_atom(value):
        return
    elif depth > _MAX_DEPTH:
        raise CheckpointError(
            f"The checkpoint's {path[:80]}… is nested more than {_MAX_DEPTH} deep, or contains "
            "itself, so it cannot be saved. Flatten it in state_dict()."
        )
    elif kind in _MAPPINGS:
        for key, item in value.items():
            check_plain(key, f"{path} (a key)", depth=depth + 1)
            check_plain(item, f"{path}.{key}".lstrip("."), depth=depth + 1)
    elif kind in _SEQUENCES:
        for index, item in enumerate(value):
            check_plain(item, f"{path}[{index}]", depth=depth + 1)
    else:
        raise _refusal(value, path)


def _is_atom(value: Any) -> bool:
    kind = type(value)
    if kind is int:
        return bool(value.bit_length() < _MAX_INT)
    return kind in _ATOMS or (kind is bytes and bool(value))  # empty bytes are refused on loading


def _refusal(value: Any, path: str) -> CheckpointError:
    kind = type(value)
    return CheckpointError(
        f"The checkpoint's {path} is a {kind.__module__}.{kind.__qualname__}, which could not "
        "be loaded back safely. Expected tensors, numbers, strings, None, and lists or dicts "
        f"of these; {_instead(value)} in state_dict()."
    )


def _instead(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        if is_lazy(value):
            return "run the model once before it is saved, or leave it out"
        return "say x.as_subclass(torch.Tensor)"
    for kinds, words in _INSTEAD:
        if isinstance(value, kinds):
            return f"say {words}"
    if hasattr(value, "__array__"):  # numpy: its bool is no Integral
        return "say torch.as_tensor(x)" if getattr(value, "shape", ()) else "say x.item()"
    return "convert it"


def _check_tensor(tensor: torch.Tensor, path: str) -> None:
    if tensor.is_meta:
        raise CheckpointError(
            f"The checkpoint's {path} is a tensor on the meta device, which has no values to save. "
            "Load or initialise the model before it is saved."
        )
    if tensor.is_nested or tensor.is_mkldnn:
        raise CheckpointError(
            f"The checkpoint's {path} is a tensor of a layout that torch.save cannot write: "
            f"{'nested' if tensor.is_nested else 'mkldnn'}. Convert it in state_dict()."
        )
    for name, item in vars(tensor).items():  # attributes are saved with it
        check_plain(item, f"{path}.{name}", depth=1)


def compact(state: T) -> T:
    """Return a state whose tensors are in CPU memory and take no more room than their elements.

    ``torch.save`` writes the whole memory that a tensor is a view of, so that one row of a table
    would be written as the table, and it writes the device, so that a file from a GPU would not
    load elsewhere. Tensors that share memory still do where they are equal views of it.
    """
    views = {_view(tensor): tensor for tensor in _tensors(state) if _has_storage(tensor)}
    used: Counter[Any] = Counter()
    for tensor in views.values():
        used[_memory(tensor)] += tensor.numel() * tensor.element_size()

    def is_right(tensor: torch.Tensor) -> bool:
        if not _has_storage(tensor):
            return tensor.device.type == "cpu"
        wasted = tensor.untyped_storage().nbytes() > used[_memory(tensor)]
        return tensor.device.type == "cpu" and not wasted

    if all(map(is_right, _tensors(state))):
        return state
    made: dict[Any, torch.Tensor] = {}

    def compacted(tensor: torch.Tensor) -> torch.Tensor:
        if is_right(tensor):
            return tensor
        key = _view(tensor)
        if key not in made:
            made[key] = tensor.detach().clone().cpu()
        return _dressed(made[key], tensor)

    done: T = _mapped(state, compacted)
    return done


class Snapshot:
    """Copies of a state in CPU memory, that nothing which follows changes.

    The memory of one copy is used for the next, which is several times as fast as new memory. So
    there is one copy at a time: the next one changes it.
    """

    def __init__(self) -> None:
        self._held: dict[Any, list[torch.Tensor]] = {}

    def take(self, state: T) -> T:
        """Return a copy of the state; equal views of one memory are one in the copy, too."""
        spare, held = self._held, defaultdict[Any, list[torch.Tensor]](list)
        made: dict[Any, torch.Tensor] = {}

        def copied(tensor: torch.Tensor) -> torch.Tensor:
            if not _has_storage(tensor) or tensor.is_quantized:
                return _dressed(tensor.detach().clone().cpu(), tensor)
            view = _view(tensor)
            if view not in made:
                kind = (tensor.shape, tensor.stride(), tensor.dtype)
                free = spare.get(kind)
                target = free.pop() if free else torch.empty_like(tensor.detach(), device="cpu")
                made[view] = target.copy_(tensor.detach())
                held[kind].append(target)
            return _dressed(made[view], tensor)

        taken: T = _mapped(state, copied)
        self._held = dict(held)
        return taken


def non_finite(weights: Mapping[str, Any], may_be_infinite: Container[str] = ()) -> list[str]:
    """Return the names of a state dict's tensors that have NaN or infinity in them.

    Args:
        weights: The state dict.
        may_be_infinite: Names of tensors in which only NaN counts, such as masks among the buffers.
    """
    return [
        name
        for name, value in weights.items()
        if isinstance(value, torch.Tensor) and not _is_finite(value, name in may_be_infinite)
    ]


@torch.no_grad()
def _is_finite(tensor: torch.Tensor, infinite_ok: bool) -> bool:
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.detach()._values()
    elif tensor.layout is not torch.strided:
        tensor = tensor.detach().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.is_quantized or not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.element_size() == 1:  # float8, for which aminmax has no kernel
        try:
            tensor = tensor.float()
        except (NotImplementedError, RuntimeError):
            return True  # float4, which has neither NaN nor infinity
    ends = torch.stack(torch.aminmax(tensor))  # both are NaN if any element is
    return not bool((ends.isnan() if infinite_ok else ~ends.isfinite()).any())


def room(state: Any) -> int:
    """Return about how many bytes a state takes on the disk: those of its tensors."""
    sizes = {
        _view(tensor): tensor.numel() * tensor.element_size()
        for tensor in _tensors(state)
        if _has_storage(tensor)
    }
    return sum(sizes.values())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif type(value) in _SEQUENCES:
        for item in value:
            yield from _tensors(item)


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return plain data with new containers, and with ``change`` applied to each tensor."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if type(value) in _MAPPINGS:
        changed = copy.copy(value)  # with the attributes that torch gives to state dicts
        changed.update({key: _mapped(item, change) for key, item in value.items()})
        if isinstance(value, Counter):  # whose update() adds
            changed = Counter(value)
        return changed
    if type(value) in _SEQUENCES:
        return type(value)(_mapped(item, change) for item in value)
    return value


def _dressed(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return values as the kind of tensor that ``like`` is; their memory is not copied."""
    new: torch.Tensor
    if isinstance(like, torch.nn.Parameter):
        new = torch.nn.Parameter(values, like.requires_grad)
    else:
        new = values.detach().requires_grad_(like.requires_grad)
        if isinstance(like, torch.nn.Buffer):
            new = torch.nn.Buffer(new)
    vars(new).update(vars(like))
    return new


def _has_storage(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided


def _memory(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.untyped_storage().data_ptr()


def _view(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return what two tensors that are the same elements of the same memory have in common."""
    if not _has_storage(tensor):
        return (id(tensor),)
    place = (*_memory(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())
    return (*place, tensor.dtype, tensor.is_conj(), tensor.is_neg())
