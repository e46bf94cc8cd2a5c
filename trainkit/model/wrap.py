"""Changes to a whole model: wrappers off, plain batch norm, activations computed twice."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from torch import nn
from torch.utils.checkpoint import checkpoint

from trainkit.errors import ConfigError, did_you_mean


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper such as ``DistributedDataParallel``, or itself.

    A wrapper has its model as ``module`` and no weights of its own beside it.
    """
    inner = getattr(model, "module", None)
    alone = [name for name, _ in model.named_children()] == ["module"]
    if isinstance(inner, nn.Module) and alone and not list(model.parameters(recurse=False)):
        return inner
    return model


def revert_sync_batchnorm(model: nn.Module) -> nn.Module:
    """Replace every ``SyncBatchNorm`` by one that works without a process group."""
    if isinstance(model, nn.SyncBatchNorm):
        return _plain_batchnorm(model)
    for name, child in model.named_children():
        setattr(model, name, revert_sync_batchnorm(child))
    return model


class _AnyBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm for inputs of any rank: which of the three it replaced is not known."""

    def _check_input_dim(self, input: object) -> None:
        pass


def _plain_batchnorm(sync: nn.SyncBatchNorm) -> nn.Module:
    plain = _AnyBatchNorm(
        sync.num_features, sync.eps, sync.momentum, sync.affine, sync.track_running_stats
    )
    # The very same tensors: device, type and what is frozen stay as they are.
    plain._parameters, plain._buffers = sync._parameters, sync._buffers
    plain.train(sync.training)
    return plain


def checkpoint_activations(model: nn.Module, names: str | Sequence[str]) -> None:
    """Make submodules compute their activations again in backward instead of keeping them.

    Non-reentrant, so a module whose input needs no gradient works (the first block of a network).

    Raises:
        ConfigError: The model has no submodule of a name.
    """
    modules = dict(model.named_modules())
    for name in [names] if isinstance(names, str) else names:
        if name not in modules:
            raise ConfigError(
                f"activation_checkpointing names {name!r}, which {type(model).__name__} does not "
                "have. "
                f"{did_you_mean(name, filter(None, modules))}"
            )
        module = modules[name]
        module.forward = functools.partial(checkpoint, module.forward, use_reentrant=False)
