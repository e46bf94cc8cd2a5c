"""A loader's place: its epoch is told, and skipped samples are not read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler

from trainkit.dataloader import (
    DefaultSampler,
    InfiniteSampler,
    batches_from,
    data_sampler,
    num_batches,
    set_epoch,
    take_over,
)


class Recording(Dataset[int]):
    """Ten numbers that remember which were read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        self.read.append(index)
        return index


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        yield from range(5)


def load(sampler: Any = None, **options: Any) -> tuple[Recording, DataLoader[int]]:
    dataset = Recording()
    made = None if sampler is None else sampler(dataset, seed=1)
    bare = DataLoader(dataset, sampler=made, batch_size=3, collate_fn=list, **options)
    return dataset, take_over(bare, 1)


def test_the_sampler_is_found_also_inside_a_batch_sampler() -> None:
    _, loader = load(DefaultSampler)
    assert isinstance(data_sampler(loader), DefaultSampler)
    inner = DefaultSampler(range(4))
    batched = DataLoader(Recording(), batch_sampler=BatchSampler(inner, 2, drop_last=False))
    assert data_sampler(batched) is inner
    assert data_sampler([[1], [2]]) is None


def test_the_epoch_reaches_a_sampler_that_asks_for_it() -> None:
    _, loader = load(DefaultSampler)
    first = list(loader)
    set_epoch(loader, 1)
    assert list(loader) != first
    set_epoch(loader, 0)
    assert list(loader) == first


def test_loaders_without_an_epoch_are_left_alone() -> None:
    _, loader = load()
    assert isinstance(data_sampler(loader), SequentialSampler)
    set_epoch(loader, 3)
    set_epoch([[1], [2]], 3)
    assert next(iter(loader)) == [0, 1, 2]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("sampler", [None, DefaultSampler])
@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_a_later_start_gives_the_rest_and_reads_no_skipped_sample(
    start: int, sampler: Any, drop_last: bool
) -> None:
    whole = list(load(sampler, drop_last=drop_last)[1])
    dataset, loader = load(sampler, drop_last=drop_last)
    rest = list(batches_from(loader, start))
    assert rest == whole[start:]
    assert dataset.read == [index for batch in rest for index in batch]
    assert list(batches_from(loader, 0)) == whole, "only that pass begins later"


def test_a_later_start_in_an_endless_stream_gives_the_rest() -> None:
    whole = list(islice(load(InfiniteSampler)[1], 9))
    dataset, loader = load(InfiniteSampler)
    assert list(islice(batches_from(loader, 5), 4)) == whole[5:]
    assert len(dataset.read) == 12


def test_any_other_loader_is_read_up_to_the_start() -> None:
    dataset, loader = load()
    assert list(batches_from(loader.given, 2)) == [[6, 7, 8], [9]]
    assert dataset.read == list(range(10))


def test_nothing_is_begun_where_nothing_is_left() -> None:
    dataset, loader = load(InfiniteSampler)
    assert list(batches_from(loader, 4, stop=4)) == []
    assert list(batches_from([[1], [2]], 3, stop=2)) == []
    assert not dataset.read


def test_any_iterable_has_a_later_start() -> None:
    assert list(batches_from(["a", "b", "c"], 1)) == ["b", "c"]


def test_a_batch_sampler_of_ones_own_is_gone_through_without_reading() -> None:
    class Batches(BatchSampler):
        pass

    batches = Batches(DefaultSampler(range(10), shuffle=False), 4, drop_last=False)
    dataset = Recording()
    loader = take_over(DataLoader(dataset, batch_sampler=batches, collate_fn=list), 0)
    assert list(batches_from(loader, 2)) == [[8, 9]]
    assert dataset.read == [8, 9]


@pytest.mark.parametrize("sampler", [None, DefaultSampler])
def test_beginning_later_draws_no_random_number(sampler: Any) -> None:
    _, loader = load(sampler)
    before = torch.get_rng_state()
    next(batches_from(loader, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stream_does_not_know_its_number_of_batches() -> None:
    assert num_batches(load()[1]) == 4
    assert num_batches([1, 2]) == 2
    assert num_batches(DataLoader(Stream(), batch_size=2)) is None
    assert num_batches(iter([])) is None
