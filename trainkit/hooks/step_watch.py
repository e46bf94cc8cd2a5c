"""What a guard sees of one optimizer's steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import get_total_norm

from trainkit.dist import holds_everywhere, is_distributed
from trainkit.errors import ConfigError
from trainkit.hooks.place import path_of
from trainkit.hooks.post_mortem import Examination
from trainkit.hooks.replay import replay
from trainkit.model.wrap import unwrap
from trainkit.optim_wrapper import OptimWrapper

if TYPE_CHECKING:
    from trainkit.hooks.nan_guard import NanGuardHook
    from trainkit.runner import Runner


class StepWatch:
    """Looks at the losses and gradients of one optimizer wrapper, before its updates.

    Args:
        hook: Told of updates that are made, and decides about those that must not be.
        runner: The run.
        name: The optimizer's, where there are several.
        wrapper: The wrapper.
    """

    def __init__(
        self, hook: NanGuardHook, runner: Runner, name: str, wrapper: OptimWrapper
    ) -> None:
        self.hook, self.runner, self.name, self.wrapper = hook, runner, name, wrapper
        self._losses: list[torch.Tensor] = []  # of the window
        self._updates = 0  # that there can be

    def begin(self, losses: Sequence[float]) -> None:
        """Be asked from now on.

        Args:
            losses: Of the passes of a window that a resume goes on in.
        """
        self._losses = [torch.tensor(loss) for loss in losses]
        self.wrapper.guard = self
        self._updates = self.wrapper.update_count

    def end(self) -> None:
        """Be asked no longer."""
        self.wrapper.guard = None

    def open_losses(self) -> list[float]:
        """Return the losses of the window that is open."""
        return [float(loss) for loss in self._losses]

    def see_loss(self, loss: torch.Tensor) -> None:
        """Keep a loss, without waiting for the device."""
        value = loss.detach()
        self._losses.append(value if value.dim() == 0 else value.sum())

    def allows_step(self, gradients_count: bool) -> bool:
        """Whether losses and gradients are finite on every rank."""
        norm = self._norm() if gradients_count else None
        if norm is not None:
            self.wrapper.grad_norm = norm
        losses, self._losses = self._losses, []
        if _are_finite([*losses, *([] if norm is None else [norm])], self.runner.device):
            self.hook.made_update()
            self._updates += 1
            return True
        numbers = [float(loss) for loss in losses]
        self.hook.refuse(self.runner, self._examine(numbers, None if norm is None else float(norm)))
        return False

    def check_asked(self) -> None:
        """Raise if there was an update that nobody asked for.

        Raises:
            ConfigError: The wrapper is of a class with a ``step()`` of its own, which does not ask.
        """
        if self.wrapper.update_count > self._updates:
            kind = type(self.wrapper).__name__
            raise ConfigError(
                f"{path_of(self.hook, self.runner)} cannot guard {kind}, whose step() does not "
                "ask. Begin it with: if not self.may_step(): return"
            )

    def _norm(self) -> torch.Tensor | None:
        """Return the 2-norm of all gradients."""
        groups = self.wrapper.optimizer.param_groups
        found = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        return get_total_norm([_values(gradient) for gradient in found]) if found else None

    def _examine(self, losses: list[float], norm: float | None) -> Examination:
        passes = self.hook.passes
        bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        back = 1 if bad is None else len(losses) - bad
        is_held = back <= len(passes)
        run = passes[-back if is_held else -1]
        cause = _cause(losses, bad, norm)
        whose = f" of the optimizer {self.name!r}" if self.name else ""
        blame = 2 if bad is not None else int(norm is not None and not math.isfinite(norm))
        shown = replay(self.runner, run.batch, run.rng)
        found = Examination(run, f"{cause}{whose}", blame, losses, norm, shown, is_held)
        found.look_at(unwrap(self.runner.model), gradients=norm is not None)
        return found


def _cause(losses: list[float], bad: int | None, norm: float | None) -> str:
    if bad is not None:
        which = f", in pass {bad + 1} of {len(losses)} of its window" if len(losses) > 1 else ""
        return f"the loss is {losses[bad]}{which}"
    return f"the gradient norm is {norm} (the loss is {losses[-1] if losses else None})"


def _are_finite(values: list[torch.Tensor], device: torch.device) -> bool:
    """Whether values of one element are finite on all ranks; the device is waited for once."""
    one = torch.stack([v.to(device) for v in values]) if values else torch.zeros(1, device=device)
    if is_distributed():
        return holds_everywhere(torch.isfinite(one).all())
    return all(map(math.isfinite, one.tolist()))


def _values(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.coalesce().values() if gradient.layout is torch.sparse_coo else gradient
