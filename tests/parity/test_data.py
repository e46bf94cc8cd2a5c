"""Datasets, wrappers, transforms and batches beside MMEngine's."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainkit.data import (
    BaseDataset,
    ClassBalancedDataset,
    Compose,
    ConcatDataset,
    RepeatDataset,
)
from trainkit.dataloader import default_collate, pseudo_collate
from trainkit.errors import ConfigError
from trainkit.runner.data import build_dataloader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.dataset as theirs
    import mmengine.runner
    from mmengine.structures import BaseDataElement

pytestmark = pytest.mark.filterwarnings("ignore")
SAMPLES = 7
METAINFO = {"classes": ["cat", "dog"], "task": "file", "note": 3}


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """MMEngine's datasets collect garbage when they are made: of these tests, not of all before."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with annotations and a file of classes."""
    directory = tmp_path_factory.mktemp("data")
    data_list = [
        {"img_path": f"{n}.jpg", "seg": f"s/{n}.png", "cats": [n % 3, n % 2], "n": n}
        for n in range(SAMPLES)
    ]
    content = {"metainfo": METAINFO, "data_list": data_list}
    (directory / "ann.json").write_text(json.dumps(content))
    (directory / "classes.txt").write_text("one\ntwo \n\nthree\n")
    return directory


def drop_thirds(data: dict[str, Any]) -> dict[str, Any] | None:
    return None if data["n"] % 3 == 0 else data


def make(base: Any, **arguments: Any) -> Any:
    """A dataset of the same subclass of either."""

    class Filtered(base):  # type: ignore[misc]
        METAINFO = {"task": "class", "palette": [[1, 2]]}  # noqa: RUF012 - as one writes it

        def filter_data(self) -> Any:
            least = (self.filter_cfg or {}).get("least", 0)
            return [info for info in self.data_list if info["n"] >= least]

        def get_cat_ids(self, idx: int) -> Any:
            return self.get_data_info(idx)["cats"]

    return Filtered(**arguments)


def both(root: Path, **arguments: Any) -> tuple[Any, Any]:
    arguments = {"ann_file": "ann.json", "data_root": str(root), **arguments}
    return make(BaseDataset, **copy.deepcopy(arguments)), make(theirs.BaseDataset, **arguments)


def infos(dataset: Any) -> list[Any]:
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def assert_same(ours: Any, others: Any) -> None:
    assert len(ours) == len(others)
    assert infos(ours) == infos(others)
    assert ours.metainfo == others.metainfo


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    indices=st.none()
    | st.integers(1, SAMPLES)
    | st.integers(-SAMPLES, -1)
    | st.lists(st.integers(-3, 2), min_size=1, max_size=4)
    | st.just((1, 0)),
    least=st.integers(0, 3),
    serialize=st.booleans(),
    lazy=st.booleans(),
    prefix=st.sampled_from([{}, {"img_path": ""}, {"img_path": "a/b", "seg": "/abs"}]),
    metainfo=st.sampled_from([None, {}, {"task": "argument", "more": {"a": 1}}]),
)
def test_annotations_are_the_same(root: Path, indices: Any, least: int, **options: Any) -> None:
    ours, others = both(
        root,
        indices=indices,
        filter_cfg={"least": least},
        serialize_data=options["serialize"],
        lazy_init=options["lazy"],
        data_prefix=options["prefix"],
        metainfo=options["metainfo"],
    )
    assert_same(ours, others)
    assert (ours.ann_file, ours.data_prefix) == (others.ann_file, others.data_prefix)


def test_arguments_have_mmengines_names_order_and_defaults() -> None:
    pairs: list[tuple[Any, Any]] = [
        (BaseDataset, theirs.BaseDataset),
        (ConcatDataset, theirs.ConcatDataset),
        (RepeatDataset, theirs.RepeatDataset),
        (ClassBalancedDataset, theirs.ClassBalancedDataset),
    ]
    for ours, others in pairs:
        mine, other = inspect.signature(ours).parameters, inspect.signature(others).parameters
        assert list(mine) == list(other)
        for name, parameter in mine.items():
            expected = other[name].default
            assert parameter.default == (() if expected == [] else expected), name


def test_a_file_of_classes_is_read_the_same(root: Path) -> None:
    metainfo = {"classes": str(root / "classes.txt"), "name": "no file"}
    ours, others = both(root, metainfo=metainfo)
    assert ours.metainfo == others.metainfo
    assert ours.metainfo["classes"] == ["one", "two ", "", "three"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    # MMEngine asserts that a whole number is below the length, and fails at minus the length.
    indices=st.integers(1 - SAMPLES, SAMPLES - 1)
    | st.lists(st.integers(1 - SAMPLES, SAMPLES - 1), max_size=9),
    serialize=st.booleans(),
)
def test_subsets_are_the_same(root: Path, indices: Any, serialize: bool) -> None:
    ours, others = both(root, serialize_data=serialize)
    assert_same(ours.get_subset(indices), others.get_subset(indices))
    assert_same(ours, others)
    ours.get_subset_(indices)
    others.get_subset_(indices)
    assert_same(ours, others)


