"""BaseMetric: collect something of each batch, compute numbers of it at the end."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

from trainkit.dist import all_gather_object, broadcast_object, is_distributed, is_main_process
from trainkit.errors import ConfigError

logger = logging.getLogger(__name__)


class BaseMetric(ABC):
    """Base of all metrics.

    ``process`` appends to ``self.results`` whatever ``compute_metrics`` needs: an entry for each
    sample, or one for a batch. Entries of all ranks arrive in rank order; none is dropped.

    Args:
        prefix: Put before the names, as ``prefix/name``; None takes the class's ``default_prefix``.
    """

    default_prefix: ClassVar[str | None] = None
    # What compute_metrics gives, where the class knows it: then what watches a metric is checked
    # before a run begins.
    names: ClassVar[tuple[str, ...] | None] = None

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = self.default_prefix if prefix is None else prefix
        self.results: list[Any] = []
        self.dataset_meta: dict[str, Any] | None = None  # the dataset's metainfo, set by the loop

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

    def evaluate(self, size: int) -> dict[str, Any]:
        """Compute, on rank 0, from the entries of all ranks; every rank gets the numbers.

        Args:
            size: Samples of the dataset.
        """
        if not self.results:
            logger.warning(
                "%s has no results of %d samples. Does process() append to self.results?",
                self._name,
                size,
            )
        gathered = all_gather_object(_to_cpu(self.results)) if is_distributed() else [self.results]
        self.results = []
        metrics = None
        if is_main_process():
            metrics = self.compute_metrics([entry for entries in gathered for entry in entries])
            if not isinstance(metrics, dict):
                raise TypeError(
                    f"{self._name}.compute_metrics gave a {type(metrics).__name__}; expected a "
                    "dict."
                )
            metrics = {self._prefixed(name): _plain(value) for name, value in metrics.items()}
        shared: dict[str, Any] = broadcast_object(metrics)
        return shared

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _prefixed(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


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
