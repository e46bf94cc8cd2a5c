"""MessageHub: what is written is what is read, in bounded memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit.message_hub import HistoryBuffer, MessageHub

_values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@given(_values, st.integers(1, 50))
def test_statistics_are_those_of_the_window(values: list[float], window: int) -> None:
    buffer = HistoryBuffer()
    for value in values:
        buffer.update(value)
    last = values[-window:]
    assert buffer.current() == values[-1]
    assert buffer.mean(window) == sum(last) / len(last)
    assert (buffer.min(window), buffer.max(window)) == (min(last), max(last))
    assert (buffer.min(), buffer.max(), len(buffer)) == (min(values), max(values), len(values))


def test_a_mean_counts_each_value_as_often_as_it_stands_for_samples() -> None:
    buffer = HistoryBuffer()
    buffer.update(1.0, count=3)
    buffer.update(5.0, count=1)
    assert buffer.mean() == 2.0
    assert buffer.mean(1) == 5.0


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
    assert (buffer.min(), buffer.max()) == (2490, 2499)
    assert len(buffer) == 10


def test_the_length_is_what_statistics_see_before_and_after_they_are_asked() -> None:
    buffer = HistoryBuffer(max_length=10)
    for value in range(15):
        buffer.update(value)
    before = len(buffer)
    buffer.current()
    assert (before, len(buffer)) == (10, 10)


def test_each_key_has_its_own_history() -> None:
    hub = MessageHub()
    hub.update_scalars({"train/loss": 1.0, "val/loss": 5.0})
    hub.update_scalar("train/loss", 3.0)
    assert hub.get_scalar("train/loss").mean() == 2.0
    assert hub.get_scalar("val/loss").mean() == 5.0


def test_an_unknown_scalar_lists_those_there_are() -> None:
    hub = MessageHub()
    with pytest.raises(KeyError, match="There are: none"):
        hub.get_scalar("train/los")
    hub.update_scalar("train/loss", 1)
    with pytest.raises(KeyError, match=r"No scalar 'train/los' yet\. There are: train/loss"):
        hub.get_scalar("train/los")


def test_only_resumed_facts_go_into_a_checkpoint_and_histories_stay_out() -> None:
    hub = MessageHub()
    hub.update_info("epoch", 3)
    hub.update_info("eta", 5.0, resumed=False)
    hub.update_scalar("train/loss", 1.0)
    hub.update_info("stage", "train")
    hub.update_info("stage", "val", resumed=False)
    assert hub.state_dict() == {"epoch": 3}
    other = MessageHub()
    other.load_state_dict(hub.state_dict())
    assert other.get_info("epoch") == 3
    assert other.state_dict() == {"epoch": 3}
    assert other.get_info("eta", default="none") == "none"


def test_two_hubs_share_nothing() -> None:
    first, second = MessageHub(), MessageHub()
    first.update_scalar("train/loss", 1.0)
    first.update_info("epoch", 1)
    assert (second.log_scalars, second.runtime_info, second.state_dict()) == ({}, {}, {})
