"""From a composed config to the Runner's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from trainkit.config.build import check_arguments, is_config, partial, to_plain
from trainkit.dist import on_main
from trainkit.errors import ConfigError, did_you_mean
from trainkit.launch import group_options, join, leave_at_exit
from trainkit.optim_wrapper import with_amp
from trainkit.run_dir import new_run_directory
from trainkit.runner.parts import DEFAULT_HOOKS, together
from trainkit.runner.sets import named_sets

R = TypeVar("R")

# Arguments of the Runner that stand in a config under their own names.
SAME_NAME = (
    *("model", "work_dir", "train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "param_scheduler"),
    *("visualizer", "log_processor", "log_level", "auto_scale_lr", "compile", "load_from"),
    *("activation_checkpointing", "experiment_name", "resume", "launcher", "env_cfg", "sync_bn"),
    *("find_unused_parameters", "model_wrapper_cfg", "data_preprocessor", "default_hooks"),
    *("custom_hooks", "train_dataloader", "val_dataloader", "test_dataloader", "val_evaluator"),
    *("test_evaluator", "randomness", "load_cfg", "resume_with"),
)
# Keys of conf/config.yaml that become other arguments, or change the config as a whole.
OWN_KEYS = (
    *("dataloader", "evaluator", "hooks", "env", "seed", "tags", "trust"),
    *("fast_dev_run", "overfit_batches", "amp", "runner"),
)
KNOWN_KEYS = frozenset({*SAME_NAME, *OWN_KEYS})
_PLACES = {
    "train_dataloader": "dataloader.train",
    "val_dataloader": "dataloader.val",
    "test_dataloader": "dataloader.test",
    "val_evaluator": "evaluator",
    "test_evaluator": "evaluator",
    "env_cfg": "env",
    "default_hooks": "hooks",
}
_OVERFIT_STEPS = 300  # enough for a model that can learn a batch to have learnt it


def make(base: type[R], cfg: Any, **given: Any) -> R:
    """Make the runner of a composed config; what is ``given`` wins.

    Args:
        base: Runner, or a subclass. The config's ``runner`` may name one that is derived from it,
            with arguments of its own.
        cfg: The config.
        given: Arguments of the Runner.

    Raises:
        ConfigError: See :func:`arguments`; or ``runner`` is another kind of class.
    """
    chosen = partial(cfg.get("runner") or {}, "runner", default=base)
    target: Any = chosen.target
    is_class = isinstance(target, type)
    if is_class and issubclass(base, target):
        target = base
    elif not is_class or not issubclass(target, base):
        raise ConfigError(
            f"runner._target_ is {getattr(target, '__name__', target)!r}; expected a subclass of "
            f"{base.__module__}.{base.__name__}."
        )
    found = arguments(cfg, **given)
    for name in chosen.kwargs:
        if name in found or name in KNOWN_KEYS:
            raise ConfigError(f"runner.{name}: {name} has a place of its own in the config.")
    check_arguments(target, (), {**found, **chosen.kwargs}, "runner")
    try:
        runner: R = target(**found, **chosen.kwargs)
    except TypeError as error:
        for name in chosen.kwargs:  # one that **kwargs has handed on to Runner
            if f"argument {name!r}" in str(error):
                text = f"runner.{name}: neither {target.__name__} nor Runner takes a {name!r}."
                raise ConfigError(text) from error
        raise
    return runner


def arguments(cfg: Any, **given: Any) -> dict[str, Any]:
    """Return the Runner's arguments for a composed config; what is ``given`` wins.

    A config may also hold the Runner's own arguments, under their names.

    Raises:
        ConfigError: A value that cannot be resolved, or an argument that the Runner has not.
    """
    for name in given:
        if name not in SAME_NAME:
            near = did_you_mean(name, SAME_NAME)
            raise ConfigError(f"The Runner has no argument {name!r} to give it. {near}")
    plain = _shortened(cfg)
    found = {**_from_groups(plain), **{key: plain[key] for key in SAME_NAME if key in plain}}
    seed = {} if plain.get("seed") is None else {"seed": plain["seed"]}
    found["randomness"] = {**(plain.get("randomness") or {}), **seed}
    if "visualizer" in plain and plain["visualizer"] is None:
        found["visualizer"] = {"vis_backends": {}}
    if plain.get("amp") and found.get("optim_wrapper") is not None:
        found["optim_wrapper"] = with_amp(found["optim_wrapper"], "optim_wrapper")
    found.update(given, cfg=cfg, paths=_places(plain))
    if found.get("work_dir") is None:
        if join(found.get("launcher", "none"), **group_options(found.get("env_cfg"))):
            leave_at_exit()
        name = str(found.get("experiment_name"))
        found["work_dir"] = on_main(lambda: new_run_directory(name))
    return found


def _from_groups(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments whose config group has another name. A null cfg switches a split off."""
    loaders, evaluator = plain.get("dataloader") or {}, plain.get("evaluator")
    found: dict[str, Any] = {"env_cfg": plain.get("env")}
    for split in ("train", "val", "test"):
        active = plain.get(f"{split}_cfg") is not None
        found[f"{split}_dataloader"] = loaders.get(split) if active else None
        if split != "train":
            own = dict(evaluator or {}).get(split) if _is_split(evaluator) else evaluator
            found[f"{split}_evaluator"] = own if active else None
    hooks = plain.get("hooks") or {}
    if is_config(hooks):  # null removes a default, and leaves out a hook that a file has added
        hooks = {name: n for name, n in hooks.items() if n is not None or name in DEFAULT_HOOKS}
    return {**found, "default_hooks": hooks}


