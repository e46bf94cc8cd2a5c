"""Layer-wise learning-rate decay: the formula, and the layers of names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainkit.errors import ConfigError
from trainkit.optim_wrapper import LearningRateDecayOptimWrapperConstructor, construct


class ViT(nn.Module):
    """The names of a vision transformer of three layers, with a head that has layers too."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.pos_embed = nn.Parameter(torch.zeros(1, 4, 2))
        self.backbone.patch_embed = nn.Linear(2, 2)
        self.backbone.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.backbone.norm = nn.LayerNorm(2)
        self.head = nn.Module()
        self.head.layers = nn.ModuleList([nn.Linear(2, 2)])


class ConvNeXt(nn.Module):
    """The names of a ConvNeXt of stages with 1, 1, 7 and 1 blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(nn.Conv2d(1, 1, 1) for _ in range(4))
        self.stages = nn.ModuleList(
            nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(blocks))) for blocks in (1, 1, 7, 1)
        )
        self.norm = nn.LayerNorm(1)


def settings(model: nn.Module, optimizer: Any = None, **paramwise: Any) -> dict[str, Any]:
    target = {"_target_": "torch.optim.AdamW", "lr": 1.0, "weight_decay": 0.05}
    node = {
        "optimizer": optimizer or target,
        "constructor": LearningRateDecayOptimWrapperConstructor,
        "paramwise_cfg": paramwise,
    }
    wrapper = construct(node, "optim_wrapper", model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[p]: (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for p in group["params"]
    }


def test_a_transformers_rates_fall_towards_its_first_layer() -> None:
    found = settings(ViT(), decay_rate=0.5, num_layers=3)
    assert found["backbone.pos_embed"] == (0.5**4, 0.0)
    assert found["backbone.patch_embed.weight"] == (0.5**4, 0.05)
    for index in range(3):
        assert found[f"backbone.blocks.{index}.weight"] == (0.5 ** (3 - index), 0.05)
        assert found[f"backbone.blocks.{index}.bias"] == (0.5 ** (3 - index), 0.0)
    assert found["backbone.norm.weight"] == (1.0, 0.0)
    assert found["head.layers.0.weight"] == (1.0, 0.05)


def test_parameters_of_one_layer_and_decay_share_a_group() -> None:
    assert len(set(settings(ViT(), decay_rate=0.5, num_layers=3).values())) == 10


@pytest.mark.parametrize(
    ("decay_type", "stages"),
    [
        ("layer_wise", {0: 1, 1: 2, (2, 0): 3, (2, 2): 3, (2, 3): 4, (2, 6): 5, 3: 6}),
        ("stage_wise", {0: 1, 1: 2, (2, 0): 3, (2, 2): 3, (2, 3): 3, (2, 6): 3, 3: 4}),
    ],
)
def test_a_convnexts_rates(decay_type: str, stages: dict[Any, int]) -> None:
    found = settings(ConvNeXt(), decay_rate=0.9, num_layers=6, decay_type=decay_type)
    for place, layer in stages.items():
        stage, block = place if isinstance(place, tuple) else (place, 0)
        assert found[f"stages.{stage}.{block}.weight"][0] == pytest.approx(0.9 ** (7 - layer))
    down = {"layer_wise": (0, 2, 3, 6), "stage_wise": (0, 0, 0, 0)}[decay_type]
    for stage, layer in enumerate(down):
        rate = found[f"downsample_layers.{stage}.weight"][0]
        assert rate == pytest.approx(0.9 ** (7 - layer))
    assert found["norm.weight"] == (1.0, 0.0)


def test_frozen_parameters_are_left_out() -> None:
    model = ViT()
    model.backbone.get_parameter("pos_embed").requires_grad_(False)
    assert "backbone.pos_embed" not in settings(model, decay_rate=0.5, num_layers=3)


def test_without_weight_decay_none_is_set() -> None:
    sgd = {"_target_": "torch.optim.SGD", "lr": 1.0}
    found = settings(ViT(), sgd, decay_rate=0.5, num_layers=3)
    assert {decay for _, decay in found.values()} == {0}


def test_other_names_are_a_subclasss() -> None:
    class Mine(LearningRateDecayOptimWrapperConstructor):
        def layer_of(self, name: str) -> int:
            return int(name.partition(".")[0]) + 1

    node = {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 1.0},
        "constructor": Mine,
        "paramwise_cfg": {"decay_rate": 0.5, "num_layers": 2},
    }
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    wrapper = construct(node, "optim_wrapper", model)
    assert wrapper.get_lr()["lr"] == [0.25, 0.5]


@pytest.mark.parametrize(("num_layers", "said"), [(3, False), (5, True)])
def test_more_layers_than_there_are_is_warned_of(
    num_layers: int, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings(ViT(), decay_rate=0.5, num_layers=num_layers)
    expected = (
        "optim_wrapper.paramwise_cfg.num_layers is 5, but no parameter is in a layer beyond 3, so "
        "the learning rate of the backbone's last layer decays as well. Count again."
    )
    assert caplog.messages == [expected] * said


@pytest.mark.parametrize(
    ("model", "paramwise", "expected"),
    [
        (
            nn.Linear(2, 2),
            {"decay_rate": 0.5, "num_layers": 3},
            "optim_wrapper.constructor: no parameter of Linear is in a layer that "
            "LearningRateDecayOptimWrapperConstructor knows by its name, so no learning rate would "
            "decay. Derive from it, and override layer_of(name).",
        ),
        (
            ViT(),
            {"decay_rate": 0.5, "num_layers": 1},
            "optim_wrapper.paramwise_cfg.num_layers is 1, but backbone.blocks.2.weight is in layer "
            "3. Count again.",
        ),
        (
            ViT(),
            {"decay_rate": 0.5, "num_layers": 3, "decay_type": "stage_wise"},
            "optim_wrapper.paramwise_cfg.decay_type is 'stage_wise', but blocks.0.weight is in no "
            "stage. Use 'layer_wise'.",
        ),
        (
            ViT(),
            {"decay_rate": 0.5, "num_layers": 3, "decay_type": "layerwise"},
            "optim_wrapper.paramwise_cfg.decay_type is 'layerwise'. Did you mean 'layer_wise'?",
        ),
        (
            ViT(),
            {"decay_rate": 0.5, "num_layers": 2.5},
            "optim_wrapper.paramwise_cfg.num_layers is 2.5; expected a whole number of at least 1.",
        ),
        (
            ViT(),
            {"decay_rate": -0.5, "num_layers": 3},
            "optim_wrapper.paramwise_cfg.decay_rate is -0.5; expected a number of at least 0.",
        ),
        (
            ViT(),
            {},
            "optim_wrapper.paramwise_cfg is {}; LearningRateDecayOptimWrapperConstructor needs "
            "decay_rate and num_layers there.",
        ),
    ],
)
def test_what_cannot_work_is_named(model: nn.Module, paramwise: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(model, **paramwise)
    assert str(raised.value) == expected
