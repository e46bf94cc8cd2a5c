"""trainkit: a training framework for PyTorch with Hydra configs and MMEngine's lifecycle."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainkit.__main__ import main
    from trainkit.cli.train import train
    from trainkit.config import TrainConfig, compose, conf_dir
    from trainkit.errors import (
        CheckpointError,
        ConfigError,
        MissingExtra,
        Preempted,
        RunLockedError,
        TrainkitError,
    )
    from trainkit.hook import Hook
    from trainkit.model import BaseModel
    from trainkit.runner import Runner

__version__ = "0.1.0"

# Where each public name is; imported when it is first asked for, so that --help does not import
# torch.
_HOMES = {
    "BaseModel": "trainkit.model",
    "CheckpointError": "trainkit.errors",
    "ConfigError": "trainkit.errors",
    "Hook": "trainkit.hook",
    "MissingExtra": "trainkit.errors",
    "Preempted": "trainkit.errors",
    "RunLockedError": "trainkit.errors",
    "Runner": "trainkit.runner",
    "TrainConfig": "trainkit.config",
    "TrainkitError": "trainkit.errors",
    "compose": "trainkit.config",
    "conf_dir": "trainkit.config",
    "main": "trainkit.__main__",
    "train": "trainkit.cli.train",
}

__all__ = [
    "BaseModel",
    "CheckpointError",
    "ConfigError",
    "Hook",
    "MissingExtra",
    "Preempted",
    "RunLockedError",
    "Runner",
    "TrainConfig",
    "TrainkitError",
    "compose",
    "conf_dir",
    "main",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
