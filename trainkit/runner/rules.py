"""Rules between parts of a config that no signature tells, each a function from it to findings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainkit.checkpoint import locate_checkpoint
from trainkit.config.build import build, named
from trainkit.config.check import Node
from trainkit.config.findings import Finding, shown
from trainkit.config.signature import fits
from trainkit.data import BaseDataset
from trainkit.errors import CheckpointError, ConfigError, TrainkitError, did_you_mean
from trainkit.evaluator import BaseMetric, name_problem
from trainkit.hooks import CheckpointHook, NanGuardHook
from trainkit.hooks.rollback import no_way_back
from trainkit.launch import check_dist_cfg, check_launcher
from trainkit.log import check_level
from trainkit.log_processor import LogProcessor
from trainkit.model import PretrainedInit
from trainkit.optim_wrapper import with_amp
from trainkit.param_scheduler.plateau import TRAIN
from trainkit.run_dir import check_directory
from trainkit.runner.checked import Config
from trainkit.runner.from_config import KNOWN_KEYS, SAME_NAME
from trainkit.runner.sets import are_by_set, evaluator_problems, set_problem, sets_of
from trainkit.runner.settings import check_resume_with
from trainkit.runner.stand_in import NoBatch, StandInLoader

# Names of a dataset's arguments that are places on the disk.
_PATH_NAMES = ("root", "path", "file", "data_root", "data_dir", "ann_file")
_PATH_ENDINGS = ("_root", "_dir", "_file", "_path")


def batch_sizes(config: Config) -> Iterator[Finding]:
    """A loader that drops incomplete batches needs one that is complete."""
    for split in ("train", "val", "test"):
        for path, loader in config.loaders(split).values():
            if path in config.nodes and f"{path}.dataset" in config.nodes:
                yield from _batch_size(path, loader)


def _batch_size(path: str, loader: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        len(StandInLoader(loader, path))
    except NoBatch as error:
        yield Finding(f"{path}.batch_size", str(error))
    except TrainkitError as error:
        # Else it is not known without the data; or wrong, and told of as such.
        key = str(error).partition(" ")[0]
        if key in (f"{path}.batch_size", f"{path}.num_batch_per_epoch"):
            yield Finding(key, str(error))


def named_sets(config: Config) -> Iterator[Finding]:
    """Each of several sets needs a loader, and evaluators by set one for each."""
    found: dict[str, str] = {}  # both splits may have one evaluator
    for split in ("val", "test"):
        path, _ = config.loader(split)
        sets = sets_of(config.plain, split)
        for name, loader in sets.items():
            text = set_problem(loader, f"{path}.{name}")
            found |= {} if text is None else {f"{path}.{name}": text}
        if config.plain.get(f"{split}_cfg") is not None:
            found |= evaluator_problems(*config.evaluator(split), path, sets)
    yield from (Finding(key, text) for key, text in found.items())


def before_training(config: Config) -> Iterator[Finding]:
    """To validate before training there must be a validation."""
    loop = config.plain.get("train_cfg")
    asked = isinstance(loop, Mapping) and loop.get("val_before_train") is True
    if asked and config.plain.get("val_cfg") is None:
        key = "train_cfg.val_before_train"
        text = f"{key} is true, but there is no validation (val_cfg is null)."
        yield Finding(key, f"{text} Set it to false, or validate.")


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
                elif names is None or metric in names or _may_be_a_loss(config, metric):
                    continue
                else:
                    text = f"{key} is {metric!r}, which no metric of the evaluator gives."
                    near = did_you_mean(metric, names, listed="There is")
                    yield Finding(key, f"{text} {near}")


def _may_be_null(node: Node, argument: str) -> bool:
    parameter = node.schema.parameters.get(argument) if node.schema is not None else None
    return parameter is not None and fits(None, parameter.hint)


def _metric_names(config: Config) -> tuple[str, ...] | None:
    """Return the names of all numbers of the validation; None if a metric does not declare them."""
    path, evaluator = config.evaluator("val")
    found: list[str] = []
    by_set = are_by_set(evaluator, sets_of(config.plain, "val"))
    for name in config.loaders("val"):
        metrics = _declared(config, f"{path}.{name}" if by_set else path)
        if metrics is None:
            return None
        found += metrics if name is None else [f"{name}/{metric}" for metric in metrics]
    return tuple(found) or None


def _declared(config: Config, path: str) -> list[str] | None:
    """Return the names that the metrics of an evaluator declare; None if one does not."""
    found: list[str] = []
    for names in _names_by_metric(config, path):
        if names is None:
            return None
        found += names
    return [*found, *(["loss"] if _computes_loss(config, "val") and found else [])]


def _names_by_metric(config: Config, path: str) -> Iterator[tuple[str, ...] | None]:
    for _, node in config.below(path):
        if isinstance(node.target, type) and issubclass(node.target, BaseMetric):
            yield node.target.declared_names(**node.arguments)


def _computes_loss(config: Config, split: str) -> bool:
    loop = config.plain.get(f"{split}_cfg")
    return isinstance(loop, Mapping) and loop.get("loss") is True


def metric_names(config: Config) -> Iterator[Finding]:
    """Names that the metrics of an evaluator declare must differ from each other and the log's."""
    found: dict[str, str] = {}  # both splits may have one evaluator
    for split in ("val", "test"):
        if config.plain.get(f"{split}_cfg") is None:
            continue
        path, evaluator = config.evaluator(split)
        by_set = are_by_set(evaluator, sets_of(config.plain, split))
        for place in [f"{path}.{name}" for name in config.loaders(split)] if by_set else [path]:
            names = [name for some in _names_by_metric(config, place) for name in some or ()]
            text = name_problem(names)
            if text is None and "loss" in names and _computes_loss(config, split):
                text = f"{split}_cfg.loss is true, and a metric is named 'loss' too. Give it a "
                text += "prefix, such as prefix: test."
            found |= {} if text is None else {place: f"{place}: {text}"}
    yield from (Finding(key, text) for key, text in found.items())


