"""What ranks of one run have in common."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from tests.ranks import on_ranks
from tests.toy import ToyModel
from trainkit import Runner


def stamp(rank: int, work_dir: str) -> str:
    os.environ["TZ"] = f"UTC-{rank * 5}"  # a clock of its own for each rank
    time.tzset()
    return Runner(ToyModel(), work_dir).timestamp


@pytest.mark.slow
def test_ranks_have_one_time(tmp_path: Path) -> None:
    first, second = on_ranks(partial(stamp, work_dir=str(tmp_path / "run")), tmp_path)
    assert first == second
