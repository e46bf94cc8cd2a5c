"""What a step that went wrong leaves behind: the batch, random state, and where it went wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from trainkit.hooks.replay import Replay, is_finite, tensors_in

if TYPE_CHECKING:
    from trainkit.runner import Runner

_LAST = 50  # values of each scalar
_LISTED = 20  # names of parameters
_MAX_DEPTH = 12
_MAX_INT = 2000  # bits; the safe loader refuses longer numbers
_ATOMS = (bool, float, complex, str, type(None), torch.Size, torch.dtype, torch.device)


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass.

    Args:
        iteration: From 1, as in log lines.
        epoch: From 1.
        batch_idx: Place of the batch in its epoch, from 0; in iteration runs, of the iteration.
        batch: What the data loader gave.
        rng: torch's random states before the pass, of the CPU and of the model's device.
    """

    iteration: int
    epoch: int
    batch_idx: int
    batch: Any
    rng: Mapping[str, torch.Tensor]


@dataclass
class Examination:
    """What there is to say of a refused step, on one rank.

    Args:
        run: The pass that it is about.
        cause: What is not finite, as the subject and verb of a sentence.
        blame: 2: a loss of this rank is not finite; 1: a gradient, which ranks share; 0: none.
        losses: Of the passes of the window, as they were backpropagated.
        grad_norm: 2-norm of the gradients; None where a loss scaler looks after them.
        replay: What the same forward pass showed, made once more.
        is_held: Whether ``run`` is the pass that went wrong; else that one's batch is no longer
            held, and it is the last pass.
        weights: Names of parameters that are not finite.
        gradients: Names of parameters whose gradients are not finite.
    """

    run: Pass
    cause: str
    blame: int
    losses: list[float]
    grad_norm: float | None
    replay: Replay
    is_held: bool = True
    weights: list[str] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)

    def look_at(self, model: nn.Module, *, gradients: bool) -> None:
        """Find the parameters that are not finite themselves, or have such gradients."""
        for name, parameter in model.named_parameters():
            if not is_finite(parameter):
                self.weights.append(name)
            if gradients and parameter.grad is not None and not is_finite(parameter.grad):
                self.gradients.append(name)

    def sentences(self) -> str:
        """Say where it came from, as far as it was found, in words."""
        batch = tensors_in(self.run.batch, "data_batch")
        bad = [path for path, tensor in batch if not is_finite(tensor)]
        found = [
            _listed("The batch itself has NaN or infinity in", bad),
            _listed("Weights are not finite:", self.weights),
            "" if bad else self.replay.sentence(),
        ]
        if not self.is_held:
            found.append("The batch of that pass is no longer held; this is about the last one.")
        if not self.replay.modules and not self.weights:
            found.append(_listed("Not finite are the gradients of", self.gradients))
        return " ".join(text for text in found if text)


def _listed(what: str, names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{what} {', '.join(names[:limit])}{more}." if names else ""


def write(runner: Runner, found: Examination, policy: str, room: float) -> Path:
    """Write ``post_mortem_iter_N.pt`` in the run's directory; return its path.

    ``torch.load(path, weights_only=True)`` reads it.

    Args:
        runner: Its logged scalars are kept, too.
        found: What was found.
        policy: What the run does about it.
        room: MiB that the batch may take.

    Raises:
        OSError: It cannot be written.
    """
    path = runner.work_dir / f"post_mortem_iter_{found.run.iteration}.pt"
    temporary = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    try:
        # A file object, as torch hides the reason where it opens the file itself.
        with temporary.open("wb") as file:
            torch.save(_content(runner, found, policy, room), file)
        temporary.replace(path)
    except RuntimeError as error:  # how torch.save tells of a full disk
        raise OSError(str(error).splitlines()[0]) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _content(runner: Runner, found: Examination, policy: str, room: float) -> dict[str, Any]:
    plain = _Plain(int(room * 2**20))
    batch = plain.of(found.run.batch, "data_batch", 0)
    lr = runner.optim_wrapper.get_lr().items()
    return {
        "iter": found.run.iteration,
        "epoch": found.run.epoch,
        "batch_idx": found.run.batch_idx,
        "rank": runner.rank,
        "seed": runner.seed,
        "policy": policy,
        "cause": found.cause,
        "found": found.sentences(),
        "losses": found.losses,
        "grad_norm": found.grad_norm,
        "lr": {name: [float(value) for value in values] for name, values in lr},
        "batch": batch,
        "is_the_bad_batch": found.is_held,
        "left_out": plain.left_out,
        "rng_before": dict(found.run.rng),
        "modules": found.replay.modules,
        "replay_failed": found.replay.failure,
        "weights": found.weights[:_LISTED],
        "gradients": found.gradients[:_LISTED],
        "history": _history(runner),
    }


def _history(runner: Runner) -> dict[str, list[float]]:
    """Return the last losses, gradient norms and learning rates, oldest first."""
    buffers = runner.message_hub.log_scalars.items()
    wanted = ("loss", "grad_norm", "lr")
    return {
        key: list(buffer.state_dict(_LAST)["values"])
        for key, buffer in buffers
        if key.startswith("train/") and any(part in key for part in wanted)
    }


class _Plain:
    """Turns a batch into tensors and plain data; notes what cannot be, or has no room.

    Args:
        room: Bytes for tensors.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.left_out: list[str] = []

    def of(self, value: Any, path: str, depth: int) -> Any:
        """Return ``value`` as plain data; ``path`` is where it stands in the batch."""
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if type(value) in _ATOMS or (type(value) is int and value.bit_length() < _MAX_INT):
            return value
        if depth >= _MAX_DEPTH:
            return self._without(path, f"nested more than {_MAX_DEPTH} deep")
        if isinstance(value, Mapping):
            return {
                key if isinstance(key, str | int) else str(key): self.of(
                    item, f"{path}[{key!r}]", depth + 1
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.of(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
        return self._object(value, path, depth)

    def _object(self, value: Any, path: str, depth: int) -> Any:
        """Return an array as a tensor, and any other object as its attributes."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            array = np.asarray(value)
            if array.dtype.kind in "biufc":
                return self._tensor(torch.from_numpy(np.array(array, ndmin=1)), path)
            return self._without(path, f"{kind} of {array.dtype}")
        if isinstance(value, bytes | str) or not hasattr(value, "__dict__"):
            return self._without(path, kind)
        named = vars(value)
        if is_dataclass(value):
            named = {item.name: getattr(value, item.name) for item in fields(value)}
        return {"class": kind} | {
            str(key): self.of(item, f"{path}.{key}", depth + 1) for key, item in named.items()
        }

    def _tensor(self, tensor: torch.Tensor, path: str) -> Any:
        kind = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            return self._without(path, f"tensor of another kind: {kind}")
        size = tensor.numel() * tensor.element_size()
        if size > self.room:
            return self._without(path, f"no room for {kind}, {size / 2**20:.1f} MiB")
        self.room -= size
        # Its own memory: torch.save writes the whole of what a tensor is a view of.
        return tensor.detach().as_subclass(torch.Tensor).cpu().clone()

    def _without(self, path: str, why: str) -> str:
        self.left_out.append(f"{path}: {why}")
        return f"left out: {why}"
