"""What a checkpoint holds loads back, or is refused when it is saved."""

from __future__ import annotations

import collections
import enum
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.checkpoint.helpers import contents, write
from trainkit.checkpoint import (
    check_plain,
    compact,
    non_finite,
    read_checkpoint,
    write_checkpoint,
)
from trainkit.errors import CheckpointError

_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(min_size=1, max_size=5)
)


_plain = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(_plain)
def test_plain_data_comes_back_equal(value: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = write_checkpoint(Path(directory) / "epoch_1", {"model.pt": {"value": value}}, {})
        assert read_checkpoint(path)["state_dict"] == {"value": value}


class Tagged(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "value",
    [
        nn.Parameter(torch.ones(2)),
        torch.ones(2, dtype=torch.bfloat16),
        torch.Size([2, 3]),
        torch.float16,
        torch.device("cpu"),
        collections.Counter("aab"),
        collections.defaultdict(int, a=1),
        collections.ChainMap({"a": 1}),
        types.MappingProxyType({"a": 1}),
        2**3000,
        b"",
        torch.ones(2).as_subclass(Tagged),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_saved_can_be_loaded_or_is_refused_at_once(tmp_path: Path, value: Any) -> None:
    refusal = ""
    try:
        write_checkpoint(tmp_path / "epoch_1", {"model.pt": {"value": value}}, {})
    except CheckpointError as error:
        refusal = str(error)
    if refusal:
        assert "model.value" in refusal
        assert not any(tmp_path.iterdir())
    else:
        read = read_checkpoint(tmp_path / "epoch_1")["state_dict"]["value"]
        assert torch.equal(read, value) if isinstance(value, torch.Tensor) else read == value


def test_a_state_that_could_not_be_loaded_back_writes_nothing(tmp_path: Path) -> None:
    before = contents(write(tmp_path / "epoch_1").parent)
    with pytest.raises(CheckpointError, match=r"state\.lr"):
        write_checkpoint(tmp_path / "epoch_1", {"state.pt": {"lr": np.float64(1)}}, {"iter": 2})
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (np.float64(1), "state.value"),
        (Path("x"), "state.value"),
        ([1, {"deep": (None, np.ones(1))}], r"state.value\[1\].deep\[1\]"),
        ({"a.b": {3: object()}}, "state.value.a.b.3"),
        ({np.int64(3): 1}, r"state.value \(a key\)"),
        ({1, Path("x")}, r"state.value\["),
    ],
)
def test_what_is_not_plain_is_named_by_its_key_path(value: Any, path: str) -> None:
    with pytest.raises(CheckpointError, match=rf"The checkpoint's {path}.* is a "):
        check_plain({"ok": 1, "value": value}, "state")


Pair = collections.namedtuple("Pair", "a b")


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.float64(1), "say float(x)"),
        (np.float32(1), "say float(x)"),
        (np.int64(1), "say int(x)"),
        (np.bool_(True), "say x.item()"),
        (np.ones(2), "say torch.as_tensor(x)"),
        (Path("x"), "say str(x)"),
        (Level.HIGH, "say int(x)"),
        (Pair(1, 2), "say list(x)"),
        (frozenset({1}), "say list(x)"),
        (collections.deque([1]), "say list(x)"),
        (collections.defaultdict(int), "say dict(x)"),
        (torch.ones(2).as_subclass(Tagged), "say x.as_subclass(torch.Tensor)"),
        (nn.LazyLinear(2).weight, "run the model once before it is saved"),
        (object(), "convert it"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_says_what_to_write_instead(value: Any, words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_plain({"best": [value]}, "state.hooks")
    assert str(caught.value).startswith("The checkpoint's state.hooks.best[0] is a ")
    assert words in str(caught.value)


def test_a_tensor_without_values_is_refused() -> None:
    with pytest.raises(CheckpointError) as caught:
        check_plain({"w": torch.ones(3, device="meta")}, "model")
    assert str(caught.value) == (
        "The checkpoint's model.w is a tensor on the meta device, which has no values to save. "
        "Load or initialise the model before it is saved."
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_layout_that_cannot_be_written_is_refused() -> None:
    nested = torch.nested.as_nested_tensor([torch.ones(2)], layout=torch.strided)
    with pytest.raises(CheckpointError, match=r"model\.w is a tensor of a layout .* nested"):
        check_plain({"w": nested}, "model")


def test_an_attribute_of_a_tensor_is_looked_at_too() -> None:
    tensor = torch.ones(2)
    tensor.origin = Path("x")  # type: ignore[attr-defined]  # torch saves it with the tensor
    with pytest.raises(CheckpointError, match=r"model\.w\.origin is a pathlib"):
        check_plain({"w": tensor}, "model")


def test_what_contains_itself_is_refused_and_named() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(CheckpointError, match=r"'s state\.mine\[0\]\.again.* or contains"):
        check_plain({"fine": 1, "mine": loop}, "state")


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(3, dtype=torch.bfloat16),
        lambda: torch.ones(3).to(torch.float8_e4m3fn),
        lambda: torch.ones(3, dtype=torch.complex64).conj(),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.quint8),
        lambda: torch.empty(0, 2),
        lambda: torch.ones(1).expand(1000),
        lambda: torch.ones(2).to(torch.uint16),
        lambda: nn.Buffer(torch.ones(2)),
    ],
)
def test_every_kind_of_tensor_comes_back(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    path = write_checkpoint(tmp_path / "epoch_1", {"model.pt": {"w": make()}}, {})
    read, expected = read_checkpoint(path)["state_dict"]["w"], make()
    assert (read.dtype, read.shape, read.layout) == (
        expected.dtype,
        expected.shape,
        expected.layout,
    )
    values = [t.int_repr() if t.is_quantized else t.to_dense() for t in (read, expected)]
    one, other = (t.to(torch.complex64) if t.is_complex() else t.float() for t in values)
    assert torch.equal(one, other)


def test_a_view_of_a_large_tensor_does_not_bring_the_whole(tmp_path: Path) -> None:
    table = torch.zeros(1000, 1000)
    row = table[3]
    state = {"row": row, "again": row, "other": table[5, :10], "plain": torch.ones(4)}
    path = write_checkpoint(tmp_path / "epoch_1", {"model.pt": state}, {})
    assert (path / "model.pt").stat().st_size < 10_000
    read = read_checkpoint(path)["state_dict"]
    assert all(torch.equal(read[key], state[key]) for key in state)
    assert read["row"].data_ptr() == read["again"].data_ptr()


def test_memory_that_is_shared_is_written_once(tmp_path: Path) -> None:
    flat = torch.arange(100_000.0)
    tied = nn.Parameter(torch.ones(50_000))
    state = {"a": flat[:50_000], "b": flat[50_000:], "in": tied, "out": tied}
    assert compact(state) is state, "nothing to save, so nothing is copied"
    path = write_checkpoint(tmp_path / "epoch_1", {"model.pt": state}, {})
    assert (path / "model.pt").stat().st_size < 4 * 155_000
    read = read_checkpoint(path)["state_dict"]
    assert read["in"].data_ptr() == read["out"].data_ptr()
    assert torch.equal(read["b"], state["b"])


def test_tied_weights_are_tied_in_a_model_that_loads_them(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2, bias=False)
            self.two = nn.Linear(2, 2, bias=False)
            self.two.weight = self.one.weight

    model, other = Tied(), Tied()
    path = write_checkpoint(tmp_path / "epoch_1", {"model.pt": model.state_dict()}, {})
    other.load_state_dict(read_checkpoint(path)["state_dict"])
    assert other.two.weight is other.one.weight
    assert torch.equal(other.one.weight, model.one.weight)


def test_weights_that_are_not_finite_are_named() -> None:
    inf, nan = float("inf"), float("nan")
    weights = {
        "fine": torch.ones(3),
        "nan": torch.tensor([1.0, nan]),
        "inf": torch.tensor([[1.0], [-inf]]),
        "mask": torch.tensor([0.0, -inf]),
        "bad_mask": torch.tensor([0.0, nan]),
        "count": torch.tensor(3),
        "half": torch.tensor([inf], dtype=torch.bfloat16),
        "fp8": torch.tensor([nan]).to(torch.float8_e4m3fn),
        "complex": torch.tensor([complex(0, nan)]),
        "sparse": torch.tensor([[0.0, nan]]).to_sparse(),
        "empty": torch.empty(0),
        "extra": {"state": 1},
    }
    found = non_finite(weights, may_be_infinite={"mask", "bad_mask"})
    assert found == ["nan", "inf", "bad_mask", "half", "fp8", "complex", "sparse"]
