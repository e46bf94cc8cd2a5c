"""TorchMetric: a metric of torchmetrics in an evaluator."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from trainkit.dist import all_gather_object, is_distributed
from trainkit.errors import ConfigError, MissingExtra
from trainkit.evaluator.metric import BaseMetric, label_of

logger = logging.getLogger(__name__)


class TorchMetric(BaseMetric):
    """Feed a metric of torchmetrics, or a collection of them, with predictions and labels.

    Its state is reset before each evaluation. States of several ranks are put together on rank 0 by
    the metric's own reductions; ranks may have seen other numbers of batches, or none, which
    torchmetrics' own synchronisation does not bear.

    A result of several numbers becomes one for each: of a mapping by its keys, of a vector by the
    dataset's classes (``metainfo["classes"]``), else by their place. From a config::

        f1:
          _target_: trainkit.evaluator.TorchMetric
          name: f1
          metric:
            _target_: torchmetrics.classification.MulticlassF1Score
            num_classes: 10

    Args:
        metric: A ``torchmetrics.Metric``, or a ``MetricCollection``; or several by name.
        name: Of its number; None: the class's name. A result that is a mapping has its own names.
        label_key: Where the labels stand in a batch that is a mapping; of a pair they are the
            second item.
        inputs: What is called with the batch and the predictions, and returns the arguments of
            the metric's ``update`` as a tuple; None: the predictions and the labels. In a config,
            a mapping with ``_target_`` and ``_partial_: true``.
        prefix: See :class:`BaseMetric`.
    """

    def __init__(
        self,
        metric: Any,
        name: str | None = None,
        label_key: str = "labels",
        inputs: Callable[[Any, Any], Sequence[Any]] | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        self.metric = _as_metric(metric)
        self.name = name or type(self.metric).__name__
        self.label_key, self.inputs = label_key, inputs
        self._updated = False

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Update the metric with one batch, on the device of the predictions."""
        if self.inputs is not None:
            arguments = tuple(self.inputs(data_batch, data_samples))
        else:
            labels = label_of(data_batch, self.label_key)
            if isinstance(data_samples, torch.Tensor):
                labels = torch.as_tensor(labels).to(data_samples.device)
            arguments = (data_samples, labels)
        device = next((a.device for a in arguments if isinstance(a, torch.Tensor)), None)
        if device is not None:
            self.metric.to(device)
        self.metric.update(*arguments)
        self._updated = True

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        """Return what the metric computes from the states of all ranks, each number by name."""
        if len(results) > 1:
            _put_together(self.metric, results)
        with warnings.catch_warnings():
            # Rank 0 may have got no batch, and computes from the others' states.
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
            computed = self.metric.compute()
        found = computed if isinstance(computed, Mapping) else {self.name: computed}
        classes = (self.dataset_meta or {}).get("classes") or ()
        return {
            name: v for key, value in found.items() for name, v in _numbers(key, value, classes)
        }

    def reset(self) -> None:
        """Drop what an evaluation that was interrupted has collected."""
        super().reset()
        self.metric.reset()
        self._updated = False

    def evaluate(self, size: int) -> dict[str, Any]:
        """Compute, on rank 0, from the states of all ranks; every rank gets the numbers.

        Args:
            size: Samples of the dataset.
        """
        if not any(all_gather_object(self._updated)):
            self._warn_of_nothing(size)
        # Alone, the metric computes from its state as it is.
        self.results = [_states(self.metric) if is_distributed() else None]
        try:
            return super().evaluate(size)
        finally:
            self.reset()


def _parts(metric: Any) -> list[Any]:
    """Return the metrics that a metric or collection consists of, itself included."""
    from torchmetrics import Metric, MetricCollection

    if isinstance(metric, MetricCollection):
        list(metric.values())  # members that share a state get one of their own
    return [part for part in metric.modules() if isinstance(part, Metric)]


def _states(metric: Any) -> list[dict[str, Any]]:
    """Return the state of each part."""
    return [dict(part.metric_state) for part in _parts(metric)]


def _put_together(metric: Any, ranks: Sequence[list[dict[str, Any]]]) -> None:
    """Set a metric's state to what those of all ranks are together."""
    for index, part in enumerate(_parts(metric)):
        part.distributed_available_fn = _alone
        for name, reduction in part._reductions.items():
            values = [states[index][name] for states in ranks]
            setattr(part, name, _on_device(_reduced(values, reduction), part.device))


def _reduced(values: Sequence[Any], reduction: Callable[[Any], Any] | None) -> Any:
    """Return a state of all ranks: lists one after the other, tensors by the metric's reduction."""
    if any(isinstance(value, list) for value in values):
        return [
            item for value in values for item in (value if isinstance(value, list) else [value])
        ]
    stacked = torch.stack(list(values))
    return stacked if reduction is None else reduction(stacked)


def _alone() -> bool:
    """Keep torchmetrics from bringing states together once more."""
    return False


def _as_metric(metric: Any) -> Any:
    """Return the metric; several by name as a collection."""
    try:
        from torchmetrics import Metric, MetricCollection
    except ImportError:
        raise MissingExtra("torchmetrics", "metrics", "TorchMetric") from None
    if isinstance(metric, Metric | MetricCollection):
        return metric
    several = metric.values() if isinstance(metric, Mapping) else ()
    if several and all(isinstance(one, Metric | MetricCollection) for one in several):
        return MetricCollection(dict(metric))
    raise ConfigError(
        f"TorchMetric got a metric of type {type(metric).__name__}; expected one of torchmetrics, "
        "a MetricCollection, or several by name."
    )


def _on_device(value: Any, device: torch.device) -> Any:
    """Return a tensor, or a list of them, on a device; other things as they are."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return [_on_device(item, device) for item in value] if isinstance(value, list) else value


def _numbers(name: str, value: Any, classes: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yield a result as numbers, each with its name; what is no vector stays in one piece."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(f"{name}_{key}", item, classes)
    elif isinstance(value, torch.Tensor) and value.dim() == 1 and len(value) > 1:
        labels = classes if len(classes) == len(value) else range(len(value))
        for label, item in zip(labels, value.tolist(), strict=True):
            yield f"{name}_{label}", item
    elif isinstance(value, torch.Tensor) and value.numel() != 1:
        yield name, value.tolist()
    else:
        yield name, value
