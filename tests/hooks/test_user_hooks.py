"""Hooks of one's own among the defaults: added, moved, removed, by config and from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.toy import make_runner
from trainkit import ConfigError, Hook, Runner
from trainkit.hooks import EMAHook

DEFAULTS = ["runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"]


class Mine(Hook):
    """A hook of the user's."""

    def __init__(self, answer: int = 0) -> None:
        self.answer = answer


MINE = f"{__name__}.Mine"


def order(tmp_path: Path, **changes: Any) -> list[str]:
    return list(make_runner(tmp_path, **changes).hooks.hooks)


def test_a_custom_hook_stands_behind_those_of_its_priority(tmp_path: Path) -> None:
    hooks = [{"_target_": MINE, "answer": 42}, EMAHook()]
    runner = make_runner(tmp_path, custom_hooks=hooks)
    names = [*DEFAULTS[:3], "Mine", "EMAHook", *DEFAULTS[3:]]
    assert list(runner.hooks.hooks) == names
    assert runner.hooks.hooks["Mine"].answer == 42  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("priority", "place"),
    [("HIGHEST", 0), (9, 0), ("very_high", 1), (10, 1), (49, 1), (51, 3), (90, 5), ("LOWEST", 5)],
)
def test_a_priority_in_the_config_moves_a_hook(
    tmp_path: Path, priority: int | str, place: int
) -> None:
    node = {"_target_": MINE, "priority": priority}
    names = list(DEFAULTS)
    names.insert(place, "mine")
    assert order(tmp_path, custom_hooks={"mine": node}) == names


def test_a_priority_moves_a_default_too(tmp_path: Path) -> None:
    names = order(tmp_path, default_hooks={"logger": {"priority": "LOWEST", "interval": 5}})
    assert names == [*DEFAULTS[:3], *DEFAULTS[4:5], "logger", "checkpoint"]


def test_null_removes_a_default_and_no_custom_one(tmp_path: Path) -> None:
    names = order(
        tmp_path,
        default_hooks={"timer": None, "param_scheduler": None},
        custom_hooks={"mine": {"_target_": MINE}, "none": None},
    )
    assert names == ["runtime_info", "sampler_seed", "mine", "logger", "checkpoint"]


def test_a_default_can_be_replaced_by_another_class(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, default_hooks={"timer": {"_target_": MINE}})
    assert isinstance(runner.hooks.hooks["timer"], Mine)
    runner.train()


def test_null_for_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        order(tmp_path, default_hooks={"checkpont": None})
    assert str(caught.value) == (
        "default_hooks.checkpont is null, but there is no hook 'checkpont' to remove. Did you mean "
        "'checkpoint'?"
    )


def test_two_hooks_of_a_class_are_two(tmp_path: Path) -> None:
    names = order(tmp_path, custom_hooks=[Mine(), {"_target_": MINE}])
    assert [name for name in names if name.startswith("Mine")] == ["Mine", "Mine_"]


def test_a_hook_that_is_registered_stands_behind_those_of_its_priority(tmp_path: Path) -> None:
    runner: Runner = make_runner(tmp_path)
    runner.register_hook(Mine(), priority="LOW")
    runner.register_hook(Mine(), name="other")
    names = [*DEFAULTS[:3], "other", "logger", "param_scheduler", "Mine", "checkpoint"]
    assert list(runner.hooks.hooks) == names


def test_every_default_can_be_gone_and_training_runs(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, default_hooks=dict.fromkeys(DEFAULTS))
    runner.train()
    assert (runner.iter, list(runner.hooks.hooks)) == (6, [])
