"""What fails outside training: data workers, log files, clocks, directories, streams, few data."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

from tests.children import children
from tests.runner.test_interrupt import assert_same_end, saved
from tests.runner.test_resume import run_of
from tests.toy import ToyDataset, loader_config, make_runner
from trainkit import Hook, Runner
from trainkit.__main__ import main
from trainkit.checkpoint import find_latest, list_checkpoints
from trainkit.errors import ConfigError, DataWorkerError
from trainkit.run_dir import read_status

DATA = {"sampler": {"shuffle": True}, "num_workers": 2}


class KillWorkers(Hook):
    """Kill the data workers at a point of an iteration, and train on for a moment."""

    def __init__(self, point: str, at: int) -> None:
        self.point, self.at = point, at

    def _kill(self, runner: Runner, point: str) -> None:
        if (point, runner.iter) == (self.point, self.at):
            for child in children():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
            end = time.monotonic() + 0.1
            while time.monotonic() < end:
                pass

    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        self._kill(runner, "step")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        self._kill(runner, "save")


@pytest.mark.parametrize(("point", "at"), [("step", 4), ("save", 3)])
@pytest.mark.parametrize("keep", [False, True])
def test_a_worker_that_is_killed_in_a_step_or_a_save_loses_no_step(
    tmp_path: Path, point: str, at: int, keep: bool
) -> None:
    def of(directory: str, **changes: Any) -> Runner:
        hooks = {"logger": {"interval": 1}, "checkpoint": {"interval": 2, "by_epoch": False}}
        data = loader_config(persistent_workers=keep, **DATA)
        options = {"train_dataloader": data, "default_hooks": hooks, **changes}
        return run_of(tmp_path / directory, **options)

    of("whole").train()
    gc.collect()  # ends the workers that it kept, which are not to be killed below
    runner = of("stopped")
    runner.register_hook(KillWorkers(point, at))
    with pytest.raises(DataWorkerError, match=r"was ended by SIGKILL .* of ToyDataset") as caught:
        runner.train()
    assert "goes on there" in caught.value.__notes__[-1]
    assert not list((tmp_path / "stopped" / "checkpoints").glob("failed_*"))
    assert not children()
    of("stopped", resume=True).train()
    last = saved(tmp_path / "whole")[-1]
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", last)


def test_a_validations_worker_that_dies_loses_no_step(tmp_path: Path) -> None:
    class KillInValidation(Hook):
        def before_val_iter(self, runner: Runner, *args: Any) -> None:
            for child in children() if runner.iter == 6 else ():
                child.kill()

    def of(directory: str, **changes: Any) -> Runner:
        data = loader_config(num_workers=1)
        return run_of(tmp_path / directory, val_dataloader=data, **changes)

    of("whole").train()
    runner = of("stopped")
    runner.register_hook(KillInValidation())
    with pytest.raises(DataWorkerError, match="was ended by SIGKILL"):
        runner.train()
    of("stopped", resume=True).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


# ---------------------------------------------------------------------- logs that cannot be written


class Spoil(Hook):
    """Make what is logged fail from the first iteration on."""

    def __init__(self, spoil: Any) -> None:
        self.spoil = spoil

    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        if runner.iter == 0:
            self.spoil(runner)


def fill_disk_of(file: Any) -> None:
    """Have what is written to an open file refused, as on a full disk."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file.fileno())
    os.close(full)


def no_log(runner: Runner) -> None:
    (handler,) = [each for each in runner.log.logger.handlers if hasattr(each, "baseFilename")]
    fill_disk_of(handler.stream)


def no_status(runner: Runner) -> None:
    (runner.work_dir / ".status.json.tmp").mkdir()


def no_metrics(runner: Runner) -> None:
    (backend,) = runner.visualizer.vis_backends
    fill_disk_of(backend._file)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (no_log, "train.log cannot be written: No space left on device. Training goes on"),
        (no_status, "status.json cannot be written: Is a directory."),
        (no_metrics, "cannot write: [Errno 28] No space left on device. Training goes on"),
    ],
)
def test_a_log_that_cannot_be_written_is_told_of_once_and_training_goes_on(
    tmp_path: Path, spoil: Any, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_of(tmp_path / "whole").train()
    capfd.readouterr()
    runner = run_of(tmp_path / "full")
    runner.register_hook(Spoil(spoil))
    runner.train()
    output = capfd.readouterr()
    assert output.out.count(told) == 1
    assert output.err == ""
    one, other = (list_checkpoints(tmp_path / name / "checkpoints") for name in ("whole", "full"))
    weights = [path[-1] / "model.pt" for path in (one, other)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_status_that_could_not_be_written_comes_with_the_next_one(tmp_path: Path) -> None:
    class Mend(Hook):
        def after_train(self, runner: Runner) -> None:
            (runner.work_dir / ".status.json.tmp").rmdir()

    runner = run_of(tmp_path)
    runner.register_hook(Spoil(no_status))
    runner.register_hook(Mend())
    runner.train()
    status = read_status(tmp_path)
    assert (status["status"], status["epoch"], "mse" in status["metrics"]) == ("finished", 4, True)


# ------------------------------------------------------------------------------------ directories


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_directory_that_cannot_be_written_is_told_before_anything_is_built(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "file").write_text("mine")
    (tmp_path / "canary_by_test.py").write_text(
        "class Data:\n    def __init__(self, split: str) -> None:\n        raise AssertionError\n"
    )
    canary = "dataloader.train.dataset._target_=canary_by_test.Data"
    assert main([f"work_dir={place}", canary]) == 2
    told = capsys.readouterr().err
    assert f"work_dir is '{place}', but {tmp_path / 'file'} is no directory. Name a" in told
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_takes_no_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["work_dir=/proc/self"]) == 2
    assert "The directory /proc/self cannot be written" in capsys.readouterr().err


def test_a_new_directory_goes_again_if_nothing_can_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["work_dir=deep/run", "load_from=nowhere"]) == 3
    assert not (tmp_path / "deep").exists()


