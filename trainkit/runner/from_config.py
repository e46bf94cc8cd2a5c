"""From a composed config to the Runner's arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainkit.config import is_config, to_plain
from trainkit.errors import ConfigError, did_you_mean

# Keys of the primary config, and the Runner's argument of the same value.
_DIRECT = {
    "model": "model",
    "work_dir": "work_dir",
    "train_cfg": "train_cfg",
    "val_cfg": "val_cfg",
    "test_cfg": "test_cfg",
    "optim_wrapper": "optim_wrapper",
    "param_scheduler": "param_scheduler",
    "visualizer": "visualizer",
    "env": "env_cfg",
    "log_processor": "log_processor",
    "log_level": "log_level",
    "auto_scale_lr": "auto_scale_lr",
    "compile": "compile",
    "activation_checkpointing": "activation_checkpointing",
    "load_from": "load_from",
    "experiment_name": "experiment_name",
}
_OWN = (
    "dataloader",
    "evaluator",
    "hooks",
    "seed",
    "randomness",
    "resume",
    "tags",
    "fast_dev_run",
)
_SPLITS = ("train", "val", "test")
PATHS = {
    "train_dataloader": "dataloader.train",
    "val_dataloader": "dataloader.val",
    "test_dataloader": "dataloader.test",
    "val_evaluator": "evaluator",
    "test_evaluator": "evaluator",
    "env_cfg": "env",
    "default_hooks": "hooks",
    "custom_hooks": "hooks",
}
_SECRET_KEY = re.compile(
    r"token|secret|passw|api_?key|credential|private|auth|cookie|dsn|access_?key", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|hf_\w{20,}|sk-[\w-]{20,}|-----BEGIN|(?<=://)[^/@\s]+@"
)


def arguments(cfg: Any, **given: Any) -> dict[str, Any]:
    """Return the Runner's arguments for a composed config; what is ``given`` wins.

    Raises:
        ConfigError: An unknown key, or a value that cannot be resolved.
    """
    plain = _checked(cfg)
    found = {argument: plain[key] for key, argument in _DIRECT.items() if key in plain}
    loaders, evaluator = plain.get("dataloader") or {}, plain.get("evaluator")
    for split in _SPLITS:
        active = (
            plain.get(f"{split}_cfg") is not None
        )  # null switches a split off, whatever its loader
        found[f"{split}_dataloader"] = loaders.get(split) if active else None
        if split != "train":
            found[f"{split}_evaluator"] = _evaluator(evaluator, split) if active else None
    if plain.get("train_cfg") is None:
        found["optim_wrapper"] = found["param_scheduler"] = None
    found["default_hooks"] = plain.get("hooks") or {}
    seed = {} if plain.get("seed") is None else {"seed": plain["seed"]}
    found["randomness"] = {**(plain.get("randomness") or {}), **seed}
    found.update(_resume(plain))
    if "visualizer" in plain and plain["visualizer"] is None:
        found["visualizer"] = {"vis_backends": {}}
    found.update(given, cfg=cfg, paths={**PATHS, **_evaluator_paths(evaluator)})
    for key in ("model", "work_dir"):
        if found.get(key) is None:
            raise ConfigError(f"The config has no {key}, which every run needs. Set {key}=...")
    return found


def _resume(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``resume``, with ``load_from`` where it names a path."""
    resume = plain.get("resume")
    if resume in (None, False, "fresh"):
        return {"resume": False}
    return {"resume": True} if resume is True else {"resume": True, "load_from": str(resume)}


def _checked(cfg: Any) -> dict[str, Any]:
    """Return the config in plain containers, its keys known and ``fast_dev_run`` applied."""
    if not is_config(cfg):
        kind = type(cfg).__name__
        raise ConfigError(f"from_cfg got a {kind}; expected a config, as compose() returns.")
    plain: dict[str, Any] = to_plain(cfg, "config")
    known = {*_DIRECT, *_OWN}
    unknown = [key for key in plain if key not in known]
    if unknown:
        hints = " ".join(f"{key!r}: {did_you_mean(key, known)}" for key in unknown)
        raise ConfigError(f"The config has keys that nothing reads. {hints}")
    if plain.get("fast_dev_run"):
        _shorten(plain, plain["fast_dev_run"])
    return plain


def _evaluator(evaluator: Any, split: str) -> Any:
    """Return the evaluator of a split: its own, where the node has one, else the one for both."""
    return evaluator.get(split) if _is_split(evaluator) else evaluator


def _evaluator_paths(evaluator: Any) -> dict[str, str]:
    return (
        {f"{s}_evaluator": f"evaluator.{s}" for s in ("val", "test")}
        if _is_split(evaluator)
        else {}
    )


def _is_split(evaluator: Any) -> bool:
    return (
        isinstance(evaluator, Mapping)
        and "_target_" not in evaluator
        and bool({"val", "test"} & evaluator.keys())
    )


def _shorten(plain: dict[str, Any], batches: Any) -> None:
    """Cut a config to ``batches`` batches of each split, and one epoch or as many iterations."""
    if type(batches) is not int or batches < 1:
        raise ConfigError(
            f"fast_dev_run is {batches!r}; expected a number of batches, or 0 to train in full."
        )
    train_cfg = plain.get("train_cfg") or {}
    if "max_epochs" in train_cfg:
        train_cfg.update(max_epochs=1, val_begin=1, val_interval=1)
    elif "max_iters" in train_cfg:
        train_cfg.update(max_iters=batches, val_begin=1, val_interval=batches)
    for loader in (plain.get("dataloader") or {}).values():
        if isinstance(loader, dict) and "dataset" in loader:
            loader["num_batch_per_epoch"] = batches


def as_yaml(cfg: Any) -> str:
    """Return a config as YAML, unresolved and without secrets; empty for None."""
    if cfg is None:
        return ""
    from omegaconf import OmegaConf  # a runner made from objects never loads it

    container = OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg
    return OmegaConf.to_yaml(OmegaConf.create(redact(container)))


def redact(node: Any, key: str = "") -> Any:
    """Return a config without secrets: by key (``api_key``), and by the look of a value."""
    if isinstance(node, Mapping):
        return {name: redact(value, str(name)) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [redact(value, key) for value in node]
    if isinstance(node, str) and not node.startswith("${"):
        return "<redacted>" if _SECRET_KEY.search(key) else _SECRET_VALUE.sub("<redacted>", node)
    return node


def redact_override(text: str) -> str:
    """Return an override without its secret."""
    key, equals, value = text.partition("=")
    return f"{key}{equals}{redact(value, key)}" if equals else text
