"""Compose: in order, by name, and who is to blame."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from omegaconf import OmegaConf

from trainkit.data import Compose
from trainkit.errors import ConfigError


class Add:
    """Adds ``number``."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, data: int) -> int:
        return data + self.number


def double(data: int, factor: int = 2) -> int:
    return data * factor


ADD = {"_target_": "tests.data.test_transform.Add", "number": 3}
DOUBLE = {"_target_": "tests.data.test_transform.double", "_partial_": True, "factor": 3}


def test_transforms_are_called_in_order() -> None:
    assert Compose([Add(1), double])(5) == 12
    assert Compose([double, Add(1)])(5) == 11


@pytest.mark.parametrize("empty", [None, [], {}, (), {"gone": None}])
def test_without_transforms_a_sample_stays_as_it_is(empty: Any) -> None:
    data = object()
    assert Compose(empty)(data) is data


def test_names_keep_their_order_and_null_removes_one() -> None:
    nodes = {"first": Add(1), "second": None, "third": double}
    assert Compose(nodes)(5) == 12


@pytest.mark.parametrize("wrap", [lambda nodes: nodes, OmegaConf.create])
@pytest.mark.parametrize("form", [list, lambda nodes: dict(zip("ab", nodes, strict=True))])
def test_transforms_are_made_from_configs(wrap: Any, form: Any) -> None:
    assert Compose(wrap(form([ADD, DOUBLE])))(1) == 12


def test_a_transform_that_gives_none_ends_it() -> None:
    after: list[int] = []
    compose = Compose({"filter": lambda data: None, "after": after.append})
    assert compose(1) is None
    assert not after
    assert compose.dropped_by == "'filter' (<lambda>)"


def test_false_and_zero_are_samples() -> None:
    assert Compose([lambda data: 0, lambda data: data == 0])(1) is True


def test_one_compose_may_hold_another() -> None:
    assert Compose([Compose([Add(1)]), double])(5) == 12


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
@pytest.mark.parametrize(
    ("data", "of"), [({"sample_idx": 7}, "sample 7"), ({}, "a sample"), (3, "a sample")]
)
def test_an_error_says_in_which_transform_and_sample(data: Any, of: str) -> None:
    def broken(data: Any) -> Any:
        raise KeyError("mask")

    with pytest.raises(KeyError) as caught:
        Compose({"load": lambda data: data, "crop": broken})(data)
    assert caught.value.__notes__ == [f"In the transform 'crop' (broken) of {of}."]


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ({"a": 3}, r"The transform 'a' is 3; expected something to call"),
        (["flip"], r"The transform 0 is 'flip'; expected"),
        ("flip", r"The transforms are 'flip'; expected a list of them, or a mapping"),
        (ADD, r"expected a list of them, or a mapping of names"),
        (double, r"The transforms are 'function'; expected a list"),
        ([{"type": "Flip"}], r"MMEngine's 'type: Flip' is '_target_: <full import path>' here"),
        ([{**ADD, "nubmer": 3}], r"Add has no argument 'nubmer'\. Did you mean 'number'\?"),
        ([{**DOUBLE, "facor": 3}], r"has no argument 'facor'\. Did you mean 'factor'\?"),
    ],
)
def test_what_cannot_be_called_is_refused_by_name(transforms: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Compose(transforms)


def test_it_shows_what_it_holds() -> None:
    assert repr(Compose([Add(1), DOUBLE])) == "Compose(0 (Add), 1 (double))"
