"""DistributedDataParallel: gradients averaged over the ranks, whatever the model's train step."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import nn

from trainkit.dist import all_gather_object, get_rank, get_world_size

logger = logging.getLogger(__name__)

_UNFINISHED = "Expected to have finished reduction in the prior iteration"
_INDICES = re.compile(r"did not receive grad for rank \d+: ([\d ]+)")
_SHOWN = 10  # names in a message
# What torch calls broadcast_buffers, which since 2.13 warns.
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(nn.parallel.DistributedDataParallel).parameters
)


class DistributedDataParallel(nn.parallel.DistributedDataParallel):
    """torch's ``DistributedDataParallel`` of a model that has steps of its own.

    ``train_step`` is the model's. Each ``self(...)`` in it goes by way of this wrapper, so that the
    backward pass averages the gradients over the ranks; what computes a loss from a submodule alone
    does not, and is refused. ``val_step``, ``test_step`` and all else are the model's too.

    Args:
        module: The model, on its device.
        find_unused_parameters: Look in each forward pass for parameters that get no gradient. Where
            there are some and this is false, the first step raises and names them.
        broadcast_buffers: Copy rank 0's buffers to all ranks before each forward pass.
        static_graph: The same parameters are used in each step; see torch.
        gradient_as_bucket_view: Gradients share memory with what the ranks exchange; see torch.
        bucket_cap_mb: Megabytes that are exchanged at once; None: torch's choice.
        detect_anomalous_params: Log which parameters got no gradient, in any step.
    """

    def __init__(
        self,
        module: nn.Module,
        find_unused_parameters: bool = False,
        broadcast_buffers: bool = False,
        static_graph: bool = False,
        gradient_as_bucket_view: bool = False,
        bucket_cap_mb: int | None = None,
        detect_anomalous_params: bool = False,
    ) -> None:
        device = next(p.device for p in module.parameters() if p.requires_grad)
        buffers: dict[str, Any] = {_SYNC_BUFFERS: broadcast_buffers}
        super().__init__(
            module,
            device_ids=[device.index or 0] if device.type == "cuda" else None,
            find_unused_parameters=find_unused_parameters,
            **buffers,
            static_graph=static_graph,
            gradient_as_bucket_view=gradient_as_bucket_view,
            bucket_cap_mb=bucket_cap_mb,
        )
        self.detect_anomalous_params = detect_anomalous_params
        self._steps = 0

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module" or name.startswith("_"):
                raise
            return getattr(self.module, name)

    @property
    def train_step(self) -> Callable[..., Any]:
        """The model's train step, by way of this wrapper."""
        return functools.partial(self._train_step, self.module.train_step)

    def _train_step(self, step: Callable[..., Any], data: Any, optim_wrapper: Any) -> Any:
        self._steps += 1
        watched = self._steps == 1 or self.detect_anomalous_params
        with self._redirected(), self._translated(), _Gradients(self._trained, watched) as seen:
            outputs = step(data, optim_wrapper)
        if self._steps & (self._steps - 1) == 0:  # the first, the second, the fourth ...
            self._check(seen.missing)
        if self.detect_anomalous_params and seen.missing:
            logger.warning("No gradient in this step for: %s.", _some(seen.missing))
        return outputs

    @contextlib.contextmanager
    def _redirected(self) -> Iterator[None]:
        """Have a call of the model go to this wrapper, and ``no_sync`` be found at the model.

        ``_compiled_call_impl`` is what ``nn.Module.compile()`` sets: what a call of this very
        module does instead of its forward and hooks. In the wrapper's own call it is as it was.
        """
        model: Any = self.module
        own = model._compiled_call_impl

        def call(*args: Any, **kwargs: Any) -> Any:
            model._compiled_call_impl = own
            try:
                return self(*args, **kwargs)
            finally:
                model._compiled_call_impl = call

        model._compiled_call_impl, model.__dict__["no_sync"] = call, self.no_sync
        try:
            yield
        finally:
            model._compiled_call_impl = own
            del model.__dict__["no_sync"]

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Have torch's error of unused parameters tell their names, and what to set here."""
        try:
            yield
        except RuntimeError as error:
            if _UNFINISHED not in str(error):
                raise
            found = _INDICES.search(str(error))
            names = list(self._trained)
            missing = [names[int(i)] for i in found[1].split()] if found else []
            raise RuntimeError(self._unused({get_rank(): missing})) from error

    @property
    def _trained(self) -> dict[str, nn.Parameter]:
        """The parameters that get gradients, in torch's order."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def _check(self, missing: list[str]) -> None:
        """Raise, on every rank alike, if gradients were not averaged.

        After averaging, the weights of all ranks are the same bits. This costs a few messages, in
        the first step and then ever more rarely.
        """
        by_rank = dict(enumerate(all_gather_object(missing)))
        if any(by_rank.values()) and not self.find_unused_parameters:
            raise RuntimeError(self._unused(by_rank))
        differing = _differing(self._trained)
        if differing:
            raise RuntimeError(
                f"The ranks' weights differ after step {self._steps} ({_some(differing)}): their "
                f"gradients were not averaged. {type(self.module).__name__}.train_step must "
                "compute what it backpropagates by self(...), the model's forward, not by a "
                "submodule alone; a train step that trains parts in turn needs "
                "find_unused_parameters=true."
            )

    def _unused(self, missing: dict[int, list[str]]) -> str:
        told = "; ".join(f"on rank {rank} {_some(names)}" for rank, names in missing.items())
        return (
            f"Parameters of {type(self.module).__name__} got no gradient: {told}. The ranks "
            "cannot average what they do not all have. Set find_unused_parameters=true, or freeze "
            "them (requires_grad_(False))."
        )


class _Gradients:
    """Note meanwhile which parameters get a gradient.

    Args:
        parameters: By name.
        watched: False: note nothing.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], watched: bool) -> None:
        self.parameters = parameters if watched else {}
        self._seen: set[int] = set()
        self._handles: list[Any] = []

    def __enter__(self) -> _Gradients:
        seen = self._seen
        for parameter in self.parameters.values():
            tensor: Any = parameter  # whose method torch leaves untyped
            handle = tensor.register_post_accumulate_grad_hook(lambda p: seen.add(id(p)))
            self._handles.append(handle)
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def missing(self) -> list[str]:
        """The names of those that got none."""
        return [name for name, p in self.parameters.items() if id(p) not in self._seen]


@torch.no_grad()
def broadcast_weights(model: nn.Module) -> None:
    """Give every rank rank 0's parameters and buffers."""
    if get_world_size() > 1:
        for tensor in [*model.parameters(), *model.buffers()]:
            torch_dist.broadcast(tensor.data, src=0)


@torch.no_grad()
def _differing(parameters: dict[str, nn.Parameter]) -> list[str]:
    """Return the names of parameters that are not the same on all ranks, by their sums."""
    sums = torch.stack([p.detach().double().sum().nan_to_num() for p in parameters.values()])
    least, most = sums.clone(), sums.clone()
    torch_dist.all_reduce(least, op=torch_dist.ReduceOp.MIN)
    torch_dist.all_reduce(most, op=torch_dist.ReduceOp.MAX)
    return [
        name for name, same in zip(parameters, (least == most).tolist(), strict=True) if not same
    ]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN]) or 'none'}{more}"
