"""What a run says and keeps of itself when it begins."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import OmegaConf

from tests.toy import make_runner
from trainkit import Runner
from trainkit.checkpoint import read_checkpoint
from trainkit.config import compose


def log_of(work_dir: Path) -> str:
    return (work_dir / "train.log").read_text()


def test_the_log_has_the_environment(tmp_path: Path) -> None:
    make_runner(tmp_path).train()
    env = json.loads((tmp_path / "env.json").read_text())
    assert {"python", "platform", "packages", "device", "cuda", "git"} <= env.keys()
    assert f'"torch": "{env["packages"]["torch"]}"' in log_of(tmp_path)


def test_the_log_has_the_hooks_by_point(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    runner.train()
    table = runner.hooks.table()
    assert table in log_of(tmp_path)
    (line,) = [line for line in table.splitlines() if "after_train_iter" in line]
    names = ["runtime_info (10)", "timer (50)", "logger (60)", "param_scheduler (70)"]
    assert line.split(None, 1)[1] == ", ".join([*names, "checkpoint (90)"])


def test_the_config_is_kept_beside_the_run_and_in_its_checkpoints(tmp_path: Path) -> None:
    cfg = compose(["fast_dev_run=1", "env.num_threads=1", "visualizer=none", "seed=9"])
    Runner.from_cfg(cfg, work_dir=tmp_path).train()
    text = (tmp_path / "config.yaml").read_text()
    assert OmegaConf.create(text) == cfg
    assert read_checkpoint(tmp_path / "checkpoints" / "epoch_1")["meta"]["cfg"] == text
    assert text in log_of(tmp_path)
