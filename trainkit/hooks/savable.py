"""What is saved must be plain: found before training, where the state is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainkit.checkpoint import check_plain

if TYPE_CHECKING:
    from trainkit.runner import Runner


def check_savable(runner: Runner) -> None:
    """Raise if a hook, a schedule or the message hub has state that could not be loaded back.

    Each save looks at everything again. Here it costs no trained epoch.

    Raises:
        CheckpointError: It names the value by its key path.
    """
    for name, hook in runner.hooks.hooks.items():
        try:
            state: Any = hook.state_dict()
        except Exception:  # it may have none before the first step; a save tells
            continue
        check_plain(state, f"state.hooks.{name}")
    for index, scheduler in enumerate(runner.param_schedulers):
        check_plain(scheduler.state_dict(), f"state.param_schedulers[{index}].state")
    check_plain(runner.message_hub.state_dict(), "state.message_hub")
