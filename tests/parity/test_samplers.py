"""Orders are MMEngine's: of the samplers rank by rank, and of whole runs."""

from __future__ import annotations

import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.toy import ToyDataset, loader_config, make_runner
from trainkit import Hook, Runner
from trainkit.dataloader import DefaultSampler, InfiniteSampler, sampler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.dataset.sampler
    import mmengine.runner

pytestmark = pytest.mark.filterwarnings("ignore")

_seeds = st.integers(0, 2**31 - 1)
_lengths = st.integers(1, 40)


@st.composite
def _ranks(draw: st.DrawFn) -> tuple[int, int]:
    world_size = draw(st.integers(1, 6))
    return draw(st.integers(0, world_size - 1)), world_size


def both(cls: Any, length: int, rank: int, world_size: int, **given: Any) -> tuple[Any, Any]:
    """Return trainkit's sampler of a rank, and MMEngine's of the same name."""
    theirs = mmengine.dataset.sampler
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "get_rank", lambda: rank)
        patch.setattr(sampler, "get_world_size", lambda: world_size)
        patch.setattr(theirs, "get_dist_info", lambda: (rank, world_size))
        data = range(length)
        return cls(data, **given), getattr(theirs, cls.__name__)(data, **given)


@given(_lengths, _seeds, st.integers(0, 5), _ranks(), st.booleans(), st.booleans())
def test_the_default_order_is_mmengines(
    length: int, seed: int, epoch: int, ranks: tuple[int, int], shuffle: bool, round_up: bool
) -> None:
    options = {"seed": seed, "shuffle": shuffle, "round_up": round_up}
    ours, theirs = both(DefaultSampler, length, *ranks, **options)
    for each in (ours, theirs):
        each.set_epoch(epoch)
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs) == len(list(ours))


@given(_lengths, _seeds, _ranks(), st.booleans())
def test_the_infinite_stream_is_mmengines_also_across_iterators(
    length: int, seed: int, ranks: tuple[int, int], shuffle: bool
) -> None:
    ours, theirs = both(InfiniteSampler, length, *ranks, seed=seed, shuffle=shuffle)
    alive = []  # MMEngine's stream ends for good when an iterator of it is collected
    for take in (3, length, 2 * length):
        alive.append(iter(theirs))
        assert list(islice(iter(ours), take)) == list(islice(alive[-1], take))
    assert len(ours) == len(theirs) == length


class Indexed(ToyDataset):
    """The toy samples, with their indices."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {**super().__getitem__(index), "index": torch.tensor(index)}


def _their_order(sampler: str, train_cfg: Any, seed: int) -> list[list[int]]:
    config = {
        "dataset": Indexed(14),
        "sampler": {"type": sampler, "shuffle": True},
        "batch_size": 4,
        "collate_fn": {"type": "default_collate"},
    }
    loader = mmengine.runner.Runner.build_dataloader(config, seed=seed)
    order: list[list[int]] = []
    if train_cfg["by_epoch"]:
        for epoch in range(train_cfg["max_epochs"]):
            loader.sampler.set_epoch(epoch)  # as DistSamplerSeedHook does
            order += [batch["index"].tolist() for batch in loader]
        return order
    batches = mmengine.runner.loops._InfiniteDataloaderIterator(loader)
    return [next(batches)["index"].tolist() for _ in range(train_cfg["max_iters"])]


@pytest.mark.parametrize(
    ("name", "train_cfg"),
    [
        ("DefaultSampler", {"by_epoch": True, "max_epochs": 3}),
        ("DefaultSampler", {"by_epoch": False, "max_iters": 9, "val_interval": 99}),
        ("InfiniteSampler", {"by_epoch": False, "max_iters": 9, "val_interval": 99}),
    ],
)
def test_a_run_sees_the_batches_of_mmengine(
    tmp_path: Path, name: str, train_cfg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    class Watch(Hook):
        def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            seen.append(data_batch.pop("index").tolist())

    config = loader_config(dataset=Indexed(14), sampler={"_target_": f"trainkit.dataloader.{name}"})
    runner = make_runner(
        tmp_path, train_dataloader=config, train_cfg=train_cfg, custom_hooks=[Watch()]
    )
    runner.train()
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # MMEngine's loader, at its end
    assert seen == _their_order(name, train_cfg, runner.seed)


def test_an_endless_stream_in_epochs_goes_on_where_it_was_left_on_purpose() -> None:
    """MMEngine's epoch would never end; and what its workers read ahead would be lost."""
    from torch.utils.data import DataLoader

    from trainkit.dataloader import batches_from, take_over

    data = range(6)
    loader = take_over(DataLoader(data, 4, sampler=InfiniteSampler(data, seed=1), num_workers=0), 0)
    read = [i for epoch in range(3) for b in batches_from(loader, epoch=epoch, stop=2) for i in b]
    assert torch.stack(read).tolist() == list(islice(InfiniteSampler(data, seed=1), 24))
