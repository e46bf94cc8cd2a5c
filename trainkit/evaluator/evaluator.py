"""Evaluator: several metrics as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit.dataloader import pseudo_collate
from trainkit.errors import ConfigError
from trainkit.evaluator.metric import BaseMetric

# What the log has beside the metrics: they would overwrite it, or be blended with it.
TAKEN_NAMES = frozenset({"data_time", "epoch", "iter", "lr", "memory", "samples", "step", "time"})


class Evaluator:
    """Feed every batch to every metric, and put their numbers together.

    Args:
        metrics: One metric, a list of them, or a dict of them by name; an entry that is None is
            left out.

    Raises:
        ConfigError: Something is no metric; or two declare the same name, or one the name of
            something else in the log.
    """

    def __init__(
        self, metrics: BaseMetric | Sequence[BaseMetric] | Mapping[str, BaseMetric | None]
    ) -> None:
        if isinstance(metrics, BaseMetric):
            metrics = [metrics]
        listed = list(metrics.values()) if isinstance(metrics, Mapping) else list(metrics)
        self.metrics = [metric for metric in listed if metric is not None]
        for metric in self.metrics:
            if not isinstance(metric, BaseMetric):
                raise ConfigError(
                    f"An evaluator got a metric of type {type(metric).__name__}; expected a "
                    "BaseMetric."
                )
        _check_names([name for metric in self.metrics for name in _declared(metric)])
        self._dataset_meta: dict[str, Any] | None = None

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """The dataset's metainfo, passed on to each metric."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict[str, Any] | None) -> None:
        self._dataset_meta = meta
        for metric in self.metrics:
            metric.dataset_meta = meta

    def begin(self, dataset_meta: Any, set_name: str | None, work_dir: Path | None) -> None:
        """Start anew, dropping what an evaluation that was interrupted has collected.

        Args:
            dataset_meta: The dataset's metainfo.
            set_name: Of the named set, where there are several.
            work_dir: The run's directory.
        """
        self.dataset_meta = dataset_meta
        for metric in self.metrics:
            metric.set_name, metric.work_dir = set_name, work_dir
            metric.reset()

    def process(self, data_samples: Any, data_batch: Any = None) -> None:
        """Give one batch and the model's predictions for it to every metric."""
        for metric in self.metrics:
            metric.process(data_batch, data_samples)

    def evaluate(self, size: int) -> dict[str, Any]:
        """Return the numbers of all metrics and start anew.

        Args:
            size: Samples of the dataset.

        Raises:
            ConfigError: Two metrics give a number of the same name, or one gives a number that has
                the name of something else in the log.
        """
        found = [item for metric in self.metrics for item in metric.evaluate(size).items()]
        _check_names([name for name, _ in found])
        return dict(found)

    def offline_evaluate(
        self, data_samples: Sequence[Any], data: Sequence[Any] | None = None, chunk_size: int = 1
    ) -> dict[str, Any]:
        """Return the numbers of predictions that are there already, as :class:`DumpResults` keeps.

        Args:
            data_samples: The predictions: a list with an entry for each sample, or a tensor with a
                row for each.
            data: The samples that were predicted, such as the dataset; None where no metric needs
                them. They are collated without stacking (:func:`pseudo_collate`).
            chunk_size: Samples that a metric gets at a time.

        Raises:
            ConfigError: There are more samples than predictions, or fewer.
        """
        if type(chunk_size) is not int or chunk_size < 1:
            raise ConfigError(f"chunk_size is {chunk_size!r}; expected at least 1.")
        size = len(data_samples)
        if data is not None and len(data) != size:
            raise ConfigError(
                f"offline_evaluate got {size} predictions for {len(data)} samples; expected as "
                "many of both."
            )
        for metric in self.metrics:
            metric.reset()
        for chunk in _chunks(size, chunk_size):
            batch = None if data is None else pseudo_collate([data[index] for index in chunk])
            self.process(data_samples[chunk.start : chunk.stop], batch)
        return self.evaluate(size)


def name_problem(names: Sequence[str]) -> str | None:
    """Return what is wrong with the names of an evaluator's numbers, in words."""
    for place, name in enumerate(names):
        if name in TAKEN_NAMES:
            return (
                f"A metric gives {name!r}, which is something else in the log. Give the metric a "
                "prefix, such as prefix: test."
            )
        if name in names[:place]:
            return f"Two metrics give {name!r}. Give one of them a prefix, such as prefix: second."
    return None


def _check_names(names: Sequence[str]) -> None:
    problem = name_problem(names)
    if problem is not None:
        raise ConfigError(problem)


def _declared(metric: BaseMetric) -> tuple[str, ...]:
    """Return the names that a metric declares; none where they depend on more than its prefix."""
    kind = type(metric)
    by_prefix = next(c for c in kind.__mro__ if "declared_names" in vars(c)) is BaseMetric
    return (kind.declared_names(metric.prefix) or ()) if by_prefix else ()


def _chunks(size: int, chunk_size: int) -> Iterator[range]:
    return (range(k, min(k + chunk_size, size)) for k in range(0, size, chunk_size))
