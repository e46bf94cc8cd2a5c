"""Rules between parts of a config that no signature tells, each a function from it to findings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from trainkit.checkpoint import locate_checkpoint
from trainkit.config.check import Node
from trainkit.config.findings import Finding, shown
from trainkit.config.signature import fits
from trainkit.errors import CheckpointError, ConfigError, TrainkitError, did_you_mean
from trainkit.evaluator import BaseMetric
from trainkit.log import check_level
from trainkit.optim_wrapper import with_amp
from trainkit.param_scheduler.plateau import TRAIN
from trainkit.run_dir import check_directory
from trainkit.runner.checked import Config
from trainkit.runner.stand_in import NoBatch, StandInLoader

# Names of a dataset's arguments that are places on the disk.
_PATH_NAMES = ("root", "path", "file", "data_root", "data_dir", "ann_file")
_PATH_ENDINGS = ("_root", "_dir", "_file", "_path")


def batch_sizes(config: Config) -> Iterator[Finding]:
    """A loader that drops incomplete batches needs one that is complete."""
    for split in ("train", "val", "test"):
        path, loader = config.loader(split)
        if path in config.nodes and f"{path}.dataset" in config.nodes:
            try:
                len(StandInLoader(loader, path))
            except NoBatch as error:
                yield Finding(f"{path}.batch_size", str(error))
            except TrainkitError as error:
                # Else it is not known without the data; or wrong, and told of as such.
                key = str(error).partition(" ")[0]
                if key in (f"{path}.batch_size", f"{path}.num_batch_per_epoch"):
                    yield Finding(key, str(error))


def monitors(config: Config) -> Iterator[Finding]:
    """What hooks and schedules watch must be a number that validation gives, if that is known."""
    names = _metric_names(config)
    for path, node in [*config.below("hooks"), *config.below("param_scheduler")]:
        for argument in getattr(node.target, "monitors", ()):
            given = node.arguments.get(argument)
            for metric in [given] if isinstance(given, str) else given or []:
                if not isinstance(metric, str) or metric == "auto" or metric.startswith(TRAIN):
                    continue
                key = f"{path}.{argument}"
                if config.plain.get("val_cfg") is None:
                    text = f"{key} is {metric!r}, but there is no validation (val_cfg is null)."
                    off = key if _may_be_null(node, argument) else path
                    yield Finding(key, f"{text} Set {off} to null, or validate.")
                elif names is not None and metric not in names:
                    text = f"{key} is {metric!r}, which no metric of the evaluator gives."
                    near = did_you_mean(metric, names, listed="There is")
                    yield Finding(key, f"{text} {near}")


def _may_be_null(node: Node, argument: str) -> bool:
    parameter = node.schema.parameters.get(argument) if node.schema is not None else None
    return parameter is not None and fits(None, parameter.hint)


def _metric_names(config: Config) -> tuple[str, ...] | None:
    """Return the names of all numbers of the validation; None if a metric does not declare them."""
    evaluator = config.plain.get("evaluator")
    own = isinstance(evaluator, Mapping) and "_target_" not in evaluator and "val" in evaluator
    root = "val_evaluator" if "val_evaluator" in config.plain else "evaluator"
    found: list[str] = []
    for _, node in config.below(f"{root}.val" if own else root):
        if isinstance(node.target, type) and issubclass(node.target, BaseMetric):
            names = node.target.declared_names(**node.arguments)
            if names is None:
                return None
            found += names
    return tuple(found) or None


def paths(config: Config) -> Iterator[Finding]:
    """What a dataset is to read must be there, unless its split is switched off."""
    for path, node in config.nodes.items():
        is_dataset = path.rpartition(".")[2] == "dataset" or ".dataset." in f"{path}."
        if is_dataset and config.uses(path) and not node.content.get("download"):
            yield from _absent(path, node)


def _absent(path: str, node: Node) -> Iterator[Finding]:
    root = next((v for k, v in node.arguments.items() if k in ("data_root", "root")), None)
    for name, value in node.arguments.items():
        is_path = name in _PATH_NAMES or name.endswith(_PATH_ENDINGS)
        known = isinstance(value, str) and value and "://" not in value
        if not is_path or not known or name in node.unknown:
            continue
        places = [Path(value), *([Path(root) / value] if isinstance(root, str) else [])]
        if not any(os.path.exists(place.expanduser()) for place in places):
            text = f"{path}.{name} is {value!r}, which does not exist in {Path.cwd()}."
            yield Finding(f"{path}.{name}", f"{text} Give the path of the data.")


def weights(config: Config) -> Iterator[Finding]:
    """``load_from`` must name a checkpoint."""
    load_from = config.plain.get("load_from")
    if isinstance(load_from, str | Path) and "load_from" not in config.given:
        try:
            locate_checkpoint(load_from)
        except CheckpointError as error:
            yield Finding("load_from", str(error), error=CheckpointError)


def resume(config: Config) -> Iterator[Finding]:
    """What training goes on with must be there."""
    resume = config.plain.get("resume")
    trains = config.plain.get("train_cfg") is not None and "resume" not in config.given
    if not trains or not isinstance(resume, str | Path) or resume == "fresh":
        return
    try:
        locate_checkpoint(resume)  # which also knows MMEngine's names
    except CheckpointError:
        if not os.path.exists(Path(resume).expanduser()):
            text = (
                f"resume is {str(resume)!r}, which does not exist. Expected true, fresh, a run or "
                "a checkpoint."
            )
            yield Finding("resume", text, error=CheckpointError)


def work_dir(config: Config) -> Iterator[Finding]:
    """The run's directory must be one, or such that it can be made."""
    given = config.plain.get("work_dir")
    if not isinstance(given, str | Path) or not str(given) or "work_dir" in config.given:
        return
    path = Path(given).expanduser().absolute()
    try:
        check_directory(path)
    except ConfigError as error:
        yield Finding("work_dir", str(error))
        return
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        text = f"work_dir is {str(given)!r}, but {there} is no directory."
        yield Finding("work_dir", f"{text} Name a directory, which need not be there yet.")


