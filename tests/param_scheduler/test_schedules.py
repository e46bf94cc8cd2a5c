"""Every schedule beside its closed form; tests/parity has them beside MMEngine's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from trainkit import param_scheduler
from trainkit.errors import ConfigError


def values(name: str, lr: float, steps: int, **arguments: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=lr)
    scheduler = getattr(param_scheduler, name)(optimizer, **arguments)
    optimizer.step()
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def trained_at(name: str, steps: int, **arguments: Any) -> list[float]:
    return values(name, 1.0, steps, **arguments)


def test_constant_is_a_share_until_one_step_before_its_end() -> None:
    found = trained_at("ConstantLR", 7, factor=0.25, begin=2, end=6)
    assert found == [1.0, 1.0, 0.25, 0.25, 0.25, 1.0, 1.0, 1.0]


def test_constant_of_one_step_stays_a_share() -> None:
    assert trained_at("ConstantLR", 2, factor=0.5, end=1) == [0.5, 0.5, 0.5]


def test_exponential_multiplies_in_every_step() -> None:
    found = trained_at("ExponentialLR", 5, gamma=0.5, begin=1, end=5)
    assert found == [1.0, 1.0, 0.5, 0.25, 0.125, 0.125]


def test_exponential_growth_without_bound_is_infinite_and_no_error() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = param_scheduler.ExponentialLR(optimizer, gamma=10.0)
    scheduler.load_state_dict({"last_step": 400})
    assert scheduler.get_last_value() == [math.inf]


def test_step_multiplies_every_step_size_from_begin_on() -> None:
    found = trained_at("StepLR", 7, step_size=2, gamma=0.5, begin=1, end=6)
    assert found == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_restarts_begin_at_their_weights_and_stay_after_the_last_period() -> None:
    found = trained_at(
        "CosineRestartLR", 9, periods=[2, 4], restart_weights=[1, 0.5], eta_min=0.1, begin=1
    )
    quarter = math.cos(math.pi / 4)
    second = [0.5, 0.3 + 0.2 * quarter, 0.3, 0.3 - 0.2 * quarter]
    assert found == pytest.approx([1.0, 1.0, 0.55, *second, *second[-1:] * 3], rel=1e-14)


def test_a_restart_ratio_is_a_share_of_the_optimizers_own_value() -> None:
    found = trained_at("CosineRestartLR", 2, periods=[2, 9], eta_min_ratio=0.5)
    assert found == pytest.approx([1.0, 0.75, 1.0], rel=1e-14)


@pytest.mark.parametrize(
    ("name", "arguments", "turns"),
    [
        ("ConstantLR", {}, []),
        ("MultiStepLR", {"milestones": [2, 5]}, [(3, "milestones"), (6, "milestones")]),
        ("CosineAnnealingLR", {"T_max": 4}, [(5, "T_max")]),
        ("CosineRestartLR", {"periods": [2, 4], "eta_min": 0.0}, [(3, "periods"), (7, "periods")]),
        ("StepLR", {"step_size": 3}, [(4, "step_size"), (7, "step_size")]),
        ("StepLR", {"step_size": 30}, [(31, "step_size")]),
        ("ReduceOnPlateauLR", {}, None),
    ],
)
def test_a_schedule_tells_where_it_turns(
    name: str, arguments: dict[str, Any], turns: list[tuple[int, str]] | None
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = getattr(param_scheduler, name)(optimizer, begin=1, end=10, **arguments)
    window = [(1, "begin"), (10, "end")]
    assert list(scheduler.turns()) == ([] if turns is None else [*window, *turns])


def test_linear_reaches_the_end_factor_in_the_last_step_of_its_window() -> None:
    found = trained_at("LinearLR", 7, start_factor=0.25, end_factor=0.75, begin=2, end=7)
    assert found == pytest.approx([1, 1, 0.25, 0.375, 0.5, 0.625, 0.75, 0.75], rel=1e-15, abs=0)


def test_linear_may_start_at_zero() -> None:
    found = trained_at("LinearLR", 5, start_factor=0.0, end=5)
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_of_one_step_stays_at_the_start_factor() -> None:
    assert trained_at("LinearLR", 2, start_factor=0.5, begin=1, end=2) == [1.0, 0.5, 0.5]


def test_milestones_count_from_begin_and_a_double_one_counts_twice() -> None:
    found = trained_at("MultiStepLR", 7, milestones=[0, 2, 2, 9], gamma=0.5, begin=3, end=12)
    assert found == [1, 1, 1, 0.5, 0.5, 0.125, 0.125, 0.125]


def test_cosine_comes_back_after_twice_t_max() -> None:
    found = trained_at("CosineAnnealingLR", 8, T_max=4, eta_min=0.2, end=20)
    quarter = math.cos(math.pi / 4)
    down = [1.0, 0.6 + 0.4 * quarter, 0.6, 0.6 - 0.4 * quarter, 0.2]
    assert found == pytest.approx(down + down[-2::-1], rel=1e-14, abs=0)


def test_cosine_over_its_window_ends_just_above_the_minimum() -> None:
    found = trained_at("CosineAnnealingLR", 9, eta_min_ratio=0.1, end=5)
    last = 0.1 + 0.9 * (1 + math.cos(math.pi * 4 / 5)) / 2
    assert found[4:] == pytest.approx([last] * 6, rel=1e-15, abs=0)


def test_eta_min_ratio_is_a_share_of_the_optimizers_own_value() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.4)
    halved = param_scheduler.LinearLR(optimizer, end_factor=0.5, end=2)
    cosine = param_scheduler.CosineAnnealingLR(optimizer, T_max=3, eta_min_ratio=0.25, begin=2)
    param_scheduler.chain([halved, cosine])
    for scheduler in (halved, cosine):
        scheduler.load_state_dict({"last_step": 5})
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1, rel=1e-15, abs=0)


def test_poly_is_exactly_the_minimum_in_its_last_step() -> None:
    found = trained_at("PolyLR", 6, power=2.0, eta_min=0.36, end=5)
    expected = [0.36 + 0.64 * (1 - s / 4) ** 2 for s in range(5)]
    assert found == pytest.approx([*expected, 0.36, 0.36], rel=1e-15, abs=0)
    assert found[4] == 0.36


def test_one_cycle_goes_through_its_corners() -> None:
    found = trained_at(
        "OneCycleLR",
        11,
        eta_max=2.0,
        pct_start=0.5,
        anneal_strategy="linear",
        div_factor=4.0,
        final_div_factor=5.0,
        end=10,
    )
    up = [0.5, 0.875, 1.25, 1.625, 2.0]
    down = [1.62, 1.24, 0.86, 0.48, 0.1]
    assert found == pytest.approx([*up, *down, 0.1, 0.1], rel=1e-14, abs=0)


def test_one_cycle_of_three_phases_comes_back_to_its_first_value() -> None:
    found = trained_at(
        "OneCycleLR", 9, eta_max=1.0, pct_start=0.4, div_factor=4.0, three_phase=True, end=10
    )
    assert [found[0], found[3], found[6]] == pytest.approx([0.25, 1.0, 0.25], rel=1e-15, abs=0)
    assert found[9] == pytest.approx(0.25e-4, rel=1e-11, abs=0)


def test_one_cycle_stays_at_its_last_value_after_total_steps() -> None:
    found = trained_at("OneCycleLR", 8, eta_max=1.0, total_steps=5, end=9)
    assert found[4:] == pytest.approx([1 / 25 / 1e4] * 5, rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("LinearLR", {"start_factor": 1.5}, ["start_factor=1.5", "[0, 1]"]),
        ("LinearLR", {"end_factor": -0.1}, ["end_factor=-0.1", "[0, 1]"]),
        ("ConstantLR", {"factor": 1.5}, ["factor=1.5", "[0, 1]"]),
        ("ExponentialLR", {"gamma": -1}, ["gamma=-1", "0 or more"]),
        ("StepLR", {"step_size": 0}, ["step_size=0", "at least 1"]),
        ("StepLR", {"step_size": 2.5}, ["step_size=2.5", "a whole number"]),
        ("StepLR", {"step_size": 2, "gamma": -1}, ["gamma=-1", "0 or more"]),
        ("CosineRestartLR", {"periods": [], "eta_min": 0}, ["periods=[]", "[10, 20]"]),
        ("CosineRestartLR", {"periods": 10, "eta_min": 0}, ["periods=10", "[10, 20]"]),
        ("CosineRestartLR", {"periods": [3, 0], "eta_min": 0}, ["periods=[3, 0]", "[10, 20]"]),
        (
            "CosineRestartLR",
            {"periods": [3, 2, 1], "restart_weights": [1, 2], "eta_min": 0},
            ["3 periods and 2 restart_weights", "one for all"],
        ),
        ("CosineRestartLR", {"periods": [3]}, ["neither eta_min nor eta_min_ratio", "give one"]),
        (
            "CosineRestartLR",
            {"periods": [3], "eta_min": 0, "eta_min_ratio": 0},
            ["both eta_min and eta_min_ratio", "give one"],
        ),
        ("OneCycleLR", {"eta_max": [1, 2]}, ["2 values of eta_max", "1 parameter groups"]),
        ("ReduceOnPlateauLR", {"factor": 1.0}, ["factor=1.0", "below 1"]),
        ("ReduceOnPlateauLR", {"rule": "min"}, ["rule='min'", "'less' or 'greater'"]),
        ("ReduceOnPlateauLR", {"threshold_rule": "r"}, ["threshold_rule='r'", "'rel' or 'abs'"]),
        ("ReduceOnPlateauLR", {"threshold": -1}, ["threshold=-1", "0 or more"]),
        ("ReduceOnPlateauLR", {"patience": -1}, ["patience=-1", "at least 0"]),
        ("ReduceOnPlateauLR", {"cooldown": 0.5}, ["cooldown=0.5", "at least 0"]),
        ("ReduceOnPlateauLR", {"min_value": [0, 0]}, ["2 values of min_value", "1 parameter"]),
        ("ReduceOnPlateauLR", {"monitor": "x"}, ["Is more or less of 'x' better", "Set rule"]),
        ("ReduceOnPlateauLR", {"interval": 5}, ["interval=5", "monitor='loss'", "train/loss"]),
        ("ReduceOnPlateauLR", {"interval": 0}, ["interval=0", "at least 1"]),
        ("CosineAnnealingLR", {"T_max": 0}, ["T_max=0", "at least 1"]),
        (
            "CosineAnnealingLR",
            {"eta_min": 0.0, "eta_min_ratio": 0.1},
            ["eta_min", "eta_min_ratio", "one of them"],
        ),
        ("OneCycleLR", {"param_name": "weight_decay"}, ["param_name='weight_decay'", "'lr' only"]),
        ("OneCycleLR", {"pct_start": 1.1}, ["pct_start=1.1", "[0, 1]"]),
        ("OneCycleLR", {"total_steps": 0}, ["total_steps=0", "at least 1"]),
        (
            "OneCycleLR",
            {"anneal_strategy": "cosine"},
            ["anneal_strategy='cosine'", "'cos' or 'linear'"],
        ),
    ],
)
def test_an_argument_out_of_range_is_named_with_what_fits(
    name: str, arguments: dict[str, Any], said: list[str]
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    with pytest.raises(ConfigError) as raised:
        getattr(param_scheduler, name)(optimizer, **arguments)
    assert [part for part in [name, *said] if part not in str(raised.value)] == []
    assert optimizer.param_groups[0]["lr"] == 1.0
