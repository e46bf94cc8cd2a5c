"""PretrainedInit: weights from a checkpoint, for a part of a model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from trainkit.checkpoint import locate_checkpoint, read_checkpoint
from trainkit.checkpoint.fit import Fit, below, listed, put, without_wrappers
from trainkit.errors import CheckpointError, ConfigError, did_you_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainedInit:
    """Load the weights of a checkpoint that fit into a module; it comes after other initialisers.

    What the checkpoint has not, has in another shape or type, or has beside, is told in the log.

    Args:
        checkpoint: A run, a checkpoint directory, or a file that ``torch.load`` reads.
        prefix: Load what stands below this name, as ``"backbone"``, without it; None: all.
        map_location: Device that tensors are read to.
    """

    comes_last: ClassVar[bool] = True  # and so wins over others, a module's children included

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
            CheckpointError: No such checkpoint, none of it fits, or the module refuses what does.
        """
        own, name = module.state_dict(), type(module).__name__
        fit = Fit(own, self._weights(own))
        if not fit.fitting:
            raise CheckpointError(
                f"{self}: nothing of it fits {name}. It has {listed([*fit.loaded])}; {name} has "
                f"{listed([*own])}. Give the prefix below which its weights stand."
            )
        put(module, fit, str(self))
        logger.info("%s: %s of %s.", self, fit.summary, name)
        for problem in fit.problems():
            logger.warning("%s: %s.", self, problem)

    def _weights(self, own: Iterable[str]) -> dict[str, Any]:
        """Return the entries that are meant, under their names in the module."""
        path = locate_checkpoint(self.checkpoint)
        weights = read_checkpoint(path, self.map_location)["state_dict"]
        prefix = "" if self.prefix is None else f"{self.prefix.rstrip('.')}."
        bare = without_wrappers(weights, [f"{prefix}{name}" for name in own])
        found = below(bare, prefix)
        if not found and prefix:
            near = did_you_mean(prefix.rstrip("."), _prefixes(bare), listed="It has")
            raise CheckpointError(f"{path} has nothing below the prefix {prefix!r}. {near}")
        return found

    def __str__(self) -> str:
        prefix = "" if self.prefix is None else f", prefix={self.prefix!r}"
        return f"PretrainedInit({self.checkpoint!r}{prefix})"


def _prefixes(weights: Mapping[str, Any]) -> set[str]:
    """Return every name that others stand below."""
    parts = [name.split(".") for name in weights]
    return {".".join(name[:depth]) for name in parts for depth in range(1, len(name))}
