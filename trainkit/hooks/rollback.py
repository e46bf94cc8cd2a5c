"""Going back to the weights of a checkpoint, while training goes on with the next batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.checkpoint import find_latest, read_manifest
from trainkit.dist import broadcast_object, is_main_process
from trainkit.errors import CheckpointError
from trainkit.optim_wrapper import OptimWrapper, OptimWrapperDict

if TYPE_CHECKING:
    from trainkit.runner import Runner


def wrappers_of(runner: Runner) -> dict[str, OptimWrapper]:
    """Return the run's optimizer wrappers by name; one alone has no name."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {"": wrapper}


def go_back(runner: Runner) -> tuple[Path, int]:
    """Take weights, their average and the optimizer's state from the newest finite checkpoint.

    Everything that counts goes on: iterations, epochs, updates, the place in the data, random
    numbers, learning rates, logs. So the updates since the checkpoint are as if never made.

    Returns:
        The checkpoint, and its iteration.

    Raises:
        CheckpointError: There is none to go back to.
    """
    runner.checkpoint_writer.settle(wait=True)
    path, problem = broadcast_object(_newest(runner) if is_main_process() else None)
    if path is None:
        raise CheckpointError(problem)
    runner.is_resuming = True  # so that an average of the weights is taken back as well
    try:
        checkpoint = runner.load_checkpoint(path, strict=True)
    finally:
        runner.is_resuming = False
    if "optimizer" not in checkpoint:
        raise CheckpointError(f"{path} holds no state of the optimizer to go back to.")
    several = isinstance(runner.optim_wrapper, OptimWrapperDict)
    for name, wrapper in wrappers_of(runner).items():
        saved = checkpoint["optimizer"][name] if several else checkpoint["optimizer"]
        _take_state(wrapper, saved)
    return path, int(checkpoint["meta"]["iter"])


def _newest(runner: Runner) -> tuple[Path | None, str]:
    try:
        # Not one where the run was asked to end: without that, it would not be there.
        path, problems = find_latest(runner.checkpoint_dir, own=False, scheduled=True)
    except CheckpointError as error:
        return None, str(error)
    if path is None:
        return None, f"There is no checkpoint in {runner.checkpoint_dir} yet."
    if read_manifest(path).get("non_finite"):
        return None, f"No checkpoint in {runner.checkpoint_dir} is finite. {' '.join(problems)}"
    return path, ""


def _take_state(wrapper: OptimWrapper, saved: Mapping[str, Any]) -> None:
    """Load an optimizer's state, but neither its counters nor what schedules have set since."""
    counts = wrapper.inner_count, wrapper.update_count
    now = [{k: v for k, v in group.items() if k != "params"} for group in wrapper.param_groups]
    wrapper.load_state_dict(saved)
    for group, values in zip(wrapper.param_groups, now, strict=True):
        group.update(values)
    wrapper.inner_count, wrapper.update_count = counts
    wrapper.zero_grad()
    wrapper.end_window(updated=False)


def no_way_back(path: str) -> str:
    """Return what is wrong with a guard at ``path`` in a run that saves too little."""
    return (
        f"{path}.policy is 'rollback', which goes back to a checkpoint, but the run saves none "
        "with the optimizer's state before its end. Give hooks.checkpoint an interval, and "
        "save_optimizer=true; or choose policy=skip."
    )
