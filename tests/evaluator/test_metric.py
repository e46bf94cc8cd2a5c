"""BaseMetric: everything that was collected reaches the numbers, once."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from trainkit.errors import ConfigError
from trainkit.evaluator import BaseMetric
from trainkit.evaluator.metric import label_of


class Mean(BaseMetric):
    """The mean of what it is given."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += list(data_samples)

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {"mean": sum(results) / max(len(results), 1), "count": len(results)}


class Prefixed(Mean):
    default_prefix = "toy"


class Constant(BaseMetric):
    """Whatever it is made with."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value
        self.results = [None]

    def process(self, data_batch: Any, data_samples: Any) -> None: ...

    def compute_metrics(self, results: list[Any]) -> Any:
        return self.value


def test_all_entries_count_however_many_samples_the_dataset_has() -> None:
    metric = Mean()
    metric.process(None, [1, 2])
    metric.process(None, [6])
    assert metric.evaluate(size=2) == {"mean": 3, "count": 3}


def test_each_evaluation_starts_anew() -> None:
    metric = Mean()
    metric.process(None, [1])
    metric.evaluate(1)
    metric.process(None, [5])
    assert metric.evaluate(1) == {"mean": 5, "count": 1}


def test_names_carry_the_prefix() -> None:
    for metric, names in (
        (Mean(), ["mean", "count"]),
        (Mean(prefix="val"), ["val/mean", "val/count"]),
        (Prefixed(), ["toy/mean", "toy/count"]),
        (Prefixed(prefix="mine"), ["mine/mean", "mine/count"]),
        (Prefixed(prefix=""), ["mean", "count"]),
    ):
        metric.process(None, [1])
        assert list(metric.evaluate(1)) == names


def test_values_of_one_element_become_numbers() -> None:
    array = np.ones((2, 2))
    given = {"a": torch.tensor(2.5), "b": np.float32(1.5), "c": np.array([3]), "d": array, "e": "x"}
    numbers = Constant(given).evaluate(1)
    assert {name: type(value) for name, value in numbers.items()} == {
        "a": float,
        "b": float,
        "c": int,
        "d": np.ndarray,
        "e": str,
    }
    assert (numbers["a"], numbers["b"], numbers["c"]) == (2.5, 1.5, 3)


def test_no_results_warn_and_name_the_metric(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        assert Mean().evaluate(7) == {"mean": 0, "count": 0}
    (message,) = caplog.messages
    assert message.startswith("Mean has no results of 7 samples")


@pytest.mark.parametrize("value", [None, 0.5, [("a", 1)]])
def test_numbers_without_names_are_refused(value: Any) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError, match=rf"Constant\.compute_metrics gave a {kind}; expected"):
        Constant(value).evaluate(1)


def test_labels_are_found_in_a_mapping_or_a_pair() -> None:
    assert label_of({"inputs": 0, "labels": 3}, "labels") == 3
    assert label_of({"y": 3}, "y") == 3
    assert label_of((0, 3), "labels") == label_of([0, 3, 5], "labels") == 3


def test_a_batch_without_labels_says_what_it_has() -> None:
    with pytest.raises(ConfigError, match=r"has no 'label'\. It has: inputs, labels"):
        label_of({"inputs": 0, "labels": 1}, "label")
    with pytest.raises(ConfigError, match="No labels in a batch of type Tensor"):
        label_of(torch.ones(2), "labels")
    with pytest.raises(ConfigError, match="No labels in a batch of type list"):
        label_of([1], "labels")
