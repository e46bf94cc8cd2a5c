"""What all tests share: one thread, fixed seeds, and a toy problem."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.toy import make_runner
from trainkit import Runner


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    """Bits depend on the number of threads, and several are slower on what is this small."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    assert not logging.getLogger("trainkit").handlers, "a run left its log handlers behind"


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner for two epochs of the toy problem, with validation and test."""
    return make_runner(tmp_path / "run")
