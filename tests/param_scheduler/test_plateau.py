"""ReduceOnPlateauLR: when it reduces, what it watches, and its state."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import on_ranks
from trainkit.errors import ConfigError
from trainkit.param_scheduler import LinearLR, ReduceOnPlateauLR, chain


def sgd(lr: float = 1.0) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=lr)


def seen(scheduler: ReduceOnPlateauLR, *values: float) -> list[float]:
    """Return the value after each look at a validation."""
    found = []
    for value in values:
        scheduler.step()
        scheduler.observe_metrics({scheduler.monitor: value})
        found += scheduler.get_last_value()
    return found


def trained(scheduler: ReduceOnPlateauLR, *losses: Any) -> list[float]:
    """Return the value after each iteration with a loss."""
    found = []
    for loss in losses:
        scheduler.observe_outputs({"loss": loss, "other": 1.0})
        scheduler.step()
        found += scheduler.get_last_value()
    return found


def test_it_reduces_after_more_than_patience_looks_without_improvement() -> None:
    scheduler = ReduceOnPlateauLR(sgd(), factor=0.5, patience=1)
    assert seen(scheduler, 3, 2, 2, 2, 2, 2) == [1, 1, 1, 0.5, 0.5, 0.25]


def test_the_cooldown_is_waited_for_first() -> None:
    scheduler = ReduceOnPlateauLR(sgd(), factor=0.5, patience=0, cooldown=2)
    assert seen(scheduler, 3, 3, 3, 3, 3, 3) == [1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_it_looks_only_within_its_window_and_stays_after() -> None:
    scheduler = ReduceOnPlateauLR(sgd(), factor=0.5, patience=0, begin=3, end=5)
    assert seen(scheduler, 3, 3, 3, 3, 3, 3) == [1, 1, 1, 0.5, 0.5, 0.5]


def test_it_never_falls_below_min_value_nor_by_less_than_eps() -> None:
    floor = ReduceOnPlateauLR(sgd(), factor=0.5, patience=0, min_value=0.3)
    assert seen(floor, 3, 3, 3, 3) == [1, 0.5, 0.3, 0.3]
    coarse = ReduceOnPlateauLR(sgd(), factor=0.5, patience=0, eps=0.2)
    assert seen(coarse, 3, 3, 3, 3) == [1, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_improvement(value: float) -> None:
    scheduler = ReduceOnPlateauLR(sgd(), factor=0.5, patience=0)
    assert seen(scheduler, value, 3, value, 2) == [0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("rule", "threshold_rule", "best", "enough", "too_little"),
    [
        ("less", "rel", 2.0, 1.79, 1.81),
        ("less", "abs", 2.0, 1.89, 1.91),
        ("greater", "rel", 2.0, 2.21, 2.19),
        ("greater", "abs", 2.0, 2.11, 2.09),
        ("less", "rel", -2.0, -2.21, -2.19),
        ("greater", "rel", -2.0, -1.79, -1.81),
        ("less", "rel", 0.0, -0.01, 0.0),
    ],
)
def test_an_improvement_is_more_than_the_threshold(
    rule: Any, threshold_rule: Any, best: float, enough: float, too_little: float
) -> None:
    def after(value: float) -> float:
        scheduler = ReduceOnPlateauLR(
            sgd(), rule=rule, threshold=0.1, threshold_rule=threshold_rule, patience=0, factor=0.5
        )
        return seen(scheduler, best, value)[-1]

    assert (after(enough), after(too_little)) == (1.0, 0.5)


def test_it_goes_with_a_warm_up_whose_window_it_overlaps() -> None:
    optimizer = sgd()
    warm_up = LinearLR(optimizer, start_factor=0.5, end=5)
    plateau = ReduceOnPlateauLR(optimizer, factor=0.1, patience=0)
    chain([warm_up, plateau])
    found = []
    for value in (3, 3, 1, 1):
        warm_up.step()
        plateau.step({"loss": value})
        found += plateau.get_last_value()
    assert found == pytest.approx([0.625, 0.075, 0.0875, 0.01])


def test_a_reduction_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="trainkit"):
        seen(ReduceOnPlateauLR(sgd(), patience=1), 3, 3, 3)
    assert caplog.messages == [
        "ReduceOnPlateauLR: loss, at best 3, has not improved for more than 1 looks: reduction 1 "
        "of lr."
    ]


# ------------------------------------------------------------ a value of training


def test_a_train_loss_is_looked_at_as_its_mean_over_the_interval() -> None:
    scheduler = ReduceOnPlateauLR(
        sgd(), monitor="train/loss", patience=0, factor=0.5, interval=3, by_epoch=False
    )
    assert not scheduler.needs_validation
    first, worse, better = (1.0, 2.0, 3.0), (9.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    assert trained(scheduler, *first, *worse, *better) == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]


def test_tensors_of_training_are_added_on_their_device_in_double_precision() -> None:
    scheduler = ReduceOnPlateauLR(sgd(), monitor="train/loss", interval=2)
    scheduler.observe_outputs({"loss": torch.tensor([0.1], requires_grad=True)})
    assert isinstance(scheduler._sum, torch.Tensor)
    assert (scheduler._sum.dtype, scheduler._sum.requires_grad) == (torch.float64, False)
    assert scheduler.state_dict()["totals"] == [(float(torch.tensor(0.1).double()), 1)]


def test_a_validation_does_not_matter_to_one_that_watches_training() -> None:
    scheduler = ReduceOnPlateauLR(sgd(), monitor="train/loss", patience=0)
    scheduler.observe_metrics({"accuracy": 1.0})
    assert scheduler.state_dict()["bad"] == 0


def test_training_does_not_matter_to_one_that_watches_validation() -> None:
    scheduler = ReduceOnPlateauLR(sgd(), monitor="accuracy", patience=0)
    assert trained(scheduler, 1.0, 2.0, 3.0) == [1.0, 1.0, 1.0]


# ------------------------------------------------------------------------ messages


def message(call: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        call()
    return str(raised.value)


def test_what_it_does_not_get_is_named() -> None:
    val = ReduceOnPlateauLR(sgd(), monitor="acuracy", rule="greater")
    assert message(lambda: val.observe_metrics({"accuracy": 1.0})) == (
        "ReduceOnPlateauLR has monitor='acuracy', which validation does not give. Did you mean "
        "'accuracy'?"
    )
    train = ReduceOnPlateauLR(sgd(), monitor="train/los", rule="less")
    assert message(lambda: train.observe_outputs({"loss": 1.0})) == (
        "ReduceOnPlateauLR has monitor='train/los', which the train step does not return. Did you "
        "mean 'loss'?"
    )
    assert message(ReduceOnPlateauLR(sgd(), monitor="train/loss").step) == (
        "ReduceOnPlateauLR has monitor='train/loss', but no train step was seen since its last "
        "look. Give it what each returns: scheduler.observe_outputs(outputs)."
    )


@pytest.mark.parametrize("value", ["0.5", None, [1.0], torch.ones(2), True])
def test_what_is_no_number_is_refused(value: Any) -> None:
    kind = type(value).__name__
    told = f"ReduceOnPlateauLR has monitor='loss', whose value is a {kind}; expected a number."
    assert message(lambda: ReduceOnPlateauLR(sgd()).observe_metrics({"loss": value})) == told
    if value is not None:
        training = ReduceOnPlateauLR(sgd(), monitor="train/loss")
        assert "expected a number." in message(lambda: training.observe_outputs({"loss": value}))


# --------------------------------------------------------------------------- state


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.1, 9.0), min_size=4, max_size=30), st.data())
def test_resumed_anywhere_it_goes_on_to_the_bit(losses: list[float], data: st.DataObject) -> None:
    options: dict[str, Any] = {
        "monitor": "train/loss",
        "factor": 0.3,
        "patience": 1,
        "cooldown": 1,
        "interval": data.draw(st.integers(1, 5)),
    }
    at = data.draw(st.integers(0, len(losses)))
    tensors = [torch.tensor(loss) for loss in losses]
    whole = ReduceOnPlateauLR(sgd(), **options)
    expected = trained(whole, *tensors)
    before, after = ReduceOnPlateauLR(sgd(), **options), ReduceOnPlateauLR(sgd(), **options)
    found = trained(before, *tensors[:at])
    after.load_state_dict(before.state_dict())
    assert [*found, *trained(after, *tensors[at:])] == expected
    assert after.state_dict() == whole.state_dict()


def test_the_config_wins_over_the_state() -> None:
    before = ReduceOnPlateauLR(sgd(), factor=0.1, patience=0)
    seen(before, 3, 3, 3)
    after = ReduceOnPlateauLR(sgd(), factor=0.5, patience=0)
    after.load_state_dict(before.state_dict())
    assert after.get_last_value() == [0.25]


def test_a_best_of_another_metric_is_left(caplog: pytest.LogCaptureFixture) -> None:
    before = ReduceOnPlateauLR(sgd(), factor=0.1, patience=0)
    seen(before, 3, 3)
    after = ReduceOnPlateauLR(sgd(), monitor="accuracy", factor=0.1, patience=0)
    with caplog.at_level(logging.INFO, logger="trainkit"):
        after.load_state_dict(before.state_dict())
    assert (after.get_last_value(), after.best) == ([0.1], None)
    assert caplog.messages == [
        "ReduceOnPlateauLR watches {'monitor': 'accuracy', 'rule': 'greater'} now, not "
        "{'monitor': 'loss', 'rule': 'less'}: it begins to look anew."
    ]


def test_a_step_alone_is_a_state() -> None:
    scheduler = ReduceOnPlateauLR(sgd(), patience=0)
    seen(scheduler, 3, 3)
    scheduler.load_state_dict({"last_step": 7})
    assert (scheduler.last_step, scheduler.get_last_value()) == (7, [1.0])


# --------------------------------------------------------------------------- ranks


def train_on_a_rank(rank: int) -> list[list[float]]:
    options: dict[str, Any] = {"monitor": "train/loss", "factor": 0.5, "patience": 0, "interval": 2}
    losses = ([4.0, 4.0, 0.1, 0.1, 4.0, 4.0], [0.0, 0.0, 9.0, 9.0, 0.0, 0.1])[rank]
    whole = ReduceOnPlateauLR(sgd(), **options)
    expected = trained(whole, *losses)
    before, after = ReduceOnPlateauLR(sgd(), **options), ReduceOnPlateauLR(sgd(), **options)
    found = trained(before, *losses[:3])
    after.load_state_dict(before.state_dict())
    resumed = [*found, *trained(after, *losses[3:])]
    return [expected, resumed]


@pytest.mark.slow
def test_ranks_reduce_together_by_the_mean_of_all_and_resume_so(tmp_path: Path) -> None:
    found = on_ranks(train_on_a_rank, tmp_path)
    assert found == [[[1, 1, 1, 0.5, 0.5, 0.25]] * 2] * 2


def test_one_rank_goes_on_with_what_several_have_seen() -> None:
    scheduler = ReduceOnPlateauLR(sgd(), monitor="train/loss", interval=9)
    state = {**scheduler.state_dict(), "totals": [(1.0, 2), (3.0, 2)]}
    scheduler.load_state_dict(state)
    assert scheduler.state_dict()["totals"] == [(4.0, 4)]
