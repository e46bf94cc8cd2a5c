"""AspectRatioBatchSampler: batches of one shape, every sample as often as the sampler has it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from tests.toy import SAMPLES, ToyDataset, make_runner
from trainkit.data import ConcatDataset
from trainkit.dataloader import (
    AspectRatioBatchSampler,
    DefaultSampler,
    FirstSamples,
    InfiniteSampler,
    batches_from,
    num_batches,
    set_epoch,
    take_over,
)
from trainkit.errors import ConfigError

WIDE, HIGH, SQUARE = (20, 10), (10, 20), (10, 10)
SHAPES = st.lists(st.sampled_from([WIDE, HIGH, SQUARE]), min_size=1, max_size=30)


class Sized(ToyDataset):
    """The toy data as images of given widths and heights, which remembers what is read."""

    def __init__(self, shapes: Any = (WIDE, HIGH, SQUARE) * 4) -> None:
        super().__init__(len(shapes))
        self.shapes = list(shapes)
        self.read: list[int] = []

    def get_data_info(self, idx: int) -> dict[str, int]:
        width, height = self.shapes[idx]
        return {"width": width, "height": height}

    def is_wide(self, idx: int) -> bool:
        return bool(self.shapes[idx][0] >= self.shapes[idx][1])

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return super().__getitem__(index)


def mixed(dataset: Sized, batches: list[list[int]]) -> list[int]:
    """The numbers of the batches that hold both shapes."""
    return [
        number
        for number, batch in enumerate(batches)
        if len({dataset.is_wide(index) for index in batch}) > 1
    ]


@given(shapes=SHAPES, batch_size=st.integers(1, 6), drop_last=st.booleans(), shuffle=st.booleans())
def test_an_epoch_is_whole_and_only_its_last_batches_mix_shapes(
    shapes: list[tuple[int, int]], batch_size: int, drop_last: bool, shuffle: bool
) -> None:
    dataset = Sized(shapes)
    sampler = DefaultSampler(dataset, shuffle=shuffle, seed=3)
    order = list(sampler)
    batches = list(AspectRatioBatchSampler(sampler, batch_size, drop_last))
    assert len(batches) == len(AspectRatioBatchSampler(sampler, batch_size, drop_last))
    full = len(shapes) // batch_size
    assert [len(batch) for batch in batches[:full]] == [batch_size] * full
    given_out = [index for batch in batches for index in batch]
    assert len(set(given_out)) == len(given_out)
    assert len(given_out) == (full * batch_size if drop_last else len(shapes))
    wides = sum(dataset.is_wide(index) for index in order)
    pure = wides // batch_size + (len(shapes) - wides) // batch_size
    assert all(number >= pure for number in mixed(dataset, batches))
    for batch in batches[:pure]:
        assert batch == sorted(batch, key=order.index)


def test_the_epoch_decides_the_order_and_can_be_repeated() -> None:
    sampler = DefaultSampler(Sized(), seed=1)
    batched = AspectRatioBatchSampler(sampler, 3)
    loader = DataLoader(Sized(), batch_sampler=batched)
    first = list(batched)
    set_epoch(loader, 1)
    assert list(batched) != first
    set_epoch(loader, 0)
    assert list(batched) == first


def test_a_pass_that_is_broken_off_leaves_nothing_for_the_next_on_purpose() -> None:
    """MMDetection's keeps what it had collected, and gives those samples twice."""
    batched = AspectRatioBatchSampler(DefaultSampler(Sized(), shuffle=False), 3)
    whole = list(batched)
    next(iter(batched))
    assert list(batched) == whole


def test_a_full_last_batch_is_kept_on_purpose() -> None:
    """MMDetection's drops it with ``drop_last``, and then has fewer batches than its length."""
    dataset = Sized([WIDE, HIGH])
    batched = AspectRatioBatchSampler(DefaultSampler(dataset, shuffle=False), 2, drop_last=True)
    assert list(batched) == [[1, 0]]
    assert len(batched) == 1


