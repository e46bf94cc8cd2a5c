"""Schedules in configs: what the check before a run finds, and what trainkit lr draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.parity.test_schedules import Run
from trainkit import ConfigError, compose
from trainkit.optim_wrapper import OptimWrapper, OptimWrapperDict
from trainkit.param_scheduler import LinearLR
from trainkit.runner.check import find_mistakes
from trainkit.runner.optim import build_param_schedulers
from trainkit.runner.schedule import plan

PLATEAU = "param_scheduler=plateau"
UPDATES = ("param_scheduler=cosine", "+param_scheduler.cosine.by_update=true")


def mistakes(*overrides: str) -> list[str]:
    return [finding.text for finding in find_mistakes(compose(overrides))]


@pytest.mark.parametrize(
    "overrides",
    [
        [PLATEAU],
        [PLATEAU, "param_scheduler.plateau.monitor=train/loss", "val_cfg=none"],
        [PLATEAU, "train_cfg=iter", "+param_scheduler.plateau.by_epoch=false"],
        [*UPDATES, "optim_wrapper.accumulative_counts=4", "+param_scheduler.cosine.T_max=75"],
        [*UPDATES, "param_scheduler.cosine.by_epoch=null", "train_cfg=iter"],
    ],
)
def test_what_is_right_is_no_mistake(overrides: list[str]) -> None:
    assert mistakes(*overrides) == []


def test_a_monitor_that_validation_does_not_give_is_found() -> None:
    (text,) = mistakes(PLATEAU, "param_scheduler.plateau.monitor=acuracy")
    assert text == (
        "param_scheduler.plateau.monitor is 'acuracy', which no metric of the evaluator gives. Did "
        "you mean 'accuracy'?"
    )


def test_a_monitor_without_a_validation_is_found() -> None:
    (text,) = mistakes(PLATEAU, "val_cfg=none")
    assert text == (
        "param_scheduler.plateau.monitor is 'accuracy', but there is no validation (val_cfg is "
        "null). Set param_scheduler.plateau to null, or validate."
    )


def test_unknown_and_misshapen_options_are_found() -> None:
    texts = mistakes(PLATEAU, "param_scheduler.plateau.rule=min", "+param_scheduler.plateau.mode=x")
    assert texts == [
        "param_scheduler.plateau.rule is 'min'; ReduceOnPlateauLR takes 'less' or 'greater' or "
        "null.",
        "param_scheduler.plateau.mode: ReduceOnPlateauLR has no argument 'mode'. It takes: begin, "
        "by_epoch, by_update, cooldown, end, eps, factor, interval, min_value, monitor, "
        "param_name, patience, rule, threshold, threshold_rule.",
    ]


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            [*UPDATES, "param_scheduler.cosine.by_epoch=true"],
            "param_scheduler.cosine has by_update and by_epoch: true; a step is one of them. Drop "
            "by_epoch: true, and give all numbers in updates.",
        ),
        (
            [*UPDATES, "+param_scheduler.cosine.convert_to_iter_based=true"],
            "param_scheduler.cosine has by_update and convert_to_iter_based; a step is one of "
            "them. Drop convert_to_iter_based, and give all numbers in updates.",
        ),
        (
            [
                *(*UPDATES, "train_cfg=iter", "train_cfg.max_iters=30"),
                *("optim_wrapper.accumulative_counts=4", "+param_scheduler.cosine.begin=8"),
            ],
            "param_scheduler.cosine.begin is 8, but the run ends after 8 updates, so it would do "
            "nothing. Begin earlier, or drop it.",
        ),
        (
            [
                *(PLATEAU, "+param_scheduler.plateau.convert_to_iter_based=true"),
                *("train_cfg=iter", "+param_scheduler.plateau.by_epoch=true"),
            ],
            "param_scheduler.plateau has convert_to_iter_based, but it counts no epochs that could "
            "be converted. Set by_epoch: false, and give all numbers in iterations.",
        ),
        (
            ["param_scheduler=step", "train_cfg.max_epochs=4"],
            "param_scheduler.step.step_size is 5, but the run ends after 4 epochs: never reached. "
            "Lower it, train longer, or choose a schedule that ends with the run, such as "
            "param_scheduler=cosine.",
        ),
    ],
)
def test_units_and_steps_that_do_not_fit_are_found(overrides: list[str], text: str) -> None:
    assert mistakes(*overrides) == [text]


# ------------------------------------------------------------------- trainkit lr


def test_updates_are_drawn_by_iterations() -> None:
    told = plan(
        compose(
            [
                *(*UPDATES, "train_cfg=iter", "train_cfg.max_iters=10"),
                "optim_wrapper.accumulative_counts=4",
            ]
        )
    )
    (curve,) = told.curves
    assert (told.unit, told.notes, curve.marks) == ("iteration", [], {0: "cosine.begin"})
    assert curve.values[:9] == [0.1] * 4 + [curve.values[4]] * 4 + [curve.values[8]]
    assert curve.values[4] == pytest.approx(0.075)  # a third of half a cosine, of three updates


def test_a_plateau_is_drawn_flat_and_named() -> None:
    told = plan(compose([PLATEAU]))
    (curve,) = told.curves
    assert (set(curve.values), curve.marks) == ({0.1}, {})
    assert told.notes == [
        "plateau follows 'accuracy', which only a run tells: it is drawn as if it never reduced lr."
    ]


def test_restarts_and_steps_are_marked_where_they_are() -> None:
    changes = ["train_cfg=iter", "train_cfg.max_iters=20", "param_scheduler.cosine_restart"]
    told = plan(
        compose(
            [
                *(*changes[:2], "param_scheduler=cosine_restart"),
                *(f"{changes[2]}.periods=[3,6,20]", f"{changes[2]}.by_epoch=false"),
                f"{changes[2]}.convert_to_iter_based=false",
            ]
        )
    )
    assert dict(told.curves[0].marks) == {
        0: "cosine_restart.begin",
        3: "cosine_restart.periods",
        9: "cosine_restart.periods",
    }
    assert told.notes == ["The run ends before cosine_restart.periods is reached, at 29."]


# ------------------------------------------------------------- several optimizers

LINEAR = {"_target_": "trainkit.param_scheduler.LinearLR", "start_factor": 0.5}
POLY = {"_target_": "trainkit.param_scheduler.PolyLR", "end": 2}


def wrappers() -> OptimWrapperDict:
    def wrapper() -> OptimWrapper:
        return OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0))

    return OptimWrapperDict(generator=wrapper(), critic=wrapper())


def built(node: Any) -> dict[str, list[str]]:
    """Return the classes that each optimizer gets."""
    both = wrappers()
    schedulers = build_param_schedulers(node, "param_scheduler", both, Run(4, 3))
    return {
        name: [type(each).__name__ for each in schedulers if each.optimizer is both[name]]
        for name in both
    }


def test_each_optimizer_gets_its_own_by_name() -> None:
    node = {"generator": {"warm_up": LINEAR, "main": POLY, "off": None}, "critic": LINEAR}
    assert built(node) == {"generator": ["LinearLR", "PolyLR"], "critic": ["LinearLR"]}
    assert built({"generator": [LINEAR], "critic": None}) == {
        "generator": ["LinearLR"],
        "critic": [],
    }


@pytest.mark.parametrize("node", [LINEAR, [LINEAR], {"warm_up": LINEAR}])
def test_what_goes_by_no_name_is_made_for_each_optimizer(node: Any) -> None:
    assert built(node) == {"generator": ["LinearLR"], "critic": ["LinearLR"]}


def test_a_ready_scheduler_is_stepped_once_for_its_own_optimizer() -> None:
    both = wrappers()
    ready = LinearLR(both["critic"], start_factor=0.5)
    schedulers = build_param_schedulers([ready], "param_scheduler", both, Run(4, 3))
    assert schedulers == [ready]
    assert ready.end == 4


def test_a_name_that_no_optimizer_has_is_an_error() -> None:
    with pytest.raises(ConfigError) as error:
        built({"generator": LINEAR, "critics": LINEAR})
    assert str(error.value) == (
        "param_scheduler.critics: param_scheduler goes by optimizer, and there is none of this "
        "name. Did you mean 'critic'?"
    )
