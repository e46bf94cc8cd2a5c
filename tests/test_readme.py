"""README tells the truth: its files are there, its code runs, its first command learns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainkit import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run(command: list[str], cwd: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:trainkit|conf|docs|examples)/[\w./]*)`", README)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_the_python_code_runs(tmp_path: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        run([sys.executable, "-c", block], tmp_path)
    assert (tmp_path / "outputs" / "regression" / "checkpoints" / "epoch_4").is_dir()
    (config,) = tmp_path.glob("outputs/digits/*/config.yaml")
    assert "torch.optim.AdamW" in config.read_text()


def test_the_mistakes_are_answered_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    ((arguments, answer),) = re.findall(
        r"```\n\$ python -m trainkit (.*?)\n(.*?)```", README, re.DOTALL
    )
    assert main(arguments.split()) == 2
    told = capsys.readouterr().err
    for shown, line in zip(answer.splitlines(), told.splitlines(), strict=True):
        assert line.startswith(shown.removesuffix("..."))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_first_command_learns_and_evaluates_the_same(tmp_path: Path) -> None:
    (arguments,) = re.findall(r"pip install -e \. && python -m trainkit (.*)", README)
    run([sys.executable, "-m", "trainkit", *arguments.split()], tmp_path)
    (directory,) = tmp_path.glob("outputs/digits/*")
    status = json.loads((directory / "status.json").read_text())
    assert status["metrics"]["accuracy"] >= 0.97
    for command, split in (("val", "metrics"), ("test", None)):
        printed = run([sys.executable, "-m", "trainkit", command, f"run={directory}"], tmp_path)
        accuracy = float(printed.rpartition("accuracy: ")[2])
        assert accuracy >= 0.97
        assert split is None or accuracy == status[split]["accuracy"]
