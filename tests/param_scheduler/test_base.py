"""ParamScheduler and chain: a value of the optimizer as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from trainkit.errors import ConfigError
from trainkit.optim_wrapper import OptimWrapper
from trainkit.param_scheduler import (
    CosineAnnealingLR,
    CosineRestartLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ParamScheduler,
    PolyLR,
    chain,
)


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


def test_momentum_is_the_optimizers_momentum_or_its_first_beta() -> None:
    first, second = sgd(momentum=0.8), torch.optim.AdamW([parameter()], betas=(0.8, 0.99))
    for optimizer, key in ((first, "momentum"), (second, "betas")):
        scheduler = LinearLR(optimizer, param_name="momentum", start_factor=0.5, end=3)
        found = [value for (value,) in follow(optimizer, [scheduler], 3, key)]
        values = [value[0] if key == "betas" else value for value in found]
        assert values == pytest.approx([0.4, 0.6, 0.8, 0.8], rel=1e-15)
        assert scheduler.get_last_value() == [0.8]
    assert second.param_groups[0]["betas"] == (0.8, 0.99)
    assert second.param_groups[0]["lr"] == 0.001


def test_a_beta_in_a_tensor_is_written_in_place() -> None:
    beta = torch.tensor(0.8)
    options: dict[str, Any] = {"lr": torch.tensor(0.1), "betas": (beta, torch.tensor(0.9))}
    optimizer = torch.optim.AdamW([parameter()], **options)
    LinearLR(optimizer, param_name="momentum", start_factor=0.5, end=3)
    assert float(beta) == pytest.approx(0.4)


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


def test_the_betas_are_two_and_momentum_is_the_first() -> None:
    optimizer = torch.optim.AdamW([parameter()])
    with pytest.raises(ConfigError) as raised:
        LinearLR(optimizer, param_name="betas")
    assert str(raised.value) == (
        "LinearLR has param_name='betas'; expected the name of a number; 'momentum' is the first "
        "of the betas."
    )


def test_a_value_that_only_some_groups_have_is_an_error() -> None:
    groups = [{"params": [parameter()], "scale": 2.0}, {"params": [parameter()]}]
    with pytest.raises(ConfigError, match=r"param_name='scale'; the optimizer has lr, momentum"):
        LinearLR(torch.optim.SGD(groups, lr=0.1), param_name="scale")


def test_a_value_for_each_group_leaves_the_wrappers_base_settings_to_the_last() -> None:
    groups = [{"params": [parameter()]}, {"params": [parameter()], "lr": 0.5}]
    wrapper = OptimWrapper(torch.optim.SGD(groups, lr=0.1))
    scheduler = OneCycleLR(wrapper, eta_max=[1.0, 2.0], end=9)
    assert scheduler.peaks == [1.0, 2.0, 2.0][: len(wrapper.param_groups)]
    assert [group["lr"] for group in groups] == pytest.approx([1.0 / 25, 2.0 / 25])


def test_windows_in_different_units_are_put_in_the_order_of_time() -> None:
    def joined(*, mixed: bool) -> list[float]:
        optimizer = sgd(1.0)
        last = CosineRestartLR(optimizer, periods=[4], eta_min=0.0, begin=1, end=3, by_epoch=mixed)
        first = LinearLR(optimizer, start_factor=1.0, end_factor=0.5, end=1 + 3 * mixed)
        chain([last, first], lambda scheduler: 4 if scheduler.unit == "epoch" else 1)
        last.last_step, first.last_step = 1, 4
        last.apply()
        return last.get_last_value()

    assert joined(mixed=True) == joined(mixed=False) == [1.0]


def test_updates_are_counted_by_the_wrapper_only() -> None:
    with pytest.raises(ConfigError) as raised:
        LinearLR(sgd(), by_update=True)
    assert str(raised.value) == (
        "LinearLR has by_update=True, but SGD does not count its updates. Make the schedule with "
        "the OptimWrapper."
    )
    with pytest.raises(ConfigError, match="both by_epoch and by_update; a step is one of them"):
        LinearLR(OptimWrapper(sgd()), by_update=True, by_epoch=True)


def test_a_schedule_by_updates_moves_with_them() -> None:
    optimizer = sgd(1.0)
    wrapper = OptimWrapper(optimizer, accumulative_counts=3)
    scheduler = LinearLR(wrapper, start_factor=0.5, end=3, by_update=True)
    assert (scheduler.unit, scheduler.by_epoch) == ("update", False)
    found = []
    for _ in range(7):
        found.append(optimizer.param_groups[0]["lr"])
        wrapper.update_params(optimizer.param_groups[0]["params"][0] * 2)
        scheduler.catch_up()
    assert found == [0.5, 0.5, 0.5, 0.75, 0.75, 0.75, 1.0]


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
