"""What hooks ask of their place in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.config.build import is_config
from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner


def path_of(hook: Hook, runner: Runner) -> str:
    """Return where a hook stands in the config, for messages: ``hooks.ema``."""
    names = [name for name, other in runner.hooks.hooks.items() if other is hook]
    return f"hooks.{names[0] if names else type(hook).__name__}"


def is_shortened(runner: Runner) -> bool:
    """Whether the run is cut short on purpose, so that nobody minds what it does not come to."""
    cfg = runner.cfg
    return is_config(cfg) and bool(cfg.get("fast_dev_run") or cfg.get("overfit_batches"))