def _may_be_a_loss(config: Config, metric: str) -> bool:
    """Whether a name may be that of a loss that the model gives with its predictions."""
    model = config.nodes.get("model")
    is_own = model is not None and str(model.target.__module__).startswith("trainkit.")
    return "loss" in metric and (_computes_loss(config, "val") or not is_own)


def rollbacks(config: Config) -> Iterator[Finding]:
    """To go back to a checkpoint, the run must save some before its end."""
    hooks = list(config.below("hooks"))
    if "default_hooks" in config.given or any(_saves_on_the_way(node) for _, node in hooks):
        return
    for path, node in hooks:
        if node.target is NanGuardHook and node.arguments.get("policy") == "rollback":
            yield Finding(f"{path}.policy", no_way_back(path))


def _saves_on_the_way(node: Node) -> bool:
    given = node.arguments
    is_one = isinstance(node.target, type) and issubclass(node.target, CheckpointHook)
    saves = given.get("interval", -1) != -1 and given.get("save_optimizer", True)
    return is_one and bool(saves)


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


def pipelines(config: Config) -> Iterator[Finding]:
    """Each entry of a dataset's pipeline must be a transform, or null."""
    for path, node in config.nodes.items():
        if isinstance(node.target, type) and issubclass(node.target, BaseDataset):
            yield from _no_transforms(f"{path}.pipeline", node.arguments.get("pipeline"))


def _no_transforms(path: str, pipeline: Any) -> Iterator[Finding]:
    is_list = isinstance(pipeline, list)
    if not is_list and (not isinstance(pipeline, Mapping) or "_target_" in pipeline):
        return
    for name, entry in named(pipeline):
        unnamed = isinstance(entry, Mapping) and "_target_" not in entry
        if unnamed or isinstance(entry, str | int | float | list):
            key = f"{path}[{name}]" if is_list else f"{path}.{name}"
            text = f"{key} is {shown(entry)}; expected a transform: a config with _target_."
            if unnamed and "type" in entry:
                text += " MMEngine's 'type' is '_target_: <full import path>' here."
            yield Finding(key, text)