def _shortened(cfg: Any) -> dict[str, Any]:
    """Return the config in plain containers, shortened where it asks for that."""
    plain: dict[str, Any] = to_plain(cfg, "config")
    if plain.get("train_cfg") is None:
        plain["optim_wrapper"] = plain["param_scheduler"] = None
    for key, change in (("overfit_batches", _overfit), ("fast_dev_run", _shorten)):
        if plain.get(key):
            change(plain, plain[key])
    return plain


def argument_problem(plain: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a resolved config's parts as a whole, in words."""
    given = {**_from_groups(plain), **{key: plain[key] for key in SAME_NAME if key in plain}}
    if given.get("train_cfg") is None:
        given["optim_wrapper"] = given["param_scheduler"] = None
    places = _places(plain)
    return together(given, lambda name: places.get(name, name))


def _places(plain: Mapping[str, Any]) -> dict[str, str]:
    """Return where an argument stands in the config, if not under its own name."""
    places = {name: place for name, place in _PLACES.items() if name not in plain}
    if _is_split(plain.get("evaluator")):
        places |= {f"{split}_evaluator": f"evaluator.{split}" for split in ("val", "test")}
    return places


def _is_split(evaluator: Any) -> bool:
    is_named = isinstance(evaluator, Mapping) and "_target_" not in evaluator
    return is_named and bool({"val", "test"} & evaluator.keys())


def _shorten(plain: dict[str, Any], batches: int) -> None:
    """Cut a config to ``batches`` batches of each split, and one epoch or as many iterations."""
    _limit_training(plain, epochs=1, iterations=batches, validations=1)
    for loader in _loader_configs(plain):
        loader["num_batch_per_epoch"] = batches


def _overfit(plain: dict[str, Any], batches: int) -> None:
    """Train and validate on the same first batches, in one order, until they must be learnt."""
    epochs = -(-_OVERFIT_STEPS // batches)
    _limit_training(plain, epochs=epochs, iterations=epochs * batches, validations=5)
    for loader in _loader_configs(plain)[:1]:
        loader["num_batch_per_epoch"] = batches
        if loader.get("sampler") is None:  # which an iterable dataset must not have
            loader["shuffle"] = False
        else:
            loader["sampler"] = {**loader["sampler"], "shuffle": False}
        for split in ("val", "test"):
            named = named_sets(plain["dataloader"].get(split))
            same = loader if named is None else dict.fromkeys(named, loader)
            plain["dataloader"][split] = same


def _limit_training(
    plain: Mapping[str, Any], *, epochs: int, iterations: int, validations: int
) -> None:
    train_cfg = plain.get("train_cfg") or {}
    for name, end in (("max_epochs", epochs), ("max_iters", iterations)):
        if name in train_cfg:
            interval = max(end // validations, 1)
            train_cfg.update({name: end, "val_begin": 1, "val_interval": interval})


def _loader_configs(plain: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = (plain.get("dataloader") or {}).values()
    loaders = [one for node in found for one in (named_sets(node) or {"": node}).values()]
    return [loader for loader in loaders if isinstance(loader, dict) and "dataset" in loader]
