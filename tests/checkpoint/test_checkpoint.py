"""Checkpoints: what was complete stays, what is damaged is noticed, and none of them runs code."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainkit.checkpoint import (
    FORMAT_VERSION,
    MANIFEST,
    check_plain,
    find_latest,
    list_checkpoints,
    locate_checkpoint,
    read_checkpoint,
    read_manifest,
    remove_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from trainkit.errors import CheckpointError

FILES = ("model.pt", "state.pt", "rank_0.pt")


def states(value: float = 1.0) -> dict[str, Any]:
    return {
        "model.pt": collections.OrderedDict(weight=torch.full((4, 3), value), bias=torch.ones(3)),
        "state.pt": {"meta": {"epoch": 1, "cfg": "a: 1"}, "hooks": {"best": None}},
        "rank_0.pt": {"rng": [1, 2, (3, "x")]},
    }


def write(directory: Path, iteration: int = 1, value: float = 1.0) -> Path:
    return write_checkpoint(directory, states(value), {"iter": iteration, "epoch": iteration})


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def flip_bit(path: Path, bit: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def killed_at(event: int, action: Callable[[], object]) -> bool:
    """Run ``action`` in a child that dies before its ``event``-th change to the file system."""
    child = os.fork()
    if child == 0:
        seen = 0

        def die(name: str, args: tuple[Any, ...]) -> None:
            nonlocal seen
            if name in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
                seen += 1
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(die)
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


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


_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(min_size=1, max_size=5)
)
_plain = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(_plain)
def test_plain_data_comes_back_equal(value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = write_checkpoint(Path(directory) / "epoch_1", {"model.pt": {"value": value}}, {})
        assert read_checkpoint(path)["state_dict"] == {"value": value}


class Tagged(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "value",
    [
        nn.Parameter(torch.ones(2)),
        torch.ones(2, dtype=torch.bfloat16),
        torch.Size([2, 3]),
        torch.float16,
        torch.device("cpu"),
        collections.Counter("aab"),
        collections.defaultdict(int, a=1),
        collections.ChainMap({"a": 1}),
        types.MappingProxyType({"a": 1}),
        2**3000,
        b"",
        torch.ones(2).as_subclass(Tagged),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_saved_can_be_loaded_or_is_refused_at_once(tmp_path: Path, value: Any) -> None:
    refusal = ""
    try:
        write_checkpoint(tmp_path / "epoch_1", {"model.pt": {"value": value}}, {})
    except CheckpointError as error:
        refusal = str(error)
    if refusal:
        assert "model.value" in refusal
        assert not any(tmp_path.iterdir())
    else:
        read = read_checkpoint(tmp_path / "epoch_1")["state_dict"]["value"]
        assert torch.equal(read, value) if isinstance(value, torch.Tensor) else read == value


def test_model_pt_is_a_state_dict_that_plain_torch_loads(tmp_path: Path) -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    path = write_checkpoint(tmp_path / "epoch_1", {"model.pt": model.state_dict()}, {"iter": 1})
    other.load_state_dict(torch.load(path / "model.pt", weights_only=True))
    assert torch.equal(other.weight, model.weight)


def test_a_rank_reads_its_own_state(tmp_path: Path) -> None:
    files = {"model.pt": {}, "rank_0.pt": {"mine": 0}, "rank_1.pt": {"mine": 1}}
    path = write_checkpoint(tmp_path / "epoch_1", files, {"iter": 1})
    assert read_checkpoint(path, rank=1)["rank"] == {"mine": 1}
    assert "rank" not in read_checkpoint(path, rank=2)


def test_a_plain_file_is_read_as_weights(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "plain.pth")
    torch.save({"state_dict": {"w": torch.ones(1)}, "meta": {"epoch": 3}}, tmp_path / "mm.pth")
    assert list(read_checkpoint(tmp_path / "plain.pth")) == ["state_dict"]
    assert read_checkpoint(tmp_path / "mm.pth")["meta"] == {"epoch": 3}


def test_durable_operations_come_in_the_order_that_survives_power_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, Any]] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        log.append(("fsync", os.fstat(descriptor).st_ino))
        real_fsync(descriptor)

    def rename(source: Any, target: Any) -> None:
        log.append(("rename", Path(target).name))
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    path = write(tmp_path / "epoch_1")
    names = {file.stat().st_ino: file.name for file in (*path.iterdir(), path)}
    names[tmp_path.stat().st_ino] = "the parent"
    steps = [names[value] if kind == "fsync" else f"rename to {value}" for kind, value in log]
    assert steps == [*FILES, MANIFEST, "epoch_1", "rename to epoch_1", "the parent"]


def test_nothing_is_listed_before_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[list[Path]] = []
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        listed.append(list_checkpoints(tmp_path))
        assert find_latest(tmp_path) == (None, [])
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    path = write(tmp_path / "epoch_1")
    assert listed == [[]]
    assert list_checkpoints(tmp_path) == [path]


def _leftover(directory: Path, pid: int) -> Path:
    path = directory / f".tmp-epoch_1-{socket.gethostname()}-{pid}"
    shutil.copytree(write(directory / "elsewhere" / "epoch_1"), path)
    shutil.rmtree(directory / "elsewhere")
    return path


def test_a_leftover_of_a_killed_write_is_no_checkpoint(tmp_path: Path) -> None:
    _leftover(tmp_path, os.getpid())
    assert list_checkpoints(tmp_path) == []
    assert find_latest(tmp_path) == (None, [])


def test_the_next_write_sweeps_a_leftover_of_its_name(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine, other = _leftover(tmp_path, os.getpid()), _leftover(tmp_path, dead.pid)
    path = write(tmp_path / "epoch_1")
    assert not mine.exists()
    assert not other.exists(), "what a killed process left behind stays on the disk for ever"
    assert list(tmp_path.iterdir()) == [path]


def test_a_half_deleted_leftover_does_not_stop_a_removal(tmp_path: Path) -> None:
    path = write(tmp_path / "epoch_1")
    leftover = tmp_path / f".del-epoch_1-{os.getpid()}"  # process ids recur, in containers always
    leftover.mkdir()
    (leftover / "model.pt").write_bytes(b"half")
    remove_checkpoint(path)
    assert not path.exists()


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


def test_a_state_that_could_not_be_loaded_back_writes_nothing(tmp_path: Path) -> None:
    before = contents(write(tmp_path / "epoch_1").parent)
    with pytest.raises(CheckpointError, match=r"state\.lr"):
        write_checkpoint(tmp_path / "epoch_1", {"state.pt": {"lr": np.float64(1)}}, {"iter": 2})
    assert contents(tmp_path) == before


def test_facts_that_are_no_json_leave_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "epoch_1")
    with pytest.raises((CheckpointError, TypeError)):
        write_checkpoint(tmp_path / "epoch_2", states(), {"iter": 2, "path": Path("x")})
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_1"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["epoch_1", "epoch_2"])
def test_a_kill_at_any_instant_costs_no_complete_checkpoint(tmp_path: Path, name: str) -> None:
    lost = []
    for event in range(1, 100):
        directory = tmp_path / str(event)
        write(directory / "epoch_1", iteration=1)
        if not killed_at(event, lambda d=directory: write(d / name, iteration=2)):
            break
        latest, reasons = find_latest(directory)
        if latest is None or reasons or verify_checkpoint(latest)["iter"] not in (1, 2):
            lost.append(event)
    assert event > 5, "the kills came too early to mean anything"
    assert verify_checkpoint(directory / name)["iter"] == 2
    assert not lost, f"no good checkpoint after a kill before event {lost} of {event - 1}"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_inside_a_removal_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    for event in range(1, 100):
        path = write(tmp_path / str(event) / "epoch_1")
        if not killed_at(event, lambda path=path: remove_checkpoint(path)):
            break
        assert not path.exists() or verify_checkpoint(path)["iter"] == 1
    assert event > 4
    assert not path.exists()


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
    for byte in range(len(original)):
        flip_bit(path / MANIFEST, 8 * byte + 1)
        try:
            verify_checkpoint(path)
        except CheckpointError:
            pass
        except Exception as error:
            surprises.add(repr(error))
        (path / MANIFEST).write_bytes(original)
    assert not surprises


def test_a_newer_format_says_to_update(tmp_path: Path) -> None:
    path = write(tmp_path / "epoch_1")
    manifest = {**json.loads((path / MANIFEST).read_text()), "format_version": FORMAT_VERSION + 1}
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        CheckpointError, match=r"has format 2; this trainkit reads up to 1\. Update"
    ):
        read_checkpoint(path)


def test_the_newest_is_found_by_iteration_whatever_the_clock_says(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"epoch_{n}", iteration) for n, iteration in ((9, 5), (10, 10))]
    paths.append(write(tmp_path / "iter_7", 7))
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["epoch_9", "iter_7", "epoch_10"]
    assert find_latest(tmp_path) == (tmp_path / "epoch_10", [])


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


def zipped(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "x")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"root:x:0:0\n", "it is neither a zip archive nor a pickle"),
        (b"K", "it is neither a zip archive nor a pickle"),
        (zipped("notes/x.txt"), "it is a zip archive without a data.pkl"),
        (zipped("weights/data.pkl")[:-9], "its zip archive is cut short or damaged"),
    ],
)
def test_a_file_that_is_none_of_torchs_is_refused_where_it_is_named(
    tmp_path: Path, content: bytes, why: str
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    for read in (locate_checkpoint, read_checkpoint):
        with pytest.raises(CheckpointError) as caught:
            read(file)
        assert str(caught.value) == (
            f"{file} is no file that torch.load reads: {why}. Expected a checkpoint of a run, or "
            "weights that torch.save has written."
        )


def test_what_only_reading_tells_is_told_in_words(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"w": torch.ones(3)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-5])
    assert locate_checkpoint(file) == file
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(file)
    assert str(caught.value) == (
        f"{file} is damaged, or nothing that torch.save has written (unexpected EOF, expected 5 "
        "more bytes. The file might be corrupted.)."
    )


def test_a_directory_that_is_no_checkpoint_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointError) as caught:
        locate_checkpoint(tmp_path / "other")
    assert str(caught.value) == (
        f"{tmp_path}/other has neither the manifest.json of a checkpoint nor the checkpoints/ of a "
        "run. Expected a run, a checkpoint directory or a file. Nearby: none."
    )


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
def test_a_pickled_object_is_refused_and_its_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary, file = tmp_path / "canary", tmp_path / "evil.pth"
    torch.save({"weight": Canary(canary)}, file)
    with pytest.raises(CheckpointError, match=r"evil\.pth needs pickle"):
        read_checkpoint(file)
    assert not canary.exists()


def test_a_pickled_object_in_a_checkpoint_with_a_true_digest_is_refused_too(tmp_path: Path) -> None:
    canary, evil, path = tmp_path / "canary", tmp_path / "evil", write(tmp_path / "epoch_1")
    torch.save({"weight": Canary(canary)}, evil)
    text = (path / MANIFEST).read_text()
    for key in ("size", "sha256"):
        old, new = _facts(path / "model.pt")[key], _facts(evil)[key]
        text = text.replace(f'"{key}": {json.dumps(old)}', f'"{key}": {json.dumps(new)}', 1)
    shutil.copy(evil, path / "model.pt")
    (path / MANIFEST).write_text(text)
    assert verify_checkpoint(path)["iter"] == 1
    with pytest.raises(CheckpointError, match="needs pickle"):
        read_checkpoint(path)
    assert not canary.exists()


def _facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_plain_file_raises_nothing_but_checkpoint_error(
    tmp_path: Path, zipped: bool
) -> None:
    file, chance = tmp_path / "weights.pth", random.Random(0)
    torch.save({"w": torch.ones(9), "b": [1, "x"]}, file, _use_new_zipfile_serialization=zipped)
    original = file.read_bytes()
    surprises = set()
    for attempt in range(200):
        cut = original if attempt % 2 else original[: chance.randrange(1, len(original))]
        file.write_bytes(cut)
        flip_bit(file, chance.randrange(8 * len(cut)))
        try:
            read_checkpoint(file)
        except CheckpointError:
            pass
        except Exception as error:
            surprises.add(repr(error))
    assert not surprises


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (np.float64(1), "state.value"),
        (Path("x"), "state.value"),
        ([1, {"deep": (None, np.ones(1))}], r"state.value\[1\].deep\[1\]"),
        ({"a.b": {3: object()}}, "state.value.a.b.3"),
        ({np.int64(3): 1}, r"state.value \(a key\)"),
        ({1, Path("x")}, r"state.value\["),
    ],
)
def test_what_is_not_plain_is_named_by_its_key_path(value: Any, path: str) -> None:
    with pytest.raises(CheckpointError, match=rf"The checkpoint's {path}.* is a "):
        check_plain({"ok": 1, "value": value}, "state")
