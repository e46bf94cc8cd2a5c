"""Rules: the better of two values, as MMEngine decides it by the metric's name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.errors import ConfigError
from trainkit.evaluator import GREATER_KEYS, LESS_KEYS, infer_rule, is_better

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

MMENGINES = [
    "acc",
    "top",
    "AR@",
    "auc",
    "precision",
    "mAP",
    "mDice",
    "mIoU",
    "mAcc",
    "aAcc",
    "loss",
]
WORDS = [*MMENGINES, "top1", "coco/bbox_mAP_50", "acc_loss", "loss_acc", "iou", "val/", "x", "_"]


def reference(metric: str, greater: list[str] | None, less: list[str] | None) -> str | None:
    """Return what MMEngine's CheckpointHook infers; None where it raises."""
    from mmengine.hooks import CheckpointHook

    try:
        hook = CheckpointHook(save_best=metric, greater_keys=greater, less_keys=less)
    except ValueError:
        return None
    rule: str = hook.rules[0]
    return rule


def ours(
    metric: str, greater: list[str] | None = None, less: list[str] | None = None
) -> str | None:
    try:
        return infer_rule(metric, greater, less)
    except ConfigError:
        return None


def test_mmengines_keys_are_all_there() -> None:
    from mmengine.hooks import CheckpointHook

    assert set(CheckpointHook._default_greater_keys) <= set(GREATER_KEYS)
    assert set(CheckpointHook._default_less_keys) <= set(LESS_KEYS)
    assert {*CheckpointHook._default_greater_keys, *CheckpointHook._default_less_keys} == set(
        MMENGINES
    )


@pytest.mark.parametrize("key", MMENGINES)
@pytest.mark.parametrize("form", ["{}", "val/{}", "{}_50", "coco/bbox_{}@5", "my{}"])
def test_names_made_of_mmengines_keys_get_its_rule(key: str, form: str) -> None:
    for metric in (form.format(key), form.format(key).upper(), form.format(key).lower()):
        assert ours(metric) == reference(metric, None, None) is not None


def test_a_name_of_both_kinds_is_greater_as_in_mmengine() -> None:
    assert ours("acc_loss") == reference("acc_loss", None, None) == "greater"


_names = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("".join)
_keys = st.none() | st.lists(st.sampled_from(WORDS), min_size=1, max_size=3)


@given(_names, st.lists(st.sampled_from(WORDS), min_size=1), st.lists(st.sampled_from(WORDS)))
def test_keys_of_ones_own_are_matched_as_in_mmengine(
    metric: str, greater: list[str], less: list[str]
) -> None:
    assert ours(metric, greater, less) == reference(metric, greater, less)


@given(_names)
def test_wherever_mmengine_knows_a_rule_it_is_the_same(metric: str) -> None:
    expected = reference(metric, None, None)
    assert expected is None or ours(metric) == expected


def test_a_name_that_tells_nothing_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"'score' better\?.*Set hooks\.checkpoint\.rule"):
        infer_rule("score", setting="hooks.checkpoint.rule")


def test_better_is_strictly_beyond_the_best() -> None:
    assert is_better("greater", 2.0, 1.0)
    assert is_better("less", 1.0, 2.0)
    for rule in ("greater", "less"):
        assert not is_better(rule, 1.0, 1.0)
        assert is_better(rule, 1.0, None)


def test_a_least_change_must_be_exceeded() -> None:
    assert not is_better("greater", 1.5, 1.0, min_delta=0.5)
    assert is_better("greater", 1.75, 1.0, min_delta=0.5)
    assert not is_better("less", 0.5, 1.0, min_delta=0.5)
    assert is_better("less", 0.25, 1.0, min_delta=0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", ["greater", "less"])
def test_what_is_not_finite_beats_nothing(rule: str, value: float) -> None:
    assert not is_better(rule, value, None)
    assert not is_better(rule, value, 0.0)
