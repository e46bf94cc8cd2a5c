"""A data worker that dies or hangs is named, with what it read, at the next batch; never sooner."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from tests.children import children
from trainkit.dataloader import FirstSamples, SeededLoader, batches_from, take_over
from trainkit.dataloader.watch import _AtNextBatch, name_of
from trainkit.errors import DataWorkerError
from trainkit.runner.data import TIMEOUT, build_dataloader

BAD = 9


def end(how: str) -> None:
    """End this process, or the reading, in one of the ways that happen."""
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how.startswith("exit"):
        os._exit(int(how[4:]))
    elif how == "crash":
        ctypes.string_at(0)
    elif how == "hang":
        time.sleep(600)
    elif how == "raise":
        raise LookupError("the file is gone")


class Faulty(Dataset[torch.Tensor]):
    """Sample BAD ends badly."""

    def __init__(self, how: str = "") -> None:
        self.how = how

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == BAD:
            end(self.how)
        return torch.tensor([float(index)])


class FaultyBatches(Faulty):
    """The same, read a batch at a time."""

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return [self[index] for index in indices]


class FaultyStream(IterableDataset[torch.Tensor]):
    """The same as a stream."""

    def __init__(self, how: str = "") -> None:
        self.how = how

    def __iter__(self) -> Iterator[torch.Tensor]:
        data = Faulty(self.how)
        for index in range(16):
            yield data[index]


def loader(dataset: Any, workers: int = 2, **options: Any) -> Any:
    return take_over(DataLoader(dataset, 2, num_workers=workers, **options), 0)


def read_all(batches: Any) -> int:
    """Read until the end, or an error; return the number of batches."""
    number = 0
    for _ in batches:
        number += 1
    return number


def message(batches: Any) -> str:
    with pytest.raises(DataWorkerError) as caught:
        read_all(batches)
    return str(caught.value)


@pytest.mark.parametrize(
    ("how", "ending"),
    [
        ("killed", "was ended by SIGKILL"),
        ("exit0", "ended itself, with exit code 0,"),
        ("exit3", "ended itself, with exit code 3,"),
        ("crash", "was ended by SIGSEGV"),
    ],
)
def test_a_worker_that_ends_is_named_with_its_sample(how: str, ending: str) -> None:
    told = message(loader(Faulty(how)))
    assert told.startswith("Data worker 0 (process ")
    assert f") {ending} while it read sample {BAD} of Faulty." in told
    assert ("SIGKILL is mostly how the machine frees memory" in told) == (how == "killed")
    assert "num_workers=0" in told


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (FaultyBatches("killed"), "the samples 8, 9 of FaultyBatches"),
        (FaultyStream("killed"), "sample 9 of the stream of FaultyStream"),
        (FirstSamples(Faulty("killed"), 12), "sample 9 of Faulty"),
        (Subset(Faulty("killed"), range(5, 12)), "sample 4 of Subset(Faulty)"),
    ],
)
def test_what_is_read_in_another_way_is_named_too(data: Any, what: str) -> None:
    assert f"while it read {what}." in message(loader(data, workers=1))


def test_a_loader_that_does_not_batch_names_the_sample() -> None:
    loader = DataLoader(Faulty("killed"), batch_size=None, num_workers=1)
    assert f"while it read sample {BAD} of Faulty." in message(take_over(loader, 0))


@pytest.mark.slow
def test_workers_that_are_started_afresh_are_watched_too() -> None:
    told = message(loader(Faulty("killed"), workers=1, multiprocessing_context="spawn"))
    assert f"while it read sample {BAD} of Faulty." in told


def test_a_loader_of_ones_own_is_watched_in_training() -> None:
    class Own(DataLoader[Any]):
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    own = take_over(Own(Faulty("killed"), 2, num_workers=1), 0)
    assert isinstance(own, Own)
    assert "was ended by SIGKILL in reading Faulty." in message(batches_from(own))


def test_a_worker_that_hangs_is_named_and_ended() -> None:
    own = loader(Faulty("hang"), timeout=1)
    begun = time.monotonic()
    told = message(own)
    assert time.monotonic() - begun < 5
    assert told.startswith("No batch came for 1 s. Data worker 0 (process ")
    assert f"hangs while it read sample {BAD} of Faulty. See why" in told
    assert not children()


def test_a_wait_that_may_last_for_ever_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainkit.dataloader.watch._NOTICE", 0.4)
    with caplog.at_level("WARNING", logger="trainkit"):
        message(loader(Faulty("hang"), timeout=2))
    assert "hangs while it read sample 9 of Faulty." in caplog.messages[0]
    assert caplog.messages[0].startswith("No batch has come for ")


def test_a_worker_that_hangs_is_found_outside_the_main_thread_too() -> None:
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(message(loader(Faulty("exit0")))))
    thread.start()
    thread.join()
    assert f"with exit code 0, while it read sample {BAD}" in told[0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("data", [Faulty, FaultyBatches, FaultyStream])
def test_an_error_of_the_dataset_is_its_own_and_names_the_sample(data: Any, workers: int) -> None:
    with pytest.raises(LookupError, match="the file is gone") as caught:
        read_all(loader(data("raise"), workers))
    told = [*getattr(caught.value, "__notes__", []), str(caught.value)]
    what = {
        Faulty: f"sample {BAD}",
        FaultyBatches: "the samples 8, 9",
        FaultyStream: "sample 9 of the stream",
    }[data]
    if hasattr(caught.value, "add_note"):  # since Python 3.11
        assert f"It came from reading {what} of {data.__name__}." in "\n".join(told)


def test_an_error_of_data_that_draw_nothing_names_the_sample_too() -> None:
    class Plain(Faulty):
        deterministic = True

    with pytest.raises(LookupError) as caught:
        read_all(loader(Plain("raise"), 0))
    if hasattr(caught.value, "add_note"):
        assert caught.value.__notes__ == [f"It came from reading sample {BAD} of Plain."]


@pytest.mark.parametrize("keep", [False, True])
def test_a_death_is_not_heard_of_before_the_next_batch(keep: bool) -> None:
    batches = loader(Faulty(), prefetch_factor=2, persistent_workers=keep).read(0)
    next(batches)
    (worker, *_) = children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:  # a step of training, into which torch would raise
        pass
    assert f"Data worker 0 (process {worker.pid}) was ended by SIGKILL after it had" in message(
        batches
    )


def test_a_loader_whose_worker_died_reads_again_with_new_ones() -> None:
    own = loader(Faulty(), persistent_workers=True)
    batches = own.read(0)
    next(batches)
    for child in children():
        child.kill()
    message(batches)
    assert read_all(own.read(0)) == 8


def test_a_death_of_a_worker_of_others_is_heard_of_as_ever() -> None:
    def torchs(number: int, frame: Any) -> None:
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")

    with pytest.raises(RuntimeError, match=r"\(pid 1\)"):
        _AtNextBatch(torchs)(signal.SIGCHLD, None)


def test_the_handler_is_set_once() -> None:
    for _ in range(3):
        read_all(loader(Faulty(), 1))
    handler: Any = signal.getsignal(signal.SIGCHLD)
    assert type(handler).__name__ == "_AtNextBatch"
    assert type(handler.handler).__name__ == "function"


@pytest.mark.parametrize(
    ("given", "timeout"),
    [
        ({"num_workers": 2}, TIMEOUT),
        ({"num_workers": 2, "timeout": 0}, 0),
        ({"num_workers": 2, "timeout": 30}, 30),
        ({}, 0),
        ({"timeout": 30}, 30),
    ],
)
def test_workers_that_a_config_asks_for_are_waited_for_ten_minutes(
    given: dict[str, Any], timeout: float
) -> None:
    node = {"dataset": Faulty(), "batch_size": 2, **given}
    built = build_dataloader(node, "train_dataloader", seed=0, training=True)
    assert isinstance(built, SeededLoader)
    assert built.timeout == timeout
    if not built.num_workers:
        assert read_all(built) == 8  # of which torch makes an error if a timeout is given


def test_a_dataset_is_named_by_its_class() -> None:
    assert name_of(Subset(FirstSamples(Faulty(), 3), [0])) == "Subset(Faulty)"
    assert name_of([1, 2]) == "list"
