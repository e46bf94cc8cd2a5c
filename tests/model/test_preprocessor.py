"""The preprocessor: every tensor of a batch goes to the model's device, the rest stays."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from trainkit.model import BaseDataPreprocessor


class Pair(NamedTuple):
    x: Any
    y: Any


def test_tensors_inside_any_container_are_moved() -> None:
    tensor = torch.ones(2)
    batch = {"a": [tensor, (tensor, "text")], "b": OrderedDict(c=Pair(tensor, None)), "d": 3}
    moved = BaseDataPreprocessor().to("meta")(batch)
    assert moved["a"][0].is_meta
    assert isinstance(moved["a"][1], tuple)
    assert moved["a"][1][0].is_meta
    assert moved["a"][1][1] == "text"
    assert type(moved["b"]["c"]) is Pair
    assert moved["b"]["c"].x.is_meta
    assert moved["b"]["c"].y is None
    assert moved["d"] == 3
    assert not tensor.is_meta


def test_a_batch_that_is_there_already_is_not_copied() -> None:
    tensor, thing = torch.ones(2), object()
    moved = BaseDataPreprocessor()([tensor, thing, "text", b"bytes"], training=True)
    assert moved[0] is tensor
    assert moved[1] is thing
    assert moved[2:] == ["text", b"bytes"]


def test_what_can_move_itself_is_moved() -> None:
    class Sample:
        def __init__(self) -> None:
            self.moved: list[Any] = []

        def to(self, *args: Any, **options: Any) -> Sample:
            self.moved.append((*args, options))
            return self

    sample, cpu = Sample(), torch.device("cpu")
    assert BaseDataPreprocessor()([sample])[0] is sample
    BaseDataPreprocessor(non_blocking=True)([sample])
    assert sample.moved == [(cpu, {}), (cpu, {"non_blocking": True})]
    packed = nn.utils.rnn.pack_sequence([torch.ones(2), torch.ones(1)])
    moved = BaseDataPreprocessor().to(torch.float64)([packed])[0]
    assert type(moved) is type(packed)
    assert BaseDataPreprocessor()([Sample])[0] is Sample


def test_it_follows_the_model_to_its_device() -> None:
    model = nn.ModuleDict({"data_preprocessor": BaseDataPreprocessor(), "head": nn.Linear(2, 1)})
    assert model["data_preprocessor"].device == torch.device("cpu")
    model.to("meta")
    assert model["data_preprocessor"].device == model["head"].weight.device == torch.device("meta")


def test_it_adds_nothing_to_a_state_dict() -> None:
    preprocessor = BaseDataPreprocessor(non_blocking=True)
    assert preprocessor.state_dict() == {}
    preprocessor.load_state_dict({})


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_batches_keep_the_types_that_mmengine_keeps() -> None:
    import mmengine.model as mmengine

    batch = {"a": [torch.ones(1), (torch.ones(1),)], "b": Pair(torch.ones(1), "x"), "c": None}
    assert BaseDataPreprocessor()(batch) == mmengine.BaseDataPreprocessor()(batch)
