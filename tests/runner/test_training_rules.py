"""Rules between the parts that train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.runner.test_horizons import config_of
from trainkit import compose
from trainkit.config.findings import Finding
from trainkit.runner import training_rules as rules
from trainkit.runner.check import find_mistakes
from trainkit.runner.checked import Config

STEP = {"_target_": "trainkit.param_scheduler.StepLR", "step_size": 1}
CYCLE = {"_target_": "trainkit.param_scheduler.OneCycleLR", "eta_max": 0.1}
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1}
SEVERAL = {"gen": {"optimizer": SGD}, "critic": {"optimizer": SGD}, "other": None}


def told(rule: Callable[[Config], Iterator[Finding]], *overrides: str, **changes: Any) -> list[str]:
    return [finding.key for finding in rule(config_of([*overrides], **changes))]


def test_there_is_one_average() -> None:
    assert told(rules.averages, "hooks=ema") == []
    assert told(rules.averages, "hooks=[ema,swa]") == ["hooks.swa"]
    assert told(rules.averages, "hooks=[ema,swa]", "hooks.ema=null") == []


def test_checkpoints_by_epoch_are_of_a_loop_by_epoch() -> None:
    by_epoch = "+hooks.checkpoint.by_epoch"
    assert told(rules.checkpoint_unit, f"{by_epoch}=true") == []
    assert told(rules.checkpoint_unit, f"{by_epoch}=true", "train_cfg=iter") == [by_epoch[1:]]
    assert told(rules.checkpoint_unit, f"{by_epoch}=false", "train_cfg=iter") == []
    assert told(rules.checkpoint_unit, f"{by_epoch}=true", train_cfg=None) == []


@pytest.mark.parametrize(
    ("scheduler", "enable", "keys"),
    [
        (CYCLE, True, ["auto_scale_lr.enable"]),
        ({"up": CYCLE, "down": CYCLE}, True, ["auto_scale_lr.enable"]),
        (CYCLE, False, []),
        (STEP, True, []),
        (None, True, []),
    ],
)
def test_what_is_scaled_is_what_a_schedule_starts_from(
    scheduler: Any, enable: bool, keys: list[str]
) -> None:
    options = {"enable": enable, "base_batch_size": 32}
    changes = {"auto_scale_lr": options, "param_scheduler": scheduler}
    assert told(rules.scaled_schedules, **changes) == keys


@pytest.mark.parametrize(
    ("scheduler", "keys"),
    [
        ({"gn": STEP}, ["param_scheduler.gn"]),
        ({"gn": None, "step": STEP}, []),
        ({"step": STEP}, []),
        ([STEP], []),
        (STEP, []),
        ({"gen": STEP, "critic": {"step": STEP}}, []),
        ({"gen": STEP, "step": STEP}, ["param_scheduler.step"]),
        ({"gen": STEP, "step": None}, []),
        ({"other": STEP}, []),
    ],
)
def test_schedules_name_the_optimizers_that_there_are(scheduler: Any, keys: list[str]) -> None:
    changes = {"optim_wrapper": SEVERAL, "param_scheduler": scheduler}
    assert told(rules.optimizer_names, **changes) == keys
    assert told(rules.optimizer_names, param_scheduler=scheduler) == []


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("max_norm: -1", "max_norm is -1; expected a number above 0."),
        ("{type: value, clip_value: '1'}", "clip_value is '1'; expected a number above 0."),
    ],
)
def test_a_limit_that_turns_gradients_round_is_found_before_a_run(override: str, text: str) -> None:
    given = override if override.startswith("{") else f"{{{override}}}"
    found = find_mistakes(compose([f"optim_wrapper.clip_grad={given}"]))
    assert [finding.text for finding in found] == [f"optim_wrapper.clip_grad.{text}"]


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["hooks=[ema,swa]"], "hooks.swa"),
        (["train_cfg=iter", "+hooks.checkpoint.by_epoch=true"], "hooks.checkpoint.by_epoch"),
        (["hooks.checkpoint.save_best=[accuracy,accuracy]"], "hooks.checkpoint.save_best"),
        (
            [
                "param_scheduler=onecycle",
                "auto_scale_lr={enable: true, base_batch_size: 32}",
            ],
            "auto_scale_lr.enable",
        ),
    ],
)
def test_each_is_found_before_a_run(overrides: list[str], key: str) -> None:
    assert [finding.key for finding in find_mistakes(compose(overrides))] == [key]
