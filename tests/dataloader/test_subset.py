"""FirstSamples and FirstOfStream: a dataset that ends early, and is otherwise itself."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Iterator

import pytest
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from trainkit.data import Digits
from trainkit.dataloader import FirstOfStream, FirstSamples
from trainkit.dataloader.watch import name_of


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        yield from range(5)


@pytest.mark.parametrize(("asked", "length"), [(0, 0), (3, 3), (10, 10), (11, 10)])
def test_it_has_the_first_samples_and_never_more_than_there_are(asked: int, length: int) -> None:
    first = FirstSamples(list(range(10)), asked)
    assert len(first) == length
    assert [first[index] for index in range(length)] == list(range(length))


def test_a_loader_reads_only_the_first_samples() -> None:
    loader = DataLoader(FirstSamples(list("abcdefg"), 3), batch_size=2, collate_fn=list)
    assert list(loader) == [["a", "b"], ["c"]]


def test_iterating_ends_with_the_last_of_the_first_samples() -> None:
    assert list(FirstSamples(list(range(10)), 3)) == [0, 1, 2]


def test_an_index_beyond_the_first_samples_is_an_error() -> None:
    with pytest.raises(IndexError):
        FirstSamples(list(range(10)), 3)[3]


def test_attributes_of_the_dataset_are_seen_through_it() -> None:
    first = FirstSamples(Digits("val"), 5)
    assert first.metainfo["dataset"] == "UCI digits"
    with pytest.raises(AttributeError, match="missing"):
        _ = first.missing


def test_a_dataset_without_a_length_is_taken_at_its_word() -> None:
    assert len(FirstSamples(Stream(), 3)) == 3


def test_it_can_be_sent_to_a_worker() -> None:
    first = FirstSamples(list(range(10)), 3)
    for other in (pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
        assert len(other) == 3
        assert other[2] == 2


class Numbers(IterableDataset[int]):
    """All whole numbers; a worker gives those of its own hundred."""

    metainfo = "numbers"

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        return itertools.count(0 if info is None else 100 * info.id)

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None: ...


class Five(Stream):
    """A stream that knows its length."""

    def __len__(self) -> int:
        return 5


def test_a_stream_ends_after_its_first_batches() -> None:
    loader = DataLoader(FirstOfStream(Numbers(), 2, 3), batch_size=3, collate_fn=list)
    assert list(loader) == list(loader) == [[0, 1, 2], [3, 4, 5]]
    assert len(loader) == 2


def test_a_stream_never_has_more_than_there_are() -> None:
    first = FirstOfStream(Five(), 4, 2)
    assert len(first) == 5
    assert list(first) == [0, 1, 2, 3, 4]


def test_workers_share_the_batches_of_a_stream() -> None:
    loader = DataLoader(
        FirstOfStream(Numbers(), 3, 2), batch_size=2, collate_fn=list, num_workers=2
    )
    assert list(loader) == [[0, 1], [100, 101], [2, 3]]


def test_a_cut_stream_has_the_attributes_of_the_whole_but_no_state() -> None:
    first = pickle.loads(pickle.dumps(FirstOfStream(Numbers(), 1, 1)))
    assert first.metainfo == "numbers"
    assert not hasattr(first, "state_dict")
    assert not hasattr(first, "load_state_dict")
    assert name_of(first) == "Numbers"
