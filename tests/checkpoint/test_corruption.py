"""What is damaged is noticed, set aside, and never taken for good."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoint.helpers import FILES, contents, flip_bit, states, write
from trainkit.checkpoint import (
    MANIFEST,
    find_latest,
    list_checkpoints,
    point_to,
    read_checkpoint,
    read_manifest,
    superfluous,
    verify_checkpoint,
    write_checkpoint,
)
from trainkit.errors import CheckpointError


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [lambda size: 0, lambda size: size // 2, lambda size: size - 1])
def test_a_truncated_file_is_noticed(tmp_path: Path, name: str, keep: Callable[[int], int]) -> None:
    file = write(tmp_path / "epoch_1") / name
    os.truncate(file, keep(file.stat().st_size))
    for check in (read_manifest, verify_checkpoint, read_checkpoint):
        with pytest.raises(CheckpointError, match=str(file)):
            check(file.parent)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_noticed_anywhere(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "epoch_1") / name
    for bit in random.Random(0).sample(range(8 * file.stat().st_size), 20):
        flip_bit(file, bit)
        for check in (verify_checkpoint, read_checkpoint):
            with pytest.raises(CheckpointError, match=str(file)):
                check(file.parent)
        flip_bit(file, bit)
    assert verify_checkpoint(file.parent)["iter"] == 1


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_deleted_file_is_noticed(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "epoch_1")
    (path / name).unlink()
    assert list_checkpoints(tmp_path) == []
    for check in (read_manifest, verify_checkpoint, read_checkpoint):
        with pytest.raises(CheckpointError, match=str(path)):
            check(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"format_version": 1, "files"',
        b'{"format_version": 1, "files": ["model.pt"]}',
        b'{"format_version": 1, "files": {"model.pt": {}}}',
        b'{"format_version": 1, "files": {"model.pt": 3}}',
        b'{"format_version": "1", "files": {}}',
        b'{"format_version": null, "files": {}}',
    ],
)
def test_a_junk_manifest_is_an_incomplete_checkpoint(tmp_path: Path, text: bytes) -> None:
    path = write(tmp_path / "epoch_1")
    (path / MANIFEST).write_bytes(text)
    for check in (
        read_manifest,
        verify_checkpoint,
        read_checkpoint,
        lambda p: find_latest(p.parent),
    ):
        with pytest.raises(CheckpointError, match=str(path)):
            check(path)


def test_a_damaged_manifest_raises_nothing_but_checkpoint_error(tmp_path: Path) -> None:
    path = write(tmp_path / "epoch_1")
    original = (path / MANIFEST).read_bytes()
    surprises = set()
    for byte in range(0, len(original), 7):
        flip_bit(path / MANIFEST, 8 * byte + 1)
        try:
            verify_checkpoint(path)
        except CheckpointError:
            pass
        except Exception as error:
            surprises.add(repr(error))
        (path / MANIFEST).write_bytes(original)
    assert not surprises


def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "epoch_1", 1), write(tmp_path / "epoch_2", 2)
    flip_bit(bad / "model.pt", 999)
    kept = contents(bad)
    latest, reasons = find_latest(tmp_path)
    assert latest == good
    assert len(reasons) == 1
    assert str(bad / "model.pt") in reasons[0]
    (moved,) = tmp_path.glob(".corrupt-epoch_2-*")
    assert contents(moved) == kept
    assert find_latest(tmp_path) == (good, []), "reported once, then out of the way"


def test_an_incomplete_newest_falls_back_too(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "epoch_1", 1), write(tmp_path / "epoch_2", 2)
    (bad / MANIFEST).unlink()
    latest, reasons = find_latest(tmp_path)
    assert (latest, len(reasons)) == (good, 1)
    assert not bad.exists()


def test_all_bad_is_refused_and_nothing_is_renamed(tmp_path: Path) -> None:
    for n in (1, 2):
        flip_bit(write(tmp_path / f"epoch_{n}", n) / "state.pt", 999)
    with pytest.raises(CheckpointError) as caught:
        find_latest(tmp_path)
    for part in ("epoch_1/state.pt", "epoch_2/state.pt", "resume=fresh"):
        assert part in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_1", "epoch_2"]


def _damage(path: Path, chance: random.Random, cut: bool) -> None:
    """Flip a bit anywhere in a checkpoint's files, or cut one short."""
    files = sorted(path.iterdir())
    file = chance.choices(files, [each.stat().st_size for each in files])[0]
    size = file.stat().st_size
    if cut:
        os.truncate(file, chance.randrange(size))
    else:
        flip_bit(file, chance.randrange(8 * size))


