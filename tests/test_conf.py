"""Every option under conf/ composes and trains two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trainkit import Runner, compose, conf_dir

CONF = conf_dir()
OPTIONS = sorted(
    f"{file.parent.relative_to(CONF)}={file.stem}"
    for file in CONF.rglob("*.yaml")
    if file.parent != CONF
)


def train_two_steps(tmp_path: Path, *overrides: str) -> Runner:
    cfg = compose([*overrides, "env.num_threads=1"])
    cfg.fast_dev_run = 2
    runner = Runner.from_cfg(cfg, work_dir=tmp_path / "run")
    runner.train()
    if cfg.test_cfg is not None:
        assert 0 <= runner.test()["accuracy"] <= 1
    return runner


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_trains(tmp_path: Path, option: str) -> None:
    assert train_two_steps(tmp_path, option).iter in (1, 2)


@pytest.mark.parametrize("option", ["default", "tensorboard", "wandb"])
def test_every_visualizer_but_none_keeps_the_metrics_file(option: str) -> None:
    assert "local" in compose([f"visualizer={option}"]).visualizer.vis_backends


@pytest.mark.parametrize("schedule", [o for o in OPTIONS if o.startswith("param_scheduler")])
def test_a_schedule_serves_iterations_too(tmp_path: Path, schedule: str) -> None:
    assert train_two_steps(tmp_path, schedule, "train_cfg=iter").iter == 2


def test_hooks_go_together(tmp_path: Path) -> None:
    runner = train_two_steps(tmp_path, "hooks=[ema,early_stopping]")
    assert {"ema", "early_stopping", "checkpoint"} <= set(runner.hooks.hooks)


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=str)
def test_a_file_says_what_it_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    node: Any = yaml.safe_load(text)
    assert node is not None
    if file.parent.name != "optimizer":
        assert text.startswith("# "), f"{file} begins with no comment"
