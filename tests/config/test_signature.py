"""Signatures as schemas: which values fit a type, and what a message calls it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional, TypedDict, TypeVar, Union

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import NotRequired, Required, Unpack

from trainkit.config.signature import REQUIRED, describe, fits, schema_of, with_article

T = TypeVar("T")
NODE = {"_target_": "torch.nn.ReLU"}

# (type, what a message calls it, values that fit, values that do not)
TYPES: list[tuple[Any, str, list[Any], list[Any]]] = [
    (int, "a whole number", [0, -3], [1.5, True, "1", None, [1]]),
    (float, "a number", [0.5, 3], [True, "1e-3", None]),
    (bool, "true or false", [True, False], [0, 1, "yes", None]),
    (str, "a text", ["", "a"], [3, True, None, ["a"]]),
    (None, "null", [None], [0, "", False]),
    (int | None, "a whole number or null", [3, None], ["3", 1.5]),
    (Optional[bool], "true, false or null", [True, None], [0]),  # noqa: UP045 - the old spelling
    (bool | str, "true, false or a text", [True, "x"], [3]),
    (Union[int, float], "a number", [1, 1.5], ["x"]),  # noqa: UP007 - the old spelling
    (Literal["a", "b"], "'a' or 'b'", ["a"], ["c", None, 1]),
    (Literal[1], "1", [1], [True, "1"]),
    (list[int], "a list of whole numbers", [[1, 2], []], [3, ["a"], "12", {"a": 1}]),
    (list, "a list", [[1, "a"]], [3]),
    (Sequence[float], "a list of numbers", [[1, 0.5]], ["12", 3]),
    (Iterable[str], "a list of texts", [["a"]], [3]),
    (tuple[float, float], "a list of 2: a number, a number", [[0.9, 1]], [[0.9], [1, 2, 3], 0.9]),
    (tuple[int, ...], "a list of whole numbers", [[1], [1, 2, 3]], [["a"], 1]),
    (dict[str, int], "a mapping of names to whole numbers", [{"a": 1}], [{"a": "x"}, [1], 1]),
    (Mapping[str, Any] | None, "a mapping or null", [{"a": [1]}, None], [1.0, "x"]),
    (Path, "a Path", ["data", Path("x")], [3, None]),
    (Callable[[int], int], "something to call: a mapping with _target_ and _partial_: true", [NODE],
     ["torch.relu", 3, None]),
    (torch.optim.Optimizer, "an Optimizer", [NODE], ["adam", 3, None]),
    (torch.device | str, "a text", ["cuda"], [None, [1]]),
    (Any, "anything", [None, 3, "x", [1]], []),
    (T, "~T", [None, 3, "x"], []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("hint", "words", "right", "wrong"), TYPES, ids=[str(row[0]) for row in TYPES]
)
def test_a_type_has_words_and_takes_what_it_says(
    hint: Any, words: str, right: list[Any], wrong: list[Any]
) -> None:
    assert describe(hint) == words
    assert [value for value in right if not fits(value, hint)] == []
    assert [value for value in wrong if fits(value, hint)] == []


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
HINTS = st.sampled_from([row[0] for row in TYPES])


@given(VALUES, HINTS)
def test_what_fits_a_type_fits_it_or_null(value: Any, hint: Any) -> None:
    assert fits(value, Optional[hint]) == (value is None or fits(value, hint))  # noqa: UP045 - None | None is none


@given(st.lists(VALUES))
def test_a_list_fits_if_each_entry_does(values: list[Any]) -> None:
    assert fits(values, list[int]) == all(fits(value, int) for value in values)


@given(VALUES, HINTS)
def test_nothing_makes_it_raise(value: Any, hint: Any) -> None:
    assert fits(value, hint) in (True, False)
    assert describe(hint)


@given(HINTS)
def test_a_node_stands_for_whatever_it_builds(hint: Any) -> None:
    assert hint is None or fits(NODE, hint)


class Options(TypedDict, total=False):
    depth: Required[int]
    width: int


class Needed(TypedDict):
    depth: int
    width: NotRequired[int]


def _open(size: int, *rest: int, **options: Any) -> None: ...


def _closed(size: int, /, first: int, *, name: str = "x") -> None: ...


def _unpacked(**options: Unpack[Options]) -> None: ...


def _needing(**options: Unpack[Needed]) -> None: ...


def _unreadable(thing: NoSuchName) -> None: ...  # type: ignore[name-defined] # noqa: F821 - it is tested


def test_a_schema_has_names_defaults_and_order() -> None:
    schema = schema_of(_closed)
    assert schema is not None
    assert (schema.name, schema.positional, schema.is_open) == ("_closed", ("size", "first"), False)
    assert schema.parameters["first"].default is REQUIRED
    assert (schema.parameters["name"].hint, schema.parameters["name"].default) == (str, "x")


def test_kwargs_take_any_name() -> None:
    schema = schema_of(_open)
    assert schema is not None
    assert schema.is_open
    assert [*schema.parameters] == ["size"]


@pytest.mark.parametrize("target", [_unpacked, _needing])
def test_a_typed_dict_gives_its_names(target: Callable[..., None]) -> None:
    schema = schema_of(target)
    assert schema is not None
    assert not schema.is_open
    assert schema.parameters["depth"].default is REQUIRED
    assert schema.parameters["width"].default is None


def test_what_cannot_be_read_takes_anything() -> None:
    schema = schema_of(_unreadable)
    assert schema is not None
    assert schema.parameters["thing"].hint is Any


def test_a_partial_has_defaults_for_what_it_gives() -> None:
    schema = schema_of(functools.partial(_closed, 1, first=2))
    assert schema is not None
    assert schema.parameters["first"].default == 2
    assert schema.parameters["name"].hint is str


def test_a_builtin_that_does_not_say_has_no_schema() -> None:
    assert schema_of(dict) is None


def test_nouns_have_their_article() -> None:
    assert (with_article("Optimizer"), with_article("int")) == ("an Optimizer", "an int")
    assert with_article("Path") == "a Path"
