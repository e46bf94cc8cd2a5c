"""Every mistake of a config that can be found without building anything."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

from trainkit.config.build import is_config
from trainkit.config.check import Unresolved, check_node, nodes, resolve, texts
from trainkit.config.compose import Composed, try_compose
from trainkit.config.findings import Finding, raise_findings, shown
from trainkit.config.loader import conf_dir
from trainkit.config.origins import is_at_or_below, leaves
from trainkit.config.request import Request
from trainkit.config.schema import TrainConfig
from trainkit.config.signature import describe, fits, with_article
from trainkit.errors import ConfigError, did_you_mean
from trainkit.runner import rules, training_rules
from trainkit.runner.checked import Config
from trainkit.runner.from_config import KNOWN_KEYS, argument_problem
from trainkit.runner.horizons import horizons
from trainkit.runner.places import SPLITS, Places
from trainkit.runner.trial import trial

_RULES: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    rules.batch_sizes,
    rules.named_sets,
    rules.before_training,
    rules.monitors,
    rules.metric_names,
    rules.rollbacks,
    rules.paths,
    rules.pipelines,
    rules.weights,
    rules.pretrained,
    rules.resume,
    rules.resume_with,
    rules.launched,
    rules.own_runner,
    rules.work_dir,
    rules.scaled_lr,
    rules.mixed_precision,
    rules.log_level,
    rules.log_windows,
    training_rules.averages,
    training_rules.checkpoint_unit,
    training_rules.scaled_schedules,
    training_rules.optimizer_names,
    horizons,
)
# Keys whose value is a part of the run: a mapping, or null.
_PARTS = (
    *("model", "dataloader", "evaluator", "train_cfg", "val_cfg", "test_cfg", "optim_wrapper"),
    *("optim_wrapper.optimizer", "param_scheduler", "hooks", "visualizer", "env", "log_processor"),
    *("load_cfg", "runner", "model_wrapper_cfg"),
    *(f"dataloader.{split}" for split in SPLITS),
)
# The first part of a key that an interpolation reads: ${key...}, ${oc.select:key,...}.
_INTERPOLATION = re.compile(r"\$\{\s*(?:oc\.[\w.]+\s*:\s*)?([A-Za-z_]\w*)\s*[.}\[,]")
_HINTS = typing.get_type_hints(TrainConfig)
_MAX_SEED = 2**64 - 1  # torch takes no larger one


def find_mistakes(cfg: Any, given: Collection[str] = ()) -> list[Finding]:
    """Return what is wrong with a composed config: keys, targets, arguments, types, rules.

    Modules that targets name are imported. Nothing of the user's is built, nothing is written.

    Args:
        cfg: As ``compose()`` returns it, or a mapping that may hold live objects.
        given: Arguments that the Runner gets beside it, so that the config need not have them.

    Raises:
        ConfigError: It is no config at all.
    """
    if not is_config(cfg):
        kind = with_article(type(cfg).__name__)
        raise ConfigError(f"from_cfg got {kind}; expected a config, as compose() returns.")
    plain, found = resolve(cfg)
    found += _unknown_keys(cfg, plain)
    found += _scalars(plain)
    found += _needed(plain, given)
    parts = list(_parts(plain))
    told = {finding.key for finding in parts}
    found += parts
    # What stands under other keys is built, and checked, where an interpolation reads it.
    built = {key: value for key, value in plain.items() if key in KNOWN_KEYS}
    all_nodes = {node.path: node for node in nodes(built, "", Places(plain), found)}
    for node in all_nodes.values():
        found += (finding for finding in check_node(node) if finding.key not in told)
    config = Config(plain, all_nodes, given)
    told = {finding.key for finding in found}
    for rule in _RULES:
        found += (finding for finding in rule(config) if finding.key not in told)
    found += trial(config, {finding.key for finding in found})
    # Of parts that do not go together there is no more to say where one of them is wrong in itself.
    problem = None if found else argument_problem({**plain, **{key: ... for key in given}})
    return [*found, *([] if problem is None else [Finding("", problem)])]


def compose_checked(request: Request) -> Composed:
    """Compose a config and check it.

    Raises:
        ConfigError: It tells every mistake of both: wrong overrides, and what is wrong in the
            config that the others give.
    """
    composed, found = examine(request)
    raise_findings(found, lambda _: composed.origins())
    return composed


def examine(request: Request) -> tuple[Composed, list[Finding]]:
    """Compose a config and check it; return all that is wrong, in the overrides and in the rest."""
    composed = try_compose(request)
    found = [*composed.findings, *_without_effect(request)]
    if composed.cfg is not None:
        unsure = [group.replace("/", ".") for group in composed.unsure]
        found += [
            finding
            for finding in find_mistakes(composed.cfg)
            if not any(is_at_or_below(finding.key, group) for group in unsure)
        ]
    return composed, found


def _without_effect(request: Request) -> Iterator[Finding]:
    """Yield overrides of what Hydra would do with a run's directory, which is trainkit's here."""
    for text in request.overrides:
        if text.lstrip("+").startswith("hydra.run."):
            told = f"{text}: a run's directory is trainkit's. Name it by work_dir=..."
            yield Finding("", told)


def _unknown_keys(cfg: Any, plain: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the top-level keys that neither the Runner nor an interpolation reads."""
    unknown = [key for key in plain if key not in KNOWN_KEYS]
    if not unknown:
        return
    if "_target_" in unknown:
        text = (
            "A file puts _target_ at the top of the config, where nothing is built. If it is an "
            "option of a group, it begins without the line '# @package _global_'."
        )
        yield Finding("_target_", text)
        return
    read = {name for text in texts(cfg) for name in _INTERPOLATION.findall(text)}
    for key in unknown:
        if key in ("experiment", "debug", "local"):
            text = f"A file in {key}/ begins with the line '# @package _global_', and this one not."
            yield Finding(f"{key}", text)
        elif key not in read:
            text = f"{key}: nothing reads a key of this name. {_near(str(key), plain)}"
            yield Finding(str(key), text)


