"""Initialisers set what they name, and nothing else; mistakes are told before anything is set."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from trainkit.errors import CheckpointError, ConfigError
from trainkit.model import (
    BaseInit,
    Caffe2XavierInit,
    ConstantInit,
    ConvNet,
    KaimingInit,
    NormalInit,
    PretrainedInit,
    TruncNormalInit,
    UniformInit,
    XavierInit,
)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2, bias=False), nn.Linear(2, 1)
    )


def changed(model: nn.Module, initializer: Any) -> list[str]:
    before = copy.deepcopy(model.state_dict())
    initializer(model)
    return [name for name, value in model.state_dict().items() if not value.equal(before[name])]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("Linear", ["2.weight", "3.weight", "3.bias"]),
        (["Conv2d", "Linear"], ["0.weight", "0.bias", "2.weight", "3.weight", "3.bias"]),
        ("_BatchNorm", ["1.weight", "1.bias"]),
        (("_ConvNd",), ["0.weight", "0.bias"]),
        ("_NormBase", ["1.weight", "1.bias"]),
    ],
)
def test_layers_are_named_by_their_class_or_a_base_of_it(layer: Any, expected: list[str]) -> None:
    assert changed(network(), ConstantInit(0.123, layer=layer, bias=0.5)) == expected


def test_weights_and_biases_get_their_values() -> None:
    model = network()
    ConstantInit(0.25, layer="Linear", bias=-1)(model)
    assert model[3].weight.eq(0.25).all()
    assert model[3].bias == -1


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9])
def test_a_bias_may_be_given_as_the_probability_of_a_sigmoid(p: float) -> None:
    model = nn.Linear(1, 1)
    NormalInit(layer="Linear", bias_prob=p)(model)
    assert torch.sigmoid(model.bias).item() == pytest.approx(p)


def spread(initializer: BaseInit) -> tuple[float, float, float, float]:
    torch.manual_seed(0)
    model = nn.Linear(400, 300)
    initializer(model)
    w = model.weight.detach()
    return w.mean().item(), w.std().item(), w.min().item(), w.max().item()


CAFFE2 = math.sqrt(3 / 400)
SPREADS = [
    (NormalInit(2, 0.5, layer="Linear"), 2, 0.5),
    (UniformInit(-1, 3, layer="Linear"), 1, 4 / math.sqrt(12)),
    (XavierInit(2, layer="Linear"), 0, 2 * math.sqrt(2 / 700)),
    (XavierInit(distribution="uniform", layer="Linear"), 0, math.sqrt(2 / 700)),
    (KaimingInit(layer="Linear"), 0, math.sqrt(2 / 300)),
    (KaimingInit(1, "fan_in", "leaky_relu", layer="Linear"), 0, math.sqrt(1 / 400)),
    (Caffe2XavierInit(layer="Linear"), 0, math.sqrt(1 / 400)),
    (TruncNormalInit(layer="Linear"), 0, 0.8796),  # of a normal one that is cut at 2
]


@pytest.mark.parametrize(("initializer", "mean", "std"), SPREADS, ids=str)
def test_weights_are_drawn_with_the_spread_of_the_formula(
    initializer: BaseInit, mean: float, std: float
) -> None:
    found_mean, found_std, _, _ = spread(initializer)
    assert found_mean == pytest.approx(mean, abs=0.02 * std)
    assert found_std == pytest.approx(std, rel=0.01)


def test_uniform_and_cut_distributions_keep_their_bounds() -> None:
    _, _, low, high = spread(TruncNormalInit(0.5, 2.0, -1.0, 1.5, layer="Linear"))
    assert -1.0 <= low < -0.99
    assert 1.49 < high <= 1.5
    _, _, low, high = spread(Caffe2XavierInit(layer="Linear"))
    assert -CAFFE2 <= low < -0.99 * CAFFE2
    assert 0.99 * CAFFE2 < high <= CAFFE2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("3", ["3.weight", "3.bias"]),
        (["3", "1"], ["1.weight", "1.bias", "3.weight", "3.bias"]),
        ({"0": ConstantInit(0.5), "3": None}, ["0.weight", "0.bias"]),
        ({"inside.2": NormalInit()}, ["inside.2.weight"]),
    ],
    ids=str,
)
def test_overrides_set_all_layers_of_the_submodules_they_name(
    override: Any, expected: list[str]
) -> None:
    model: nn.Module = network()
    if isinstance(override, dict) and "inside.2" in override:
        model = nn.ModuleDict({"inside": model})
    assert changed(model, ConstantInit(0.123, override=override, bias=0.5)) == expected


def test_an_override_comes_after_the_layers_and_may_name_its_own() -> None:
    model = nn.ModuleDict({"body": network(), "head": network()})
    ConstantInit(1, layer="Linear", override={"head": ConstantInit(2, layer="Conv2d")})(model)
    assert model["body"][3].weight.eq(1).all()
    assert model["head"][3].weight.eq(1).all()
    assert model["head"][0].weight.eq(2).all()
    assert not model["body"][0].weight.eq(2).any()


def test_an_initialiser_of_ones_own_needs_only_fill() -> None:
    class Eye(BaseInit):
        def fill(self, weight: torch.Tensor) -> None:
            nn.init.eye_(weight)

    model = network()
    assert changed(model, Eye(layer="Linear")) == ["2.weight", "3.weight", "3.bias"]
    assert model[2].weight.equal(torch.eye(2))
    with pytest.raises(NotImplementedError, match=r"BaseInit has no fill\(\)"):
        BaseInit(layer="Linear")(model)


def test_what_is_no_tensor_is_left_alone() -> None:
    class Odd(nn.Module):
        weight = "heavy"
        bias = True

    ConstantInit(1, layer="Odd")(Odd())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NormalInit(layer="Linear", bias_prob=1.0), r"bias_prob is 1.0; expected a prob"),
        (lambda: NormalInit(std=-1), "std is -1; expected a standard deviation of at least 0"),
        (lambda: NormalInit(std=math.nan), "std is nan"),
        (lambda: TruncNormalInit(std=0), "std is 0; expected a standard deviation above 0"),
        (lambda: TruncNormalInit(a=1, b=1), "a is 1 and b is 1; expected a below b"),
        (lambda: UniformInit(a=2), r"a is 2 and b is 1.0; expected a not above b"),
        (lambda: KaimingInit(mode="fan_inn"), r"mode is 'fan_inn'. Did you mean 'fan_in'"),
        (lambda: XavierInit(distribution="gauss"), "distribution is 'gauss'. Choose from: normal"),
        (lambda: KaimingInit(nonlinearity="gelu6"), "nonlinearity is 'gelu6'.*as 'relu' or"),
        (lambda: PretrainedInit("https://x/y.pth"), "an address; expected a file. Download it"),
    ],
)
def test_values_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        (
            NormalInit(layer="Conv2D"),
            r"init_cfg of Sequential has NormalInit\(layer='Conv2D'\), but there is no class of "
            r"modules called 'Conv2D'. Did you mean 'Conv2d'\?",
        ),
        (
            NormalInit(override="head"),
            r"has an override for 'head', which it has not. It has: 0, 1",
        ),
        (NormalInit(override={"0": NormalInit(layer="Liner")}), "Conv2d has NormalInit.*'Liner'"),
    ],
)
def test_names_that_there_are_not_are_told_before_anything_is_set(
    initializer: BaseInit, message: str
) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=message):
        initializer(model)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_class_that_is_not_used_here_is_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    assert changed(network(), ConstantInit(1.5, layer=["Conv3d", "Conv2d"]))
    assert not caplog.messages
    assert not changed(network(), ConstantInit(1.5, layer="Conv3d"))
    assert caplog.messages == [
        "ConstantInit(layer='Conv3d', val=1.5) sets nothing: Sequential has no such layer."
    ]


def test_a_shape_without_fans_is_told_with_its_layer() -> None:
    with pytest.raises(
        ConfigError, match=r"XavierInit\(layer='_BatchNorm'\) is not for the weight"
    ):
        XavierInit(layer="_BatchNorm")(network())


def test_a_computed_weight_is_refused_rather_than_set_in_vain() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(ConfigError, match="the weight of ParametrizedLinear, which is computed"):
        ConstantInit(1, layer="Linear")(model)


# ------------------------------------------------------------------ PretrainedInit


def saved(path: Path, **state: torch.Tensor) -> str:
    torch.save({"state_dict": state}, path)
    return str(path)


def test_pretrained_weights_that_fit_are_loaded_and_the_rest_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.ModuleDict({"a": nn.Linear(1, 2), "b": nn.Linear(2, 3)})
    state = {"a.weight": torch.full((2, 1), 7.0), "b.weight": torch.ones(3, 9), "c": torch.ones(1)}
    path = saved(tmp_path / "weights.pth", **state)
    with caplog.at_level("INFO"):
        PretrainedInit(path)(model)
    assert model["a"].weight.eq(7).all()
    assert model["b"].weight.shape == (3, 2)
    told = [message.partition(": ")[2] for message in caplog.messages]
    assert told == [
        "1 of 4 entries of ModuleDict.",
        "2 missing in it: a.bias, b.bias.",
        "1 not in the model: c.",
        "1 of another shape: b.weight (3, 9) for (3, 2).",
    ]


@pytest.mark.parametrize(
    "wrapper", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
@pytest.mark.parametrize("prefix", ["body.net", "body.net."])
def test_a_prefix_and_wrappers_are_taken_off(tmp_path: Path, prefix: str, wrapper: str) -> None:
    path = tmp_path / "weights.pth"
    saved(
        path, **{f"{wrapper}body.net.weight": torch.ones(1, 1), f"{wrapper}weight": torch.ones(2)}
    )
    model = nn.Linear(1, 1)
    PretrainedInit(str(path), prefix=prefix)(model)
    assert model.weight == 1


@pytest.mark.parametrize(
    "inside", ["net._orig_mod.", "net._checkpoint_wrapped_module.", "net._fsdp_wrapped_module."]
)
@pytest.mark.parametrize("prefix", [None, "body"])
def test_wrappers_inside_of_the_names_are_taken_off(
    tmp_path: Path, prefix: str | None, inside: str
) -> None:
    head = "" if prefix is None else f"{prefix}."
    path = saved(tmp_path / "weights.pth", **{f"module.{head}{inside}weight": torch.ones(1, 1)})
    model = nn.ModuleDict({"net": nn.Linear(1, 1)})
    PretrainedInit(path, prefix=prefix)(model)
    assert model["net"].weight == 1


def test_a_part_that_is_itself_called_module_keeps_its_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", **{"module.module.weight": torch.ones(1, 1)})
    model = nn.ModuleDict({"module": nn.Linear(1, 1)})
    PretrainedInit(path)(model)
    assert model["module"].weight == 1


def test_a_module_that_refuses_one_weight_keeps_all_of_its_own(tmp_path: Path) -> None:
    def refuse(*args: Any) -> None:
        args[-1].append("the second refuses")

    model = nn.ModuleDict({"first": nn.Linear(1, 1), "second": nn.Linear(1, 1)})
    second: Any = model["second"]
    second.register_load_state_dict_pre_hook(refuse)
    state = {name: value + 1 for name, value in model.state_dict().items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = saved(tmp_path / "weights.pth", **state)
    with pytest.raises(CheckpointError, match="the second refuses Nothing was loaded"):
        PretrainedInit(path)(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_pretrained_weights_of_another_kind_of_numbers_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "weights.pth", weight=torch.ones(1, 1), bias=torch.ones(1).long())
    PretrainedInit(path)(nn.Linear(1, 1))
    assert caplog.messages[-1].endswith("1 of another type: bias torch.int64 for torch.float32.")


def test_a_checkpoint_of_a_run_is_found_by_its_directory(runner: Any) -> None:
    runner.train()
    model = nn.Linear(3, 1)
    PretrainedInit(str(runner.work_dir), prefix="linear")(model)
    assert model.weight.equal(runner.model.linear.weight)


def test_pretrained_weights_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", **{"backbone.0.weight": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"nothing below the prefix 'bakbone.*'backbone'"):
        PretrainedInit(path, prefix="bakbone")(nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match=r"nothing of it fits ConvNet. It has backbone.0.wei"):
        PretrainedInit(path)(ConvNet())
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        PretrainedInit(str(tmp_path / "none.pth"))(nn.Linear(1, 1))
