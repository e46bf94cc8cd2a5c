"""What a model is made of and costs, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import ToyModel, make_runner
from trainkit.model import BaseModel, ConvNet
from trainkit.runner import count_flops, parameter_table
from trainkit.runner.summary import flops_summary, magnitude, model_parts

# ConvNet on 8x8 images of one channel: two convolutions of 3x3, pooling between, a linear layer.
CONV = 1 * 32 * 9 + 32 * 64 * 9
NORM = 2 * (32 + 64)
LINEAR = 64 * 10 + 10
CONV_FLOPS = 2 * (8 * 8 * 1 * 32 * 9 + 4 * 4 * 32 * 64 * 9)
LINEAR_FLOPS = 2 * 64 * 10


def digits(samples: int) -> dict[str, torch.Tensor]:
    return {"inputs": torch.zeros(samples, 1, 8, 8), "labels": torch.zeros(samples).long()}


def test_parameters_are_counted_by_part() -> None:
    backbone, head, whole = model_parts(ConvNet())
    assert (backbone.name, backbone.trained, backbone.frozen) == ("backbone", CONV + NORM, 0)
    # The running mean and variance of each norm, and its counter of 8 bytes.
    assert backbone.memory == 4 * (CONV + NORM) + 4 * NORM + 2 * 8
    assert (head.kind, head.trained, head.memory) == ("Linear", LINEAR, 4 * LINEAR)
    assert (whole.kind, whole.trained) == ("ConvNet", CONV + NORM + LINEAR)


def test_what_is_frozen_or_shared_is_counted_so() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 3)})
    model["b"].weight = model["a"].weight
    model["a"].bias.requires_grad_(False)
    model.register_parameter("scale", nn.Parameter(torch.ones(5)))
    found = [(part.name, part.trained, part.frozen) for part in model_parts(model)]
    assert found == [("(own)", 5, 0), ("a", 6, 3), ("b", 3, 0), ("", 14, 3)]


def test_a_parameter_without_a_shape_yet_counts_nothing() -> None:
    (whole,) = model_parts(nn.Sequential(nn.LazyLinear(1)))
    assert whole.trained == 0


def test_operations_are_those_worked_out_by_hand() -> None:
    found = count_flops(ConvNet(), digits(3))
    assert found[""] == 3 * (CONV_FLOPS + LINEAR_FLOPS)
    assert (found["backbone"], found["head"]) == (3 * CONV_FLOPS, 3 * LINEAR_FLOPS)


def test_counting_leaves_no_trace() -> None:
    model = ConvNet(dropout=0.5)
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    count_flops(model, digits(2))
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert (model.training, model.backbone.training, model.head.training) == (True, True, False)


def test_a_compiled_model_is_counted_as_it_was_written() -> None:
    model = ConvNet()
    model.compile(backend="eager")
    assert count_flops(model, digits(1))[""] == CONV_FLOPS + LINEAR_FLOPS


def test_attention_is_counted() -> None:
    class Attention(BaseModel):
        def forward(self, x: torch.Tensor, mode: str = "tensor") -> Any:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    tokens, width = 5, 4
    products = 2 * 2 * tokens * tokens * width
    assert count_flops(Attention(), {"x": torch.ones(1, 1, tokens, width)})[""] == products


def test_a_transformer_is_counted_though_torch_has_a_faster_way() -> None:
    class Layer(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

        def forward(self, x: torch.Tensor, mode: str = "tensor") -> Any:
            return self.layer(x)

    projections, attention, feed_forward = 5 * 4 * (12 + 4), 2 * 5 * 5 * 4, 2 * 5 * 4 * 8
    found = count_flops(Layer(), {"x": torch.ones(1, 5, 4)})
    assert found["layer"] == 2 * (projections + attention + feed_forward)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_summary_says_what_a_sample_costs() -> None:
    text = flops_summary(ConvNet(), digits(10))
    assert text.startswith(
        "Forward of one batch: 6.28 MFLOPs, 628 kFLOPs for each of its 10 samples"
    )
    assert text.splitlines()[1:] == [
        "  part      class       trained  frozen    memory   FLOPs",
        "  backbone  Sequential   18,912       0  74.6 KiB  6.27 M",
        "  head      Linear          650       0  2.54 KiB  12.8 k",
        "            ConvNet      19,562       0  77.2 KiB  6.28 M",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 "), (999, "999 "), (999.6, "1 k"), (1234, "1.23 k"), (5e6, "5 M"), (7e18, "7e+03 P")],
)
def test_large_numbers_have_units(number: float, text: str) -> None:
    assert magnitude(number) == text


def test_a_run_begins_with_the_table(tmp_path: Path) -> None:
    model = ToyModel()
    model.linear.bias.requires_grad_(False)
    make_runner(tmp_path, model=model).train()
    assert parameter_table(model) in (tmp_path / "train.log").read_text()
    assert "  linear  Linear          3       1    16 B" in parameter_table(model)
