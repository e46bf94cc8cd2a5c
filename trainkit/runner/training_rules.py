"""Rules between the parts that train: averages, checkpoints, schedules and optimizers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

from trainkit.config.findings import Finding
from trainkit.hooks import CheckpointHook, EMAHook
from trainkit.hooks.checkpoint_options import counts_no_epochs
from trainkit.hooks.ema import several_averages
from trainkit.optim_wrapper import bare
from trainkit.runner.checked import Config
from trainkit.runner.optim import misnamed, scales_nothing


def averages(config: Config) -> Iterator[Finding]:
    """A model is evaluated with one average of its weights."""
    paths = [path for path, node in config.below("hooks") if _is_a(node.target, EMAHook)]
    if len(paths) > 1:
        yield Finding(paths[1], several_averages(paths))


def checkpoint_unit(config: Config) -> Iterator[Finding]:
    """Checkpoints by epoch need a loop that counts epochs."""
    loop = config.nodes.get("train_cfg")
    if loop is None or getattr(loop.target, "by_epoch", True) is not False:
        return
    for path, node in config.below("hooks"):
        if _is_a(node.target, CheckpointHook) and node.arguments.get("by_epoch") is True:
            yield Finding(f"{path}.by_epoch", counts_no_epochs(path))


def scaled_schedules(config: Config) -> Iterator[Finding]:
    """What ``auto_scale_lr`` scales, the schedules must start from."""
    options = config.plain.get("auto_scale_lr")
    if not isinstance(options, Mapping) or options.get("enable") is not True:
        return
    for _, node in config.below("param_scheduler"):
        if getattr(node.target, "ignores_base", False):
            kind = getattr(node.target, "__name__", "")
            yield Finding("auto_scale_lr.enable", scales_nothing("auto_scale_lr", kind))
            return


def optimizer_names(config: Config) -> Iterator[Finding]:
    """Schedules that go by optimizer must name those that there are."""
    _, names = bare(config.plain.get("optim_wrapper"))
    if names and config.plain.get("train_cfg") is not None:
        found = misnamed(config.plain.get("param_scheduler"), "param_scheduler", names)
        yield from (Finding(key, text) for key, text in found.items())


def _is_a(target: object, kind: type) -> bool:
    return inspect.isclass(target) and issubclass(target, kind)
