"""A checkpoint on the disk: written whole, removed whole."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoint.helpers import contents, largest_file, states, write
from trainkit.checkpoint import (
    find_latest,
    point_to,
    read_checkpoint,
    read_manifest,
    remove_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from trainkit.errors import CheckpointError


def test_a_checkpoint_comes_back_equal(tmp_path: Path) -> None:
    path = write(tmp_path / "epoch_1", iteration=7)
    read = read_checkpoint(path)
    assert read.pop("rank") == states()["rank_0.pt"]
    weights = read.pop("state_dict")
    assert list(weights) == ["weight", "bias"]
    assert torch.equal(weights["weight"], states()["model.pt"]["weight"])
    assert read == states()["state.pt"]
    assert read_manifest(path)["iter"] == 7
    assert verify_checkpoint(path) == read_manifest(path)


def test_a_removed_checkpoint_is_gone_and_leaves_nothing(tmp_path: Path) -> None:
    path, other = write(tmp_path / "epoch_1"), write(tmp_path / "epoch_2", 2)
    remove_checkpoint(path)
    assert list(tmp_path.iterdir()) == [other]


def test_a_write_of_the_same_name_replaces_the_old_checkpoint(tmp_path: Path) -> None:
    for iteration in (1, 2):
        path = write(tmp_path / "epoch_1", iteration, value=iteration)
    assert verify_checkpoint(path)["iter"] == 2
    assert read_checkpoint(path)["state_dict"]["weight"][0, 0] == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["epoch_1", "epoch_2"])
def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path: Path, name: str) -> None:
    write(tmp_path / "epoch_1")
    before = contents(tmp_path)
    with largest_file(1000), pytest.raises(CheckpointError) as caught:
        write(tmp_path / name, 2, value=2.0)
    assert str(tmp_path / name) in str(caught.value)
    assert "resume=true" in str(caught.value)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_1"]


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(CheckpointError, match="checkpoints/epoch_1 could not be written"):
        write(tmp_path / "checkpoints" / "epoch_1")
    assert (tmp_path / "checkpoints").read_text() == "mine"


def test_a_users_file_of_the_same_name_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "epoch_1").write_text("mine")
    with pytest.raises(CheckpointError, match="epoch_1"):
        write(tmp_path / "epoch_1")
    assert contents(tmp_path) == {"epoch_1": b"mine"}


def test_facts_that_are_no_json_leave_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "epoch_1")
    with pytest.raises((CheckpointError, TypeError)):
        write_checkpoint(tmp_path / "epoch_2", states(), {"iter": 2, "path": Path("x")})
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_1"]


@pytest.mark.parametrize("size", [10, 4 << 20])
def test_a_full_disk_is_told_with_what_is_needed_and_free(tmp_path: Path, size: int) -> None:
    write(tmp_path / "epoch_1")
    before = contents(tmp_path)
    state = {"model.pt": {"w": torch.ones(size // 4)}, "state.pt": {"text": "x" * 9000}}
    with largest_file(5000), pytest.raises(CheckpointError) as caught:
        write_checkpoint(tmp_path / "epoch_2", state, {"iter": 2})
    pattern = (
        rf"The checkpoint {tmp_path}/epoch_2 could not be written: File too large. It takes about "
        rf"{size / 2**20:.1f} MiB; [\d,.]+ MiB are free in {tmp_path}. Earlier checkpoints are "
        "untouched. Make room, then resume=true."
    )
    assert re.fullmatch(pattern, str(caught.value))
    assert contents(tmp_path) == before, "what was half written makes no room"
    assert write_checkpoint(tmp_path / "epoch_2", state, {"iter": 2}).is_dir()
    assert find_latest(tmp_path) == (tmp_path / "epoch_2", [])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_at_the_last_moment_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))  # such as of a network's disk

    write(tmp_path / "epoch_1")
    before = contents(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CheckpointError, match=rf"{os.strerror(number)}\. It takes about .* free"):
        write(tmp_path / "epoch_2")
    with pytest.raises(CheckpointError, match="last_checkpoint could not be written"):
        point_to(tmp_path / "epoch_1")
    assert contents(tmp_path) == before


def test_a_directory_that_takes_no_file_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(path: Any, *args: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))  # root ignores rights

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(CheckpointError) as caught:
        write(tmp_path / "checkpoints" / "epoch_1")
    assert str(caught.value) == (
        f"The checkpoint {tmp_path}/checkpoints/epoch_1 could not be written: Read-only file "
        f"system. Earlier checkpoints are untouched. Make {tmp_path} writable, then resume=true."
    )


@pytest.mark.parametrize(
    ("mask", "file", "directory"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_rights_are_those_of_any_file_that_the_user_makes(
    tmp_path: Path, mask: int, file: int, directory: int
) -> None:
    before = os.umask(mask)
    try:
        path = write(tmp_path / "epoch_1")
        point_to(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == directory
    files = [*path.iterdir(), tmp_path / "last_checkpoint"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {file}


@pytest.mark.parametrize("place", [0.3, 0.5, 0.9])
def test_what_reads_otherwise_than_it_was_written_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: float
) -> None:
    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.name == "model.pt":  # a disk, or a memory, that changes what it was given
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(int(size * place))
                file.write(os.urandom(200))

    big = {**states(), "model.pt": {"weight": torch.zeros(4000)}}
    write(tmp_path / "epoch_1")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CheckpointError, match=r"model.pt was written, but reads otherwise"):
        write_checkpoint(tmp_path / "epoch_2", big, {"epoch": 2, "iter": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_1"]
