"""The wheel holds everything that a run needs, in any directory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = directory.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_has_configs_data_types_and_licences(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"trainkit/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert shipped <= names
    assert {"trainkit/py.typed", "trainkit/data/digits.npz"} <= names
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert not any(name.startswith(("tests/", "outputs/")) for name in names)


@pytest.mark.slow
def test_an_installed_wheel_trains_in_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    installed, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    code = "import trainkit; print(trainkit.__file__, trainkit.conf_dir())"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=empty, env=environment, capture_output=True, text=True
    )
    assert found.stdout.split() == [
        str(installed / "trainkit" / "__init__.py"),
        str(installed / "trainkit" / "conf"),
    ]
    subprocess.run(
        [sys.executable, "-m", "trainkit", "fast_dev_run=1"],
        cwd=empty,
        env=environment,
        check=True,
        capture_output=True,
    )
    assert list(empty.glob("outputs/digits/*/checkpoints/epoch_1/model.pt"))
