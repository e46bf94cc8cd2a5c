"""Every example runs as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if example.name == "tutorial.py":
        tested = re.findall(r"^\{'Accuracy': (.*)\}$", done.stdout, re.MULTILINE)
        assert len(tested) == 2
        assert tested[0] == tested[1]
        assert float(tested[0]) > 0.8
        iterations = re.findall(r"Epoch\(train\)  \[5\]\[40/40\]", done.stdout)
        assert len(iterations) == 2, "the custom loop trains twice on every batch"
