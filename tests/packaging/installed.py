"""The wheel, built and installed as pip does it, and commands that use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build_wheel(directory: Path) -> Path:
    """Build the wheel into ``directory``."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = directory.glob("*.whl")
    return path


def install(wheel: Path, site: Path) -> None:
    """Install the wheel, without what it depends on, into a directory of its own."""
    options = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(wheel)],
        check=True,
        capture_output=True,
    )


def environment(site: Path) -> dict[str, str]:
    """Return the environment in which the installed package and its command are found."""
    paths = [str(site / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": str(site),
        "PATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }


def run(command: list[str], directory: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in ``directory`` with the installed package."""
    return subprocess.run(
        command,
        cwd=directory,
        env=environment(site),
        capture_output=True,
        text=True,
        check=False,
    )
