"""What a model is made of, and what its forward costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from trainkit.evaluator import batch_size
from trainkit.model import unwrap
from trainkit.seed import isolated_rng

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
_UNITS = ("", "k", "M", "G", "T", "P")


@dataclass(frozen=True)
class Part:
    """A submodule of the model, with all that is below it.

    Args:
        name: Its name in the model.
        kind: Its class.
        trained: Elements of its parameters that are trained.
        frozen: Elements of those that are not.
        memory: Bytes of its parameters and buffers.
    """

    name: str
    kind: str
    trained: int
    frozen: int
    memory: int


def model_parts(model: nn.Module) -> list[Part]:
    """Return the model's own parameters and its submodules, and at last the whole.

    What two of them share is counted in the first. Parameters that have no shape yet count nothing.
    """
    model, seen = unwrap(model), set[int]()
    own = [*model.parameters(recurse=False), *model.buffers(recurse=False)]
    parts = [_part("(own)", "", own, seen)]
    for name, child in model.named_children():
        parts.append(
            _part(name, type(child).__name__, [*child.parameters(), *child.buffers()], seen)
        )
    parts = [part for part in parts if part.memory]
    kind = type(model).__name__
    return [*parts, _part("", kind, [*model.parameters(), *model.buffers()], set())]


def _part(name: str, kind: str, tensors: Sequence[torch.Tensor], seen: set[int]) -> Part:
    new = [t for t in dict.fromkeys(tensors) if id(t) not in seen and not is_lazy(t)]
    seen.update(id(tensor) for tensor in new)
    parameters = [tensor for tensor in new if isinstance(tensor, nn.Parameter)]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return Part(
        name=name,
        kind=kind,
        trained=trained,
        frozen=sum(p.numel() for p in parameters) - trained,
        memory=sum(tensor.numel() * tensor.element_size() for tensor in new),
    )


def parameter_table(model: nn.Module, flops: Mapping[str, int] | None = None) -> str:
    """Return a table of the model's parts: parameters and memory, and FLOPs where they are known.

    Args:
        model: The model.
        flops: As :func:`count_flops` returns them.
    """
    parts = model_parts(model)
    head = ["part", "class", "trained", "frozen", "memory", *(["FLOPs"] if flops else [])]
    rows = [head]
    for part in parts:
        row = [part.name, part.kind, f"{part.trained:,}", f"{part.frozen:,}", _memory(part.memory)]
        rows.append([*row, *([magnitude(flops.get(part.name, 0))] if flops else [])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(["", *cells]).rstrip()


def _memory(number: int) -> str:
    scale = min(max(number.bit_length() - 1, 0) // 10, len(_BYTES) - 1)
    return f"{number / 2 ** (10 * scale):.3g} {_BYTES[scale]}"


def magnitude(number: float) -> str:
    """Return a number with three digits and a unit: 1.23 M."""
    scale = 0
    while number >= 999.5 and scale < len(_UNITS) - 1:
        number, scale = number / 1000, scale + 1
    return f"{number:.3g} {_UNITS[scale]}"


def count_flops(model: nn.Module, data_batch: Any, step: str = "val_step") -> dict[str, int]:
    """Count the floating-point operations of one forward of one batch.

    Counted are matrix products, convolutions and attention, a multiply-add as two operations; what
    goes element by element (norms, activations) is not. The model runs in evaluation mode and
    without gradients, so that its weights, its buffers and the random numbers stay as they are.

    Args:
        model: The model.
        data_batch: As the data loader gives it.
        step: The method that is called with the batch.

    Returns:
        The operations of each direct submodule by name, and of the whole model as ``""``.
    """
    model = unwrap(model)
    counter = FlopCounterMode(display=False)
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with isolated_rng(), torch.no_grad(), _unfused(), counter:
            getattr(model, step)(data_batch)
    finally:
        for module, training in was_training.items():
            module.training = training
    return dict(_by_part(model, counter))


@contextmanager
def _unfused() -> Iterator[None]:
    """Run compiled code as it was written, and attention as products of matrices.

    In one fused operation nothing can be counted.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _by_part(model: nn.Module, counter: FlopCounterMode) -> Iterator[tuple[str, int]]:
    counts = counter.get_flop_counts()
    root = type(model).__name__
    for name, _ in model.named_children():
        yield name, sum(counts.get(f"{root}.{name}", {}).values())
    yield "", int(counter.get_total_flops())


def flops_summary(model: nn.Module, data_batch: Any) -> str:
    """Return what one forward of a batch costs, and the table of the model's parts with it."""
    flops = count_flops(model, data_batch)
    told, size = f"Forward of one batch: {magnitude(flops[''])}FLOPs", batch_size(data_batch)
    if size:
        told += f", {magnitude(flops[''] / size)}FLOPs for each of its {size} samples"
    note = "products, convolutions and attention; a multiply-add is two"
    return f"{told} ({note}).\n{parameter_table(model, flops)}"
