"""ParamScheduler and chain: a value of the optimizer as a pure function of the step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit import param_scheduler as ours
from trainkit.errors import ConfigError
from trainkit.optim_wrapper import OptimWrapper
from trainkit.param_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ParamScheduler,
    PolyLR,
    chain,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.optim

several = settings(max_examples=25, deadline=None, derandomize=True)


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(()))


def sgd(lr: float = 1.0, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD([parameter()], lr=lr, **options)


def follow(
    optimizer: Any, schedulers: Sequence[Any], steps: int, key: str = "lr"
) -> list[list[Any]]:
    """Return the value of each group at the steps 0..steps."""
    optimizer.step()
    found = [[group[key] for group in optimizer.param_groups]]
    for _ in range(steps):
        for scheduler in schedulers:
            scheduler.step()
        found.append([group[key] for group in optimizer.param_groups])
    return found


def followed(
    make: Callable[[Any], list[ParamScheduler]], steps: int, lr: float = 1.0
) -> list[float]:
    optimizer = sgd(lr)
    schedulers = make(optimizer)
    chain(schedulers)
    return [value for (value,) in follow(optimizer, schedulers, steps)]


def mmengine_followed(make: Callable[[Any], list[Any]], steps: int, lr: float = 1.0) -> list[float]:
    optimizer = sgd(lr)
    return [value for (value,) in follow(optimizer, make(optimizer), steps)]


@several
@given(
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.integers(1, 12),
    st.integers(1, 30),
    st.lists(st.integers(0, 25), max_size=4),
)
def test_warm_up_then_multi_step_equals_mmengine(
    lr: float, start_factor: float, warm_up: int, length: int, milestones: list[int]
) -> None:
    def make(package: Any) -> Callable[[Any], list[Any]]:
        return lambda optimizer: [
            package.LinearLR(optimizer, start_factor=start_factor, end=warm_up),
            package.MultiStepLR(
                optimizer, milestones=milestones, begin=warm_up, end=warm_up + length
            ),
        ]

    steps = warm_up + length + 2
    assert followed(make(ours), steps, lr) == pytest.approx(
        mmengine_followed(make(mmengine.optim), steps, lr), rel=1e-12, abs=0
    )


@several
@given(
    st.floats(0.01, 1.0),
    st.integers(1, 12),
    st.integers(2, 20),
    st.integers(0, 5),
    st.floats(0.0, 0.01),
)
def test_warm_up_then_cosine_equals_mmengine(
    lr: float, warm_up: int, length: int, gap: int, eta_min: float
) -> None:
    def make(package: Any) -> Callable[[Any], list[Any]]:
        begin = warm_up + gap
        return lambda optimizer: [
            package.LinearLR(optimizer, start_factor=0.1, end=warm_up),
            package.CosineAnnealingLR(optimizer, eta_min=eta_min, begin=begin, end=begin + length),
        ]

    steps = warm_up + gap + length + 2
    assert followed(make(ours), steps, lr) == pytest.approx(
        mmengine_followed(make(mmengine.optim), steps, lr), rel=1e-12, abs=0
    )


def test_disjoint_windows_equal_mmengine_in_any_list_order() -> None:
    def make(package: Any) -> Callable[[Any], list[Any]]:
        return lambda optimizer: [
            package.PolyLR(optimizer, eta_min=0.1, begin=4, end=9),
            package.LinearLR(optimizer, start_factor=0.1, end_factor=0.5, end=4),
        ]

    assert followed(make(ours), 10) == pytest.approx(
        mmengine_followed(make(mmengine.optim), 10), rel=1e-12, abs=0
    )


@several
@given(
    st.integers(1, 6),
    st.integers(1, 25),
    st.lists(st.integers(0, 6), max_size=3),
    st.floats(0.01, 1.0),
)
def test_warm_up_by_iteration_beside_milestones_by_epoch_equals_mmengine(
    epoch_length: int, warm_up: int, milestones: list[int], start_factor: float
) -> None:
    def train(package: Any) -> list[float]:
        optimizer = sgd(0.1)
        by_iter = package.LinearLR(
            optimizer, start_factor=start_factor, end=warm_up, by_epoch=False
        )
        by_epoch = package.MultiStepLR(optimizer, milestones=milestones, end=6, by_epoch=True)
        if package is ours:
            chain([by_iter, by_epoch])
        optimizer.step()
        found = []
        for _ in range(6):
            for _ in range(epoch_length):
                found.append(optimizer.param_groups[0]["lr"])
                by_iter.step()
            by_epoch.step()
        return [*found, optimizer.param_groups[0]["lr"]]

    assert train(ours) == pytest.approx(train(mmengine.optim), rel=1e-12, abs=0)


def test_overlapping_windows_fold_in_list_order() -> None:
    def make(optimizer: Any) -> list[ParamScheduler]:
        return [
            LinearLR(optimizer, start_factor=0.5, end=5),
            CosineAnnealingLR(optimizer, T_max=8, eta_min=0.2, begin=2, end=10),
            MultiStepLR(optimizer, milestones=[3], gamma=0.5, end=10),
        ]

    def expected(t: int) -> float:
        value = 0.5 + 0.5 * min(t, 4) / 4
        if t >= 2:
            value = 0.2 + (value - 0.2) * (1 + math.cos(math.pi * (min(t, 9) - 2) / 8)) / 2
        return value * 0.5 if t >= 3 else value

    assert followed(make, 12) == pytest.approx(
        [expected(t) for t in range(13)], rel=1e-14, abs=1e-16
    )


def test_without_chain_each_scheduler_is_alone() -> None:
    optimizer = sgd(1.0)
    LinearLR(optimizer, start_factor=0.5, end=5)
    MultiStepLR(optimizer, milestones=[0], gamma=0.1, end=5)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_chain_applies_the_joined_value_of_step_0() -> None:
    optimizer = sgd(1.0)
    chain(
        [
            LinearLR(optimizer, start_factor=0.5, end=5),
            MultiStepLR(optimizer, milestones=[0], gamma=0.5, end=5),
        ]
    )
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_chain_keeps_values_and_optimizers_apart() -> None:
    first, second = sgd(1.0, momentum=0.8), sgd(1.0)
    chain(
        [
            LinearLR(first, start_factor=0.5, end=5),
            LinearLR(first, param_name="momentum", start_factor=0.5, end=5),
            LinearLR(second, start_factor=0.1, end=5),
        ]
    )
    assert first.param_groups[0]["lr"] == 0.5
    assert first.param_groups[0]["momentum"] == 0.4
    assert second.param_groups[0]["lr"] == 0.1


def test_chain_joins_a_wrapper_with_its_own_optimizer() -> None:
    optimizer = sgd(1.0)
    chain(
        [
            LinearLR(optimizer, start_factor=0.5, end=5),
            MultiStepLR(OptimWrapper(optimizer), milestones=[0], gamma=0.5, end=5),
        ]
    )
    assert optimizer.param_groups[0]["lr"] == 0.25


def joined(optimizer: Any) -> list[ParamScheduler]:
    schedulers = [
        LinearLR(optimizer, start_factor=1 / 3, end=7),
        PolyLR(optimizer, power=0.9, eta_min=1e-3, begin=3, end=17),
        MultiStepLR(optimizer, milestones=[5, 11], begin=2, end=30),
    ]
    chain(schedulers)
    return schedulers


def test_loading_a_step_gives_the_bits_of_stepping_there() -> None:
    stepped = followed(joined, 25, lr=0.1)
    optimizer = sgd(0.1)
    schedulers = joined(optimizer)
    for t in [*range(25, -1, -1), 13]:
        for scheduler in schedulers:
            scheduler.load_state_dict({"last_step": t})
        assert optimizer.param_groups[0]["lr"] == stepped[t]


def test_a_resumed_schedule_goes_on_as_the_uninterrupted_one() -> None:
    whole = followed(joined, 25, lr=0.1)
    first = sgd(0.1)
    before = joined(first)
    follow(first, before, 9)
    second = sgd(0.1)
    after = joined(second)
    for scheduler, old in zip(after, before, strict=True):
        scheduler.load_state_dict(old.state_dict())
    assert [value for (value,) in follow(second, after, 16)] == whole[9:]


def test_the_state_is_the_step_alone_so_edited_milestones_take_effect() -> None:
    old = MultiStepLR(sgd(), milestones=[100], end=200)
    follow(old.optimizer, [old], 5)
    optimizer = sgd()
    edited = MultiStepLR(optimizer, milestones=[3], gamma=0.5, end=200)
    assert old.state_dict() == {"last_step": 5}
    edited.load_state_dict(old.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_value_set_by_hand_does_not_shift_the_schedule() -> None:
    optimizer = sgd()
    scheduler = LinearLR(optimizer, start_factor=0.0, end=5)
    optimizer.param_groups[0]["lr"] = 77.0
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("make", "first"),
    [
        (lambda optimizer: LinearLR(optimizer, start_factor=0.25), 0.5),
        (lambda optimizer: MultiStepLR(optimizer, milestones=[0], gamma=0.5), 1.0),
        (lambda optimizer: OneCycleLR(optimizer, eta_max=1.0, end=50), 0.04),
        (lambda optimizer: LinearLR(optimizer, start_factor=0.25, begin=1), 2.0),
    ],
)
def test_the_value_of_step_0_is_applied_at_once(
    make: Callable[[Any], ParamScheduler], first: float
) -> None:
    optimizer = sgd(2.0)
    scheduler = make(optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(first, rel=1e-14, abs=1e-16)
    assert scheduler.get_last_value() == [optimizer.param_groups[0]["lr"]]


def test_each_group_is_scaled_from_its_own_base() -> None:
    optimizer = torch.optim.SGD(
        [{"params": [parameter()], "lr": 1.0}, {"params": [parameter()], "lr": 0.1}], lr=0.5
    )
    scheduler = CosineAnnealingLR(optimizer, T_max=4, eta_min_ratio=0.5, end=9)
    found = follow(optimizer, [scheduler], 4)
    assert found[0] == [1.0, 0.1]
    assert found[4] == pytest.approx([0.5, 0.05], rel=1e-15, abs=0)
    assert [second / first for first, second in found] == pytest.approx(
        [0.1] * 5, rel=1e-14, abs=1e-16
    )


def test_momentum_of_sgd_equals_mmengine() -> None:
    mine, theirs = sgd(momentum=0.9), sgd(momentum=0.9)
    arguments = {"start_factor": 0.5, "begin": 2, "end": 9}
    found = follow(mine, [LinearLR(mine, param_name="momentum", **arguments)], 10, "momentum")
    scheduler = mmengine.optim.LinearMomentum(theirs, **arguments)
    expected = follow(theirs, [scheduler], 10, "momentum")
    assert [value for (value,) in found] == pytest.approx(
        [value for (value,) in expected], rel=1e-12, abs=0
    )
    assert mine.param_groups[0]["lr"] == 1.0


def test_momentum_of_adam_is_its_first_beta_as_in_mmengine() -> None:
    mine, theirs = (torch.optim.AdamW([parameter()], betas=(0.9, 0.99)) for _ in range(2))
    arguments = {"start_factor": 0.5, "begin": 2, "end": 9}
    scheduler = LinearLR(mine, param_name="momentum", **arguments)
    found = [betas for (betas,) in follow(mine, [scheduler], 10, "betas")]
    expected = follow(theirs, [mmengine.optim.LinearMomentum(theirs, **arguments)], 10, "betas")
    assert [first for first, _ in found] == pytest.approx(
        [first for ((first, _),) in expected], rel=1e-12, abs=0
    )
    assert {second for _, second in found} == {0.99}
    assert scheduler.get_last_value() == [found[-1][0]]


def test_weight_decay_is_scheduled_by_the_same_class() -> None:
    optimizer = sgd(weight_decay=0.2)
    scheduler = PolyLR(optimizer, param_name="weight_decay", end=5)
    found = [value for (value,) in follow(optimizer, [scheduler], 5, "weight_decay")]
    assert found == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0, 0.0], rel=1e-14, abs=1e-16)
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_an_unknown_value_is_an_error_that_lists_those_there_are() -> None:
    optimizer = torch.optim.Adagrad([parameter()], lr=0.1)
    LinearLR(optimizer)
    with pytest.raises(ConfigError, match=r"LinearLR has param_name='momentum'") as raised:
        LinearLR(optimizer, param_name="momentum")
    assert "lr, lr_decay, eps, weight_decay" in str(raised.value)
    assert "params," not in str(raised.value)
    assert "initial_" not in str(raised.value)


def test_a_value_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ConfigError, match="param_name='foreach'"):
        LinearLR(sgd(), param_name="foreach")


def test_a_wrapper_is_scheduled_as_its_optimizer() -> None:
    optimizer = sgd(2.0)
    scheduler = LinearLR(OptimWrapper(optimizer), start_factor=0.5, end=3)
    found = follow(optimizer, [scheduler], 2)
    assert [value for (value,) in found] == [1.0, 1.5, 2.0]


@pytest.mark.parametrize(("begin", "end"), [(-1, 5), (5, 5), (6, 5), (0, 0)])
def test_a_window_that_is_empty_or_negative_is_an_error(begin: int, end: int) -> None:
    with pytest.raises(ConfigError) as raised:
        LinearLR(sgd(), begin=begin, end=end)
    assert f"begin={begin} and end={end}; expected 0 <= begin < end" in str(raised.value)
