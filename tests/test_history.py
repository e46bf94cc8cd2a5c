"""HistoryBuffer: statistics over windows, in bounded memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit.history import HistoryBuffer, Values

_values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@given(_values, st.integers(1, 50))
def test_statistics_are_those_of_the_window(values: list[float], window: int) -> None:
    buffer = HistoryBuffer()
    for value in values:
        buffer.update(value)
    last = values[-window:]
    assert buffer.current() == values[-1]
    assert buffer.mean(window) == pytest.approx(math.fsum(last) / len(last), rel=1e-12, abs=1e-9)
    assert (buffer.min(window), buffer.max(window)) == (min(last), max(last))
    assert (buffer.min(), buffer.max(), len(buffer)) == (min(values), max(values), len(values))


def test_a_mean_counts_each_value_as_often_as_it_stands_for_samples() -> None:
    buffer = HistoryBuffer()
    buffer.update(1.0, count=3)
    buffer.update(5.0, count=1)
    assert buffer.mean() == 2.0
    assert buffer.mean(1) == 5.0


def test_the_values_that_are_kept_can_be_read() -> None:
    buffer = HistoryBuffer(max_length=2)
    for value, count in ((1, 4), (torch.tensor(2.0), 3), (3.5, 2)):
        buffer.update(value, count)
    values, counts = buffer.data
    assert values.tolist() == [2.0, 3.5]
    assert counts.tolist() == [3.0, 2.0]


def test_tensors_and_numbers_keep_their_order() -> None:
    buffer = HistoryBuffer()
    for value in (torch.tensor(1.0), 2, torch.tensor([3.0]), 4.0, torch.tensor([[5]])):
        buffer.update(value)
    assert [buffer.mean(n) for n in (1, 2, 5)] == [5.0, 4.5, 3.0]


@pytest.mark.parametrize(
    "value", [torch.tensor(0.1, dtype=torch.float64), torch.tensor(2**24 + 1)], ids=str
)
def test_a_value_is_not_rounded(value: torch.Tensor) -> None:
    buffer = HistoryBuffer()
    buffer.update(value)
    assert buffer.current() == value.item()


def test_a_tensor_that_changes_later_leaves_its_history_alone() -> None:
    buffer, scale = HistoryBuffer(), torch.tensor(1.0)
    for _ in range(3):
        buffer.update(scale)
        scale += 1
    assert buffer.mean() == 2.0


def test_a_tensor_with_a_graph_does_not_keep_it() -> None:
    buffer, weight = HistoryBuffer(), torch.ones(1, requires_grad=True)
    buffer.update((weight * 2).sum())
    assert not buffer._pending[0][0].requires_grad
    assert buffer.current() == 2.0


def test_memory_is_bounded() -> None:
    buffer = HistoryBuffer(max_length=10)
    for value in range(2500):
        buffer.update(value)
        assert len(buffer._pending) < 2000
    assert (buffer.min(100), buffer.max(100)) == (2490, 2499)
    assert len(buffer) == 10
    assert (buffer.min(), buffer.max(), buffer.mean()) == (0, 2499, 1249.5)


def test_the_length_is_what_statistics_see_before_and_after_they_are_asked() -> None:
    buffer = HistoryBuffer(max_length=10)
    for value in range(15):
        buffer.update(value)
    before = len(buffer)
    buffer.current()
    assert (before, len(buffer)) == (10, 10)


@given(_values, st.integers(0, 39))
def test_an_epoch_and_the_whole_run_are_windows_of_any_length(
    values: list[float], begun: int
) -> None:
    buffer = HistoryBuffer(max_length=5)
    for index, value in enumerate(values):
        if index == begun:
            buffer.begin_epoch()
        buffer.update(value)
    epoch = values[begun:] or values
    for window, expected in (("epoch", epoch), ("global", values), (None, values)):
        mean = math.fsum(expected) / len(expected)
        assert buffer.mean(window) == pytest.approx(mean, rel=1e-12, abs=1e-9)  # type: ignore[arg-type]
        assert buffer.min(window) == min(expected)  # type: ignore[arg-type]
        assert buffer.max(window) == max(expected)  # type: ignore[arg-type]


def test_a_sum_of_very_different_values_loses_nothing() -> None:
    buffer = HistoryBuffer()
    for value in (1e16, 1.0, 1.0, -1e16):
        buffer.update(value)
    assert buffer.mean("global") == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_seen_in_every_window(bad: float) -> None:
    buffer = HistoryBuffer()
    for value in (1.0, bad, 2.0):
        buffer.update(value)
    for window in (3, "epoch", "global"):
        assert str(buffer.mean(window)) == str(bad)  # type: ignore[arg-type]
        assert str(buffer.max(window)) == str(bad)  # type: ignore[arg-type]


def test_any_function_is_a_statistic() -> None:
    def median(values: Values, counts: Values) -> float:
        return float(np.median(values))

    buffer = HistoryBuffer()
    for value in (1.0, 2.0, 9.0):
        buffer.update(value)
    assert buffer.statistics(median, 3) == 2.0
    assert buffer.statistics(median, "global") == 2.0
    assert buffer.statistics(median, 2) == 5.5
    assert buffer.statistics("max", 2) == 9.0


def test_a_scalar_without_a_value_says_so() -> None:
    with pytest.raises(ValueError, match=r"train/loss has no value yet"):
        HistoryBuffer(name="train/loss").current()


def test_a_value_stands_for_some_samples() -> None:
    with pytest.raises(ValueError, match="stands for 0 samples; expected more than 0"):
        HistoryBuffer().update(1.0, count=0)


@given(_values, _values, st.integers(1, 12))
def test_a_buffer_goes_on_as_if_it_had_never_been_put_away(
    before: list[float], after: list[float], window: int
) -> None:
    whole, first = HistoryBuffer(), HistoryBuffer()
    for value in before:
        whole.update(value)
        first.update(value)
    resumed = HistoryBuffer()
    resumed.load_state_dict(first.state_dict(window))
    for value in after:
        whole.update(value)
        resumed.update(value)
        for size in (window, "epoch", "global"):
            for method in ("mean", "min", "max", "current"):
                # To the bit: logs of a resumed run are compared so.
                assert resumed.statistics(method, size) == whole.statistics(method, size)  # type: ignore[arg-type]
