"""StepGuard: who may refuse an update."""

from __future__ import annotations

from typing import Protocol

import torch


class StepGuard(Protocol):
    """What an OptimWrapper asks before it steps; a hook puts it in the wrapper's ``guard``."""

    def see_loss(self, loss: torch.Tensor) -> None:
        """Take a loss that is about to be backpropagated: divided by its window, not yet scaled."""

    def allows_step(self, gradients_count: bool) -> bool:
        """Return whether the window may end in a step; gradients are not clipped yet.

        Args:
            gradients_count: False where a loss scaler skips non-finite gradients as its daily work,
                and they are still scaled.
        """
