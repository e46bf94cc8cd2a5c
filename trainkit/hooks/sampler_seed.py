"""Give every epoch an order of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.dataloader import set_epoch
from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner


class DistSamplerSeedHook(Hook):
    """Tell the training sampler the epoch: a new order in each, the same on all ranks."""

    priority = "NORMAL"

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the sampler's epoch."""
        set_epoch(runner.train_dataloader, runner.epoch)
