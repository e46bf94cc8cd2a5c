"""A loader that was taken over reads as it did, and can be gone back into."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from tests.dataloader.noisy import Noisy, NoisyStream
from trainkit.dataloader import (
    DefaultSampler,
    InfiniteSampler,
    SeededLoader,
    batches_from,
    go_to,
    loader,
    order,
    place_of,
    sampler,
    take_over,
)

SAMPLERS: dict[str, Any] = {
    "default": lambda data: DefaultSampler(data, seed=9),
    "distributed": lambda data: DistributedSampler(data, 1, 0, seed=9),
    "random": RandomSampler,
    "replacing": lambda data: RandomSampler(data, replacement=True, num_samples=14),
    "long": lambda data: RandomSampler(data, num_samples=25),
    "given": lambda data: RandomSampler(data, generator=torch.Generator().manual_seed(4)),
    "subset": lambda data: SubsetRandomSampler(range(1, len(data))),
    "weighted": lambda data: WeightedRandomSampler(range(1, len(data) + 1), 14),
    "sequential": SequentialSampler,
    "endless": lambda data: InfiniteSampler(data, seed=9),
}


def plain(name: str = "random", batch_size: int = 3, **options: Any) -> DataLoader[Any]:
    data = Noisy()
    return DataLoader(data, batch_size, sampler=SAMPLERS[name](data), **options)


def taken(name: str = "random", seed: int = 2, **options: Any) -> Any:
    return take_over(plain(name, **options), seed)


def indices(batches: Iterator[Any], number: int = 99) -> list[list[int]]:
    return [batch[:, 0].int().tolist() for batch in islice(batches, number)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_any_place_is_gone_back_to_in_a_new_process(name: str) -> None:
    whole = taken(name)
    epochs = [
        [batch.tolist() for batch in batches_from(whole, epoch=epoch, stop=len(whole))]
        for epoch in range(3)
    ]
    assert epochs[0] != epochs[1]
    stopped = taken(name)
    list(batches_from(stopped, epoch=0, stop=len(stopped)))
    for epoch, start in ((1, 0), (1, 2), (1, len(whole)), (2, 1)):
        if start:
            list(batches_from(stopped, epoch=epoch, stop=start))
        again = taken(name, seed=77)
        first = go_to(again, place_of(stopped, start), start, pytest.fail)
        assert first == start
        for later in range(epoch, 3):
            rest = batches_from(again, first, epoch=later, stop=len(whole))
            assert [batch.tolist() for batch in rest] == epochs[later][first:]
            first = 0
        stopped = taken(name)
        for before in range(epoch + (start == len(whole))):
            list(batches_from(stopped, epoch=before, stop=len(stopped)))


def test_a_shuffled_loader_has_the_default_samplers_order() -> None:
    data = Noisy()
    shuffled = take_over(DataLoader(data, batch_size=3, shuffle=True), 6)
    default = take_over(DataLoader(data, batch_size=3, sampler=DefaultSampler(data, seed=6)), 6)
    for epoch in range(3):
        default.sampler.set_epoch(epoch)
        one, other = (list(each.read(epoch)) for each in (shuffled, default))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_generator_that_was_given_decides_the_order() -> None:
    over = taken("given")
    assert indices(over.read(0)) == indices(iter(plain("given"))), "torch's own at first"
    assert indices(over.read(1)) == indices(taken("random", seed=5).read(0)), "then of seed 4 + 1"


def test_the_users_objects_stay_as_they_were() -> None:
    mine = plain("given")
    generator = mine.sampler.generator.get_state()
    over = take_over(mine, 1)
    list(over.read(0))
    assert over.dataset is mine.dataset
    assert over.sampler is mine.sampler
    assert (over.batch_size, len(over)) == (3, 4)
    assert torch.equal(mine.sampler.generator.get_state(), generator)
    assert type(mine) is DataLoader
    assert indices(iter(mine))


def test_the_options_survive() -> None:
    options: dict[str, Any] = {
        "num_workers": 1,
        "pin_memory": False,
        "timeout": 30,
        "multiprocessing_context": "spawn",
        "prefetch_factor": 3,
        "persistent_workers": True,
        "in_order": False,
        "collate_fn": list,
        "generator": torch.Generator(),
    }
    mine = plain(**options)
    over = take_over(mine, 1)
    inner = over._reader
    for name in options:
        assert getattr(over, name) is getattr(mine, name), name
        if name not in ("generator", "timeout"):
            assert getattr(inner, name) is getattr(mine, name), name
    assert inner.generator is not mine.generator, "workers' seeds are the run's, not drawn"


def test_the_number_of_an_iteration_comes_from_the_given_generator() -> None:
    over = take_over(plain(generator=torch.Generator().manual_seed(1)), 1)
    before = torch.get_rng_state()
    over.read(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(over.generator.get_state(), torch.Generator().manual_seed(1).get_state())


def test_no_loader_is_wrapped_twice() -> None:
    mine = plain()
    first = take_over(mine, 1)
    second = take_over(first, 2)
    assert second.given is first.given is mine
    assert (first.seed, second.seed) == (1, 2)
    assert indices(first.read(0)) == indices(taken(seed=1).read(0))


class Shown(DataLoader[Any]):
    """A DataLoader with something added."""

    def title(self) -> str:
        return f"{len(self)} batches"


class Doubled(DataLoader[Any]):
    """A DataLoader that reads in its own way."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield batch * 2


