"""Averaged weights: MMEngine's, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainkit.errors import ConfigError
from trainkit.model import (
    ExponentialMovingAverage,
    MomentumAnnealingEMA,
    StochasticWeightAverage,
)


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).double())


def train_a_little(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        model[1](torch.randn(8, 4, generator=generator))
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ExponentialMovingAverage", {"momentum": 0.0002}),
        ("ExponentialMovingAverage", {"momentum": 0.3}),
        ("ExponentialMovingAverage", {"momentum": 0.75}),
        ("MomentumAnnealingEMA", {"momentum": 0.2, "gamma": 7}),
        ("MomentumAnnealingEMA", {}),
        ("StochasticWeightAverage", {}),
    ],
)
@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("update_buffers", [False, True])
def test_ten_updates_equal_mmengines_to_the_bit(
    kind: str, options: dict[str, Any], interval: int, update_buffers: bool
) -> None:
    import mmengine.model

    import trainkit.model

    model = make()
    options = {**options, "interval": interval, "update_buffers": update_buffers}
    ours, theirs = (
        getattr(package, kind)(model, **options) for package in (trainkit.model, mmengine.model)
    )
    for step in range(10):
        train_a_little(model, step)
        ours.update_parameters(model)
        theirs.update_parameters(model)
        expected = dict(theirs.module.state_dict())
        if update_buffers:  # MMEngine leaves whole numbers at their first value
            expected["1.num_batches_tracked"] = ours.module[1].num_batches_tracked
        for name, value in ours.module.state_dict().items():
            assert torch.equal(value, expected[name]), (step, name)
    assert not torch.equal(ours.module[0].weight, model[0].weight)


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), interval=st.integers(1, 4))
def test_a_stochastic_weight_average_is_the_mean(values: list[float], interval: int) -> None:
    model = nn.Linear(1, 1, bias=False).double()
    average = StochasticWeightAverage(model, interval)
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    taken = values[::interval]
    assert average.module.weight.item() == pytest.approx(sum(taken) / len(taken), abs=1e-9)


@given(steps=st.integers(0, 10**6), gamma=st.integers(1, 1000), momentum=st.floats(1e-4, 0.9))
def test_annealing_comes_down_to_the_momentum(steps: int, gamma: int, momentum: float) -> None:
    average = MomentumAnnealingEMA(nn.Module(), momentum, gamma)
    assert average.weight(0) == 1.0
    assert average.weight(steps) >= average.weight(steps + 1) >= momentum
    assert average.weight(10**9) == max(momentum, gamma / (gamma + 10**9))


def test_between_two_averagings_the_weights_stay_and_buffers_follow() -> None:
    model = make()
    average = ExponentialMovingAverage(model, 0.5, interval=2)
    for step in range(2):
        train_a_little(model, step)
        before = average.module[0].weight.clone()
        average.update_parameters(model)
    assert torch.equal(average.module[0].weight, before)
    assert torch.equal(average.module[1].running_mean, model[1].running_mean)


def test_an_average_is_frozen() -> None:
    average = StochasticWeightAverage(make(), device="cpu")
    assert not any(parameter.requires_grad for parameter in average.parameters())


@pytest.mark.parametrize("gamma", [0, -1])
def test_a_gamma_that_is_not_above_0_is_refused(gamma: int) -> None:
    with pytest.raises(ConfigError) as caught:
        MomentumAnnealingEMA(make(), gamma=gamma)
    assert str(caught.value) == f"gamma is {gamma}; expected a number of updates above 0."


@pytest.mark.parametrize("interval", [0, -2, 1.5, True])
def test_an_interval_that_is_no_number_of_updates_is_refused(interval: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        StochasticWeightAverage(make(), interval)
    assert str(caught.value) == (
        f"interval is {interval!r}; expected a whole number of updates, at least 1."
    )


def test_the_first_update_copies() -> None:
    model = make()
    average = ExponentialMovingAverage(model, 0.1)
    train_a_little(model, 1)
    average.update_parameters(model)
    for ours, theirs in zip(average.module.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("update_buffers", [False, True])
def test_buffers_are_copied_unless_asked_to_be_averaged(update_buffers: bool) -> None:
    model = make()
    average = ExponentialMovingAverage(model, 0.1, update_buffers=update_buffers)
    for step in range(3):
        train_a_little(model, step)
        average.update_parameters(model)
    assert torch.equal(average.module[1].running_mean, model[1].running_mean) != update_buffers
    assert torch.equal(average.module[1].num_batches_tracked, model[1].num_batches_tracked)


def test_the_model_is_left_alone() -> None:
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = ExponentialMovingAverage(model, 0.5)
    average.update_parameters(model)
    average.update_parameters(model)
    with torch.no_grad():
        average.module[0].weight.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in average.parameters())


def test_an_average_goes_on_from_its_state() -> None:
    model = make()
    whole, half = (ExponentialMovingAverage(model, 0.1) for _ in range(2))
    for step in range(4):
        train_a_little(model, step)
        if step == 2:
            state = {name: value.clone() for name, value in half.state_dict().items()}
            half = ExponentialMovingAverage(make(), 0.1)
            half.load_state_dict(state)
        whole.update_parameters(model)
        half.update_parameters(model)
    for ours, theirs in zip(half.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("momentum", [0, 1, -0.1, 1.5, float("nan")])
def test_a_momentum_outside_its_range_is_refused(momentum: float) -> None:
    with pytest.raises(ConfigError, match=f"momentum is {momentum}; expected .* in \\(0, 1\\)"):
        ExponentialMovingAverage(make(), momentum)
