"""What all tests share: one thread, fixed seeds, and a toy problem."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.children import forget_children
from tests.toy import make_runner
from trainkit import Runner

# The same examples each time, however slow the machine: a test fails for what was changed.
settings.register_profile("trainkit", deadline=None, derandomize=True)
settings.load_profile("trainkit")

# Weights & Biases keeps its runs here, sends nothing, and measures nothing.
os.environ.update(WANDB_MODE="offline", WANDB_ERROR_REPORTING="false", WANDB_X_DISABLE_STATS="true")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the soak tests out, whatever else is chosen, unless they are asked for."""
    if "soak" not in config.option.markexpr:
        left_out = [item for item in items if "soak" in item.keywords]
        items[:] = [item for item in items if "soak" not in item.keywords]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    """Bits depend on the number of threads, and several are slower on what is this small."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    forget_children()
    yield
    assert not logging.getLogger("trainkit").handlers, "a run left its log handlers behind"


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A runner for two epochs of the toy problem, with validation and test."""
    return make_runner(tmp_path / "run")
