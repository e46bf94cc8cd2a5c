"""Writing in the background: a copy is taken, and nothing that was accepted is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.checkpoint.helpers import contents
from tests.ranks import on_ranks
from tests.toy import make_runner
from trainkit import CheckpointError, Hook, Runner
from trainkit.checkpoint import CheckpointWriter, Snapshot, list_checkpoints, read_checkpoint
from trainkit.dist import broadcast_object


def job(log: list[str], name: str, gate: threading.Event | None = None) -> Callable[[], Any]:
    def write() -> None:
        assert gate is None or gate.wait(10)
        log.append(name)

    return lambda: write


def test_at_once_is_written_when_it_returns() -> None:
    log: list[str] = []
    CheckpointWriter().write(job(log, "written"), lambda: log.append("then"))
    assert log == ["written", "then"]


def test_in_the_background_the_rest_follows_once_it_is_written() -> None:
    log: list[str] = []
    gate, writer = threading.Event(), CheckpointWriter()
    writer.write(job(log, "written", gate), lambda: log.append("then"), background=True)
    writer.settle()
    assert log == []
    gate.set()
    writer.settle(wait=True)
    assert log == ["written", "then"]
    writer.settle(wait=True)
    assert log == ["written", "then"], "settled once"


def test_the_next_write_waits_for_the_one_before() -> None:
    log: list[str] = []
    writer, gate = CheckpointWriter(), threading.Event()
    writer.write(job(log, "1", gate), lambda: log.append("then 1"), background=True)
    threading.Timer(0.05, gate.set).start()
    writer.write(job(log, "2"), lambda: log.append("then 2"), background=True)
    assert log[:2] == ["1", "then 1"]
    writer.settle(wait=True)
    assert log == ["1", "then 1", "2", "then 2"]


def failing() -> Callable[[], None]:
    def write() -> None:
        raise CheckpointError("the disk is full")

    return write


def failing_at(gate: threading.Event) -> Callable[[], Callable[[], None]]:
    def write() -> None:
        assert gate.wait(10)
        failing()()

    return lambda: write


@pytest.mark.parametrize("background", [False, True])
def test_a_failed_write_raises_once_and_what_follows_it_does_not_happen(background: bool) -> None:
    log: list[str] = []
    writer = CheckpointWriter()

    def write() -> None:
        writer.write(failing, lambda: log.append("then"), background=background)
        writer.settle(wait=True)

    with pytest.raises(CheckpointError, match="the disk is full"):
        write()
    writer.settle(wait=True)
    writer.write(job(log, "next"), lambda: None)
    assert log == ["next"]


def test_what_cannot_be_prepared_raises_at_once() -> None:
    def prepare() -> Callable[[], None]:
        raise CheckpointError("not plain")

    writer = CheckpointWriter()
    with pytest.raises(CheckpointError, match="not plain"):
        writer.write(prepare, lambda: None, background=True)
    assert writer.close() is None


def test_closing_waits_and_returns_the_failure() -> None:
    log: list[str] = []
    writer, gate = CheckpointWriter(), threading.Event()
    writer.write(job(log, "written", gate), lambda: log.append("then"), background=True)
    threading.Timer(0.05, gate.set).start()
    assert writer.close() is None
    assert log == ["written", "then"]
    assert writer.close() is None
    gate.clear()
    writer.write(failing_at(gate), lambda: log.append("never"), background=True)
    threading.Timer(0.05, gate.set).start()
    assert str(writer.close()) == "the disk is full"
    assert "never" not in log
    assert writer.close() is None


def test_ctrl_c_in_a_write_leaves_nothing_to_settle() -> None:
    def prepare() -> Callable[[], None]:
        raise KeyboardInterrupt

    writer = CheckpointWriter()
    with pytest.raises(KeyboardInterrupt):
        writer.write(prepare, lambda: pytest.fail("it was not written"))
    writer.settle(wait=True)


@pytest.mark.slow
def test_the_interpreter_ends_after_what_was_accepted_is_written(tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from trainkit.checkpoint import CheckpointWriter, write_checkpoint
        def write():
            time.sleep(0.3)
            write_checkpoint(Path(sys.argv[1]) / "epoch_1", {"model.pt": {"w": 1}}, {"iter": 1})
        CheckpointWriter().write(lambda: write, lambda: None, background=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    assert list_checkpoints(tmp_path) == [tmp_path / "epoch_1"]


# ---------------------------------------------------------------------------------- the copy


def every_kind() -> dict[str, Any]:
    table = torch.arange(12.0).reshape(3, 4)
    tied = nn.Parameter(torch.ones(2))
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).to(memory_format=torch.channels_last)
    return {
        "model": model.state_dict(),
        "tied": [tied, tied],
        "row": table[1],
        "column": table[:, 1],
        "bf16": torch.ones(3, dtype=torch.bfloat16),
        "fp8": torch.ones(3).to(torch.float8_e4m3fn),
        "complex": torch.ones(3, dtype=torch.complex64).conj(),
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.quint8),
        "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(4),
        "strided": torch.ones(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "plain": (1, {2.5}, {"x": None}),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        alike = (type(one), one.dtype, one.shape, one.layout, one.requires_grad)
        if alike != (type(other), other.dtype, other.shape, other.layout, other.requires_grad):
            return False
        if one.is_quantized:
            one, other = one.int_repr(), other.int_repr()
        one, other = (t.to_dense().resolve_conj() for t in (one.detach(), other.detach()))
        if one.element_size() == 1:  # float8 has no comparison
            one, other = one.float(), other.float()
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(type(one) is type(other) and one == other)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.filterwarnings("ignore:.*quantiz.*")
def test_a_snapshot_is_an_equal_copy_that_nothing_changes() -> None:
    state, expected = every_kind(), every_kind()
    expected["model"] = {key: value.clone() for key, value in state["model"].items()}
    taken = Snapshot().take(state)
    for value in [*state["model"].values(), *state["tied"], state["row"], state["bf16"]]:
        value.detach().fill_(7)
    state["sparse"]._values().fill_(7)
    state["model"].clear()
    assert same({**taken, "model": dict(taken["model"])}, expected)
    assert taken["tied"][0].data_ptr() == taken["tied"][1].data_ptr()
    assert taken["model"]._metadata == every_kind()["model"]._metadata


def test_the_memory_of_a_snapshot_is_used_again() -> None:
    snapshot, state = Snapshot(), {"a": torch.ones(100), "b": torch.ones(100), "c": torch.ones(9)}
    before = {t.data_ptr() for t in snapshot.take(state).values()}
    state["a"].fill_(5)
    again = snapshot.take(state)
    assert {t.data_ptr() for t in again.values()} == before
    assert same(again, state)


# ---------------------------------------------------------------------------------- in a run


def run_of(work_dir: Path, async_save: bool, **changes: Any) -> Runner:
    options = {"interval": 1, "max_keep_ckpts": 2, "save_best": "mse", "async_save": async_save}
    arguments = {
        "train_cfg": {"by_epoch": True, "max_epochs": 4},
        "default_hooks": {"checkpoint": options},
        "custom_hooks": [{"_target_": "trainkit.hooks.EMAHook", "momentum": 0.1}],
    }
    return make_runner(work_dir, **{**arguments, **changes})


def test_a_run_that_writes_in_the_background_leaves_the_same_checkpoints(tmp_path: Path) -> None:
    states = []
    for name, async_save in (("sync", False), ("async", True)):
        runner = run_of(tmp_path / name, async_save)
        runner.train()
        found = {}
        for path in sorted(runner.checkpoint_dir.iterdir()):
            found[path.name] = read_checkpoint(path) if path.is_dir() else path.read_text()
            if path.is_dir():
                del found[path.name]["meta"], found[path.name]["message_hub"]
        states.append(found)
    assert states[0].keys() == states[1].keys()
    assert {"epoch_3", "epoch_4", "last_checkpoint"} < states[0].keys()
    for name, state in states[0].items():
        assert same(state, states[1][name]), name


def test_what_is_written_in_the_background_is_the_state_of_the_call(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    runner.build_training()
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    path = runner.save_checkpoint(tmp_path, "epoch_1", background=True)
    with torch.no_grad():
        runner.model.linear.weight.fill_(7)
    runner.optim_wrapper.optimizer.param_groups[0]["lr"] = 7
    runner.checkpoint_writer.settle(wait=True)
    read = read_checkpoint(path)
    assert same(dict(read["state_dict"]), before)
    assert read["optimizer"]["param_groups"][0]["lr"] == 0.1


class Waits(Hook):
    """Know the last iteration, and let what is being written come to its end in each."""

    def after_train_iter(self, runner: Runner, *args: Any) -> None:
        self.last = runner.iter
        for thread in threading.enumerate():
            if thread.name == "trainkit-checkpoint" and runner.iter > 1:
                thread.join()


@pytest.mark.parametrize(("async_save", "last"), [(False, {1}), (True, {1, 2})])
def test_a_write_that_fails_ends_the_run_at_the_next_step(
    tmp_path: Path, async_save: bool, last: set[int]
) -> None:
    hook = Waits()
    runner = run_of(
        tmp_path / "run",
        async_save,
        train_cfg={"by_epoch": False, "max_iters": 9, "val_interval": 20},
        custom_hooks=[hook],
        default_hooks={"checkpoint": {"interval": 2, "async_save": async_save}},
    )
    (runner.checkpoint_dir).mkdir(parents=True)
    (runner.checkpoint_dir / "iter_2").write_text("mine")
    with pytest.raises(CheckpointError, match="iter_2 is a file, so no checkpoint can stand there"):
        runner.train()
    assert hook.last in last
    assert contents(runner.checkpoint_dir) == {"iter_2": b"mine"}
    status = json.loads((runner.work_dir / "status.json").read_text())
    assert status["status"] == "failed"
    assert "checkpoint" not in status


class Breaks(Hook):
    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        if runner.iter == 4:
            raise ZeroDivisionError


def test_what_is_being_written_when_a_run_fails_is_kept(tmp_path: Path) -> None:
    runner = run_of(tmp_path / "run", True, custom_hooks=[Breaks()])
    with pytest.raises(ZeroDivisionError):
        runner.train()
    assert runner.checkpoint_dir / "epoch_1" in list_checkpoints(runner.checkpoint_dir)
    assert runner.checkpoint_writer.close() is None


# ---------------------------------------------------------------------------------- several ranks


def work(rank: int) -> list[str]:
    writer, log = CheckpointWriter(share=broadcast_object), []
    for prepare, background in ((failing, False), (failing, True), (job([], ""), True)):
        try:
            writer.write(
                prepare if rank == 0 else None, lambda: log.append("then"), background=background
            )
            writer.settle(wait=True)
        except CheckpointError as error:
            log.append(str(error))
    return log


@pytest.mark.slow
def test_all_ranks_go_on_or_raise_together(tmp_path: Path) -> None:
    full = "the disk is full"
    assert on_ranks(work, tmp_path) == [[full, full, "then"]] * 2