def test_a_subset_may_be_the_whole_and_the_first_sample_has_a_negative_index_on_purpose(
    root: Path,
) -> None:
    """MMEngine fails at both, where annotations are serialized."""
    ours, others = both(root)
    with pytest.raises(AssertionError):
        others.get_subset(SAMPLES)
    with pytest.raises(IndexError):
        others.get_data_info(-SAMPLES)
    assert len(ours.get_subset(SAMPLES)) == len(ours.get_subset(-SAMPLES)) == SAMPLES
    assert ours.get_data_info(-SAMPLES)["n"] == 0


def test_a_dataset_may_be_empty_on_purpose(root: Path) -> None:
    """MMEngine fails to put nothing together; whoever samples it says that it is empty."""
    with pytest.raises(ValueError, match="need at least one array"):
        both(root, filter_cfg={"least": SAMPLES})
    ours = make(
        BaseDataset, ann_file="ann.json", data_root=str(root), filter_cfg={"least": SAMPLES}
    )
    assert len(ours) == 0


def test_the_same_samples_take_the_place_of_dropped_ones(root: Path) -> None:
    state = np.random.get_state()
    try:
        drawn = []
        for dataset in both(root, pipeline=[drop_thirds]):
            np.random.seed(3)
            drawn.append([dataset[index]["n"] for index in [0, 3, 6, 1] * 5])
        assert drawn[0] == drawn[1]
    finally:
        np.random.set_state(state)


def test_dropped_samples_are_errors_in_both(root: Path) -> None:
    for options in ({"test_mode": True}, {"max_refetch": 3, "indices": [0, 3]}):
        for dataset in both(root, pipeline=[drop_thirds], **options):
            with pytest.raises(Exception, match=r"None|dropped|valid"):
                _ = dataset[0]


def test_bytes_that_workers_share_are_no_objects_in_both(root: Path) -> None:
    ours, others = both(root)
    assert ours.data_list == others.data_list == []


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("batches", "batch_size"), [(1, 2), (2, 2), (3, 2), (1, 7)])
def test_a_number_of_batches_per_epoch_takes_the_same_samples(
    root: Path, batches: int, batch_size: int, shuffle: bool
) -> None:
    ours, others = both(root)
    options = {"batch_size": batch_size, "num_batch_per_epoch": batches}
    sampler = {"_target_": "trainkit.dataloader.DefaultSampler", "shuffle": shuffle}
    loader = build_dataloader(
        {"dataset": ours, "sampler": sampler, **options}, "loader", seed=4, training=True
    )
    their_sampler = {"type": "DefaultSampler", "shuffle": shuffle}
    their_loader = mmengine.runner.Runner.build_dataloader(
        {"dataset": others, "sampler": their_sampler, "num_workers": 0, **options}, seed=4
    )
    assert [batch["n"] for batch in loader] == [batch["n"] for batch in their_loader]
    assert len(loader) == len(their_loader) == batches


def test_more_batches_per_epoch_than_there_are_mean_all_on_purpose(root: Path) -> None:
    """MMEngine's loader then asks for samples that there are not."""
    node = {"dataset": both(root)[0], "batch_size": 2, "num_batch_per_epoch": 100}
    loader = build_dataloader(node, "loader", seed=4, training=False)
    assert [batch["n"] for batch in loader] == [[0, 1], [2, 3], [4, 5], [6]]


# ------------------------------------------------------------------------------- wrappers