def weights(config: Config) -> Iterator[Finding]:
    """``load_from`` must name a checkpoint."""
    load_from = config.plain.get("load_from")
    if isinstance(load_from, str | Path) and "load_from" not in config.given:
        try:
            locate_checkpoint(load_from)
        except CheckpointError as error:
            yield Finding("load_from", str(error), error=CheckpointError)


def pretrained(config: Config) -> Iterator[Finding]:
    """What ``PretrainedInit`` loads must be there; a run that is resumed has weights already."""
    for path, node in config.nodes.items():
        checkpoint = node.arguments.get("checkpoint")
        if node.target is not PretrainedInit or not isinstance(checkpoint, str):
            continue
        if "://" not in checkpoint and not config.plain.get("resume"):
            try:
                locate_checkpoint(checkpoint)
            except CheckpointError as error:
                yield Finding(f"{path}.checkpoint", str(error), error=CheckpointError)


def own_runner(config: Config) -> Iterator[Finding]:
    """A Runner of the user's takes what every Runner gets, and has nothing of it as its own."""
    content, node = config.plain.get("runner"), config.nodes.get("runner")
    content = content if isinstance(content, Mapping) else {}
    for name in sorted(content):
        if name in {*KNOWN_KEYS, "cfg", "paths"}:
            text = f"runner.{name}: {name} has a place of its own in the config."
            yield Finding(f"runner.{name}", text)
        elif "_target_" not in content:
            text = f"runner.{name}: Runner has no argument {name!r}. Name the class that takes it: "
            yield Finding(f"runner.{name}", f"{text}+runner._target_=mypkg.MyRunner")
    if node is None or node.schema is None:
        return
    lacks = [name for name in SAME_NAME if name not in node.schema.parameters]
    if lacks and not node.schema.is_open:
        kind = getattr(node.target, "__name__", "")
        text = f"runner: {kind} does not take {lacks[0]}, which every Runner gets. Take **kwargs, "
        yield Finding("runner._target_", f"{text}and pass them on to Runner.")


def resume_with(config: Config) -> Iterator[Finding]:
    """``resume_with`` is one of two."""
    if isinstance(config.plain.get("resume_with"), str):
        try:
            check_resume_with(config.plain["resume_with"])
        except ConfigError as error:
            yield Finding("resume_with", str(error))


def launched(config: Config) -> Iterator[Finding]:
    """``launcher`` is one of a few, and ``env.dist_cfg`` says what ranks know."""
    try:
        check_launcher(config.plain.get("launcher", "none"))
    except ConfigError as error:
        yield Finding("launcher", str(error))
    env = config.plain.get("env")
    try:
        check_dist_cfg(env.get("dist_cfg") if isinstance(env, Mapping) else None)
    except ConfigError as error:
        yield Finding("env.dist_cfg", str(error))


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


def log_windows(config: Config) -> Iterator[Finding]:
    """Log lines of a run that counts iterations have no epochs to be the mean of."""
    node, loop = config.nodes.get("log_processor"), config.nodes.get("train_cfg")
    by_epoch = getattr(loop.target, "by_epoch", True) if loop is not None else True
    if node is not None and node.target is LogProcessor and isinstance(by_epoch, bool):
        try:
            build({**node.arguments, "_target_": LogProcessor}, node.path).check(by_epoch)
        except ConfigError as error:
            key = str(error).partition(" ")[0].rstrip(":")
            yield Finding(key if key.startswith("log_processor") else "log_processor", str(error))


def log_level(config: Config) -> Iterator[Finding]:
    """Logging must know the level."""
    level = config.plain.get("log_level")
    if isinstance(level, str):
        try:
            check_level(level)
        except ConfigError as error:
            yield Finding("log_level", str(error))
