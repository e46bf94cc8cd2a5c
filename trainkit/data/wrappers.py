"""Datasets made of others: one after another, several times, rare classes more often."""

from __future__ import annotations

import bisect
import copy
import itertools
import math
import operator
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from trainkit.config.build import build, is_config, named
from trainkit.errors import ConfigError


class _Wrapper(Dataset[Any], ABC):
    """What the wrappers share: an index leads to a dataset and an index in it."""

    def __init__(self, first: Any, lazy_init: bool) -> None:
        self._first = first
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict[str, Any]:
        """A copy of the facts on the dataset within; of the first, if there are several."""
        return copy.deepcopy(_metainfo(self._first))  # of now: a file adds to it when it is read

    @abstractmethod
    def full_init(self) -> None:
        """Read the annotations of what is within; once."""

    @abstractmethod
    def _locate(self, index: int) -> tuple[Any, int]:
        """Return the dataset that holds the sample at ``index``, from 0, and the index there."""

    def _found(self, index: int) -> tuple[Any, int]:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"index {index} of {size} samples")
        return self._locate(operator.index(index) % size)

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples, repeated ones included."""

    def __getitem__(self, index: int) -> Any:
        dataset, inner = self._found(index)
        return dataset[inner]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return a copy of an annotation; its ``sample_idx`` is the one in the dataset within."""
        dataset, inner = self._found(idx)
        return _method(dataset, "get_data_info")(inner)  # type: ignore[no-any-return]

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the categories in a sample."""
        dataset, inner = self._found(idx)
        return _method(dataset, "get_cat_ids")(inner)  # type: ignore[no-any-return]

    def get_subset(self, indices: int | Sequence[int]) -> NoReturn:
        """Refuse: of which dataset is not said.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no subsets. Take one of the dataset within, by indices=..."
        )

    get_subset_ = get_subset


