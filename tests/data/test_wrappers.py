"""Wrappers: which sample is where, what they say of themselves, what they refuse."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import IterableDataset

from trainkit.data import BaseDataset, ClassBalancedDataset, ConcatDataset, Digits, RepeatDataset
from trainkit.errors import ConfigError


class Listed(BaseDataset):
    """Samples of the names that ``metainfo`` is said to be of, with categories."""

    def __init__(
        self,
        names: Any = "abc",
        categories: Any = (),
        metainfo: Any = None,
        lazy_init: bool = False,
        late: Any = None,
    ) -> None:
        self.names, self.categories, self.late = names, categories, late or {}
        super().__init__(metainfo=metainfo, lazy_init=lazy_init)

    def load_data_list(self) -> list[dict[str, Any]]:
        self._metainfo.update(self.late)
        return [{"name": name} for name in self.names]

    def get_cat_ids(self, idx: int) -> list[int]:
        return list(self.categories[idx])


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        yield 1


LISTED = {"_target_": "tests.data.test_wrappers.Listed", "names": "xy"}


def names(dataset: Any) -> str:
    return "".join(sample["name"] for sample in dataset)


# -------------------------------------------------------------------------------- concat


def test_datasets_come_one_after_another() -> None:
    dataset = ConcatDataset([Listed("ab"), Listed(""), Listed("c"), LISTED])
    assert (len(dataset), names(dataset)) == (5, "abcxy")
    assert [dataset[index]["name"] for index in (-1, -5)] == ["y", "a"]
    assert dataset.get_data_info(2) == {"name": "c", "sample_idx": 0}


def test_datasets_may_have_names_and_null_removes_one() -> None:
    assert names(ConcatDataset({"one": Listed("ab"), "two": None, "three": LISTED})) == "abxy"


def test_metainfo_is_the_firsts_and_a_copy() -> None:
    dataset = ConcatDataset([Listed(metainfo={"a": [1]}), Listed(metainfo={"a": [1]})])
    dataset.metainfo["a"].append(2)
    assert dataset.metainfo == {"a": [1]}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": 2, "b": 1}, r"metainfo\.a is 1 in the dataset 'x', and 2 in 'y'"),
        ({"a": 1.0, "b": 1}, r"metainfo\.a is 1 in the dataset 'x', and 1\.0 in 'y'"),
        ({"a": 1}, r"The dataset 'x' has metainfo\.b, and the dataset 'y' has not\."),
        ({"a": 1, "b": 1, "c": 1}, r"The dataset 'y' has metainfo\.c, and the dataset 'x' has not"),
    ],
)
def test_metainfo_must_agree(second: Any, message: str) -> None:
    datasets = {"x": Listed(metainfo={"a": 1, "b": 1}), "y": Listed(metainfo=second)}
    with pytest.raises(ConfigError, match=f"{message}.*ignore_keys"):
        ConcatDataset(datasets)
    assert len(ConcatDataset(datasets, ignore_keys=["a", "b", "c"])) == 6


def test_arrays_in_metainfo_are_compared_whole() -> None:
    datasets = [Listed(metainfo={"a": np.arange(n)}) for n in (3, 3, 2)]
    assert len(ConcatDataset(datasets[:2])) == 6
    with pytest.raises(ConfigError, match=r"metainfo\.a"):
        ConcatDataset(datasets)
    assert len(ConcatDataset(datasets, ignore_keys="a")) == 9


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ([], "has no datasets"),
        ("abc", "datasets is 'abc'; expected a list"),
        (3, "datasets is 3; expected a list"),
        ([Stream()], r"datasets\.0 is a Stream; expected a dataset with a length"),
        ({"x": {"names": "a"}}, r"datasets\.x has no _target_"),
        ([object()], r"datasets\.0 is a object"),
    ],
)
def test_what_is_no_dataset_is_refused(datasets: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConcatDataset(datasets)


def test_other_datasets_can_be_wrapped_too_on_purpose() -> None:
    """MMEngine takes only its own BaseDataset as an object, though any as a config."""
    assert len(ConcatDataset([Digits("val"), Digits("test")])) == 538
    assert RepeatDataset(ConcatDataset([Listed("ab")]), 2)[3]["name"] == "b"
    assert RepeatDataset(Digits("val"), 2).metainfo["dataset"] == "UCI digits"


# -------------------------------------------------------------------------------- repeat


def test_a_dataset_is_repeated_whole() -> None:
    dataset = RepeatDataset(LISTED, times=3)  # type: ignore[arg-type]
    assert (len(dataset), names(dataset)) == (6, "xyxyxy")
    assert dataset.get_data_info(3) == {"name": "y", "sample_idx": 1}


@pytest.mark.parametrize("index", [6, -7])
def test_repeating_ends_on_purpose(index: int) -> None:
    """MMEngine's has a sample at every index, so that iterating over it never ends."""
    with pytest.raises(IndexError, match="of 6 samples"):
        _ = RepeatDataset(Listed(), times=2)[index]


