"""PretrainedInit: weights from a checkpoint, for a part of a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present as without_prefix

from trainkit.checkpoint import locate_checkpoint, read_checkpoint
from trainkit.errors import CheckpointError, ConfigError, did_you_mean

logger = logging.getLogger(__name__)
_SHOWN = 5  # names that a message lists


@dataclass(frozen=True)
class PretrainedInit:
    """Load the weights of a checkpoint that fit into a module; it comes after other initialisers.

    What the checkpoint has not, has in another shape, or has beside, is told in the log.

    Args:
        checkpoint: A run, a checkpoint directory, or a file that ``torch.load`` reads.
        prefix: Load what stands below this name, as ``"backbone"``, without it; None: all.
        map_location: Device that tensors are read to.
    """

    checkpoint: str
    prefix: str | None = None
    map_location: str = "cpu"

    def __post_init__(self) -> None:
        if "://" in self.checkpoint:
            raise ConfigError(
                f"checkpoint is {self.checkpoint!r}, an address; expected a file. Download it, and "
                "give its path."
            )

    def __call__(self, module: nn.Module) -> None:
        """Load the weights.

        Raises:
            CheckpointError: No such checkpoint, or none of it fits.
        """
        weights = self._weights()
        own = module.state_dict()
        fitting = {
            name: value
            for name, value in weights.items()
            if name in own and _shape(own[name]) == _shape(value)
        }
        name = type(module).__name__
        if not fitting:
            raise CheckpointError(
                f"{self}: nothing of it fits {name}. It has {_some(list(weights))}; {name} has "
                f"{_some(list(own))}. Give the prefix below which its weights stand."
            )
        module.load_state_dict(fitting, strict=False)
        logger.info("%s: %d of %d entries of %s.", self, len(fitting), len(own), name)
        shapes = [n for n in weights if n in own and n not in fitting]
        missing = [n for n in own if n not in weights and not n.endswith("num_batches_tracked")]
        beside = [n for n in weights if n not in own]
        told = (("of another shape", shapes), ("not in it", missing), ("left out", beside))
        for what, names in told:
            if names:
                logger.warning("%s: %s: %s.", self, what, _some(names))

    def _weights(self) -> dict[str, Any]:
        """Return the entries that are meant, under their names in the module."""
        path = locate_checkpoint(self.checkpoint)
        weights: dict[str, Any] = dict(read_checkpoint(path, self.map_location)["state_dict"])
        for wrapper in ("module.", "_orig_mod."):  # DistributedDataParallel's and torch.compile's
            without_prefix(weights, wrapper)
        if self.prefix is None:
            return weights
        below = f"{self.prefix.rstrip('.')}."
        found = {n.removeprefix(below): v for n, v in weights.items() if n.startswith(below)}
        if not found:
            near = did_you_mean(self.prefix.rstrip("."), _prefixes(weights), listed="It has")
            raise CheckpointError(f"{path} has nothing below the prefix {below!r}. {near}")
        return found

    def __str__(self) -> str:
        prefix = "" if self.prefix is None else f", prefix={self.prefix!r}"
        return f"PretrainedInit({self.checkpoint!r}{prefix})"


def _prefixes(weights: Mapping[str, Any]) -> set[str]:
    """Return every name that others stand below."""
    parts = [name.split(".") for name in weights]
    return {".".join(name[:depth]) for name in parts for depth in range(1, len(name))}


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
