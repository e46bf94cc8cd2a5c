"""What schedules ask of a run, without the run: one parameter, and how long everything is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from trainkit.config.build import HYDRA_KEYS, check_arguments, find_target, is_config
from trainkit.dataloader import DefaultSampler, InfiniteSampler
from trainkit.errors import ConfigError
from trainkit.runner.optim import Horizon
from trainkit.runner.parts import build_train_loop

_SAMPLERS = (DefaultSampler, InfiniteSampler)  # as long as the dataset, in one process


class NoBatch(ConfigError):
    """A loader that drops what does not fill a batch has nothing left."""


class StandInModel(nn.Module):
    """A model of one parameter, for an optimizer to hold; or one below each of several names."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, StandInModel())
        if not names:
            self.weight = nn.Parameter(torch.zeros(1, 1))  # a matrix: Muon takes nothing else


class StandInLoader:
    """The length and the batch size of the training data, as its config tells them.

    The length is worked out when it is asked for: only some schedules need it. It is
    ``iters_per_epoch`` if given, else from what the dataset's class declares::

        @classmethod
        def declared_length(cls, **arguments) -> int | None: ...

    Args:
        node: The loader's config.
        path: Where it stands in the config.
        iters_per_epoch: Batches of an epoch; None: what the config tells.
    """

    def __init__(self, node: Any, path: str, iters_per_epoch: int | None = None) -> None:
        self.options: dict[str, Any] = dict(node) if is_config(node) else {}
        self.path, self.iters_per_epoch = path, iters_per_epoch
        self.unknown: ConfigError | None = None

    def __len__(self) -> int:
        """Return the batches of an epoch.

        Raises:
            ConfigError: Nothing tells it; the error is kept in ``unknown``.
            NoBatch: It is 0.
        """
        return self._length[0]

    @property
    def batch_size(self) -> int:
        """Samples of a batch; 1 where the config names none, as for a DataLoader."""
        batches: Any = self.options.get("batch_sampler")
        own = batches.get("batch_size") if is_config(batches) else None
        return own if type(own) is int else self._whole("batch_size") or 1

    @property
    def source(self) -> str | None:
        """Where the length is from; None if nobody has asked for it."""
        return self._length[1] if "_length" in self.__dict__ else None

    @cached_property
    def _length(self) -> tuple[int, str]:
        limit = self._whole("num_batch_per_epoch")
        cut = (limit or 0, f"{self.path}.num_batch_per_epoch")
        try:
            full = self._full_length()
        except ConfigError as error:
            if limit is None or error is not self.unknown:
                raise
            return cut
        return full if limit is None or full[0] <= limit else cut

    def _full_length(self) -> tuple[int, str]:
        if self.iters_per_epoch is not None:
            return self.iters_per_epoch, "--iters-per-epoch"
        samples, drop_last = self._samples(), bool(self.options.get("drop_last", False))
        length = samples // self.batch_size if drop_last else -(-samples // self.batch_size)
        counted = f"{samples:,} samples, batch_size={self.batch_size}, drop_last={drop_last}"
        if length == 0:
            raise NoBatch(
                f"{self.path} gives no batch: {counted}. Lower batch_size, or set drop_last=false."
            )
        return length, counted

    def _samples(self) -> int:
        """Return the samples of an epoch, as the class of the dataset declares them."""
        if find_target(self.options, self.path, DataLoader) is not DataLoader:
            raise self._unknown("_target_", "its loader is not torch's DataLoader")
        if self.options.get("batch_sampler") is not None:
            raise self._unknown("batch_sampler", "it has a batch_sampler")
        sampler = self.options.get("sampler") or {}
        if (
            not is_config(sampler)
            or find_target(sampler, f"{self.path}.sampler", DefaultSampler) not in _SAMPLERS
        ):
            raise self._unknown("sampler._target_", "its sampler is not trainkit's")
        path, node = f"{self.path}.dataset", cast(Any, self.options.get("dataset"))
        if not is_config(node):
            raise self._unknown("dataset", "it has no dataset")
        dataset = find_target(node, path)
        declared = getattr(dataset, "declared_length", None)
        samples = None
        if declared is not None:
            given = {key: value for key, value in node.items() if key not in HYDRA_KEYS}
            check_arguments(declared, (), given, path)
            samples = declared(**given)
        if samples is None:
            name = getattr(dataset, "__name__", repr(dataset))
            raise self._unknown("dataset._target_", f"{name} declares no length")
        return int(samples)

    def _whole(self, name: str) -> int | None:
        value = self.options.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(
                f"{self.path}.{name} is {value!r}; expected a whole number of at least 1."
            )
        return value

    def _unknown(self, key: str, reason: str) -> ConfigError:
        self.unknown = ConfigError(
            f"{self.path} does not tell, without its data, how many iterations an epoch has: "
            f"{reason}. Give it: --iters-per-epoch N.",
            key=f"{self.path}.{key}",
        )
        return self.unknown


def build_stand_in_loop(node: Any, path: str, loader: StandInLoader) -> Horizon:
    """Return the train loop over ``loader``; one that counts epochs where that has no length.

    Raises:
        ConfigError: The loop is wrong, or it needs more of the run than a length.
    """
    runner = cast(Any, _NoRunner())
    try:
        return cast(Horizon, build_train_loop(node, path, runner, loader))
    except ConfigError as error:
        if error is not loader.unknown:
            raise
        loop: Horizon = build_train_loop(node, path, runner, [None])  # any length will do
        if not loop.by_epoch:
            raise
        return _EpochsOnly(loop.max_epochs, error)


class _NoRunner:
    """What a train loop gets in place of a runner: it may keep it, but not read it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ConfigError(
            f"The train loop reads runner.{name} while it is made, so how long it trains cannot be "
            "told without a run."
        )


@dataclass(frozen=True)
class _EpochsOnly:
    """A loop over epochs of unknown length; to ask for that raises ``error``."""

    max_epochs: int
    error: ConfigError
    by_epoch: bool = True

    @property
    def max_iters(self) -> int:
        raise self.error

    @property
    def dataloader(self) -> Any:
        raise self.error
