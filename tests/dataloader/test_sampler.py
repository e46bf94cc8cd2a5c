"""Samplers: orders dealt out over the ranks without loss; MMEngine's, as tests/parity shows."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.dataloader import DefaultSampler, InfiniteSampler, sampler
from trainkit.errors import ConfigError

_seeds = st.integers(0, 2**31 - 1)
_lengths = st.integers(1, 40)


@st.composite
def _ranks(draw: st.DrawFn) -> tuple[int, int]:
    world_size = draw(st.integers(1, 6))
    return draw(st.integers(0, world_size - 1)), world_size


def make(cls: Any, length: int, rank: int = 0, world_size: int = 1, **given: Any) -> Any:
    """Return the sampler of a rank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "get_rank", lambda: rank)
        patch.setattr(sampler, "get_world_size", lambda: world_size)
        return cls(range(length), **given)


def test_seven_samples_on_three_ranks_are_padded_from_the_start() -> None:
    rows = [list(make(DefaultSampler, 7, rank, 3, shuffle=False)) for rank in range(3)]
    assert rows == [[0, 3, 6], [1, 4, 0], [2, 5, 1]]


@given(_lengths, _seeds, st.integers(1, 8))
def test_without_padding_each_sample_is_read_exactly_once(
    length: int, seed: int, world_size: int
) -> None:
    samplers = [
        make(DefaultSampler, length, rank, world_size, seed=seed, round_up=False)
        for rank in range(world_size)
    ]
    rows = [list(each) for each in samplers]
    assert sorted(index for row in rows for index in row) == list(range(length))
    assert [len(each) for each in samplers] == [len(row) for row in rows]
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


@given(_lengths, _seeds, st.integers(1, 8), st.booleans(), st.booleans())
def test_blocks_are_in_rank_order_the_order_of_the_whole(
    length: int, seed: int, world_size: int, shuffle: bool, round_up: bool
) -> None:
    def dealt(**given: Any) -> list[list[int]]:
        options = {"seed": seed, "shuffle": shuffle, "round_up": round_up, **given}
        return [
            list(make(DefaultSampler, length, rank, world_size, **options))
            for rank in range(world_size)
        ]

    turns, blocks = dealt(), dealt(in_blocks=True)
    assert [len(row) for row in blocks] == [len(row) for row in turns]
    whole = list(make(DefaultSampler, length, seed=seed, shuffle=shuffle))
    read = [index for row in blocks for index in row]
    assert read[:length] == whole
    assert sorted(read) == sorted(index for row in turns for index in row)


@given(_lengths, _seeds, st.integers(1, 8))
def test_with_padding_all_ranks_have_the_same_number(
    length: int, seed: int, world_size: int
) -> None:
    rows = [list(make(DefaultSampler, length, r, world_size, seed=seed)) for r in range(world_size)]
    assert len({len(row) for row in rows}) == 1
    assert {index for row in rows for index in row} == set(range(length))
    assert sum(map(len, rows)) - length < world_size


@given(_lengths, _seeds, st.integers(1, 5))
def test_the_ranks_of_an_infinite_stream_deal_out_one_stream(
    length: int, seed: int, world_size: int
) -> None:
    whole = list(islice(make(InfiniteSampler, length, seed=seed), 4 * world_size))
    ranks = [make(InfiniteSampler, length, r, world_size, seed=seed) for r in range(world_size)]
    rows = [list(islice(each, 4)) for each in ranks]
    assert [index for turn in zip(*rows, strict=True) for index in turn] == whole


@given(_lengths, _seeds, st.integers(0, 50), _ranks(), st.booleans())
def test_seeking_leaves_out_what_all_ranks_drew(
    length: int, seed: int, each: int, ranks: tuple[int, int], shuffle: bool
) -> None:
    whole = make(InfiniteSampler, length, *ranks, seed=seed, shuffle=shuffle)
    stream = list(islice(whole, each + 9))
    infinite = make(InfiniteSampler, length, *ranks, seed=seed, shuffle=shuffle)
    next(iter(infinite))
    infinite.seek(each * ranks[1])
    assert list(islice(infinite, 5)) == stream[each : each + 5]
    assert list(islice(infinite, 4)) == stream[each + 5 :]


def test_epochs_differ_and_repeat_by_number() -> None:
    shuffled = DefaultSampler(range(50), seed=3)
    orders = []
    for epoch in (0, 1, 0):
        shuffled.set_epoch(epoch)
        orders.append(list(shuffled))
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("cls", [DefaultSampler, InfiniteSampler])
def test_an_empty_dataset_is_refused(cls: Any) -> None:
    with pytest.raises(ConfigError, match="The dataset list is empty"):
        cls([])