@pytest.mark.parametrize("cut", [False, True])
def test_sixty_damages_are_sixty_times_noticed_and_gone_around(tmp_path: Path, cut: bool) -> None:
    chance = random.Random(1)
    good, newest = write(tmp_path / "epoch_1", 1), write(tmp_path / "epoch_2", 2)
    whole = contents(newest)
    for _ in range(60):
        _damage(newest, chance, cut)
        assert contents(newest) != whole
        latest, reasons = find_latest(tmp_path)
        assert (latest, len(reasons)) == (good, 1)
        assert "epoch_2" in reasons[0]
        (aside,) = tmp_path.glob(".corrupt-epoch_2-*")
        shutil.rmtree(aside)
        newest.mkdir()
        for name, data in whole.items():
            (newest / name).write_bytes(data)
    assert find_latest(tmp_path) == (newest, [])


def test_a_page_of_zeros_is_noticed(tmp_path: Path) -> None:
    state = {"model.pt": {"w": torch.ones(10_000)}}
    file = write_checkpoint(tmp_path / "epoch_1", state, {"iter": 1}) / "model.pt"
    data = bytearray(file.read_bytes())
    data[8192:12288] = bytes(4096)
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.pt is damaged"):
        read_checkpoint(file.parent)


@pytest.mark.parametrize("change", ['"iter": 1', '"epoch": 1', '"name": "epoch_1"'])
def test_a_manifest_that_still_parses_is_noticed_too(tmp_path: Path, change: str) -> None:
    manifest = write(tmp_path / "epoch_1") / MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace(change, change.replace("1", "5")))
    assert manifest.read_text() != text
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        read_manifest(manifest.parent)


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00junk", b"epoch_9\n", b"../../etc\n"])
def test_the_pointer_decides_nothing(tmp_path: Path, content: bytes | None) -> None:
    path = write(tmp_path / "epoch_1")
    if content is not None:
        (tmp_path / "last_checkpoint").write_bytes(content)
    assert find_latest(tmp_path) == (path, [])


def test_the_pointer_is_renewed_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(tmp_path / "epoch_1")
    assert (tmp_path / "last_checkpoint").read_text() == "epoch_1\n"
    seen = []
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        seen.append((Path(source).read_text(), Path(target).read_text()))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    point_to(tmp_path / "epoch_2")
    assert seen == [("epoch_2\n", "epoch_1\n")]
    assert contents(tmp_path) == {"last_checkpoint": b"epoch_2\n"}


def diverged(directory: Path, iteration: int) -> Path:
    facts = {"iter": iteration, "non_finite": ["layer.weight", "a", "b", "c", "d"]}
    return write_checkpoint(directory, states(), facts)


def test_weights_that_are_not_finite_are_no_place_to_go_on_from(tmp_path: Path) -> None:
    good = write(tmp_path / "epoch_1", 1)
    bad = [diverged(tmp_path / f"epoch_{n}", n) for n in (2, 3)]
    latest, reasons = find_latest(tmp_path)
    assert latest == good
    text = "has NaN or infinity in its weights (layer.weight, a, b and 2 more)."
    assert reasons == [f"{path} {text}" for path in reversed(bad)]
    assert all(path.exists() for path in bad), "they are whole, and no evidence is removed"


def test_where_none_is_finite_the_newest_is_gone_on_from(tmp_path: Path) -> None:
    bad = [diverged(tmp_path / f"epoch_{n}", n) for n in (2, 3)]
    assert find_latest(tmp_path) == (bad[1], [])
    flip_bit(bad[1] / "model.pt", 99)
    latest, reasons = find_latest(tmp_path)
    assert (latest, len(reasons)) == (bad[0], 1)


@pytest.mark.parametrize(
    ("kinds", "keep", "removed"),
    [
        ("fffff", 2, [1, 2, 3]),
        ("ffnnn", 2, [1, 3]),
        ("nnnnn", 2, [1, 2, 3]),
        ("fnfnn", 1, [1, 2, 4]),
        ("ffxff", 3, [1]),
        ("ffxff", 4, []),
        ("fffxx", 2, [1]),
        ("f", 1, []),
        ("ffs", 1, [1]),
        ("fsf", 1, [1, 2]),
        ("fsn", 1, []),
        ("fss", 2, [2]),
        ("ffsff", 3, [1, 3]),
    ],
)
def test_the_newest_whole_ones_stay_and_the_newest_finite_one(
    tmp_path: Path, kinds: str, keep: int, removed: list[int]
) -> None:
    """``f`` is finite, ``n`` is not, ``x`` is not whole, ``s`` is of a run that was stopped."""
    paths = []
    for number, kind in enumerate(kinds, 1):
        path = tmp_path / f"epoch_{number}"
        paths.append(diverged(path, number) if kind == "n" else write(path, number))
        if kind == "s":
            write_checkpoint(path, states(), {"iter": number, "scheduled": False})
        if kind == "x":
            (path / "state.pt").unlink()
    assert sorted(path.name for path in superfluous(paths, keep)) == [
        f"epoch_{number}" for number in removed
    ]