@pytest.mark.parametrize("times", [0, -1, 1.5, True])
def test_a_number_of_times_that_is_none_is_refused(times: Any) -> None:
    with pytest.raises(ConfigError, match="expected a whole number of at least 1"):
        RepeatDataset(Listed(), times)


# ----------------------------------------------------------------------- class balanced


def test_samples_of_rare_categories_come_more_often() -> None:
    # f(0) = 4/5: factor 1. f(1) = 1/5: sqrt(0.5 / 0.2) = 1.58, so twice. None: once.
    dataset = ClassBalancedDataset(Listed("abcde", [[0], [0, 0], [0], [1, 0], []]), 0.5)
    assert names(dataset) == "abcdde"
    assert dataset.get_cat_ids(4) == [1, 0]
    assert dataset.get_data_info(5) == {"name": "e", "sample_idx": 4}


@given(
    categories=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=12),
    threshold=st.floats(0.01, 1.0),
)
def test_every_sample_comes_as_often_as_the_paper_says(
    categories: list[list[int]], threshold: float
) -> None:
    size = len(categories)
    dataset = ClassBalancedDataset(Listed(range(size), categories), threshold)
    expected = []
    for index, those in enumerate(categories):
        shares = [sum(c in other for other in categories) / size for c in those]
        factor = max([1.0, *(math.sqrt(threshold / share) for share in shares)])
        expected += [index] * math.ceil(factor)
    assert [sample["name"] for sample in dataset] == expected


@pytest.mark.parametrize("threshold", [0, -0.1, 1.5, True, "0.5", float("nan")])
def test_a_threshold_that_is_no_share_is_refused(threshold: Any) -> None:
    with pytest.raises(ConfigError, match="expected a share of samples"):
        ClassBalancedDataset(Listed(), threshold)


def test_balancing_needs_categories(tmp_path: Any) -> None:
    (tmp_path / "a.json").write_text('{"metainfo": {}, "data_list": [{"x": 1}]}')
    plain = BaseDataset(str(tmp_path / "a.json"), data_prefix={})
    with pytest.raises(ConfigError, match=r"BaseDataset does not tell .* Override get_cat_ids"):
        ClassBalancedDataset(plain, 0.1)
    with pytest.raises(ConfigError, match=r"Digits has no get_cat_ids\(idx\)"):
        ClassBalancedDataset(Digits("val"), 0.1)


def test_several_datasets_can_be_balanced_together_on_purpose() -> None:
    """MMEngine's ConcatDataset does not tell categories."""
    both = ConcatDataset([Listed("abc", [[0], [0], [0]]), Listed("d", [[1]])])
    assert names(ClassBalancedDataset(both, 1.0)) == "aabbccdd"
    assert names(ClassBalancedDataset(RepeatDataset(both, 1), 0.5)) == "abcdd"


# --------------------------------------------------------------------------- all of them

WRAPPED = [
    lambda dataset, **options: ConcatDataset([dataset], **options),
    lambda dataset, **options: RepeatDataset(dataset, 2, **options),
    lambda dataset, **options: ClassBalancedDataset(dataset, 0.1, **options),
]


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_lazy_wrapper_reads_nothing_before_it_is_needed(wrap: Any) -> None:
    inner = Listed("abc", [[0]] * 3, lazy_init=True)
    dataset = wrap(inner, lazy_init=True)
    assert not inner._fully_initialized
    assert len(dataset) in (3, 6)
    assert inner._fully_initialized
    assert wrap(Listed("abc", [[0]] * 3, lazy_init=True))._fully_initialized


@pytest.mark.parametrize("wrap", WRAPPED)
def test_metainfo_that_the_file_adds_later_is_seen_on_purpose(wrap: Any) -> None:
    """MMEngine keeps what there was when the wrapper was made."""
    dataset = wrap(Listed("abc", [[0]] * 3, lazy_init=True, late={"classes": ["x"]}))
    assert dataset.metainfo == {"classes": ["x"]}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrappers_have_no_subsets(wrap: Any) -> None:
    dataset = wrap(Listed("abc", [[0]] * 3))
    for method in (dataset.get_subset, dataset.get_subset_):
        with pytest.raises(NotImplementedError, match=r"has no subsets.*by indices="):
            method([0])


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrappers_survive_pickling(wrap: Any) -> None:
    dataset = wrap(Listed("abc", [[0]] * 3))
    assert names(pickle.loads(pickle.dumps(dataset))) == names(dataset)