class ConcatDataset(_Wrapper):
    """Several datasets, one after another.

    Args:
        datasets: A list, or a mapping of names to datasets, of which a null one is left out. Each
            is a map-style dataset, or a config of one.
        lazy_init: Read annotations when they are first needed.
        ignore_keys: Keys of ``metainfo`` in which the datasets may differ.

    Raises:
        ConfigError: There is no dataset, or their ``metainfo`` differs.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset[Any]] | Mapping[str, Dataset[Any] | None],
        lazy_init: bool = False,
        ignore_keys: str | Sequence[str] | None = None,
    ) -> None:
        if isinstance(datasets, str) or not isinstance(datasets, Sequence | Mapping):
            raise ConfigError(f"datasets is {datasets!r}; expected a list of them, or a mapping.")
        self._named = {name: _dataset(node, f"datasets.{name}") for name, node in named(datasets)}
        self.datasets = list(self._named.values())
        if not self.datasets:
            raise ConfigError("ConcatDataset has no datasets. Give it at least one.")
        self.ignore_keys = [ignore_keys] if isinstance(ignore_keys, str) else [*(ignore_keys or ())]
        super().__init__(self.datasets[0], lazy_init)

    def full_init(self) -> None:
        """Read the annotations of each dataset, and compare their ``metainfo``; once.

        Raises:
            ConfigError: It differs.
        """
        if not self._fully_initialized:
            for dataset in self.datasets:
                _full_init(dataset)
            metainfos = {str(name): _metainfo(dataset) for name, dataset in self._named.items()}
            _check_equal(metainfos, self.ignore_keys)
            self._ends = list(itertools.accumulate(len(dataset) for dataset in self.datasets))
            self._fully_initialized = True

    def _locate(self, index: int) -> tuple[Any, int]:
        number = bisect.bisect_right(self._ends, index)
        begin = self._ends[number - 1] if number else 0
        return self.datasets[number], index - begin

    def __len__(self) -> int:
        self.full_init()
        return self._ends[-1]


class RepeatDataset(_Wrapper):
    """A dataset several times over, so that an epoch of few samples is a long one.

    Args:
        dataset: A map-style dataset, or a config of one.
        times: How often.
        lazy_init: Read annotations when they are first needed.
    """

    def __init__(self, dataset: Dataset[Any], times: int, lazy_init: bool = False) -> None:
        if type(times) is not int or times < 1:
            raise ConfigError(f"times is {times!r}; expected a whole number of at least 1.")
        self.dataset, self.times = _dataset(dataset, "dataset"), times
        super().__init__(self.dataset, lazy_init)

    def full_init(self) -> None:
        """Read the annotations of the dataset; once."""
        if not self._fully_initialized:
            _full_init(self.dataset)
            self._size = len(self.dataset)
            self._fully_initialized = True

    def _locate(self, index: int) -> tuple[Any, int]:
        return self.dataset, index % self._size

    def __len__(self) -> int:
        self.full_init()
        return self.times * self._size


class ClassBalancedDataset(_Wrapper):
    """A dataset in which samples of rare categories come several times.

    With ``f(c)`` the share of samples that have category ``c``, a category's factor is
    ``r(c) = max(1, sqrt(oversample_thr / f(c)))``. A sample comes ``ceil(r)`` times, with ``r`` the
    largest factor of its categories, or 1 if it has none. ("Repeat factor sampling", Gupta et al.,
    LVIS, arXiv:1908.03195, appendix B.1.)

    Args:
        dataset: A map-style dataset with ``get_cat_ids(idx)``, or a config of one.
        oversample_thr: The share of samples below which a category is repeated, in (0, 1].
        lazy_init: Read annotations when they are first needed.
    """

    def __init__(
        self, dataset: Dataset[Any], oversample_thr: float, lazy_init: bool = False
    ) -> None:
        number = isinstance(oversample_thr, int | float) and not isinstance(oversample_thr, bool)
        if not number or not 0 < oversample_thr <= 1:
            raise ConfigError(
                f"oversample_thr is {oversample_thr!r}; expected a share of samples, above 0 and "
                "at most 1."
            )
        self.dataset, self.oversample_thr = _dataset(dataset, "dataset"), oversample_thr
        super().__init__(self.dataset, lazy_init)

    def full_init(self) -> None:
        """Read the annotations of the dataset, and count its categories; once."""
        if not self._fully_initialized:
            _full_init(self.dataset)
            self.repeat_indices = [
                index
                for index, factor in enumerate(self._factors())
                for _ in range(math.ceil(factor))
            ]
            self._fully_initialized = True

    def _factors(self) -> list[float]:
        get_cat_ids, size = _method(self.dataset, "get_cat_ids"), len(self.dataset)
        categories = [set(get_cat_ids(index)) for index in range(size)]
        samples = Counter(itertools.chain.from_iterable(categories))
        factors = {
            category: max(1.0, math.sqrt(self.oversample_thr / (count / size)))
            for category, count in samples.items()
        }
        return [max((factors[c] for c in those), default=1.0) for those in categories]

    def _locate(self, index: int) -> tuple[Any, int]:
        return self.dataset, self.repeat_indices[index]

    def __len__(self) -> int:
        self.full_init()
        return len(self.repeat_indices)


def _dataset(node: Any, path: str) -> Any:
    """Return a dataset from itself or from its config."""
    dataset = build(node, path)
    indexed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not indexed or is_config(dataset) or isinstance(dataset, IterableDataset):
        raise ConfigError(
            f"{path} is a {type(dataset).__name__}; expected a dataset with a length, or a config "
            "of one."
        )
    return dataset


def _full_init(dataset: Any) -> None:
    if hasattr(dataset, "full_init"):
        dataset.full_init()


def _metainfo(dataset: Any) -> dict[str, Any]:
    return dict(getattr(dataset, "metainfo", None) or {})


def _method(dataset: Any, name: str) -> Any:
    if not hasattr(dataset, name):
        raise ConfigError(f"{type(dataset).__name__} has no {name}(idx), which is needed here.")
    return getattr(dataset, name)


def _check_equal(metainfos: Mapping[str, Mapping[str, Any]], ignore_keys: Sequence[str]) -> None:
    """Refuse datasets that do not say the same of themselves."""
    (first, expected), *others = metainfos.items()
    advice = "Mend one of them, or name the key in ignore_keys."
    for name, metainfo in others:
        for key in sorted((expected.keys() | metainfo.keys()) - set(ignore_keys), key=str):
            if key not in expected or key not in metainfo:
                has, lacks = (first, name) if key in expected else (name, first)
                raise ConfigError(
                    f"The dataset {has!r} has metainfo.{key}, and the dataset {lacks!r} has not. "
                    f"{advice}"
                )
            if not _are_equal(expected[key], metainfo[key]):
                raise ConfigError(
                    f"metainfo.{key} is {expected[key]!r} in the dataset {first!r}, and "
                    f"{metainfo[key]!r} in {name!r}. {advice}"
                )


def _are_equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)
