"""The right one among a run's checkpoints."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.checkpoint.helpers import contents, write
from trainkit.checkpoint import (
    find_latest,
    list_checkpoints,
    locate_checkpoint,
)
from trainkit.errors import CheckpointError


def test_the_newest_is_found_by_iteration_whatever_the_clock_says(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"epoch_{n}", iteration) for n, iteration in ((9, 5), (10, 10))]
    paths.append(write(tmp_path / "iter_7", 7))
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["epoch_9", "iter_7", "epoch_10"]
    assert find_latest(tmp_path) == (tmp_path / "epoch_10", [])


def test_no_checkpoint_at_all_is_no_error(tmp_path: Path) -> None:
    assert find_latest(tmp_path) == (None, [])
    assert find_latest(tmp_path / "missing") == (None, [])
    assert list_checkpoints(tmp_path / "missing") == []


FOREIGN = ["step-10-backup", "epoch_x", "epoch_7_backup", "epoch_backup_7", "epoch_\u00b2", "iter_"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_directory_is_left_untouched(tmp_path: Path, name: str) -> None:
    good = write(tmp_path / "epoch_1")
    (tmp_path / name).mkdir()
    (tmp_path / name / "note.txt").write_text("mine")
    before = contents(tmp_path)
    assert find_latest(tmp_path) == (good, [])
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", FOREIGN)
def test_a_users_copy_of_a_checkpoint_is_not_listed(tmp_path: Path, name: str) -> None:
    good = write(tmp_path / "epoch_1")
    shutil.copytree(good, tmp_path / name)
    assert list_checkpoints(tmp_path) == [good]


def test_a_plain_file_named_like_a_checkpoint_is_left_untouched(tmp_path: Path) -> None:
    good = write(tmp_path / "epoch_1")
    (tmp_path / "epoch_7").write_text("mine")
    assert find_latest(tmp_path) == (good, [])
    assert (tmp_path / "epoch_7").read_text() == "mine"


def test_best_checkpoints_are_no_place_to_go_on_from(tmp_path: Path) -> None:
    write(tmp_path / "best_accuracy_epoch_3", 3)
    assert list_checkpoints(tmp_path) == []
    assert find_latest(tmp_path) == (None, [])


def test_every_way_to_name_a_checkpoint_finds_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    old, new = (write(run / "checkpoints" / f"epoch_{n}", n) for n in (5, 6))
    torch.save({}, tmp_path / "weights.pth")
    assert locate_checkpoint(run) == new
    assert locate_checkpoint(str(old)) == old
    assert locate_checkpoint(run / "epoch_5") == old
    assert locate_checkpoint(run / "epoch_5.pth") == old
    assert locate_checkpoint(old.with_suffix(".pth")) == old
    assert locate_checkpoint(tmp_path / "weights.pth") == tmp_path / "weights.pth"


@pytest.mark.parametrize("given", ["run/epoch_9.pth", "run/epoch_9", "run/checkpoints/epoch_9"])
def test_a_missing_checkpoint_lists_what_is_nearby(tmp_path: Path, given: str) -> None:
    there = write(tmp_path / "run" / "checkpoints" / "epoch_5")
    with pytest.raises(CheckpointError) as caught:
        locate_checkpoint(tmp_path / given)
    assert given in str(caught.value)
    assert str(there) in str(caught.value)


def test_a_run_without_checkpoints_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        locate_checkpoint(tmp_path)


def test_a_directory_that_is_no_checkpoint_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointError) as caught:
        locate_checkpoint(tmp_path / "other")
    assert str(caught.value) == (
        f"{tmp_path}/other has neither the manifest.json of a checkpoint nor the checkpoints/ of a "
        "run. Expected a run, a checkpoint directory or a file. Nearby: none."
    )