@given(sizes=st.lists(st.integers(1, SAMPLES), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_concatenated_samples_are_the_same(root: Path, sizes: list[int]) -> None:
    pairs = [both(root, indices=size) for size in sizes]
    ours = ConcatDataset([mine for mine, _ in pairs])
    others = theirs.ConcatDataset([other for _, other in pairs])
    assert_same(ours, others)
    assert [ours[-n] for n in range(1, len(ours))] == [others[-n] for n in range(1, len(ours))]


@pytest.mark.parametrize("key", ["task", "note", "extra"])
@pytest.mark.parametrize("value", [3, 4, "x", 3.0])
@pytest.mark.parametrize("ignore", [None, "task", ["task", "note", "extra"]])
def test_the_same_metainfo_is_refused(root: Path, key: str, value: Any, ignore: Any) -> None:
    pairs = [both(root, metainfo={"note": 3}), both(root, metainfo={"note": 3, key: value})]

    def refused(wrap: Any, datasets: list[Any]) -> bool:
        try:
            wrap(datasets, ignore_keys=ignore)
        except (ValueError, TypeError):
            return True
        return False

    ours = refused(ConcatDataset, [mine for mine, _ in pairs])
    assert ours == refused(theirs.ConcatDataset, [other for _, other in pairs])


@pytest.mark.parametrize("times", [1, 3])
def test_repeated_samples_are_the_same(root: Path, times: int) -> None:
    ours, others = both(root)
    assert_same(RepeatDataset(ours, times), theirs.RepeatDataset(others, times))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(threshold=st.floats(1e-3, 1.0), indices=st.lists(st.integers(0, 6), min_size=1))
def test_balanced_samples_are_the_same(root: Path, threshold: float, indices: list[int]) -> None:
    ours, others = both(root, indices=indices)
    mine = ClassBalancedDataset(ours, threshold)
    other = theirs.ClassBalancedDataset(others, threshold)
    assert mine.repeat_indices == other.repeat_indices
    assert_same(mine, other)
    assert [mine.get_cat_ids(n) for n in range(len(mine))] == [
        other.get_cat_ids(n) for n in range(len(other))
    ]


def test_wrappers_refuse_subsets_in_both(root: Path) -> None:
    ours, others = both(root)
    for wrapped in (RepeatDataset(ours, 1), theirs.RepeatDataset(others, 1)):
        with pytest.raises(NotImplementedError):
            wrapped.get_subset([0])


# ----------------------------------------------------------------------------- transforms


def test_transforms_are_composed_the_same() -> None:
    def add(data: int) -> int:
        return data + 1

    def double(data: int) -> int:
        return data * 2

    for transforms in ([], [add, double], [double, add], [add, lambda data: None, double]):
        assert Compose(transforms)(3) == theirs.base_dataset.Compose(transforms)(3)


def test_a_name_as_a_transform_is_refused_in_both() -> None:
    with pytest.raises(TypeError):
        theirs.base_dataset.Compose(["Flip"])
    with pytest.raises(ConfigError):
        Compose(["Flip"])


# -------------------------------------------------------------------------------- collate


class Point(NamedTuple):
    """A named tuple keeps its class."""

    x: Any
    y: Any


def plain(value: Any) -> Any:
    """Turn a batch into what ``==`` compares, with the kinds of its parts kept."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return (type(value).__name__, str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Point):
        return ("Point", plain(value.x), plain(value.y))
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


_LEAVES = ["int", "float", "bool", "str", "bytes", "tensor", "array", "scalar", "element", "nan"]
_SHAPES = st.recursive(
    st.sampled_from(_LEAVES),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from("abc"), inner, min_size=1)
        | st.builds(lambda a: OrderedDict(z=a, y=a), inner)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=8,
)
_ELEMENTS = [BaseDataElement(metainfo={"n": n}) for n in range(5)]


def _sample(shape: Any, n: int) -> Any:
    if isinstance(shape, str):
        leaves: dict[str, Any] = {
            "int": n,
            "float": n / 2,
            "bool": n % 2 == 0,
            "str": f"{n}",
            "bytes": bytes([n]),
            "tensor": torch.full((2, 1), n, dtype=torch.int32),
            "array": np.full((2,), n, dtype=np.float32),
            "scalar": np.float64(n),
            "element": _ELEMENTS[n],
            "nan": torch.tensor(n > 2),
        }
        return leaves[shape]
    if isinstance(shape, dict):
        return type(shape)((key, _sample(item, n)) for key, item in shape.items())
    if isinstance(shape, Point):
        return Point(_sample(shape.x, n), _sample(shape.y, n))
    return type(shape)(_sample(item, n) for item in shape)


@pytest.mark.parametrize("name", ["pseudo_collate", "default_collate"])
@given(shape=_SHAPES, size=st.integers(1, 5))
def test_batches_are_the_same(name: str, shape: Any, size: int) -> None:
    ours = {"pseudo_collate": pseudo_collate, "default_collate": default_collate}[name]
    samples = [_sample(shape, n) for n in range(size)]
    before = pickle.dumps(plain(samples))
    assert plain(ours(samples)) == plain(getattr(theirs, name)(samples))
    assert pickle.dumps(plain(samples)) == before


@pytest.mark.parametrize("name", ["pseudo_collate", "default_collate"])
def test_samples_of_unequal_length_are_refused_in_both(name: str) -> None:
    ours = {"pseudo_collate": pseudo_collate, "default_collate": default_collate}[name]
    with pytest.raises(RuntimeError):
        getattr(theirs, name)([[1, 2], [1]])
    with pytest.raises(ValueError, match="expected one length"):
        ours([[1, 2], [1]])
