"""``--help``: everything a newcomer can set, without importing torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainkit.__main__ import main


def test_groups_and_options_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    groups = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line[:2] == "  "}
    assert groups["optim_wrapper"] == ["*amp", "default"]
    assert groups["optim_wrapper/optimizer"] == ["adam", "adamw", "*sgd"]
    assert groups["train_cfg"] == ["*epoch", "iter"]
    assert "hydra" not in groups
    assert max(map(len, text.splitlines())) <= 100


def test_own_groups_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: mine.Model\n")
    assert main(["--help", "--config-dir", str(tmp_path)]) == 0
    assert "*convnet  mine" in capsys.readouterr().out


def test_a_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--help"]) == 0
    assert "trainkit test run=DIR" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--help"], ["runs"], ["explain", "seed"]])
def test_torch_is_not_imported_for_it(argv: list[str]) -> None:
    code = (
        "import sys; from trainkit.__main__ import main; "
        f"main({argv!r}); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
