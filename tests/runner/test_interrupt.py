"""A run that is asked to end saves its state and ends as the run that nobody asked."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import on_ranks
from tests.runner.test_resume import assert_equal, run_of, scalars
from tests.toy import ToyDataset, loader_config, make_runner
from trainkit import Hook, Preempted, Runner
from trainkit.checkpoint import list_checkpoints, read_checkpoint
from trainkit.run_dir import read_status
from trainkit.runner.interrupt import Interrupts

ITERATIONS = {
    "train_cfg": {"by_epoch": False, "max_iters": 10, "val_interval": 4},
    "param_scheduler": None,
}


class Sender(Hook):
    """Send a signal to this process at a point of iteration ``at``, which counts from 0."""

    def __init__(self, point: str, at: int, number: int = signal.SIGTERM, times: int = 1) -> None:
        self.point, self.at, self.number, self.times = point, at, number, times

    def _send(self, runner: Runner, point: str) -> None:
        if point == self.point and runner.iter == self.at and self.times:
            self.times -= 1
            os.kill(os.getpid(), self.number)

    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        self._send(runner, "before_train_iter")

    def after_train_iter(self, runner: Runner, *args: Any) -> None:
        self._send(runner, "after_train_iter")

    def before_train_epoch(self, runner: Runner) -> None:
        self._send(runner, "before_train_epoch")

    def after_train_epoch(self, runner: Runner) -> None:
        self._send(runner, "after_train_epoch")

    def before_val_iter(self, runner: Runner, *args: Any) -> None:
        self._send(runner, "before_val_iter")


def preempt(runner: Runner, sender: Hook, name: str = "sender") -> Preempted:
    runner.register_hook(sender, name=name)
    with pytest.raises(Preempted) as stop:
        runner.train()
    return stop.value


def saved(work_dir: Path) -> list[str]:
    return [path.name for path in list_checkpoints(work_dir / "checkpoints")]


def assert_same_end(one: Path, other: Path, name: str) -> None:
    """Compare everything that two runs left, but times and which checkpoints there were."""
    states = [read_checkpoint(path / "checkpoints" / name) for path in (one, other)]
    for state in states:
        del state["meta"]
        del state["hooks"]["checkpoint"]["saved"], state["hooks"]["checkpoint"]["former"]
    assert_equal(states[0], states[1], "checkpoint")
    assert scalars(one) == scalars(other)


@pytest.fixture(autouse=True)
def _handlers_come_back() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT"])
def test_a_signal_ends_training_after_the_step_with_a_checkpoint(
    tmp_path: Path, number: str
) -> None:
    runner = run_of(tmp_path)
    stop = preempt(runner, Sender("before_train_iter", 4, getattr(signal, number)))
    name = "Ctrl-C" if number == "SIGINT" else number
    assert stop.exit_code == 75
    assert str(stop).startswith(f"Stopped by {name} after iteration 5 of 12; it is saved as ")
    assert "resume=true goes on from there" in str(stop)
    assert saved(tmp_path) == ["epoch_1", "iter_5"]
    status = read_status(tmp_path)
    assert (status["status"], status["reason"], status["checkpoint"]) == (
        "preempted",
        name,
        "iter_5",
    )
    assert (status["iter"], status["epoch"]) == (5, 1)
    assert "iter_5" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("at", [0, 1, 2, 3, 7, 11])
def test_an_epoch_run_ends_the_same(tmp_path: Path, at: int) -> None:
    run_of(tmp_path / "whole").train()
    preempt(run_of(tmp_path / "stopped"), Sender("after_train_iter", at))
    run_of(tmp_path / "stopped", resume=True).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")
    assert "reason" not in read_status(tmp_path / "stopped")


@pytest.mark.parametrize("at", [0, 2, 3, 6, 9])
def test_an_iteration_run_ends_the_same(tmp_path: Path, at: int) -> None:
    run_of(tmp_path / "whole", **ITERATIONS).train()
    preempt(run_of(tmp_path / "stopped", **ITERATIONS), Sender("before_train_iter", at))
    assert f"iter_{at + 1}" in saved(tmp_path / "stopped")
    run_of(tmp_path / "stopped", resume=True, **ITERATIONS).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "iter_10")


@pytest.mark.parametrize("changes", [{}, ITERATIONS], ids=["epochs", "iterations"])
@pytest.mark.parametrize("periodic", [True, False], ids=["saved before", "not yet saved"])
def test_a_validation_is_broken_off_and_done_again(
    tmp_path: Path, changes: dict[str, Any], periodic: bool
) -> None:
    """The average of the weights, which stands in the model meanwhile, is saved as such."""
    at = 4 if changes else 6
    interval = 1 if periodic else 50
    hooks = {"logger": {"interval": 1}, "checkpoint": {"save_best": "mse", "interval": interval}}
    changes = {**changes, "default_hooks": hooks}
    run_of(tmp_path / "whole", **changes).train()
    preempt(run_of(tmp_path / "stopped", **changes), Sender("before_val_iter", at))
    name = "iter_4" if "train_cfg" in changes else "epoch_2"
    assert saved(tmp_path / "stopped")[-1] == name
    run_of(tmp_path / "stopped", resume=True, **changes).train()
    end = "iter_10" if "train_cfg" in changes else "epoch_4"
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", end)


def test_what_is_saved_already_is_not_saved_again(tmp_path: Path) -> None:
    class Keeper(Sender):
        saves = 0

        def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
            self.saves += 1

    keeper = Keeper("after_train_epoch", 3)
    runner = run_of(tmp_path)
    runner.register_hook(keeper)
    with pytest.raises(Preempted, match=r"saved as .*epoch_1"):
        runner.train()
    assert saved(tmp_path) == ["epoch_1"]
    assert keeper.saves == 1


def test_a_signal_before_the_first_step_ends_a_run_that_has_nothing_to_save(tmp_path: Path) -> None:
    class Slow(ToyDataset):
        def __init__(self) -> None:
            super().__init__()
            os.kill(os.getpid(), signal.SIGTERM)

    def changes(dataset: Any) -> dict[str, Any]:
        sampler = {"shuffle": True}
        return {"train_dataloader": loader_config(dataset=dataset, sampler=sampler)}

    run_of(tmp_path / "whole").train()
    runner = run_of(tmp_path / "stopped", **changes({"_target_": Slow}))
    with pytest.raises(Preempted, match="before the first iteration, so there is nothing to save"):
        runner.train()
    assert saved(tmp_path / "stopped") == []
    assert read_status(tmp_path / "stopped")["status"] == "preempted"
    run_of(tmp_path / "stopped", resume=True).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_a_resumed_run_that_is_stopped_at_once_keeps_its_checkpoint(tmp_path: Path) -> None:
    preempt(run_of(tmp_path), Sender("before_train_iter", 4))
    runner = run_of(tmp_path, resume=True)
    runner.build_training()
    runner.interrupts.ask("SIGTERM")
    with pytest.raises(Preempted, match=r"after iteration 5 of 12; it is saved as .*iter_5\."):
        runner.train()
    assert saved(tmp_path) == ["epoch_1", "iter_5"]


def test_the_checkpoint_hooks_rules_hold(tmp_path: Path) -> None:
    checkpoint = {"max_keep_ckpts": 1, "save_optimizer": False, "interval": 1}
    changes = {"default_hooks": {"logger": {"interval": 1}, "checkpoint": checkpoint}}
    preempt(run_of(tmp_path, **changes), Sender("before_train_iter", 4))
    assert saved(tmp_path) == ["epoch_1", "iter_5"]  # which is beyond the count
    assert "optimizer" in read_checkpoint(tmp_path / "checkpoints" / "iter_5")  # to go on with
    run_of(tmp_path, resume=True, **changes).train()
    assert saved(tmp_path) == ["epoch_4"]


def test_checkpoints_that_are_written_in_the_background_are_waited_for(tmp_path: Path) -> None:
    hooks = {"logger": {"interval": 1}, "checkpoint": {"save_best": "mse", "async_save": True}}
    run_of(tmp_path / "whole", default_hooks=hooks).train()
    for point, at, name in (
        ("after_train_epoch", 3, "epoch_1"),
        ("before_train_iter", 7, "iter_8"),
    ):
        runner = run_of(tmp_path / "stopped", default_hooks=hooks, resume=True)
        preempt(runner, Sender(point, at))
        assert saved(tmp_path / "stopped")[-1] == name
    run_of(tmp_path / "stopped", default_hooks=hooks, resume=True).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_a_run_without_the_checkpoint_hook_is_saved_too(tmp_path: Path) -> None:
    changes = {"default_hooks": {"checkpoint": None}}
    preempt(run_of(tmp_path, **changes), Sender("before_train_iter", 4))
    assert saved(tmp_path) == ["iter_5"]


def test_a_second_ctrl_c_ends_the_step(tmp_path: Path) -> None:
    runner = run_of(tmp_path)
    runner.register_hook(Sender("before_train_iter", 4, signal.SIGINT, times=2))
    runner.register_hook(Sender("before_train_iter", 4, signal.SIGINT, times=2), name="second")
    with pytest.raises(KeyboardInterrupt) as stop:
        runner.train()
    assert not isinstance(stop.value, Preempted)
    assert saved(tmp_path) == ["epoch_1"]
    assert read_status(tmp_path)["status"] == "failed"


def test_a_second_sigterm_ends_the_process(tmp_path: Path) -> None:
    runner = run_of(tmp_path)
    runner.register_hook(Sender("before_train_iter", 4))
    runner.register_hook(Sender("before_train_iter", 4), name="second")
    with pytest.raises(SystemExit) as stop:
        runner.train()
    assert stop.value.code == 143
    assert saved(tmp_path) == ["epoch_1"]


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As in a background job of a shell, which Ctrl-C is not meant for."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        runner = run_of(tmp_path)
        runner.register_hook(Sender("before_train_iter", 4, signal.SIGINT))
        runner.train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert read_status(tmp_path)["status"] == "finished"


def test_outside_the_main_thread_a_run_trains_and_leaves_signals_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    class Look(Hook):
        def before_train(self, runner: Runner) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))

    runner = run_of(tmp_path)
    runner.register_hook(Look())
    thread = threading.Thread(target=runner.train)
    thread.start()
    thread.join()
    assert seen == [before]
    assert read_status(tmp_path)["status"] == "finished"


def test_forked_workers_do_not_inherit_the_handlers(tmp_path: Path) -> None:
    """What a group is sent leaves them working; SIGTERM, by which torch ends them, does so."""
    found = tmp_path / "found.json"

    class Fork(Hook):
        def before_train(self, runner: Runner) -> None:
            child = os.fork()
            if child == 0:
                numbers = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
                found.write_text(json.dumps([str(signal.getsignal(n)) for n in numbers]))
                os._exit(0)
            os.waitpid(child, 0)

    runner = run_of(tmp_path / "run")
    runner.register_hook(Fork())
    runner.train()
    ignored, default = str(signal.SIG_IGN), str(signal.SIG_DFL)
    assert json.loads(found.read_text()) == [ignored, ignored, ignored, default]


def test_data_that_fails_after_a_signal_does_not_make_it_a_failure(tmp_path: Path) -> None:
    """Workers may have got the signal too, and are missed at the next batch."""

    class Fails(ToyDataset):
        armed = False

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            if self.armed:
                raise RuntimeError("DataLoader worker exited unexpectedly")
            return super().__getitem__(index)

    class Late(Hook):
        """Ask and fail between two steps."""

        priority = "HIGHEST"

        def before_train_epoch(self, runner: Runner) -> None:
            if runner.epoch == 2:
                dataset.armed = True
                os.kill(os.getpid(), signal.SIGTERM)

    dataset = Fails()
    data = loader_config(dataset=dataset, sampler={"shuffle": True})
    run_of(tmp_path / "whole").train()
    stop = preempt(run_of(tmp_path / "stopped", train_dataloader=data), Late())
    assert isinstance(stop.__cause__, RuntimeError)
    run_of(tmp_path / "stopped", resume=True).train()
    assert_same_end(tmp_path / "whole", tmp_path / "stopped", "epoch_4")


def test_a_run_inside_a_step_of_another_does_not_save_that_step(tmp_path: Path) -> None:
    class Inner(Hook):
        def before_train_iter(self, runner: Runner, *args: Any) -> None:
            if runner.iter == 4:
                inner = make_runner(tmp_path / "inner")
                inner.register_hook(Sender("before_train_iter", 1))
                inner.train()

    runner = run_of(tmp_path / "outer")
    runner.register_hook(Inner())
    with pytest.raises(Preempted):
        runner.train()
    assert saved(tmp_path / "inner") == ["iter_2"]
    assert saved(tmp_path / "outer") == ["epoch_1"]


def agree(rank: int) -> list[Any]:
    """Take steps until all are asked to end, rank 1 by a signal; return where that was."""
    with Interrupts() as interrupts:
        for step in range(1, 10_000):
            if rank == 1 and step == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            reason = interrupts.agreed(step)
            if reason is not None:
                return [step, reason]
    return []


@pytest.mark.slow
def test_ranks_end_at_the_same_step(tmp_path: Path) -> None:
    one, other = on_ranks(agree, tmp_path)
    assert one == other == [one[0], "SIGTERM"]
    assert 7 <= one[0] < 7 + 2 * 100  # as many steps as there may be between two agreements