def scaled_lr(config: Config) -> Iterator[Finding]:
    """Scaling the learning rate needs the batch size that it was made for."""
    options = config.plain.get("auto_scale_lr")
    if options is None:
        return
    known = {"enable", "base_batch_size"}
    if not isinstance(options, Mapping):
        text = (
            f"auto_scale_lr is {shown(options)}; expected a mapping of {', '.join(sorted(known))}."
        )
        yield Finding("auto_scale_lr", text)
        return
    for key in options.keys() - known:
        text = f"auto_scale_lr.{key}: there is no such key. {did_you_mean(str(key), known)}"
        yield Finding(f"auto_scale_lr.{key}", text)
    base = options.get("base_batch_size")
    if not isinstance(options.get("enable", False), bool):
        text = f"auto_scale_lr.enable is {shown(options['enable'])}; expected true or false."
        yield Finding("auto_scale_lr.enable", text)
    elif options.get("enable") and (type(base) is not int or base < 1):
        text = (
            f"auto_scale_lr.base_batch_size is {shown(base)}; expected the batch size that the "
            "learning rate is for, as auto_scale_lr.enable is true."
        )
        yield Finding("auto_scale_lr.base_batch_size", text)


def mixed_precision(config: Config) -> Iterator[Finding]:
    """``amp`` must be for a wrapper that can be told to."""
    node = config.plain.get("optim_wrapper")
    if config.plain.get("amp") is True and node is not None:
        try:
            with_amp(node, "optim_wrapper", tell=False)
        except ConfigError as error:
            if error.key == "amp":  # else it is told as a mistake of the wrapper itself
                yield Finding("amp", str(error))


def log_level(config: Config) -> Iterator[Finding]:
    """Logging must know the level."""
    level = config.plain.get("log_level")
    if isinstance(level, str):
        try:
            check_level(level)
        except ConfigError as error:
            yield Finding("log_level", str(error))
