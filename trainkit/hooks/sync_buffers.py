"""Make the buffers of all ranks the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.distributed as torch_dist

from trainkit.dist import get_world_size, is_distributed
from trainkit.hook import Hook
from trainkit.model import unwrap

if TYPE_CHECKING:
    from trainkit.runner import Runner


class SyncBuffersHook(Hook):
    """Average the floating-point buffers over the ranks, such as the statistics of batch norms.

    After each training epoch, and before a validation that comes without one. In one process it
    does nothing.
    """

    priority = "NORMAL"

    def __init__(self) -> None:
        self._synced = False  # since the end of the last epoch

    def after_train_epoch(self, runner: Runner) -> None:
        """Average them, so that a checkpoint holds what is validated next."""
        average_buffers(unwrap(runner.model).buffers())
        self._synced = True

    def before_val_epoch(self, runner: Runner) -> None:
        """Average them, unless that has just been done."""
        if not self._synced:
            average_buffers(unwrap(runner.model).buffers())
        self._synced = False


@torch.no_grad()
def average_buffers(buffers: Iterable[torch.Tensor]) -> None:
    """Replace each floating-point tensor by its mean over the ranks, which all call this."""
    if not is_distributed():
        return
    groups: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for buffer in buffers:
        if buffer.is_floating_point() and buffer.numel():
            groups.setdefault((buffer.device, buffer.dtype), []).append(buffer)
    for group in groups.values():  # one message for each device and type
        flat = torch.cat([buffer.reshape(-1) for buffer in group])
        torch_dist.all_reduce(flat)
        flat /= get_world_size()
        parts = torch.split(flat, [buffer.numel() for buffer in group])
        for buffer, mean in zip(group, parts, strict=True):
            buffer.copy_(mean.view_as(buffer))
