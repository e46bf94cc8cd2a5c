"""MessageHub: what is written is what is read, and what a resumed run goes on with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.checkpoint import check_plain
from trainkit.message_hub import MessageHub


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


def test_only_resumed_facts_go_into_a_checkpoint() -> None:
    hub = MessageHub()
    hub.update_info("epoch", 3)
    hub.update_info("eta", 5.0, resumed=False)
    hub.update_info("stage", "train")
    hub.update_info("stage", "val", resumed=False)
    assert hub.state_dict()["info"] == {"epoch": 3}
    other = MessageHub()
    other.load_state_dict(hub.state_dict())
    assert other.get_info("epoch") == 3
    assert other.state_dict() == hub.state_dict()
    assert other.get_info("eta", default="none") == "none"


def test_facts_are_set_and_removed_together() -> None:
    hub = MessageHub()
    hub.update_info_dict({"a": 1, "b": 2})
    assert (hub.pop_info("a"), hub.pop_info("a", 0), hub.runtime_info) == (1, 0, {"b": 2})
    assert hub.state_dict()["info"] == {"b": 2}


def test_scalars_may_come_with_what_they_stand_for() -> None:
    hub = MessageHub()
    hub.update_scalars({"train/loss": {"value": 1.0, "count": 3}})
    hub.update_scalars({"train/loss": {"value": 5.0}})
    assert hub.get_scalar("train/loss").mean() == 2.0


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 15), st.integers(1, 9))
def test_means_after_a_resume_are_those_of_a_run_that_went_on(
    before: int, after: int, window: int, epoch_length: int
) -> None:
    def feed(hub: MessageHub, begin: int, end: int) -> None:
        # A resume may come inside an epoch, whose hook is then called again.
        for step in range(begin, end):
            if step % epoch_length == 0 or step == begin:
                hub.begin_epoch("train", step // epoch_length)
            hub.update_scalars({"train/loss": 1 / (step + 3), "train/lr": 0.1 * step})

    whole, first, resumed = MessageHub(window), MessageHub(window), MessageHub(window)
    feed(first, 0, before)
    resumed.load_state_dict(first.state_dict())
    feed(resumed, before, before + after)
    feed(whole, 0, before + after)
    for key in ("train/loss", "train/lr"):
        theirs, ours = whole.get_scalar(key), resumed.get_scalar(key)
        for size in (window, "epoch", "global"):
            assert ours.mean(size) == theirs.mean(size)  # type: ignore[arg-type]
    assert resumed.state_dict() == whole.state_dict()


def test_the_state_does_not_grow_with_the_run() -> None:
    hub = MessageHub(window=4)
    for step in range(500):
        hub.update_scalar("train/loss", float(step))
    state = hub.state_dict()["scalars"]["train/loss"]
    assert (len(state["values"]), len(state["counts"])) == (4, 4)
    check_plain(hub.state_dict())


def test_a_window_is_as_long_as_was_asked_for() -> None:
    hub = MessageHub(window=12_000)
    for step in range(12_000):
        hub.update_scalar("train/loss", float(step))
    resumed = MessageHub(window=12_000)
    resumed.load_state_dict(hub.state_dict())
    resumed.recall("train/loss")
    for one in (hub, resumed):
        assert one.get_scalar("train/loss").min(12_000) == 0.0


def test_a_scalar_that_is_no_longer_made_does_not_come_back() -> None:
    hub, resumed = MessageHub(), MessageHub()
    hub.update_scalars({"train/grad_norm": 1.0, "train/loss": 1.0})
    resumed.load_state_dict(hub.state_dict())
    resumed.update_scalar("train/loss", 3.0)
    assert list(resumed.log_scalars) == ["train/loss"]
    assert resumed.get_scalar("train/loss").mean() == 2.0
    assert set(resumed.state_dict()["scalars"]) == {"train/grad_norm", "train/loss"}


def test_a_scalar_that_will_be_made_again_can_be_recalled_at_once() -> None:
    hub, resumed = MessageHub(), MessageHub()
    hub.update_scalar("train/grad_norm", 1.0)
    resumed.load_state_dict(hub.state_dict())
    for key in ("train/grad_norm", "train/unknown"):
        resumed.recall(key)
    assert list(resumed.log_scalars) == ["train/grad_norm"]
    assert resumed.state_dict() == hub.state_dict()


def test_a_scalar_can_stay_out_of_checkpoints() -> None:
    hub = MessageHub()
    hub.update_scalar("train/time", 1.0, resumed=False)
    assert hub.state_dict()["scalars"] == {}


def test_an_evaluation_begins_its_window_anew() -> None:
    hub, resumed = MessageHub(), MessageHub()
    for value in (5.0, 7.0):
        hub.begin_epoch("val")
        hub.update_scalar("val/time", value)
    assert hub.get_scalar("val/time").mean("epoch") == 7.0
    resumed.load_state_dict(hub.state_dict())
    resumed.begin_epoch("val")
    resumed.update_scalar("val/time", 1.0)
    assert resumed.get_scalar("val/time").mean("epoch") == 1.0


def test_two_hubs_share_nothing() -> None:
    first, second = MessageHub(), MessageHub()
    first.update_scalar("train/loss", 1.0)
    first.update_info("epoch", 1)
    assert (second.log_scalars, second.runtime_info) == ({}, {})
    assert second.state_dict() == {"info": {}, "scalars": {}, "epochs": {}}