class Stateful(DataLoader[Any]):
    """A DataLoader that keeps its place, as torchdata's does."""

    batch = 0

    def __iter__(self) -> Any:
        start, self.batch = self.batch, 0
        for number, batch in enumerate(islice(super().__iter__(), start, None), start + 1):
            self.batch = number
            yield batch
        self.batch = 0

    def state_dict(self) -> dict[str, Any]:
        return {"batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batch = state["batch"]


def test_a_subclass_keeps_what_it_adds() -> None:
    over = take_over(Shown(Noisy(), batch_size=5), 1)
    assert isinstance(over, SeededLoader)
    assert over.title() == "2 batches"
    with pytest.raises(AttributeError, match="'Shown' object has no attribute 'tilte'"):
        _ = over.tilte


@pytest.mark.parametrize(
    "mine",
    [Doubled(Noisy()), Stateful(Noisy()), [[1], [2]]],
)
def test_what_reads_in_its_own_way_is_left_alone(mine: Any) -> None:
    assert take_over(mine, 1) is mine


@pytest.mark.parametrize("start", [0, 2, 4])
def test_a_loader_with_a_state_goes_on_where_that_was_taken(start: int) -> None:
    mine = Stateful(Noisy(), batch_size=3)
    list(islice(batches_from(mine, stop=4), start))
    place = place_of(mine, start)
    again = Stateful(Noisy(), batch_size=3)
    assert go_to(again, place, start, pytest.fail) == start
    assert indices(batches_from(again, start, stop=4)) == indices(iter(plain("sequential")))[start:]
    assert len(list(batches_from(again, epoch=1, stop=4))) == 4


def test_the_place_in_another_kind_of_loader_is_not_taken_for_ones_own() -> None:
    foreign, own = Stateful(Noisy(), batch_size=3), taken()
    said: list[str] = []
    assert go_to(own, {"batch": 7}, 2, said.append) == 2
    assert go_to(foreign, place_of(own, 2), 2, said.append) == 2
    assert foreign.batch == 0
    assert ["batch 2 of the epoch is next" in text for text in said] == [True, False]
    assert "another kind of loader" in said[1]
    assert "they begin again" in said[1]


def test_a_stream_without_a_state_begins_again_and_says_so() -> None:
    over = take_over(DataLoader(NoisyStream(), batch_size=3), 1)
    said: list[str] = []
    assert go_to(over, place_of(over, 2), 2, said.append) == 2
    (warning,) = said
    assert "stopped after batch 2 of an epoch" in warning
    assert "iterable NoisyStream" in warning
    assert indices(batches_from(over, 2, stop=4)) == [[0, 1, 2], [3, 4, 5]]
    assert go_to(over, place_of(over, 0), 0, pytest.fail) == 0


def test_iterating_over_it_meanwhile_does_not_move_the_place() -> None:
    over = taken()
    batches = over.read(0)
    next(batches), next(batches)
    next(iter(over))
    again = taken()
    assert go_to(again, place_of(over, 2), 2, pytest.fail) == 2


@pytest.mark.slow
def test_what_workers_read_ahead_is_not_lost_to_an_endless_stream() -> None:
    alone, helped = taken("endless"), taken("endless", num_workers=1, persistent_workers=True)
    for epoch in range(3):
        expected = indices(batches_from(alone, epoch=epoch, stop=2))
        assert indices(batches_from(helped, epoch=epoch, stop=2)) == expected


class Pairs(BatchSampler):
    """A batch sampler of one's own over an endless stream."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield batch[::-1]


def test_a_batch_sampler_of_ones_own_over_an_endless_stream() -> None:
    def load() -> Any:
        data = Noisy()
        batches = Pairs(InfiniteSampler(data, seed=3), 4, drop_last=False)
        return take_over(DataLoader(data, batch_sampler=batches), 2)

    whole = load()
    expected = [
        [batch.tolist() for batch in batches_from(whole, epoch=epoch, stop=3)] for epoch in range(2)
    ]
    stopped, again = load(), load()
    list(batches_from(stopped, epoch=0, stop=3))
    list(batches_from(stopped, epoch=1, stop=2))
    start = go_to(again, place_of(stopped, 2), 2, pytest.fail)
    rest = [batch.tolist() for batch in batches_from(again, start, epoch=1, stop=3)]
    assert rest == expected[1][2:]


# ------------------------------------------------------------------ other numbers of ranks


def rank_loader(name: str, rank: int, ranks: int, batch_size: int, length: int = 23) -> Any:
    """The loader of one rank among several."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (sampler, order, loader):
            patch.setattr(module, "get_rank", lambda: rank)
        for module in (sampler, order):
            patch.setattr(module, "get_world_size", lambda: ranks)
        data = Noisy(length)
        over = take_over(DataLoader(data, batch_size, sampler=SAMPLERS[name](data)), 2)
        _ = over._order  # made while there are that many ranks
        return over


def on_ranks(
    name: str, ranks: int, places: list[Any], start: int, stop: int, patch: pytest.MonkeyPatch
) -> tuple[list[Any], list[Any]]:
    """What the ranks read together, batch by batch, and where they then stand."""
    patch.setattr(loader, "get_world_size", lambda: ranks)
    loaders = [rank_loader(name, rank, ranks, 4 // ranks) for rank in range(ranks)]
    for each in loaders:
        if places:
            assert go_to(each, places[0], start, pytest.fail) == start
    rows = [[b.tolist() for b in batches_from(each, start, stop=stop)] for each in loaders]
    batches = [sorted(itertools.chain(*together)) for together in zip(*rows, strict=True)]
    return batches, [place_of(each, stop) for each in loaders]


@pytest.mark.parametrize("name", ["default", "endless"])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (4, 1), (2, 1)])
def test_other_ranks_go_on_with_the_same_samples(
    name: str, before: int, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = on_ranks(name, 1, [], 0, 5, monkeypatch)
    first, places = on_ranks(name, before, [], 0, 3, monkeypatch)
    rest, _ = on_ranks(name, after, places, 3, 5, monkeypatch)
    assert [*first, *rest] == whole, "the same samples, drawn alike"


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 9))
def test_with_other_batches_the_place_is_rounded_down(before: int, size: int, batch: int) -> None:
    stopped = taken("default", batch_size=before)
    again = taken("default", batch_size=size)
    start = go_to(again, place_of(stopped, batch), batch, pytest.fail)
    assert start * size <= batch * before < (start + 1) * size


def test_ranks_shuffle_differently_where_the_sampler_does_not_deal() -> None:
    one, other = (rank_loader("random", rank, 2, 4) for rank in range(2))
    assert indices(one.read(0)) != indices(other.read(0))


def test_the_collate_function_still_runs() -> None:
    over = take_over(plain(collate_fn=lambda samples: default_collate(samples) * 0), 1)
    assert all(batch.sum() == 0 for batch in over.read(0))


@pytest.mark.slow
def test_persistent_workers_end_by_themselves_with_a_cycle_of_objects() -> None:
    class Holder:
        """A part of a cycle, as the loops and the hooks of a runner are."""

    holder: Any = Holder()
    holder.itself, holder.loader = holder, taken(num_workers=2, persistent_workers=True)
    next(holder.loader.read(0))
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    del holder
    gc.collect()
    assert [worker.exitcode for worker in workers] == [0, 0], "not killed after a time"
