"""A run that was stopped amid its data ends as one that was not, and reads nothing for nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    WeightedRandomSampler,
    default_collate,
)

from tests.toy import ToyDataset, ToyModel, make_runner
from trainkit import Hook, Runner

# A machine with fewer cores than workers is told so.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

BY_EPOCH = {"by_epoch": True, "max_epochs": 3}
BY_ITER = {"by_epoch": False, "max_iters": 9, "val_interval": 100}


class Augmented(Dataset[Any]):
    """The toy samples with noise of all three generators; ``log`` is a file of what was read."""

    def __init__(self, log: Path) -> None:
        self.data, self.log = ToyDataset(), log

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        sample = self.data[index]
        noise = torch.rand(3) + random.random() + float(np.random.rand())
        return {"x": sample["x"] + noise, "y": sample["y"]}


class AugmentedStream(IterableDataset[Any]):
    """The same as a stream."""

    def __init__(self, log: Path) -> None:
        self.data = Augmented(log)

    def __iter__(self) -> Iterator[Any]:
        yield from (self.data[index] for index in range(len(self.data)))


class Bomb(Hook):
    """End the run before an iteration."""

    priority = "HIGHEST"

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner: Runner, *args: Any) -> None:
        if runner.iter == self.at:
            raise KeyboardInterrupt


def config(dataset: Any, **options: Any) -> dict[str, Any]:
    collate = {"_target_": "trainkit.dataloader.default_collate"}
    return {"dataset": dataset, "batch_size": 4, "collate_fn": collate, **options}


def plain(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=4, shuffle=True, **options)


def endless(dataset: Any, **options: Any) -> dict[str, Any]:
    return config(dataset, sampler={"_target_": "trainkit.dataloader.InfiniteSampler"}, **options)


def weighted(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, 4, sampler=WeightedRandomSampler(range(1, 13), 12), **options)


class Shaken(BatchSampler):
    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield random.sample(batch, len(batch))


def shaken(dataset: Any, **options: Any) -> DataLoader[Any]:
    sampler = torch.utils.data.RandomSampler(dataset)
    return DataLoader(dataset, batch_sampler=Shaken(sampler, 4, False), **options)


def train(
    work_dir: Path, load: Any, train_cfg: Any, *, at: int | None = None, **changes: Any
) -> list[int]:
    """Train, up to iteration ``at`` if given; return the indices that were read."""
    log = work_dir.with_suffix(f".{at}.log")
    log.touch()
    dataset = changes.pop("dataset", Augmented)(log)
    options = changes.pop("options", {})
    checkpoint = {"by_epoch": False, "interval": at or 100, "save_last": False}
    arguments = {
        "model": ToyModel(dropout=0.3),
        "train_dataloader": load(dataset, **options),
        "train_cfg": train_cfg,
        "default_hooks": {"checkpoint": checkpoint, "logger": None},
        "resume": True,
        **changes,
    }
    runner = make_runner(work_dir, **arguments)
    if at is None:
        runner.train()
        torch.save(runner.model.state_dict(), work_dir / "weights.pt")
    else:
        runner.register_hook(Bomb(at))
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    return [int(line) for line in log.read_text().split()]


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = (torch.load(path / "weights.pt", weights_only=True) for path in (one, other))
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("train_cfg", [BY_EPOCH, BY_ITER], ids=["epochs", "iters"])
@pytest.mark.parametrize("load", [config, plain, endless, weighted, shaken])
@pytest.mark.parametrize("at", [3, 4, 5])
def test_a_run_stopped_amid_its_data_ends_the_same(
    tmp_path: Path, load: Any, train_cfg: Any, at: int
) -> None:
    whole = train(tmp_path / "whole", load, train_cfg)
    before = train(tmp_path / "stopped", load, train_cfg, at=at)
    after = train(tmp_path / "stopped", load, train_cfg)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    # The batch before whose training the run was stopped is read again; no other sample is.
    assert before[: 4 * at] + after == whole


@pytest.mark.slow
@pytest.mark.parametrize("train_cfg", [BY_EPOCH, BY_ITER], ids=["epochs", "iters"])
@pytest.mark.parametrize("load", [config, plain])
def test_the_number_of_workers_may_change(tmp_path: Path, load: Any, train_cfg: Any) -> None:
    whole = train(tmp_path / "whole", load, train_cfg)
    four = {"num_workers": 4, "persistent_workers": True}
    train(tmp_path / "stopped", load, train_cfg, at=2, options=four)
    train(tmp_path / "stopped", load, train_cfg, at=5, options={"num_workers": 1})
    after = train(tmp_path / "stopped", load, train_cfg, options=four)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    assert sorted(after) == sorted(whole[20:]), "what was left is read, and nothing else"


def test_a_run_that_drew_its_seed_goes_on_with_that(tmp_path: Path) -> None:
    for load in (config, plain):
        stopped = tmp_path / load.__name__
        before = train(stopped, load, BY_EPOCH, at=4, randomness={"seed": None})
        after = train(stopped, load, BY_EPOCH, randomness={"seed": None})
        assert sorted(before[12:16] + after[:8]) == list(range(12))


def test_a_stream_begins_its_epoch_again_with_one_warning(tmp_path: Path) -> None:
    def stream(dataset: Any, **options: Any) -> DataLoader[Any]:
        return DataLoader(dataset, batch_size=4)

    changes = {"dataset": AugmentedStream}
    train(tmp_path / "run", stream, BY_ITER, at=5, **changes)
    after = train(tmp_path / "run", stream, BY_ITER, **changes)
    assert after == [*range(12), *range(4)], "the epoch's data from their beginning on"
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("the epoch's data begin again") == 1
    assert "stopped after batch 2 of an epoch" in log


class Stateful(DataLoader[Any]):
    """A loader that keeps its place and its order, as torchdata's does."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset, batch_size=4, collate_fn=default_collate)
        self.epoch = self.batch = 0

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(self.epoch)
        order = torch.randperm(len(self.dataset), generator=generator).tolist()  # type: ignore[arg-type]  # sized
        for batch in range(self.batch, 3):
            self.batch = batch + 1
            yield default_collate([self.dataset.data[i] for i in order[4 * batch : 4 * batch + 4]])
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]


