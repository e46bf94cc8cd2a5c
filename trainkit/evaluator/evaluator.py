"""Evaluator: several metrics as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainkit.errors import ConfigError
from trainkit.evaluator.metric import BaseMetric


class Evaluator:
    """Feed every batch to every metric, and put their numbers together.

    Args:
        metrics: One metric, a list of them, or a dict of them by name; an entry that is None is
            left out.
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

    def reset(self) -> None:
        """Drop what an evaluation that was interrupted has collected."""
        for metric in self.metrics:
            metric.results.clear()

    def process(self, data_samples: Any, data_batch: Any = None) -> None:
        """Give one batch and the model's predictions for it to every metric."""
        for metric in self.metrics:
            metric.process(data_batch, data_samples)

    def evaluate(self, size: int) -> dict[str, Any]:
        """Return the numbers of all metrics and start anew.

        Args:
            size: Samples of the dataset.

        Raises:
            ConfigError: Two metrics give a number of the same name.
        """
        metrics: dict[str, Any] = {}
        for metric in self.metrics:
            for name, value in metric.evaluate(size).items():
                if name in metrics:
                    raise ConfigError(
                        f"Two metrics give {name!r}. Give one of them a prefix, such as prefix: "
                        "second."
                    )
                metrics[name] = value
        return metrics
