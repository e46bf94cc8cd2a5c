"""Accuracy: the share of right labels, however the batches are cut."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit.errors import ConfigError
from trainkit.evaluator import Accuracy


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1), st.integers(1, 9))
def test_the_share_does_not_depend_on_the_batches(pairs: list[tuple[int, int]], size: int) -> None:
    metric = Accuracy()
    for start in range(0, len(pairs), size):
        predicted, labels = zip(*pairs[start : start + size], strict=True)
        metric.process({"labels": torch.tensor(labels)}, torch.tensor(predicted))
    right = sum(predicted == label for predicted, label in pairs)
    assert metric.evaluate(len(pairs)) == {"accuracy": right / len(pairs)}


@pytest.mark.parametrize(
    "batch",
    [
        {"labels": torch.tensor([0, 1, 1])},
        {"labels": [0, 1, 1]},
        {"labels": [torch.tensor(0), torch.tensor(1), torch.tensor(1)]},
        (torch.ones(3), torch.tensor([0, 1, 1])),
        [None, [0, 1, 1], "more"],
    ],
    ids=str,
)
def test_labels_come_in_every_form_that_loaders_give(batch: Any) -> None:
    metric = Accuracy()
    metric.process(batch, torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, 1.0]]))
    assert metric.evaluate(3) == {"accuracy": 2 / 3}


def test_another_key_and_a_prefix_can_be_named() -> None:
    metric = Accuracy(label_key="y", prefix="val")
    metric.process({"y": [1]}, torch.tensor([1]))
    assert metric.evaluate(1) == {"val/accuracy": 1.0}


def test_no_batch_gives_no_number() -> None:
    assert math.isnan(Accuracy().evaluate(0)["accuracy"])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1, 2], r"type list; expected a tensor \(N, C\) or \(N,\)"),
        (torch.ones(3, 2), r"predictions \(3, 2\) for labels \(2,\)"),
        (torch.ones(2, 4, 8), r"predictions \(2, 4, 8\) for labels \(2,\)"),
        (torch.tensor(1), r"predictions \(\) for labels \(2,\)"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(scores: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Accuracy().process({"labels": [0, 1]}, scores)
