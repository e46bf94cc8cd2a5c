"""BaseDataset: annotations from a file, a pipeline that makes a sample of each."""

from __future__ import annotations

import copy
import logging
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset
from typing_extensions import Self

from trainkit.data.annotations import join_path, read_annotations
from trainkit.data.serialized import SerializedList
from trainkit.data.transform import Compose
from trainkit.errors import ConfigError

logger = logging.getLogger(__name__)


class BaseDataset(Dataset[Any]):
    """Samples from an annotation file: ``{"metainfo": {...}, "data_list": [{...}, ...]}``.

    A subclass overrides what differs: :meth:`load_data_list` for another format,
    :meth:`parse_data_info` for what an entry means, :meth:`filter_data`, :meth:`get_cat_ids`. One
    that leaves the constructor alone has its arguments checked before a run.

    Args:
        ann_file: The annotation file, JSON or YAML; below ``data_root`` if that is given.
        metainfo: Facts on the dataset, such as its classes. They win over the class's ``METAINFO``,
            and that over the file's. A text that is the name of a file stands for its lines.
        data_root: Where ``ann_file`` and the prefixes begin.
        data_prefix: Keys of an annotation that are paths, and the directory that each begins at.
        filter_cfg: Options for :meth:`filter_data`, which does nothing here.
        indices: Keep only some: the first n, the last n if negative (at most as many as there
            are), or the ones at these positions.
        serialize_data: Keep annotations as bytes that workers share, not as objects that each of
            them copies.
        pipeline: Transforms, as for :class:`Compose`. The first gets the annotation with its
            ``sample_idx``; one that returns None drops the sample.
        test_mode: A sample that is dropped is an error. Otherwise another one, drawn at random
            from NumPy's global generator, takes its place.
        lazy_init: Read the file when it is first needed.
        max_refetch: How often to draw another sample before giving up.
    """

    METAINFO: ClassVar[Mapping[str, Any]] = {}

    def __init__(  # noqa: PLR0913 - MMEngine's arguments
        self,
        ann_file: str | None = "",
        metainfo: Mapping[str, Any] | None = None,
        data_root: str | None = "",
        data_prefix: Mapping[str, str] = {"img_path": ""},
        filter_cfg: Mapping[str, Any] | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[Any] | Mapping[str, Any] | None = (),
        test_mode: bool = False,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        if type(max_refetch) is not int or max_refetch < 0:
            raise ConfigError(f"max_refetch is {max_refetch!r}; expected at least 0.")
        self.data_root = data_root
        self.ann_file = join_path(data_root, ann_file) if ann_file else ""
        self.data_prefix = _prefixes(data_root, data_prefix)
        self.filter_cfg = copy.deepcopy(filter_cfg)
        self.serialize_data, self.test_mode = serialize_data, test_mode
        self.max_refetch = max_refetch
        self.pipeline = pipeline if isinstance(pipeline, Compose) else Compose(pipeline)
        self.data_list: list[dict[str, Any]] = []  # empty again once it is serialized
        self._metainfo = self._load_metainfo(metainfo)
        self._indices = indices
        self._serialized: SerializedList | None = None
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict[str, Any]:
        """A copy of the facts on the dataset; the file's are in it once that is read."""
        return copy.deepcopy(self._metainfo)

    @classmethod
    def _load_metainfo(cls, metainfo: Mapping[str, Any] | None) -> dict[str, Any]:
        loaded = copy.deepcopy(dict(cls.METAINFO))
        if metainfo is not None and not isinstance(metainfo, Mapping):
            raise ConfigError(f"metainfo is {metainfo!r}; expected a mapping, or null.")
        for key, value in (metainfo or {}).items():
            loaded[key] = _lines(key, value) if isinstance(value, str) else copy.deepcopy(value)
        return loaded

    def full_init(self) -> None:
        """Read the annotations, filter them, keep ``indices``, serialize; once."""
        if self._fully_initialized:
            return
        self.data_list = self.load_data_list()
        self.data_list = self.filter_data()
        if self._indices is not None:
            self.data_list = _chosen(self.data_list, self._indices)
        if self.serialize_data:
            self._serialized, self.data_list = SerializedList(self.data_list), []
        self._fully_initialized = True

    def load_data_list(self) -> list[dict[str, Any]]:
        """Return the annotations: those of ``ann_file``, each through :meth:`parse_data_info`.

        Raises:
            ConfigError: The file cannot be read, or is of another form.
        """
        metainfo, raw = read_annotations(self.ann_file)
        for key, value in metainfo.items():
            self._metainfo.setdefault(key, value)
        data_list: list[dict[str, Any]] = []
        for number, raw_data_info in enumerate(raw):
            try:
                parsed = self.parse_data_info(raw_data_info)
            except ConfigError as error:
                where = f"data_list[{number}] of {self.ann_file!r}"
                raise ConfigError(f"{where}: {error}", key=error.key) from error
            entries = parsed if isinstance(parsed, list) else [parsed]
            for entry in entries:
                if not isinstance(entry, dict):
                    raise ConfigError(
                        f"{type(self).__name__}.parse_data_info gave a {type(entry).__name__} for "
                        f"data_list[{number}]; expected a dict, or a list of dicts."
                    )
            data_list += entries
        return data_list

    def parse_data_info(
        self, raw_data_info: dict[str, Any]
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Return what an entry of the file means, with its paths below their prefixes.

        An override may return a list, if an entry stands for several samples.

        Raises:
            ConfigError: An entry without a key that ``data_prefix`` names.
        """
        if not isinstance(raw_data_info, dict):
            raise ConfigError(f"expected a mapping, found a {type(raw_data_info).__name__}.")
        data_info = dict(raw_data_info)
        for key, prefix in self.data_prefix.items():
            if not isinstance(data_info.get(key), str):
                raise ConfigError(
                    f"expected a path under {key!r}, which data_prefix names; it has "
                    f"{', '.join(map(str, data_info)) or 'nothing'}. Set data_prefix to the keys "
                    "that are paths, or to {}."
                )
            data_info[key] = join_path(prefix, data_info[key])
        return data_info

    def filter_data(self) -> list[dict[str, Any]]:
        """Return those of ``self.data_list`` to keep; an override may read ``self.filter_cfg``."""
        return self.data_list

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return a copy of an annotation, with its place as ``sample_idx``."""
        self.full_init()
        if self._serialized is not None:
            data_info = self._serialized[idx]
        else:
            data_info = copy.deepcopy(self.data_list[idx])
        data_info["sample_idx"] = idx if idx >= 0 else len(self) + idx
        return data_info  # type: ignore[no-any-return]  # it was a dict when it was serialized

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the categories in a sample, for :class:`ClassBalancedDataset`.

        Raises:
            ConfigError: The class does not say.
        """
        raise ConfigError(
            f"{type(self).__name__} does not tell the categories of its samples. Override "
            "get_cat_ids(idx) to return a list of them."
        )

    def prepare_data(self, idx: int) -> Any:
        """Return a sample: its annotation through the pipeline; None if that drops it."""
        return self.pipeline(self.get_data_info(idx))

    def __getitem__(self, idx: int) -> Any:
        sample = self.prepare_data(idx)
        if sample is None and self.test_mode:
            raise ConfigError(
                f"Sample {idx} of {self._name} is dropped by {self._dropper}, but test_mode is "
                "true: every sample counts. Let no transform return None in a test."
            )
        for _ in range(self.max_refetch):
            if sample is not None:
                return sample
            sample = self.prepare_data(self._rand_another())
        if sample is None:
            raise ConfigError(
                f"Sample {idx} of {self._name}, and {self.max_refetch} others in its place, are "
                f"dropped; the last by {self._dropper}. Look at the paths of the data and at the "
                "pipeline."
            )
        return sample

    def _rand_another(self) -> int:
        # NumPy's global generator is seeded for each sample, so that the draw can be repeated.
        return int(np.random.randint(0, len(self)))

    @property
    def _name(self) -> str:
        return f"{type(self).__name__}({self.ann_file!r})"

    @property
    def _dropper(self) -> str:
        name = self.pipeline.dropped_by
        return f"the transform {name}" if name else "prepare_data()"

    def __len__(self) -> int:
        self.full_init()
        return len(self.data_list if self._serialized is None else self._serialized)

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep only some samples, as the argument ``indices`` does."""
        self.full_init()
        if self._serialized is not None:
            self._serialized = self._serialized.subset(_positions(indices, len(self)))
        else:
            self.data_list = _chosen(self.data_list, indices)

    def get_subset(self, indices: int | Sequence[int]) -> Self:
        """Return a dataset of its own with only some samples, as ``indices`` has them."""
        self.full_init()
        other = copy.copy(self)
        memo: dict[int, Any] = {id(self): other}
        kept = ("data_list", "_serialized")  # the subset copies what it needs of them
        state = {key: value for key, value in vars(self).items() if key not in kept}
        vars(other).update(copy.deepcopy(state, memo))
        other.get_subset_(indices)
        other.data_list = copy.deepcopy(other.data_list)
        return other


def _prefixes(data_root: str | None, data_prefix: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(data_prefix, Mapping):
        raise ConfigError(f"data_prefix is {data_prefix!r}; expected a mapping of keys to paths.")
    for key, prefix in data_prefix.items():
        if not isinstance(prefix, str):
            raise ConfigError(f"data_prefix.{key} is {prefix!r}; expected a text, which may be ''.")
    return {key: join_path(data_root, prefix) for key, prefix in data_prefix.items()}


def _lines(key: str, value: str) -> str | list[str]:
    """Return the lines of the file ``value``; the text itself where there is no such file."""
    if os.path.isfile(value):
        try:
            lines = Path(value).read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            raise ConfigError(f"metainfo.{key} names {value!r}, which is no text file.") from None
        logger.info("metainfo.%s: the lines of %s.", key, value)
        return [line.rstrip("\r") for line in (lines if lines[-1] else lines[:-1])]
    if value.endswith(".txt"):
        logger.warning("metainfo.%s is %r, which is no file; it is taken as a text.", key, value)
    return value


def _positions(indices: int | Iterable[int], size: int) -> list[int]:
    """Return the positions among ``size`` samples that ``indices`` mean.

    Raises:
        ConfigError: Neither a whole number nor a list of them, or a position that there is not.
    """
    given = indices
    try:
        if isinstance(given, bool | str):
            raise TypeError
        if not isinstance(given, Iterable):
            number = operator.index(given)
            return list(range(size)[:number] if number >= 0 else range(size)[number:])
        positions = [operator.index(position) for position in given]
    except TypeError:
        raise ConfigError(
            f"indices is {given!r}; expected a whole number, or a list of them."
        ) from None
    for position in positions:
        if not -size <= position < size:
            raise ConfigError(f"indices has {position}, but there are {size} samples.")
    return positions


def _chosen(items: Sequence[Any], indices: int | Iterable[int]) -> list[Any]:
    return [items[position] for position in _positions(indices, len(items))]
