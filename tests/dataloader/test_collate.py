"""Collate: batches hold what MMEngine's hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit.dataloader import default_collate, pseudo_collate


class Pair(NamedTuple):
    x: Any
    y: Any


def listed(value: Any) -> Any:
    """Turn tuples into lists, which is where MMEngine is of two minds, and tensors into data."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.tolist())
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    if isinstance(value, Pair):
        return ("Pair", listed(value.x), listed(value.y))
    return [listed(item) for item in value] if isinstance(value, list | tuple) else value


_shapes = st.recursive(
    st.sampled_from(["int", "float", "bool", "str", "bytes", "tensor", "array"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from("abc"), inner, min_size=1)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=6,
)


def sample(shape: Any, index: int) -> Any:
    leaves = {
        "int": index,
        "float": index + 0.5,
        "bool": index % 2 == 0,
        "str": f"name {index}",
        "bytes": bytes([index]),
        "tensor": torch.full((2,), index),
        "array": np.full((2,), index, dtype=np.float32),
    }
    if isinstance(shape, str):
        return leaves[shape]
    if isinstance(shape, dict):
        return {key: sample(item, index) for key, item in shape.items()}
    if isinstance(shape, Pair):
        return Pair(*(sample(item, index) for item in shape))
    return type(shape)(sample(item, index) for item in shape)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["pseudo_collate", "default_collate"])
@given(shape=_shapes, size=st.integers(1, 4))
def test_nested_samples_give_mmengines_batch(name: str, shape: Any, size: int) -> None:
    import mmengine.dataset as mmengine

    ours = {"pseudo_collate": pseudo_collate, "default_collate": default_collate}[name]
    samples = [sample(shape, index) for index in range(size)]
    assert listed(ours(samples)) == listed(getattr(mmengine, name)(samples))


def test_pseudo_collate_regroups_and_keeps_every_value() -> None:
    image = torch.ones(1)
    batch = pseudo_collate([{"x": image, "y": (1, "a")}, {"x": None, "y": (2, "b")}])
    assert batch == {"x": [image, None], "y": [[1, 2], ["a", "b"]]}
    assert batch["x"][0] is image


def test_default_collate_stacks_along_a_first_dimension() -> None:
    batch = default_collate([{"x": torch.ones(3, 2), "y": 1, "w": 0.5}] * 4)
    assert batch["x"].shape == (4, 3, 2)
    assert torch.equal(batch["y"], torch.ones(4, dtype=torch.int64))
    assert batch["w"].dtype == torch.float64


def test_default_collate_leaves_strings_and_objects_in_a_list() -> None:
    thing = object()
    assert default_collate([("a", thing, None)] * 2) == [["a"] * 2, [thing] * 2, [None] * 2]


def test_named_tuples_stay_named() -> None:
    assert pseudo_collate([Pair(1, 2), Pair(3, 4)]) == Pair([1, 3], [2, 4])


@pytest.mark.parametrize("collate", [pseudo_collate, default_collate])
def test_sequences_of_different_length_are_refused(collate: Any) -> None:
    with pytest.raises(ValueError, match=r"lengths \[1, 2\]; expected one length"):
        collate([{"boxes": [1, 2]}, {"boxes": [1]}])


def test_tensors_of_different_shape_are_refused_by_torch() -> None:
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        default_collate([torch.ones(2), torch.ones(3)])