def _near(key: str, plain: Mapping[str, Any]) -> str:
    """Say what a key at the top that nothing reads may have meant."""
    near = did_you_mean(key, {*KNOWN_KEYS, "defaults"})
    if near.startswith("Did"):
        return near
    places = [path for path, _ in leaves(plain, "") if path.endswith(f".{key}")]
    if places:
        return f"It stands at {', '.join(places)}."
    return f"The config has: {', '.join(str(name) for name in plain if name in KNOWN_KEYS)}."


def _scalars(plain: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the top-level values that are of another type than :class:`TrainConfig` says."""
    for field in fields(TrainConfig):
        value, hint = plain.get(field.name), _HINTS[field.name]
        if field.name not in plain or isinstance(value, Unresolved):
            continue
        if field.name == "experiment_name" and value is None:
            continue  # needed only where there is no work_dir
        if not fits(value, hint):
            text = f"{field.name} is {shown(value)}; expected {describe(hint)}."
            yield Finding(field.name, text)
    for name in ("fast_dev_run", "overfit_batches", "seed"):
        value = plain.get(name)
        if isinstance(value, int) and value < 0:
            yield Finding(name, f"{name} is {value}; expected a whole number of at least 0.")
    seed = plain.get("seed")
    if isinstance(seed, int) and seed > _MAX_SEED:
        text = f"seed is {seed}; expected a whole number of at most {_MAX_SEED}."
        yield Finding("seed", text)


def _needed(plain: Mapping[str, Any], given: Collection[str]) -> Iterator[Finding]:
    """Yield what every run needs and this one has not."""
    misplaced = "_target_" in plain  # told already: most likely it is that of the model
    if plain.get("model") is None and "model" not in given and not misplaced:
        yield Finding("model", "The config has no model, which every run needs. Set model=...")
    if "work_dir" in given or plain.get("work_dir") is not None:
        if plain.get("work_dir") == "":
            text = "work_dir is empty; expected a directory, or null for a new one."
            yield Finding("work_dir", text)
    elif not plain.get("experiment_name"):
        text = "The config has no experiment_name, under which its runs are kept."
        yield Finding("experiment_name", f"{text} Set experiment_name=..., or a work_dir.")


def _parts(plain: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what stands in the place of a part of the run and is none."""
    for path in _PARTS:
        value = _at(plain, path)
        if isinstance(value, str | int | float):
            yield Finding(path, f"{path} is {shown(value)}{_instead(path, value)}")
    for group in ("hooks", "param_scheduler"):
        found = plain.get(group)
        entries: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        for name, value in entries.items():
            if isinstance(value, str | int | float) and "_target_" not in entries:
                path = f"{group}.{name}"
                text = f"{path} is {shown(value)}; expected a config with _target_, or null."
                yield Finding(path, text)


def _at(plain: Mapping[str, Any], path: str) -> Any:
    node: Any = plain
    for part in path.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _instead(path: str, value: Any) -> str:
    """Say how an option of a group is chosen, if that is what was meant."""
    group = path.replace(".", "/")
    options = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
    if not isinstance(value, str) or not options:
        chosen = (
            f" Options are chosen by {group}=<option>: {', '.join(options)}." if options else ""
        )
        return f", where a part of the run belongs; expected a mapping.{chosen}"
    if value in options:
        return (
            f", a text where a part of the run belongs. To choose an option of {group}: "
            f"{group}={value} on the command line, 'override /{group}: {value}' in the defaults of "
            "a file."
        )
    near = did_you_mean(value, options)
    return (
        f", a text where a part of the run belongs. Options of {group} are chosen by "
        f"{group}=<option>. {near}"
    )
