"""The wheel holds everything that a run needs, in any directory."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.packaging.installed import ROOT, run


@pytest.mark.slow
def test_the_wheel_has_configs_data_types_and_licences(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"trainkit/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert shipped <= names
    assert {"trainkit/py.typed", "trainkit/data/digits.npz"} <= names
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert not any(name.startswith(("tests/", "outputs/")) for name in names)


@pytest.mark.slow
def test_an_installed_wheel_trains_in_an_empty_directory(site: Path, tmp_path: Path) -> None:
    code = "import trainkit; print(trainkit.__file__, trainkit.conf_dir())"
    found = run(["python", "-c", code], tmp_path, site)
    assert found.stdout.split() == [
        str(site / "trainkit" / "__init__.py"),
        str(site / "trainkit" / "conf"),
    ]
    trained = run(["python", "-m", "trainkit", "fast_dev_run=1"], tmp_path, site)
    assert trained.returncode == 0, trained.stderr
    assert list(tmp_path.glob("outputs/digits/*/checkpoints/epoch_1/model.pt"))
