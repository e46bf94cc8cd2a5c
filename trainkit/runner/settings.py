"""Values that a config gives and a checkpoint remembers, and whose of them hold on a resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainkit.checkpoint import check_plain
from trainkit.errors import CheckpointError, ConfigError, did_you_mean
from trainkit.optim_wrapper import adopt
from trainkit.param_scheduler import ParamScheduler, chain
from trainkit.runner.optim import iterations_of

if TYPE_CHECKING:
    from trainkit.runner.runner import Runner

CHOICES = ("config", "checkpoint")
# What a scheduler is for and where it stands; the rest of it are its settings.
_NO_SETTINGS = frozenset({"optimizer", "before", "last", "last_step"})
_KIND = ("param_name", "monitor", "unit")


def check_resume_with(value: Any) -> Literal["config", "checkpoint"]:
    """Return ``resume_with``.

    Raises:
        ConfigError: It is neither of the two.
    """
    if value not in CHOICES:
        near = did_you_mean(str(value), CHOICES)
        raise ConfigError(f"resume_with is {value!r}. {near}")
    chosen: Literal["config", "checkpoint"] = value
    return chosen


def scheduler_settings(scheduler: ParamScheduler) -> dict[str, Any]:
    """Return the public values of a scheduler, as far as a checkpoint can hold them."""
    found = {"unit": scheduler.unit}
    for name, value in vars(scheduler).items():
        if name.startswith("_") or name in _NO_SETTINGS:
            continue
        try:
            check_plain(value)
        except CheckpointError:
            continue
        found[name] = value
    return found


def take_settings(runner: Runner, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Have the checkpoint's settings hold: of the loop's end, the optimizers and the schedulers.

    Raises:
        CheckpointError: They are those of other optimizers or schedulers than the config has.
    """
    saved = checkpoint.get("param_schedulers", [])
    _check_schedulers(runner.param_schedulers, saved, path)
    _take_end(runner, checkpoint.get("end"))
    try:
        adopt(runner.optim_wrapper, checkpoint["optimizer"])
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"resume_with is 'checkpoint', but the optimizer of {path} is another: {error}. Resume "
            "with the config's values: resume_with=config."
        ) from None
    for index, (scheduler, entry) in enumerate(zip(runner.param_schedulers, saved, strict=True)):
        for name, value in entry.get("settings", {}).items():
            mine = getattr(scheduler, name)
            if name in _KIND or mine == value:
                continue
            runner.logger.info(
                "%s of %s (%d): the checkpoint's %s, not the config's %s.",
                *(name, type(scheduler).__name__, index, value, mine),
            )
            setattr(scheduler, name, value)
    chain(runner.param_schedulers, lambda each: iterations_of(each, runner.train_loop))


def _check_schedulers(own: Sequence[ParamScheduler], saved: Sequence[Any], path: Path) -> None:
    kinds = [_kind(type(s).__name__, scheduler_settings(s)) for s in own]
    theirs = [_kind(entry["class"], entry.get("settings", {})) for entry in saved]
    if kinds != theirs:
        raise CheckpointError(
            f"resume_with is 'checkpoint', but {path} has the schedulers "
            f"{', '.join(theirs) or 'none'}, and the config {', '.join(kinds) or 'none'}. "
            "Configure the same ones, whatever their values, or resume_with=config."
        )


def _kind(name: str, settings: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(str(settings[key]) for key in _KIND if key in settings)})"


def _take_end(runner: Runner, end: Any) -> None:
    loop = runner.train_loop
    if end is None or not hasattr(loop, "end_at"):
        return
    if end["by_epoch"] != loop.by_epoch:
        raise CheckpointError(
            "resume_with is 'checkpoint', but its run counted "
            f"{'epochs' if end['by_epoch'] else 'iterations'}, and the config's does not."
        )
    if end["last"] != loop.last:
        runner.logger.info(
            "The run ends at %d %s, as the checkpoint says, not at the config's %d.",
            *(end["last"], "epochs" if loop.by_epoch else "iterations", loop.last),
        )
        loop.end_at(end["last"])
