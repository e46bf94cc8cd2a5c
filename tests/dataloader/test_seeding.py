"""Each sample draws numbers of its own: whichever worker reads it, in every epoch others."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)

from tests.dataloader.noisy import Noisy, NoisyBatches, NoisyStream, RememberingStream, draws
from trainkit.data import Digits
from trainkit.dataloader import (
    DefaultSampler,
    FirstSamples,
    InfiniteSampler,
    SeededLoader,
    batches_from,
    go_to,
    place_of,
    pseudo_collate,
)
from trainkit.dataloader.seeding import draws_nothing, generators_kept, seed_generators

# A machine with fewer cores than workers is told so.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def seeded(dataset: Any = None, seed: int = 5, **options: Any) -> SeededLoader:
    options = {"batch_size": 3, "shuffle": True, **options}
    return SeededLoader(DataLoader(dataset or Noisy(), **options), seed)


def rows(loader: SeededLoader, epoch: int = 0, start: int = 0) -> dict[float, list[float]]:
    """What each index was read as."""
    read = [row.tolist() for batch in loader.read(epoch, start) for row in batch]
    return {row[0]: row[1:] for row in read}


def sequence(loader: SeededLoader, epoch: int = 0, start: int = 0) -> list[Any]:
    return [batch.tolist() for batch in loader.read(epoch, start)]


def test_a_sample_is_read_alike_in_any_order_and_batch() -> None:
    expected = rows(seeded())
    assert rows(seeded(shuffle=False, batch_size=4)) == expected
    single = [row.tolist() for row in seeded(batch_size=None, shuffle=False).read(0)]
    assert {row[0]: row[1:] for row in single} == expected


def test_epochs_seeds_and_samples_differ_and_come_again() -> None:
    loader = seeded()
    first, second = rows(loader, 0), rows(loader, 1)
    assert rows(loader, 0) == first
    drawn = [*first.values(), *second.values(), *rows(seeded(seed=6)).values()]
    for generator in range(3):
        assert len({values[generator] for values in drawn}) == 30


def test_numpy_and_torch_do_not_draw_the_same_stream() -> None:
    seed_generators(0x123456789ABCDEF)
    numpy = np.random.randint(0, 2**32, 4, dtype=np.uint32).tolist()
    drawn = torch.randint(0, 2**32, (4,)).tolist()
    assert not set(numpy) & set(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_the_number_of_workers_changes_nothing(persistent: bool) -> None:
    alone = seeded()
    expected = [sequence(alone, epoch) for epoch in range(2)]
    for workers in (1, 4):
        loader = seeded(num_workers=workers, persistent_workers=persistent)
        assert [sequence(loader, epoch) for epoch in range(2)] == expected


@pytest.mark.slow
def test_a_spawned_worker_reads_alike() -> None:
    loader = seeded(num_workers=1, multiprocessing_context="spawn")
    assert sequence(loader) == sequence(seeded())


def test_training_draws_what_it_does_in_a_bare_loop() -> None:
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    bare = []
    for _ in range(2):
        for _ in DataLoader(range(6), batch_size=2):
            bare.append(draws())
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    loader = seeded(Noisy(6), batch_size=2)
    assert [draws() for epoch in range(2) for _ in loader.read(epoch)] == bare


@pytest.mark.slow
def test_training_draws_the_same_with_workers_that_persist() -> None:
    expected = []
    for options in ({}, {"num_workers": 1, "persistent_workers": True}):
        seed_generators(3)
        loader = seeded(Noisy(6), batch_size=2, **options)
        expected.append([draws() for epoch in range(2) for _ in loader.read(epoch)])
    assert expected[0] == expected[1]


def test_reading_keeps_the_generators_also_when_it_fails() -> None:
    class Failing(Noisy):
        def __getitem__(self, index: int) -> Any:
            draws()
            raise OSError("gone")

    loader = seeded(Failing())
    batches = loader.read(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(OSError, match="gone"):
        next(batches)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before


def test_a_cached_normal_number_is_kept_too() -> None:
    np.random.seed(1)
    np.random.randn()
    with generators_kept():
        np.random.randn(3)
    second = np.random.randn()
    np.random.seed(1)
    assert np.random.randn(2)[1] == second


def test_an_index_that_comes_again_is_read_otherwise() -> None:
    weights = [0.0] * 9 + [1.0]
    loader = seeded(sampler=WeightedRandomSampler(weights, 6), shuffle=None)
    drawn = [row for batch in sequence(loader) for row in batch]
    assert [row[0] for row in drawn] == [9.0] * 6
    assert len({row[1] for row in drawn}) == 6
    assert [row for batch in sequence(loader, start=1) for row in batch] == drawn[3:]


def test_an_endless_stream_reads_a_sample_otherwise_in_each_pass() -> None:
    loader = seeded(Noisy(3), sampler=InfiniteSampler(range(3), seed=1), shuffle=None)
    batches = loader.read(0)
    first, second = (sorted(next(batches).tolist()) for _ in range(2))
    assert [row[0] for row in first] == [row[0] for row in second] == [0.0, 1.0, 2.0]
    assert {row[1] for row in first}.isdisjoint(row[1] for row in second)


def test_batches_read_at_once_have_a_seed_of_their_indices() -> None:
    loader = seeded(NoisyBatches(), batch_size=5)
    first = [batch[:, 1:].unique(dim=0).tolist() for batch in loader.read(0)]
    again = [batch[:, 1:].unique(dim=0).tolist() for batch in loader.read(0)]
    assert first == again
    assert first[0] != first[1]
    assert sequence(loader, start=1) == sequence(loader)[1:]


def test_a_subset_is_read_sample_by_sample() -> None:
    chosen = list(range(0, 10, 2))
    expected = rows(seeded(Subset(Noisy(), chosen), shuffle=False))
    assert rows(seeded(FirstSamples(Subset(Noisy(), chosen), 5), batch_size=2)) == expected
    assert len({values[0] for values in expected.values()}) == 5


def test_indices_may_be_anything() -> None:
    class ByName(Dataset[Any]):
        def __getitem__(self, name: str) -> list[float]:
            return draws()

    loader = seeded(ByName(), sampler=["a", "b"], shuffle=None, batch_size=1)
    first, second = loader.read(0)
    assert first != second
    assert list(loader.read(0)) == [first, second]
    tensors = [torch.tensor(1), torch.tensor(2)]
    plain = sequence(seeded(batch_sampler=[[1, 2]], batch_size=1, shuffle=None))
    assert sequence(seeded(batch_sampler=[tensors], batch_size=1, shuffle=None)) == plain


def test_a_stream_draws_by_epoch_and_place() -> None:
    loader = seeded(NoisyStream(), shuffle=None)
    first, second = rows(loader, 0), rows(loader, 1)
    assert rows(seeded(NoisyStream(), shuffle=None), 1) == second
    assert len({values[0] for values in [*first.values(), *second.values()]}) == 20


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_the_workers_of_a_stream_draw_other_numbers_in_each_epoch(persistent: bool) -> None:
    options = {"num_workers": 2, "persistent_workers": persistent, "shuffle": None}
    loader = seeded(NoisyStream(4), batch_size=2, **options)
    epochs = [[row for batch in sequence(loader, epoch) for row in batch] for epoch in range(2)]
    assert len({row[1] for row in epochs[0] + epochs[1]}) == 16
    again = seeded(NoisyStream(4), batch_size=2, **options)
    assert [row for batch in sequence(again, 0) for row in batch] == epochs[0]


def test_a_stream_with_a_state_is_gone_on_with_to_the_bit() -> None:
    whole = seeded(RememberingStream(), shuffle=None)
    expected = [sequence(whole, epoch) for epoch in range(2)]
    stopped = seeded(RememberingStream(), shuffle=None)
    batches = batches_from(stopped, 0)
    next(batches), next(batches)
    again = seeded(RememberingStream(), shuffle=None)
    start = go_to(again, place_of(stopped, 2), 2, pytest.fail)
    assert sequence(again, start=start) == expected[0][2:]
    assert sequence(again, 1) == expected[1]


class Declared(Noisy):
    deterministic = True


class Again(Declared):
    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)


def _mixed(samples: Any) -> Any:
    return default_collate(samples)


@pytest.mark.parametrize(
    ("dataset", "collate_fn", "expected"),
    [
        (TensorDataset(torch.zeros(3)), default_collate, True),
        (Subset(TensorDataset(torch.zeros(3)), [0]), default_collate, True),
        (FirstSamples(Digits("val"), 3), pseudo_collate, True),
        (Declared(), default_collate, True),
        (Again(), default_collate, False),
        (Noisy(), default_collate, False),
        (TensorDataset(torch.zeros(3)), _mixed, False),
    ],
)
def test_seeding_is_left_out_only_where_nothing_can_be_drawn(
    dataset: Any, collate_fn: Any, expected: bool
) -> None:
    assert draws_nothing(dataset, collate_fn) is expected


class Prepared(Noisy):
    scale = 1.0

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([self.scale, torch.initial_seed() % 2.0])


def _prepare(worker_id: int) -> None:
    info = get_worker_info()
    assert info is not None
    assert type(info.dataset) is Prepared, "as in any other loader"
    info.dataset.scale = 7.0


@pytest.mark.slow
def test_a_worker_init_fn_prepares_the_users_dataset() -> None:
    loader = seeded(Prepared(2), num_workers=1, worker_init_fn=_prepare)
    assert [batch[:, 0].tolist() for batch in loader.read(0)] == [[7.0, 7.0]]


def test_a_batch_sampler_that_draws_has_numbers_of_its_own() -> None:
    class Mixed(BatchSampler):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                order = [batch[i] for i in torch.randperm(len(batch)).tolist()]
                yield order if random.random() < 0.5 else order[::-1]

    def load() -> SeededLoader:
        batches = Mixed(DefaultSampler(range(10), seed=2), 3, drop_last=False)
        return seeded(batch_sampler=batches, batch_size=1, shuffle=None)

    expected = [sequence(load(), epoch) for epoch in range(2)]
    draws()
    loader = load()
    assert [sequence(loader, epoch) for epoch in range(2)] == expected
    assert sequence(load(), 1, start=2) == expected[1][2:]
