"""Runs that are killed at random, checkpoint writes included, end as those that nobody killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fork_server import Summary, killed_runs
from tests.faults.runs import SAVE_EVERY

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")


def assert_nothing_is_lost(summary: Summary) -> None:
    assert not summary.lost, summary
    assert not summary.differences, summary
    assert not summary.misread, summary
    # One that is killed while it writes a checkpoint goes on from the one before.
    assert summary.most_again <= 2 * SAVE_EVERY, summary


@pytest.mark.slow
def test_fifty_kills_at_random_times_leave_no_trace(tmp_path: Path) -> None:
    summary = killed_runs(tmp_path, kills=50, seed=5)
    assert_nothing_is_lost(summary)
    assert summary.kills == 50
    assert summary.inside_a_save > 0, "none of the kills hit a checkpoint in the writing"


@pytest.mark.soak
def test_a_thousand_kills_at_random_times_leave_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = killed_runs(tmp_path, kills=1000, seed=1000)
    with capsys.disabled():
        print(f"\n{summary}")
    assert_nothing_is_lost(summary)
