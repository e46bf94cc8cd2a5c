"""One wheel and one installation for all tests of the packaging."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.installed import build_wheel, install


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    install(wheel, directory)
    return directory
