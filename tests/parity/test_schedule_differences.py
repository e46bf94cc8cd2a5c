"""Where schedules differ from MMEngine's on purpose: each difference, beside what MMEngine does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.parity.test_schedules import (
    PARAM_SCHEDULERS,
    Run,
    held,
    parameter,
    sgd,
    stepped,
    validated,
)
from trainkit import ConfigError
from trainkit import param_scheduler as ours
from trainkit.optim_wrapper import OptimWrapper
from trainkit.runner.optim import build_param_schedulers

pytestmark = pytest.mark.filterwarnings("ignore")


def alone(package: Any, name: str, steps: int, **arguments: Any) -> list[float]:
    """Return the learning rate at the steps 0..steps; ``package`` None is MMEngine."""
    optimizer = torch.optim.SGD([parameter()], lr=1.0)
    make = getattr(ours, name) if package is ours else PARAM_SCHEDULERS.get(name)
    return stepped(optimizer, [make(optimizer, **arguments)], steps)[:: len(held(optimizer))]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("ConstantLR", {"factor": 0.0, "end": 3}, [0.0, 0.0, 1.0]),
        ("LinearLR", {"start_factor": 0.0, "end": 3}, [0.0, 0.5, 1.0]),
        (
            "OneCycleLR",  # whose peak is its first step
            {"eta_max": 1.0, "pct_start": 0.25, "end": 4, "anneal_strategy": "linear"},
            [1.0, 2 / 3, 1 / 3],
        ),
    ],
)
def test_a_factor_of_0_and_a_peak_at_once_are_no_division_by_zero(
    name: str, arguments: dict[str, Any], expected: list[float]
) -> None:
    assert alone(ours, name, 2, **arguments) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ZeroDivisionError):
        alone(None, name, 2, **arguments)


def followed(make: Any, package: Any, steps: int) -> list[float]:
    """Return the learning rate of schedulers that are stepped together."""
    optimizer = torch.optim.SGD([parameter()], lr=1.0)
    schedulers = make(
        lambda name, **given: (
            getattr(ours, name) if package is ours else PARAM_SCHEDULERS.get(name)
        )(optimizer, **given)
    )
    if package is ours:
        ours.chain(schedulers)
    return stepped(optimizer, schedulers, steps)[:: len(held(optimizer))]


def test_overlapping_windows_with_a_minimum_fold_and_are_not_multiplied_in_place() -> None:
    def make(build: Any) -> list[Any]:
        return [
            build("LinearLR", start_factor=0.5, end=5),
            build("CosineAnnealingLR", T_max=8, eta_min=0.2, end=8),
        ]

    def fold(t: int) -> float:
        warm = 0.5 + 0.5 * min(t, 4) / 4
        return 0.2 + (warm - 0.2) * (1 + math.cos(math.pi * min(t, 7) / 8)) / 2

    found = followed(make, ours, 9)
    assert found == pytest.approx([fold(t) for t in range(10)], rel=1e-12)
    assert abs(found[4] - followed(make, None, 9)[4]) > 0.01


def test_a_restart_wins_over_a_warm_up_before_it_in_the_list_in_every_step() -> None:
    def make(build: Any) -> list[Any]:
        return [
            build("LinearLR", start_factor=0.1, end=4),
            build("CosineRestartLR", periods=[4, 4], restart_weights=[1, 1], eta_min=0.0),
        ]

    cosine = [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert followed(make, ours, 7) == pytest.approx([*cosine, *cosine], rel=1e-12)
    # MMEngine's restart writes over the factor of step 0, which Linear then makes good tenfold.
    assert max(followed(make, None, 7)) > 2.0


def test_a_cosine_beyond_T_max_comes_back_to_the_value_it_began_at() -> None:
    def make(build: Any) -> list[Any]:
        return [
            build("LinearLR", start_factor=1.0, end_factor=0.5, end=2),
            build("CosineAnnealingLR", T_max=3, begin=2, end=20),
        ]

    assert followed(make, ours, 8)[8] == pytest.approx(0.5, rel=1e-12)
    assert followed(make, None, 8)[8] == pytest.approx(1.0, rel=1e-12)


def test_one_cycle_leaves_the_base_of_others_alone() -> None:
    def make(build: Any) -> list[Any]:
        return [
            build("OneCycleLR", eta_max=0.5, end=4),
            build("OneCycleLR", eta_max=2.0, begin=4, end=8),
            build("CosineRestartLR", periods=[5], eta_min=0.0, begin=8, end=12),
        ]

    found, theirs = followed(make, ours, 12), followed(make, None, 12)
    assert (found[0], found[4], found[8]) == pytest.approx((0.5 / 25, 2.0 / 25, 1.0), rel=1e-12)
    assert (found[3], theirs[3]) == pytest.approx((0.5 / 25e4, 2.0 / 25e4), rel=1e-9)
    assert theirs[8] == pytest.approx(2.0 / 25, rel=1e-12)


def test_one_weight_stands_for_all_periods() -> None:
    found = alone(ours, "CosineRestartLR", 5, periods=[2, 4], eta_min=0.0)
    given = {"periods": [2, 4], "restart_weights": [1, 1], "eta_min": 0.0}
    assert found == pytest.approx(alone(None, "CosineRestartLR", 5, **given), abs=1e-15)
    with pytest.raises(AssertionError):
        alone(None, "CosineRestartLR", 5, periods=[2, 4], eta_min=0.0)


def test_a_schedule_by_epoch_in_an_iteration_run_is_refused_and_does_not_freeze() -> None:
    run = Run(4, 3, by_epoch=False)
    node = {"_target_": "trainkit.param_scheduler.ExponentialLR", "gamma": 0.5, "by_epoch": True}
    with pytest.raises(ConfigError, match="by_epoch is true, but the train loop counts iterations"):
        build_param_schedulers(node, "param_scheduler", OptimWrapper(sgd()), run)
    node = {**node, "convert_to_iter_based": True}
    (built,) = build_param_schedulers(node, "param_scheduler", OptimWrapper(sgd()), run)
    assert (built.unit, built.end) == ("iteration", 12)


def plateaus(metrics: list[float], **given: Any) -> tuple[float, float]:
    """Return the learning rate of both after some validations."""
    found = validated(sgd, ours.ReduceOnPlateauLR, metrics, **given)
    theirs = validated(sgd, PARAM_SCHEDULERS.get("ReduceOnPlateauLR"), metrics, **given)
    return found[-8], theirs[-8]


def test_a_plateau_of_a_metric_below_0_does_not_take_worse_for_better() -> None:
    worse = [-1.0, -0.9999, -0.9998, -0.9997]
    given = {"patience": 0, "threshold": 0.001, "end": 9}
    assert plateaus(worse, **given) == pytest.approx((0.4e-3, 0.4))


def test_a_plateau_takes_the_first_metric_for_the_best_however_large() -> None:
    given = {"patience": 1, "end": 9}
    assert plateaus([9e9, 8e9, 7e9], **given) == pytest.approx((0.4, 0.04))


def test_a_plateau_never_takes_an_infinite_metric_for_the_best() -> None:
    given = {"patience": 1, "end": 9}
    assert plateaus([-math.inf, 3.0, 2.0, 1.0], **given) == pytest.approx((0.4, 0.04))


def test_a_plateau_knows_by_the_metrics_name_which_way_is_better() -> None:
    assert ours.ReduceOnPlateauLR(sgd(), monitor="accuracy").rule == "greater"
    assert ours.ReduceOnPlateauLR(sgd()).rule == "less"
    assert PARAM_SCHEDULERS.get("ReduceOnPlateauLR")(sgd(), monitor="accuracy").rule == "less"


def test_a_plateau_may_count_iterations() -> None:
    assert ours.ReduceOnPlateauLR(sgd(), by_epoch=False).unit == "iteration"
    with pytest.raises(AssertionError):
        PARAM_SCHEDULERS.get("ReduceOnPlateauLR")(sgd(), by_epoch=False)
