"""Killed at any instant: what was complete stays, and what is left over is swept."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoint.helpers import FILES, contents, write
from tests.toy import make_runner
from trainkit import Runner
from trainkit.checkpoint import (
    MANIFEST,
    find_latest,
    list_checkpoints,
    remove_checkpoint,
    verify_checkpoint,
)


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
        assert find_latest(tmp_path, own=False) == (None, [])
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


DEAD = 9  # the exit code of a child that ended where it was to
# What a save changes on the disk, besides what torch.save writes.
OPERATIONS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")


def dies_at(point: int, action: Callable[[], object]) -> bool:
    """Run ``action`` in a child that ends at its ``point``-th durable operation; say if it did.

    It ends before the operation, and in the midst of ``torch.save``, with half of a file written.
    """
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, DEAD), "the child failed by itself; its error stands above"
        return code == DEAD
    seen = 0

    def is_now() -> bool:
        nonlocal seen
        seen += 1
        return seen == point

    def ending(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *a, **k: os._exit(DEAD) if is_now() else real(*a, **k)

    def half_save(state: Any, file: Any) -> None:
        buffer = io.BytesIO()
        real_save(state, buffer)
        data = buffer.getvalue()
        if is_now():
            file.write(data[: len(data) // 2])
            file.flush()
            os._exit(DEAD)
        file.write(data)

    real_save = torch.save
    try:
        torch.save = half_save  # type: ignore[assignment]  # of this process only
        for name in OPERATIONS:
            setattr(os, name, ending(getattr(os, name)))
        action()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def fourth_epoch(runner: Runner, work_dir: Path) -> None:
    """Save as at the end of a fourth epoch, in a copy of the run, and a new best one."""
    runner.work_dir = runner.record.run = work_dir
    runner.is_training, loop = True, runner.train_loop
    loop.iter, loop._ended_epoch = 12, loop.epoch
    hook = runner.hooks.hooks["checkpoint"]
    hook.after_train_epoch(runner)
    hook.after_val_epoch(runner, {"mse": 0.0})
    hook.after_train(runner)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "keep", [1, *(pytest.param(keep, marks=pytest.mark.slow) for keep in (2, 3))]
)
def test_a_kill_at_any_operation_of_a_run_that_saves_costs_nothing(
    tmp_path: Path, keep: int
) -> None:
    options = {"interval": 1, "max_keep_ckpts": keep, "save_best": "mse"}
    runner = make_runner(
        tmp_path / "run",
        train_cfg={"by_epoch": True, "max_epochs": 3},
        default_hooks={"checkpoint": options},
    )
    runner.train()
    found, bests = set(), set()
    for point in range(1, 200):
        work_dir = tmp_path / str(point)
        shutil.copytree(runner.checkpoint_dir, work_dir / "checkpoints", copy_function=os.link)
        if not dies_at(point, lambda work_dir=work_dir: fourth_epoch(runner, work_dir)):
            break
        directory = work_dir / "checkpoints"
        assert len(list_checkpoints(directory)) >= keep, f"too few after a kill at {point}"
        latest, reasons = find_latest(directory)
        assert latest is not None
        assert not reasons, f"damage is listed after a kill at {point}"
        found.add(verify_checkpoint(latest)["iter"])
        best = [verify_checkpoint(path)["iter"] for path in directory.glob("best_mse_*")]
        bests.add(max(best))
        left = {path.name for path in directory.iterdir() if path.name.startswith(".")}
        assert not left, f"left over after a kill at {point}: {left}"
    assert point > 30, "the kills came too early to mean anything"
    assert found == {9, 12}
    assert bests == {3, 12}
    end = work_dir / "checkpoints"
    assert sorted(path.name for path in end.glob("*_*") if path.is_dir()) == sorted(
        ["best_mse_epoch_4", *(f"epoch_{n}" for n in range(5 - keep, 5))]
    )


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_kill_at_any_operation_of_a_write_over_an_older_one_costs_nothing(tmp_path: Path) -> None:
    found = set()
    for point in range(1, 100):
        directory = tmp_path / str(point)
        write(directory / "epoch_1", 1)
        if not dies_at(point, lambda d=directory: write(d / "epoch_1", 2)):
            break
        # A second kill of the same kind, with the first one's leftovers still there.
        dies_at(point, lambda d=directory: write(d / "epoch_1", 2))
        latest, reasons = find_latest(directory)
        assert latest is not None
        assert not reasons
        found.add(verify_checkpoint(latest)["iter"])
        assert [path.name for path in directory.iterdir()] == ["epoch_1"]
    assert point > 10
    assert found == {1, 2}


def test_an_error_between_the_renames_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "epoch_1", 1)
    before = contents(tmp_path)
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if Path(source).name.startswith(".tmp-"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "epoch_1", 2)
    assert contents(tmp_path) == before


def test_a_worker_that_dies_meanwhile_is_not_taken_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "epoch_1", 1)
    before = contents(tmp_path)
    text = "DataLoader worker (pid 7) is killed by signal: Killed. "

    def fsync(descriptor: int) -> None:
        raise RuntimeError(text)  # as torch's handler of SIGCHLD does, in any line

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RuntimeError, match=r"worker \(pid 7\)") as caught:
        write(tmp_path / "epoch_2", 2)
    assert str(caught.value) == text
    assert contents(tmp_path) == before


def test_a_new_directory_of_checkpoints_lasts_through_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "run" / "checkpoints" / "epoch_1")
    for path in (tmp_path / "run" / "checkpoints", tmp_path / "run", tmp_path):
        assert path.stat().st_ino in flushed


def test_what_others_have_left_there_is_not_swept(tmp_path: Path) -> None:
    for name in (".del-mine", ".old", "tmp-epoch_1", ".notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "note.txt").write_text("mine")
    write(tmp_path / "epoch_1")
    find_latest(tmp_path)
    kept = {path.name for path in tmp_path.iterdir()} - {"epoch_1"}
    assert kept == {".del-mine", ".old", "tmp-epoch_1", ".notes"}


def test_every_leftover_of_killed_saves_is_swept_when_a_run_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "epoch_1")
    for name in (".tmp-iter_7-host-12", ".del-epoch_0-12-1700000000000000000"):
        shutil.copytree(path, tmp_path / name)
    (tmp_path / ".tmp-epoch_1-12.pth").write_bytes(b"half of what was to be published")
    assert find_latest(tmp_path, own=False) == (path, [])
    assert len(list(tmp_path.iterdir())) == 4, "another process may be writing them"
    assert find_latest(tmp_path) == (path, [])
    assert list(tmp_path.iterdir()) == [path]
