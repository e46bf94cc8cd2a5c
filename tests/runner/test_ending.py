"""A run that an error ends keeps what it had trained, and the error is what one sees."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runner.test_interrupt import assert_same_end, saved
from tests.runner.test_resume import run_of
from tests.toy import ToyDataset, loader_config
from trainkit import CheckpointError, Hook, Runner
from trainkit.checkpoint import read_checkpoint
from trainkit.run_dir import read_status

SPARSE = {"default_hooks": {"logger": {"interval": 1}, "checkpoint": {"interval": 50}}}


class Raise(Hook):
    """Raise ``error`` at a point of iteration ``at``."""

    def __init__(self, point: str, at: int, error: BaseException) -> None:
        self.point, self.at, self.error = point, at, error

    def _raise(self, runner: Runner, point: str) -> None:
        if (point, runner.iter) == (self.point, self.at):
            raise self.error

    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        self._raise(runner, "before_train_iter")

    def after_train_iter(self, runner: Runner, *args: Any) -> None:
        self._raise(runner, "after_train_iter")

    def before_val_iter(self, runner: Runner, *args: Any) -> None:
        self._raise(runner, "before_val_iter")

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        self._raise(runner, "after_val_epoch")


def fail(runner: Runner, error: BaseException, point: str, at: int) -> str:
    """Train until the error; return what is said below its traceback."""
    runner.register_hook(Raise(point, at, error))
    with pytest.raises(type(error)) as raised:
        runner.train()
    assert raised.value is error
    return "\n".join(getattr(error, "__notes__", []))


def kept(work_dir: Path) -> list[str]:
    return sorted(path.name for path in (work_dir / "checkpoints").glob("failed_*"))


class Broken(ToyDataset):
    """Sample ``at`` cannot be read."""

    def __init__(self, at: int = -1) -> None:
        super().__init__()
        self.at = at

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index == self.at:
            raise OSError(f"sample {index} is gone")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_data_that_cannot_be_read_loses_no_step(tmp_path: Path, workers: int) -> None:
    def data(at: int = -1) -> Any:
        options = {"sampler": {"shuffle": True}, "num_workers": workers}
        return loader_config(dataset=Broken(at), **options)

    run_of(tmp_path / "whole", train_dataloader=data(), **SPARSE).train()
    runner = run_of(tmp_path / "stopped", train_dataloader=data(), **SPARSE)

    class Break(Hook):
        def after_train_iter(self, runner: Runner, *args: Any) -> None:
            if runner.iter == 3:
                dataset.at = 7

    dataset = runner.train_dataloader.dataset
    if workers:
        dataset.at = 7  # which the workers, forked at the beginning, have to know
    else:
        runner.register_hook(Break())
    with pytest.raises(OSError, match="sample 7 is gone") as raised:
        runner.train()
    (name,) = saved(tmp_path / "stopped") or [""]
    assert f"saved as {tmp_path / 'stopped' / 'checkpoints' / name}" in raised.value.__notes__[-1]
    assert "sample 7 is gone" in read_status(tmp_path / "stopped")["error"]
    run_of(tmp_path / "stopped", train_dataloader=data(), resume=True, **SPARSE).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_an_error_in_a_validation_loses_no_step(tmp_path: Path) -> None:
    run_of(tmp_path / "whole", **SPARSE).train()
    runner = run_of(tmp_path / "stopped", **SPARSE)
    note = fail(runner, RuntimeError("no"), "before_val_iter", 6)
    assert "Training stood after iteration 6" in note
    assert saved(tmp_path / "stopped") == ["epoch_2"]
    run_of(tmp_path / "stopped", resume=True, **SPARSE).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


@pytest.mark.parametrize(
    ("point", "done"), [("before_train_iter", 4), ("after_train_iter", 5), ("after_val_epoch", 6)]
)
def test_an_error_inside_a_step_is_kept_aside(tmp_path: Path, point: str, done: int) -> None:
    run_of(tmp_path / "whole").train()
    at = 6 if point == "after_val_epoch" else 4
    hooks = {**SPARSE["default_hooks"], "checkpoint": {"interval": 1 if done < 6 else 50}}
    note = fail(run_of(tmp_path / "stopped", default_hooks=hooks), ValueError("no"), point, at)
    assert f"the state after iteration {done} is not exact" in note
    assert kept(tmp_path / "stopped") == [f"failed_iter_{done}"]
    last = "goes on from epoch_1" if done < 6 else "starts anew"
    assert f"resume={tmp_path}/stopped/checkpoints/failed_iter_{done}; resume=true {last}." in note
    assert (tmp_path / "stopped" / "checkpoints" / "last_checkpoint").exists() == (done < 6)
    run_of(tmp_path / "stopped", resume=True).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_what_is_kept_aside_can_be_gone_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(run_of(tmp_path), ValueError("no"), "before_train_iter", 4)
    aside = tmp_path / "checkpoints" / "failed_iter_4"
    assert read_checkpoint(aside)["train_loop"]["batch"] == 1  # the batch in work comes again
    runner = run_of(tmp_path, resume=aside)
    runner.train()
    assert "failed_iter_4: epoch 1, iteration 4" in capsys.readouterr().out
    assert runner.iter == 12


def test_one_is_kept_aside(tmp_path: Path) -> None:
    fail(run_of(tmp_path), ValueError("no"), "before_train_iter", 4)
    fail(run_of(tmp_path, resume=True), ValueError("no"), "before_train_iter", 5)
    assert kept(tmp_path) == ["failed_iter_5"]
    fail(run_of(tmp_path, resume=True), ValueError("no"), "before_train_iter", 3)
    assert kept(tmp_path) == ["failed_iter_5"]  # nothing was trained beyond epoch_1


def test_nothing_is_kept_of_a_run_that_trained_nothing(tmp_path: Path) -> None:
    assert fail(run_of(tmp_path), ValueError("no"), "before_train_iter", 0) == ""
    assert saved(tmp_path) == kept(tmp_path) == []


def test_weights_that_are_not_finite_are_not_gone_on_from(tmp_path: Path) -> None:
    class Diverge(Hook):
        def after_train_iter(self, runner: Runner, *args: Any) -> None:
            if runner.iter == 5:
                runner.model.linear.weight.data.fill_(float("nan"))

    runner = run_of(tmp_path)
    runner.register_hook(Diverge())
    note = fail(runner, RuntimeError("no"), "before_val_iter", 6)
    assert note.endswith("epoch_2. resume=true goes on from the newest whose weights are finite.")
    run_of(tmp_path, resume=True).train()
    assert "Resumed from" in (log := (tmp_path / "train.log").read_text())
    assert "epoch_1: epoch 1, iteration 3" in log


def test_a_state_that_cannot_be_saved_does_not_hide_the_error(tmp_path: Path) -> None:
    class Unsaved(Hook):
        def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
            raise ZeroDivisionError("not now")

    runner = run_of(tmp_path, **SPARSE)
    runner.register_hook(Unsaved())
    note = fail(runner, ValueError("the first"), "before_train_iter", 4)
    assert note == "What was trained could not be saved: ZeroDivisionError: not now"
    assert read_status(tmp_path)["error"] == "ValueError: the first"


def test_after_a_write_that_failed_no_other_is_tried(tmp_path: Path) -> None:
    error = CheckpointError("the disk is full")
    assert fail(run_of(tmp_path, **SPARSE), error, "before_train_iter", 4) == ""
    assert saved(tmp_path) == kept(tmp_path) == []


def test_nothing_is_printed_before_the_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(run_of(tmp_path), ValueError("no"), "before_train_iter", 4)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "Epoch(train)  [2][1/3]" in last
    log = (tmp_path / "train.log").read_text()
    assert log.index("is kept as") < log.index("Traceback")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_an_error_of_memory_tells_what_was_used_and_what_to_try(
    tmp_path: Path, error: Exception
) -> None:
    note = fail(run_of(tmp_path), error, "before_train_iter", 4)
    assert "GiB of the machine's memory" in note
    for way in ("batch_size", "accumulative_counts", "amp=true", "activation_checkpointing"):
        assert way in note


def test_a_runner_that_was_broken_off_does_not_train_again(tmp_path: Path) -> None:
    runner = run_of(tmp_path)
    fail(runner, ValueError("no"), "before_train_iter", 4)
    with pytest.raises(ValueError, match="was broken off"):
        runner.train()


def test_a_runner_takes_signals_again_after_a_run(tmp_path: Path) -> None:
    runner = run_of(tmp_path)

    class Late(Hook):
        def after_train(self, runner: Runner) -> None:
            signal.raise_signal(signal.SIGTERM)

    runner.register_hook(Late())
    runner.train()  # which was at its end already
    assert read_status(tmp_path)["status"] == "finished"
    assert runner.interrupts.reason is None
