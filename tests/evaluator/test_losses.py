"""Losses of an evaluation: means over samples, and where a batch says how many it has."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit.dataloader import default_collate, pseudo_collate
from trainkit.evaluator import LossAverage, batch_size, split_losses

_values = st.floats(-1e3, 1e3)


@given(st.lists(st.lists(_values, min_size=1, max_size=4), min_size=1, max_size=6))
def test_the_mean_does_not_depend_on_how_samples_are_batched(batches: list[list[float]]) -> None:
    average = LossAverage()
    for batch in batches:
        average.update({"loss": torch.tensor(batch, dtype=torch.float64).mean()}, len(batch))
    samples = [value for batch in batches for value in batch]
    expected = math.fsum(samples) / len(samples)
    assert average.compute()["loss"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_where_one_batch_tells_no_size_all_count_alike() -> None:
    average = LossAverage()
    average.update({"loss": torch.tensor(1.0)}, 3)
    average.update({"loss": torch.tensor(2.0)}, None)
    assert average.compute() == {"loss": 1.5}


def test_a_loss_that_some_batches_lack_is_averaged_over_the_others() -> None:
    average = LossAverage()
    average.update({"a": torch.tensor(1.0)}, 1)
    average.update({"a": torch.tensor(3.0), "b": [torch.tensor(1.0), torch.tensor(2.0)]}, 3)
    assert average.compute() == {"a": 2.5, "b": 1.5}


def test_nothing_gives_nothing_and_infinity_stays_infinite() -> None:
    assert LossAverage().compute() == {}
    average = LossAverage()
    average.update({"loss": torch.tensor(math.inf)}, 2)
    assert average.compute() == {"loss": math.inf}


def test_half_precision_is_added_up_in_full() -> None:
    average = LossAverage()
    for _ in range(300):
        average.update({"loss": torch.tensor(1.5, dtype=torch.bfloat16)}, 7)
    assert average.compute() == {"loss": 1.5}


IMAGE = torch.ones(3, 8, 8)


@pytest.mark.parametrize(
    "sample", [(IMAGE, 1), [IMAGE, 1], {"x": IMAGE, "y": 1}, {"y": 1}, (1, 2)], ids=str
)
def test_a_collated_batch_tells_its_size(sample: Any) -> None:
    assert batch_size(default_collate([sample] * 5)) == 5
    assert batch_size(pseudo_collate([sample] * 5)) == 5


def test_a_batch_that_is_a_tensor_tells_its_size() -> None:
    # pseudo_collate makes a list of it, which could as well be one sample of several tensors.
    assert batch_size(default_collate([IMAGE] * 5)) == 5


@pytest.mark.parametrize("batch", [None, {}, [], 3, "text", torch.tensor(1), {"x": {"y": 1}}])
def test_other_batches_tell_none(batch: Any) -> None:
    assert batch_size(batch) is None


@pytest.mark.parametrize(
    "batch",
    [
        {"grid": torch.zeros(7, 2), "x": torch.zeros(3, 8), "y": torch.zeros(3)},
        (torch.zeros(7, 2), torch.zeros(3)),
        [["a"] * 2, torch.zeros(3)],
    ],
)
def test_entries_of_other_lengths_leave_the_size_open(batch: Any) -> None:
    """Taking that of the first would weigh the losses by what is no number of samples."""
    assert batch_size(batch) is None


def test_entries_without_a_length_do_not_count() -> None:
    batch = {"scale": torch.tensor(2.0), "name": "text", "more": {"z": 1}, "x": torch.zeros(3, 8)}
    assert batch_size(batch) == 3


def test_a_list_of_samples_is_as_long_as_it_is() -> None:
    assert batch_size([{"x": IMAGE}, {"x": IMAGE}]) == 2


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [1, 2],
        {"loss": torch.tensor(1.0)},
        [{"loss": 1.0, "scores": 2}],
        torch.ones(2),
        None,
        [{"scores": 1}],
    ],
)
def test_predictions_without_losses_stay_as_they_are(outputs: Any) -> None:
    predictions, losses = split_losses(outputs)
    assert predictions is outputs
    assert losses == {}


def test_losses_are_taken_from_the_end() -> None:
    assert split_losses([1, {"loss": {"a": 2}}]) == ([1], {"a": 2})
    assert split_losses((1, {"loss": 2})) == ((1,), {"loss": 2})
