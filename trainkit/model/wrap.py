"""Changes to a whole model: wrappers off, plain batch norm, activations computed twice."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from trainkit.errors import ConfigError, did_you_mean

# Those of torch, and all that is derived from them, have their model as `module`.
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_MARK = "_wraps_the_model"


def mark_wrapper(wrapper: nn.Module) -> None:
    """Have :func:`unwrap` know a module of any class for a wrapper of its ``module``."""
    wrapper.__dict__[_MARK] = True


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper such as ``DistributedDataParallel``, or itself.

    Wrappers are known by their class or were marked; a part called ``module`` makes none.
    """
    is_wrapper = isinstance(model, _WRAPPERS) or _MARK in model.__dict__
    inner = getattr(model, "module", None) if is_wrapper else None
    return unwrap(inner) if isinstance(inner, nn.Module) else model


def convert_sync_batchnorm(model: nn.Module) -> nn.Module:
    """Replace every batch norm by a ``SyncBatchNorm``, with statistics over all ranks."""
    return _replaced(model, nn.modules.batchnorm._BatchNorm, nn.SyncBatchNorm, {})


def revert_sync_batchnorm(model: nn.Module) -> nn.Module:
    """Replace every ``SyncBatchNorm`` by one that works without a process group."""
    return _replaced(model, nn.SyncBatchNorm, _AnyBatchNorm, {})


class _AnyBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm for inputs of any rank: which of the three it replaced is not known."""

    def _check_input_dim(self, input: object) -> None:
        pass


def _replaced(
    module: nn.Module,
    old: type[nn.Module],
    new: type[nn.modules.batchnorm._BatchNorm],
    done: dict[nn.Module, nn.Module],
) -> nn.Module:
    """Return ``module`` with each ``old`` in it, or itself, as a ``new``: once, if it is shared."""
    if module not in done:
        done[module] = module
        if isinstance(module, old) and not isinstance(module, new):
            done[module] = _as_kind(module, new)
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = _replaced(child, old, new, done)
    return done[module]


def _as_kind(norm: Any, kind: type[nn.modules.batchnorm._BatchNorm]) -> nn.Module:
    """Return a batch norm of another kind over the very same tensors, with the same hooks."""
    made = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    # Device, type, what is frozen and the mode stay as they are.
    made.__dict__.update({k: v for k, v in norm.__dict__.items() if k != "process_group"})
    return made


def checkpoint_activations(model: nn.Module, names: str | Sequence[str]) -> None:
    """Make submodules compute their activations again in backward instead of keeping them.

    Non-reentrant, so a module whose input needs no gradient works (the first block of a network).
    The second time, dropout draws the same, and batch norm leaves its running statistics; whatever
    else a module counts or keeps in its forward, it does twice.

    Raises:
        ConfigError: The model has no submodule of a name.
    """
    modules = dict(model.named_modules())
    for name in [names] if isinstance(names, str) else names:
        if name not in modules or not name:
            raise ConfigError(
                f"activation_checkpointing names {name!r}, which {type(model).__name__} does not "
                "have. "
                f"{did_you_mean(name, filter(None, modules))}"
            )
        module = modules[name]
        if not isinstance(module.forward, _Checkpointed):
            module.forward = _Checkpointed(module)


def has_checkpointed(model: nn.Module) -> bool:
    """Whether a submodule computes its activations again in backward."""
    return any(isinstance(module.forward, _Checkpointed) for module in model.modules())


class _Checkpointed:
    """A module's forward that keeps no activations."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.own = module.__dict__.get("forward")  # of the module, not of its class

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        named = tuple(kwargs)

        def forward(*values: Any) -> Any:
            count = len(values) - len(named)
            return self._forward(*values[:count], **dict(zip(named, values[count:], strict=True)))

        # By position, else torch would not save the random state of a tensor's device.
        values = (*args, *kwargs.values())
        if torch.compiler.is_compiling():  # the compiler runs no context, and updates nothing twice
            return checkpoint(forward, *values, use_reentrant=False)
        contexts = functools.partial(_contexts, self.module)
        return checkpoint(forward, *values, use_reentrant=False, context_fn=contexts)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.own is not None:
            return self.own(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], _StillStatistics]:
    """Return the contexts of the first forward pass and of the second."""
    return nullcontext(), _StillStatistics(module)


class _StillStatistics:
    """Keep the running statistics of batch norm meanwhile.

    They are written with momentum 0: without them torch would save other tensors than before.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.kept: list[tuple[Any, float | None, torch.Tensor | None]] = []

    def __enter__(self) -> None:
        for norm in self.module.modules():
            if isinstance(norm, nn.modules.batchnorm._NormBase):
                counter = norm.num_batches_tracked
                self.kept.append(
                    (norm, norm.momentum, None if counter is None else counter.clone())
                )
                norm.momentum = 0.0

    def __exit__(self, *error: object) -> None:
        for norm, momentum, counter in self.kept:
            norm.momentum = momentum
            if counter is not None:
                norm.num_batches_tracked.copy_(counter)
        self.kept.clear()