# ------------------------------------------------------------------------------------------ clocks


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_clock_that_jumps_changes_no_duration_and_no_order(
    tmp_path: Path, jump: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])

    class Jump(Hook):
        def after_train_iter(self, runner: Runner, *args: Any) -> None:
            offset[0] += jump

    runner = run_of(tmp_path)
    runner.register_hook(Jump())
    runner.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if "eta:" in line]
    assert lines
    assert all("eta: 0:00:0" in line for line in lines)
    assert not any("day" in line or " -" in line for line in lines)
    paths = list_checkpoints(tmp_path / "checkpoints")
    for age, path in enumerate(paths):
        os.utime(path, (age * -jump + 1e9, age * -jump + 1e9))
    found, _ = find_latest(tmp_path / "checkpoints")
    assert found is not None
    assert found.name == "epoch_4"
    assert [path.name for path in paths] == sorted(path.name for path in paths)


# -------------------------------------------------------------------------------------- small data


class Short(IterableDataset[Any]):
    """A stream of ``samples`` that says it has ``promised``."""

    def __init__(self, samples: int, promised: int = 12) -> None:
        self.samples, self.promised = samples, promised

    def __len__(self) -> int:
        return self.promised

    def __iter__(self) -> Iterator[Any]:
        return iter([ToyDataset()[index] for index in range(self.samples)])


EPOCHS, ITERATIONS = {"by_epoch": True, "max_epochs": 2}, {"by_epoch": False, "max_iters": 4}
NONE = "gives no batch at all, so there is nothing to train on"


@pytest.mark.parametrize("loop", [EPOCHS, ITERATIONS], ids=["epochs", "iterations"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (loader_config(dataset=ToyDataset(0)), "The dataset ToyDataset is empty"),
        (
            loader_config(dataset=ToyDataset(3), drop_last=True),
            "train_dataloader gives no batch: 3 samples, batch_size=4, drop_last=True. Lower",
        ),
        (DataLoader(ToyDataset(3), 4, drop_last=True), "3 samples, batch_size=4, drop_last=True"),
        (DataLoader(ToyDataset(0), 4), "train_dataloader gives no batch: 0 samples, batch_size=4"),
        ([], "train_dataloader gives no batch, its length being 0"),
        (DataLoader(Short(0), 4), NONE),
    ],
)
def test_no_batch_to_train_on_is_an_error_with_the_sizes(
    tmp_path: Path, data: Any, message: str, loop: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_runner(tmp_path, train_dataloader=data, train_cfg=loop).train()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(ToyDataset(0), 4), "val_dataloader gives no batch: 0 samples"),
        (DataLoader(ToyDataset(3), 4, drop_last=True), "val_dataloader gives no batch: 3 samples"),
        (DataLoader(Short(0), 4), "The val data gave no batch, so there is nothing to measure."),
    ],
)
def test_no_batch_to_validate_on_is_an_error(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_runner(tmp_path, val_dataloader=data).train()
    assert message in str(caught.value)


def test_one_sample_is_enough(tmp_path: Path) -> None:
    one = loader_config(dataset=ToyDataset(1))
    runner = make_runner(tmp_path, train_dataloader=one, val_dataloader=one)
    runner.train()
    assert runner.iter == 2


def test_a_stream_that_is_shorter_than_it_says_is_told_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = make_runner(tmp_path, train_dataloader=DataLoader(Short(5), 4))
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 4)
    told = "The training data gave 2 batches in an epoch, but their length promises 3."
    assert capsys.readouterr().out.count(told) == 1


# ---------------------------------------------------------------------------------------- streams

SHORT = (
    *("env.num_threads=1", "train_cfg.max_epochs=1", "+dataloader.train.num_batch_per_epoch=1"),
    "visualizer=local",
)


def shell(command: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of Bash in which ``$RUN`` trains for a moment."""
    run = " ".join([sys.executable, "-m", "trainkit", *SHORT])
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; RUN='{run}'; {command}"],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["PYTHONUNBUFFERED=1 $RUN | head -1", "$RUN >&- 2>&- <&-", "$RUN >/dev/full"],
)
def test_a_stream_that_takes_nothing_stops_no_run(tmp_path: Path, command: str) -> None:
    done = shell(command, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = (tmp_path / "outputs" / "digits").iterdir()
    assert read_status(run)["status"] == "finished"
    assert (run / "checkpoints" / "epoch_1" / "manifest.json").is_file()


@pytest.mark.slow
def test_letters_that_a_stream_does_not_know_stop_no_run(tmp_path: Path) -> None:
    settings = (
        "LC_ALL=C",
        "PYTHONCOERCECLOCALE=0",
        "PYTHONUTF8=0",
        "PYTHONIOENCODING=ascii:strict",
    )
    environment = dict(text.split("=") for text in (*settings, "TERM=dumb"))
    done = shell("$RUN 'experiment_name=\"\u00fcbung \u6f22\"'", tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "accuracy" in done.stdout
    (run,) = (tmp_path / "outputs").glob("*/*")
    assert read_status(run)["status"] == "finished"
