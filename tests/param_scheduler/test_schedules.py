"""Every schedule beside MMEngine's of the same name, and beside its closed form."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainkit import param_scheduler
from trainkit.errors import ConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.optim

several = settings(max_examples=25, deadline=None, derandomize=True)

LRS = st.floats(0.01, 1.0)
WINDOWS = st.builds(
    lambda begin, length: {"begin": begin, "end": begin + length},
    st.integers(0, 6),
    st.integers(1, 30),
)


def values(package: Any, name: str, lr: float, steps: int, **arguments: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=lr)
    scheduler = getattr(package, name)(optimizer, **arguments)
    optimizer.step()
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def assert_equals_mmengine(name: str, lr: float, scale: float = 1.0, **arguments: Any) -> None:
    steps = arguments["end"] + 3
    expected = values(mmengine.optim, name, lr, steps, **arguments)
    assert values(param_scheduler, name, lr, steps, **arguments) == pytest.approx(
        expected, rel=1e-12, abs=1e-15 * scale
    )


@several
@given(LRS, WINDOWS, st.floats(0.01, 1.0), st.just(0.0) | st.floats(0.01, 1.0))
def test_linear_equals_mmengine(
    lr: float, window: dict[str, int], start_factor: float, end_factor: float
) -> None:
    assert_equals_mmengine(
        "LinearLR", lr, lr, start_factor=start_factor, end_factor=end_factor, **window
    )


@several
@given(LRS, WINDOWS, st.lists(st.integers(0, 35), max_size=6), st.floats(0.05, 2.0))
def test_multi_step_equals_mmengine(
    lr: float, window: dict[str, int], milestones: list[int], gamma: float
) -> None:
    assert_equals_mmengine("MultiStepLR", lr, 0.0, milestones=milestones, gamma=gamma, **window)


@several
@given(
    LRS,
    WINDOWS,
    st.none() | st.integers(1, 40),
    st.one_of(
        st.just({}),
        st.fixed_dictionaries({"eta_min": st.floats(0.0, 1.0)}),
        st.fixed_dictionaries({"eta_min_ratio": st.floats(0.0, 1.0)}),
    ),
)
def test_cosine_equals_mmengine(
    lr: float, window: dict[str, int], T_max: int | None, minimum: dict[str, float]
) -> None:
    assert_equals_mmengine("CosineAnnealingLR", lr, T_max=T_max, **minimum, **window)


@several
@given(LRS, WINDOWS, st.floats(0.0, 3.0), st.floats(0.0, 1.0))
def test_poly_equals_mmengine(
    lr: float, window: dict[str, int], power: float, eta_min: float
) -> None:
    assert_equals_mmengine("PolyLR", lr, power=power, eta_min=eta_min, **window)


@several
@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
@given(
    lr=LRS,
    window=WINDOWS,
    beyond=st.none() | st.integers(0, 10),
    eta_max=st.floats(0.01, 1.0),
    pct_start=st.floats(0.0, 1.0),
    div_factor=st.floats(1.0, 100.0),
    final_div_factor=st.floats(1.0, 1e4),
)
def test_one_cycle_equals_mmengine(
    anneal_strategy: str,
    three_phase: bool,
    lr: float,
    window: dict[str, int],
    beyond: int | None,
    eta_max: float,
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
) -> None:
    length = window["end"] - window["begin"]
    total_steps = None if beyond is None else length + beyond
    assume(pct_start * (total_steps or length) != 1.0)  # MMEngine divides by the peak's step
    assert_equals_mmengine(
        "OneCycleLR",
        lr,
        eta_max=eta_max,
        total_steps=total_steps,
        pct_start=pct_start,
        anneal_strategy=anneal_strategy,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        three_phase=three_phase,
        **window,
    )


@pytest.mark.parametrize("name", ["LinearLR", "CosineAnnealingLR", "PolyLR"])
def test_defaults_are_those_of_mmengine(name: str) -> None:
    assert_equals_mmengine(name, 0.1, end=12)


def test_multi_step_gamma_is_a_tenth_as_in_mmengine() -> None:
    assert_equals_mmengine("MultiStepLR", 0.1, milestones=[2, 5], end=8)


def test_one_cycle_defaults_are_those_of_mmengine() -> None:
    assert_equals_mmengine("OneCycleLR", 0.1, eta_max=0.5, end=20)


def trained_at(name: str, steps: int, **arguments: Any) -> list[float]:
    return values(param_scheduler, name, 1.0, steps, **arguments)


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
