"""Averaged weights: MMEngine's, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainkit.errors import ConfigError
from trainkit.model import ExponentialMovingAverage


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
@pytest.mark.parametrize("momentum", [0.0002, 0.3, 0.75])
@pytest.mark.parametrize("update_buffers", [False, True])
def test_ten_updates_equal_mmengines_to_the_bit(momentum: float, update_buffers: bool) -> None:
    from mmengine.model import ExponentialMovingAverage as Reference

    model = make()
    ours = ExponentialMovingAverage(model, momentum, update_buffers)
    theirs = Reference(model, momentum, update_buffers=update_buffers)
    for step in range(10):
        train_a_little(model, step)
        ours.update_parameters(model)
        theirs.update_parameters(model)
        expected = dict(theirs.module.state_dict())
        if update_buffers:  # MMEngine leaves whole numbers at their first value
            expected["1.num_batches_tracked"] = model.state_dict()["1.num_batches_tracked"]
        for name, value in ours.module.state_dict().items():
            assert torch.equal(value, expected[name]), (step, name)
    assert not torch.equal(ours.module[0].weight, model[0].weight)


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
    average = ExponentialMovingAverage(model, 0.1, update_buffers)
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
