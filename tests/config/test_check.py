"""The nodes of a config against what they name: where they stand apart, and in lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf, open_dict

from tests.runner.unusual import KEPT_APART
from trainkit import ConfigError, compose
from trainkit.config.request import Request
from trainkit.runner.check import compose_checked, find_mistakes

LISTED = """# @package _global_
defaults:
  - override /param_scheduler: none
param_scheduler:
  - _target_: trainkit.param_scheduler.MultiStepLR
    milestones: [3]
    optimizer: 3
  - _target_: trainkit.param_scheduler.MultiStepLR
    milestones: ???
  - _target_: trainkit.param_scheduler.MultiStepLR
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def message(content: str, *overrides: str) -> str:
    """What is said of an experiment file with this content."""
    Path("my/experiment").mkdir(parents=True)
    Path("my/experiment/mine.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        compose_checked(Request(("experiment=mine", *overrides), config_dirs=("my",)))
    return str(caught.value)


@pytest.mark.parametrize("changes", KEPT_APART.values(), ids=KEPT_APART)
def test_nodes_kept_under_a_key_of_ones_own_are_right(changes: dict[str, Any]) -> None:
    cfg = compose()
    with open_dict(cfg):
        for key, value in changes.items():
            OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    assert find_mistakes(cfg) == []


def test_they_are_checked_where_they_are_used() -> None:
    content = (
        "# @package _global_\nzoo:\n  sgd:\n    _target_: torch.optim.SGD\n    lr: fast\n"
        "optim_wrapper:\n  optimizer: ${zoo.sgd}\n"
    )
    assert message(content) == (
        "optim_wrapper.optimizer.lr is 'fast'; SGD takes a number.\n"
        "   Set by my/experiment/mine.yaml:7, chosen by experiment=mine, which reads zoo.sgd.lr, "
        "set by my/experiment/mine.yaml:5, chosen by experiment=mine."
    )


def test_an_option_in_a_place_that_nothing_reads_is_one_mistake() -> None:
    found = find_mistakes(compose(["+dataloader@foo=digits"]))
    assert [(finding.key, finding.text.partition(". ")[0]) for finding in found] == [
        ("foo", "foo: nothing reads a key of this name")
    ]


def test_advice_about_a_list_names_the_entry_and_an_override_that_can_be_read() -> None:
    assert message(LISTED) == (
        "The config has 3 mistakes.\n"
        "1. param_scheduler[1].milestones has no value yet. Give it one: "
        "param_scheduler.1.milestones=...\n"
        "   Set by my/experiment/mine.yaml:9, chosen by experiment=mine.\n"
        "2. param_scheduler[0].optimizer is 3, but the run gives MultiStepLR its own. Remove it: "
        "from the entry of the list, or by ~param_scheduler.0.optimizer\n"
        "   Set by my/experiment/mine.yaml:7, chosen by experiment=mine.\n"
        "3. param_scheduler[2]: MultiStepLR needs 'milestones'. Give it: milestones: ... in the "
        "entry of the list, or by +param_scheduler.2.milestones=... It takes a list of whole "
        "numbers.\n"
        "   Set by my/experiment/mine.yaml:10, chosen by experiment=mine."
    )


def test_the_advice_about_a_list_mends_it() -> None:
    advised = [
        *("~param_scheduler.0.optimizer", "param_scheduler.1.milestones=[3]"),
        "+param_scheduler.2.milestones=[x]",
    ]
    assert message(LISTED, *advised) == (
        "param_scheduler[2].milestones is ['x']; MultiStepLR takes a list of whole numbers.\n"
        "   Set by the override +param_scheduler.2.milestones=[x]."
    )
