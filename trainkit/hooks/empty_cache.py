"""Give memory back to the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner


class EmptyCacheHook(Hook):
    """Free what the accelerator's allocator holds but does not use, in all modes.

    It helps where other processes share the device, or where validation needs blocks of other sizes
    than training. It costs time, since the blocks are asked for again; on the CPU it does nothing.

    Args:
        before_epoch: Before each epoch, validation and test.
        after_epoch: After each epoch, validation and test.
        after_iter: After each iteration.
    """

    priority = "NORMAL"

    def __init__(
        self, before_epoch: bool = False, after_epoch: bool = True, after_iter: bool = False
    ) -> None:
        self.before_epoch, self.after_epoch, self.after_iter = before_epoch, after_epoch, after_iter

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
        if self.before_epoch:
            _empty_cache(runner.device)

    def _after_epoch(self, runner: Runner, mode: str = "train") -> None:
        if self.after_epoch:
            _empty_cache(runner.device)

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> None:
        if self.after_iter:
            _empty_cache(runner.device)


def _empty_cache(device: torch.device) -> None:
    if device.type != "cpu" and torch.accelerator.is_available():
        torch.accelerator.empty_cache()