def test_an_endless_order_gives_endless_batches_of_one_shape() -> None:
    dataset = Sized()
    batched = AspectRatioBatchSampler(InfiniteSampler(dataset, seed=2), 5)
    batches = list(itertools.islice(batched, 40))
    assert not mixed(dataset, batches)
    assert [len(batch) for batch in batches] == [5] * 40
    assert len(batched) == 3, "an epoch is measured by the dataset"


class Numbers(Sized):
    """Gives the numbers of its samples."""

    def __getitem__(self, index: int) -> Any:
        self.read.append(int(index))
        return int(index)


@pytest.mark.parametrize("sampler", [DefaultSampler, InfiniteSampler])
@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_later_start_gives_the_rest_and_reads_no_skipped_sample(sampler: Any, start: int) -> None:
    def load() -> Any:
        dataset = Numbers()
        batched = AspectRatioBatchSampler(sampler(dataset, seed=1), 3)
        return take_over(DataLoader(dataset, batch_sampler=batched, collate_fn=list), seed=1)

    whole = list(itertools.islice(load(), 4))
    loader = load()
    rest = list(itertools.islice(batches_from(loader, start), 4 - start))
    assert len(whole) == 4
    assert rest == whole[start:]
    assert loader.dataset.read == list(itertools.chain(*rest))


class Unsized(Sampler[int]):
    """An order that does not know how long it is."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Any:
        yield from range(len(self.dataset))


def test_the_length_is_unknown_where_the_samplers_is() -> None:
    batched = AspectRatioBatchSampler(Unsized(Sized()), 5)
    assert len(list(batched)) == 3
    with pytest.raises(TypeError):
        len(batched)
    assert num_batches(DataLoader(Sized(), batch_sampler=batched)) is None


@pytest.mark.parametrize("sampler", [SequentialSampler, RandomSampler])
def test_torchs_samplers_serve_too(sampler: Any) -> None:
    dataset = Sized()
    batches = list(AspectRatioBatchSampler(sampler(dataset), 4))
    assert sorted(itertools.chain(*batches)) == list(range(12))
    assert not mixed(dataset, batches)


def test_sizes_are_found_inside_wrappers() -> None:
    dataset = FirstSamples(ConcatDataset([Sized(), Sized()]), 20)
    batches = list(AspectRatioBatchSampler(DefaultSampler(dataset), 4))
    assert sorted(itertools.chain(*batches)) == list(range(20))


def test_a_dataset_that_tells_no_sizes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ToyDataset has no get_data_info\(idx\)\. Derive"):
        AspectRatioBatchSampler(DefaultSampler(ToyDataset()), 2)

    class NoHeight(Sized):
        def get_data_info(self, idx: int) -> dict[str, int]:
            return {"width": 3, "label": 1}

    batched = AspectRatioBatchSampler(DefaultSampler(NoHeight(), shuffle=False), 2)
    with pytest.raises(ConfigError, match=r"sample 0 has no height\. It has: width, label\."):
        list(batched)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, None])
def test_a_batch_size_that_is_none_is_refused(batch_size: Any) -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        AspectRatioBatchSampler(DefaultSampler(Sized()), batch_size)


@pytest.mark.parametrize("drop_last", [False, True])
def test_a_run_trains_on_its_batches(tmp_path: Any, drop_last: bool) -> None:
    dataset = Sized([WIDE] * 5 + [HIGH] * 7)
    runner = make_runner(
        tmp_path,
        train_dataloader={
            "dataset": dataset,
            "batch_size": 5,
            "drop_last": drop_last,
            "batch_sampler": {"_target_": "trainkit.dataloader.AspectRatioBatchSampler"},
            "collate_fn": {"_target_": "trainkit.dataloader.default_collate"},
        },
    )
    runner.train()
    per_epoch = 2 if drop_last else 3
    assert runner.iter == 2 * per_epoch
    assert len(dataset.read) == 2 * (10 if drop_last else SAMPLES)
    assert not mixed(dataset, [dataset.read[0:5], dataset.read[5:10]])