@pytest.mark.parametrize("train_cfg", [BY_EPOCH, BY_ITER], ids=["epochs", "iters"])
@pytest.mark.parametrize("at", [3, 4, 5])
def test_a_loader_with_a_state_of_its_own_is_gone_on_with(
    tmp_path: Path, train_cfg: Any, at: int
) -> None:
    train(tmp_path / "whole", Stateful, train_cfg)
    train(tmp_path / "stopped", Stateful, train_cfg, at=at)
    train(tmp_path / "stopped", Stateful, train_cfg)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_the_runners_loader_has_the_users_dataset(tmp_path: Path) -> None:
    mine = plain(Augmented(tmp_path / "log"))
    one, other = (make_runner(tmp_path / n, train_dataloader=mine) for n in "ab")
    assert one.train_dataloader.dataset is other.train_dataloader.dataset is mine.dataset
    assert isinstance(one.train_dataloader, DataLoader)
    again = make_runner(tmp_path / "c", train_dataloader=one.train_dataloader)
    assert again.train_dataloader.given is mine


def test_augmentations_differ_between_epochs_without_the_sampler_hook_too(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Watch(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            seen.append(data_batch["x"])

    hooks = {"sampler_seed": None, "logger": None}
    make_runner(
        tmp_path / "run",
        train_dataloader=config(Augmented(tmp_path / "log"), sampler={"shuffle": True}),
        default_hooks=hooks,
        custom_hooks=[Watch()],
    ).train()
    first, second = seen[:3], seen[3:]
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_validation_reads_the_same_each_time(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Watch(Hook):
        def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            seen.append(data_batch["x"])

    loader = config(Augmented(tmp_path / "log"))
    make_runner(tmp_path / "run", val_dataloader=loader, custom_hooks=[Watch()]).train()
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))


def test_a_padding_sampler_in_an_evaluation_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = ToyDataset()
    for ranks, dropping, warned in ((1, False, False), (5, True, False), (5, False, True)):
        sampler = torch.utils.data.DistributedSampler(data, ranks, 0, drop_last=dropping)
        loader = DataLoader(data, batch_size=4, sampler=sampler)
        caplog.clear()
        _ = make_runner(tmp_path / "run", val_dataloader=loader).val_dataloader
        text = "val_dataloader: its DistributedSampler repeats samples so that all 5 ranks"
        assert (text in caplog.text) is warned
