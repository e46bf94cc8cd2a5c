"""A train step's forward pass, made once more to see which module goes wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainkit.model.wrap import unwrap
from trainkit.seed import isolated_rng

if TYPE_CHECKING:
    from trainkit.runner import Runner

_MOST = 8  # modules that are told of


@dataclass
class Replay:
    """What a second forward pass showed.

    Args:
        modules: Those with NaN or infinity in their output, in the order in which they finished:
            name, class, and whether their input was finite.
        failure: Why it could not be made; empty if it could.
    """

    modules: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""

    def sentence(self) -> str:
        """Say which module was the first."""
        if self.failure:
            return f"The forward pass could not be made once more: {self.failure}."
        if not self.modules:
            return "Made once more, the forward pass is finite in every module."
        first = self.modules[0]
        name = first["name"] or "the model itself"
        text = f"The first module whose output is not finite is {name} ({first['class']})"
        return f"{text}, whose input {'is' if first['input_is_finite'] else 'is not either'}."


def replay(runner: Runner, batch: Any, rng: Mapping[str, torch.Tensor]) -> Replay:
    """Make the forward passes of ``train_step`` again under the random state of then.

    No gradient is computed, no update is made, and random states and buffers are as before
    afterwards. Every rank calls it, as layers may talk to other ranks; what is compiled runs
    eagerly.
    """
    model, found = unwrap(runner.model), Replay()
    handles = [
        module.register_forward_hook(_looker(found, name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    kept = Buffers(model)
    try:
        with isolated_rng(), torch.compiler.set_stance("force_eager"):
            _set_torch_rng(rng, runner.device)
            train_step: Any = model.train_step
            train_step(batch, _Idle(runner.optim_wrapper))
    except Exception as error:  # of the user's code, in a situation that it was not written for
        found.failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        kept.put_back()
        for handle in handles:
            handle.remove()
    return found


def _looker(found: Replay, name: str) -> Any:
    def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if len(found.modules) < _MOST and not all_finite(output):
            entry = {"name": name, "class": type(module).__name__}
            found.modules.append({**entry, "input_is_finite": all_finite((args, kwargs))})

    return look


class _Idle:
    """An optimizer wrapper with which nothing is learnt; else it is as its original."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def __getitem__(self, name: str) -> _Idle:
        return _Idle(self._own[name])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)

    def values(self) -> list[_Idle]:
        return [_Idle(wrapper) for wrapper in self._own.values()]

    def items(self) -> list[tuple[str, _Idle]]:
        return [(name, _Idle(wrapper)) for name, wrapper in self._own.items()]

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        pass

    update_params = backward = step = zero_grad = clip_gradients = end_window = _nothing


class Buffers:
    """A copy of a model's buffers, such as the running statistics of batch norms."""

    def __init__(self, model: nn.Module) -> None:
        self._owners = [
            m for m in model.modules() if next(m.buffers(recurse=False), None) is not None
        ]
        self._kept: list[torch.Tensor] = []
        self.take()

    def take(self) -> None:
        """Copy the buffers as they are now."""
        now = self._now()
        same = len(now) == len(self._kept) and all(
            a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
            for a, b in zip(now, self._kept, strict=True)
        )
        if not same:
            self._kept = [buffer.detach().clone() for buffer in now]
        elif now:
            torch._foreach_copy_(self._kept, now)

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the buffers the values of then; one that has another shape by now is left."""
        for buffer, kept in zip(self._now(), self._kept, strict=False):
            if buffer.shape == kept.shape:
                buffer.copy_(kept)

    def _now(self) -> list[torch.Tensor]:
        return [buffer for module in self._owners for buffer in module.buffers(recurse=False)]


def all_finite(value: Any) -> bool:
    """Whether no tensor in a value has NaN or infinity in it."""
    return all(is_finite(tensor) for _, tensor in tensors_in(value))


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity in it."""
    values = tensor.detach()
    if values.layout is torch.sparse_coo:
        values = values.coalesce().values()
    if values.layout is not torch.strided or values.is_quantized or values.is_meta:
        return True  # not looked at
    return bool(torch.isfinite(values).all())


def tensors_in(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors in mappings, lists and dataclasses, each with where it stands."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from tensors_in(item, f"{path}[{index}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            yield from tensors_in(getattr(value, item.name, None), f"{path}.{item.name}")


def torch_rng(device: torch.device) -> dict[str, torch.Tensor]:
    """Return torch's random states, of the CPU and of ``device``; it takes microseconds."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def _set_torch_rng(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
