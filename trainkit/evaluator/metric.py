"""BaseMetric: collect something of each batch, compute numbers of it at the end."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from trainkit.dist import all_gather_object, broadcast_object, is_main_process
from trainkit.errors import ConfigError

logger = logging.getLogger(__name__)


class BaseMetric(ABC):
    """Base of all metrics.

    ``process`` appends to ``self.results`` whatever ``compute_metrics`` needs: an entry for each
    sample, or one for a batch. Entries of all ranks arrive on the CPU, in rank order; none is
    dropped.

    Args:
        collect_device: As in MMEngine, whose metrics pass it on. Entries of other ranks come
            through the process group, which decides for itself what it uses; the numbers are the
            same.
        prefix: Put before the names, as ``prefix/name``; None takes the class's ``default_prefix``,
            ``""`` none.
        collect_dir: Must be None: no directory is needed to bring entries together.
    """

    default_prefix: ClassVar[str | None] = None
    # What compute_metrics gives, where the class knows it: then what watches a metric is checked
    # before a run begins.
    names: ClassVar[tuple[str, ...] | None] = None

    def __init__(
        self,
        collect_device: Literal["cpu", "gpu"] = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        if collect_device not in ("cpu", "gpu"):
            raise ConfigError(
                f"collect_device is {collect_device!r}; expected 'cpu' or 'gpu'. A prefix is given "
                "by name: prefix=..."
            )
        if collect_dir is not None:
            raise ConfigError(
                f"collect_dir is {collect_dir!r}, but ranks exchange their entries through the "
                "process group and need no directory. Remove it."
            )
        self.prefix = self.default_prefix if prefix is None else prefix
        self.results: list[Any] = []
        self.dataset_meta: dict[str, Any] | None = None  # the dataset's metainfo, set by the loop
        self.set_name: str | None = None  # of the named set in work, set by the loop
        self.work_dir: Path | None = None  # the run's directory, set by the loop

    @abstractmethod
    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Take one batch, as the loader gave it, and the model's predictions for it."""

    @abstractmethod
    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        """Return the numbers, by name, from the entries of all ranks."""

    @classmethod
    def declared_names(cls, prefix: str | None = None, **arguments: Any) -> tuple[str, ...] | None:
        """Return the full names of the numbers that a metric of these arguments gives.

        None where the class does not know; and where it has another ``compute_metrics`` than the
        class that declares ``names``.

        Args:
            prefix: As the constructor's.
            arguments: The constructor's others, for a class whose names depend on them.
        """
        declared_by = next((c for c in cls.__mro__ if "names" in vars(c)), BaseMetric)
        computed_by = next(c for c in cls.__mro__ if "compute_metrics" in vars(c))
        if cls.names is None or not issubclass(declared_by, computed_by):
            return None
        prefix = cls.default_prefix if prefix is None else prefix
        return tuple(f"{prefix}/{name}" if prefix else name for name in cls.names)

    def reset(self) -> None:
        """Drop what an evaluation that was interrupted has collected."""
        self.results.clear()

    def evaluate(self, size: int) -> dict[str, Any]:
        """Compute, on rank 0, from the entries of all ranks; every rank gets the numbers.

        Args:
            size: Samples of the dataset.
        """
        gathered = all_gather_object(_to_cpu(self.results))
        self.results = []
        metrics = None
        if is_main_process():
            results = [entry for entries in gathered for entry in entries]
            if not results:
                self._warn_of_nothing(size)
            try:
                metrics = self._named(self.compute_metrics(results))
            except Exception as error:
                # Else the other ranks would wait for ever.
                broadcast_object((None, f"{type(error).__name__}: {error}"))
                raise
        shared: tuple[dict[str, Any] | None, str] = broadcast_object((metrics, ""))
        if shared[0] is None:
            raise RuntimeError(f"Rank 0 could not compute {self._name}: {shared[1]}")
        return shared[0]

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _warn_of_nothing(self, size: int) -> None:
        logger.warning(
            "%s has no results of %d samples. Does process() append to self.results?",
            self._name,
            size,
        )

    def _named(self, metrics: Any) -> dict[str, Any]:
        """Return the numbers of ``compute_metrics`` under their full names, as plain values."""
        if not isinstance(metrics, dict):
            raise TypeError(
                f"{self._name}.compute_metrics gave a {type(metrics).__name__}; expected a dict."
            )
        return {
            f"{self.prefix}/{name}" if self.prefix else name: _plain(value)
            for name, value in metrics.items()
        }


def label_of(data_batch: Any, key: str) -> Any:
    """Return the labels of a batch: the entry ``key`` of a mapping, or the second item of a pair.

    Raises:
        ConfigError: The batch has no such entry.
    """
    if isinstance(data_batch, dict):
        if key not in data_batch:
            raise ConfigError(
                f"The batch has no {key!r}. It has: {', '.join(map(str, data_batch))}."
            )
        return data_batch[key]
    if isinstance(data_batch, list | tuple) and len(data_batch) >= 2:
        return data_batch[1]
    raise ConfigError(
        f"No labels in a batch of type {type(data_batch).__name__}; expected a dict or (inputs, "
        "labels)."
    )


def _plain(value: Any) -> Any:
    """Turn a tensor or NumPy value of one element into a number."""
    single = getattr(value, "size", None) == 1 or (
        isinstance(value, torch.Tensor) and value.numel() == 1
    )
    return value.item() if single and hasattr(value, "item") else value


def _to_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_to_cpu(item) for item in value)
    return value
