"""Each parameter gets the options that MMEngine's constructor gives it."""

from __future__ import annotations

import copy
import sys
import types
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainkit.errors import ConfigError
from trainkit.optim_wrapper import DefaultOptimWrapperConstructor, OptimWrapper

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.optim
    import mmengine.optim.optimizer.default_constructor as their_module

pytestmark = pytest.mark.filterwarnings("ignore")

SGD = {"lr": 0.1, "weight_decay": 0.02, "momentum": 0.9}
ADAMW = {"lr": 0.003, "weight_decay": 0.05, "betas": [0.9, 0.99]}


class DeformConv2d(nn.Conv2d):
    """Stands for mmcv's: a convolution with a layer that makes its offsets."""

    def __init__(self) -> None:
        super().__init__(4, 4, 3)
        self.conv_offset = nn.Conv2d(4, 18, 3)
        self.other = nn.Linear(2, 2)


class Block(nn.Module):
    """Norms of each kind, a depthwise convolution, and parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.table = nn.Parameter(torch.ones(4, 2))
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.pointwise = nn.Conv2d(4, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.inn = nn.InstanceNorm2d(4, affine=True)
        self.gn = nn.GroupNorm(2, 4)
        self.ln = nn.LayerNorm(4)
        self.deform = DeformConv2d()


class Net(nn.Module):
    """Two blocks and a head; one parameter is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 2)
        self.blocks[0].pointwise.weight.requires_grad_(False)


KEYS = ("blocks", "blocks.0", "blocks.1", "bias", "bn", "conv_offset", "head", "weight", "nothing")


def options_of(wrapper: Any, model: nn.Module) -> dict[str, dict[str, Any]]:
    """The options of each parameter that is trained."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: {key: value for key, value in group.items() if key != "params"}
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
        if parameter.requires_grad
    }


def ours(kind: str, options: dict[str, Any], paramwise: Any, model: nn.Module) -> OptimWrapper:
    cfg = {"optimizer": {"_target_": f"torch.optim.{kind}", **options}}
    return DefaultOptimWrapperConstructor(cfg, copy.deepcopy(paramwise))(model)


def theirs(kind: str, options: dict[str, Any], paramwise: Any, model: nn.Module) -> Any:
    cfg = {"optimizer": {"type": kind, **options}}
    constructor = mmengine.optim.DefaultOptimWrapperConstructor(cfg, copy.deepcopy(paramwise))
    return constructor(model)


@pytest.fixture
def _mmcv(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine knows deformable convolutions from mmcv, which is not installed."""
    ops = types.ModuleType("mmcv.ops")
    ops.DeformConv2d = ops.ModulatedDeformConv2d = DeformConv2d  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmcv", types.ModuleType("mmcv"))
    monkeypatch.setitem(sys.modules, "mmcv.ops", ops)
    monkeypatch.setattr(their_module, "mmcv_full_available", lambda: True)


MULTIPLIERS = st.sampled_from([None, 0.0, 0.1, 0.5, 1.0, 2.0, 10])
RULES = st.fixed_dictionaries(
    {},
    optional={
        "bias_lr_mult": MULTIPLIERS,
        "bias_decay_mult": MULTIPLIERS,
        "norm_decay_mult": MULTIPLIERS,
        "flat_decay_mult": MULTIPLIERS,
        "dwconv_decay_mult": MULTIPLIERS,
        "dcn_offset_lr_mult": MULTIPLIERS,
        "bypass_duplicate": st.booleans(),
        "custom_keys": st.dictionaries(
            st.sampled_from(KEYS),
            st.fixed_dictionaries(
                {},
                optional={
                    "lr_mult": st.sampled_from([0.1, 0.3, 2]),
                    "decay_mult": st.sampled_from([0.0, 0.7]),
                    "eps": st.just(1e-6),
                },
            ),
            max_size=4,
        ),
    },
)


@pytest.mark.usefixtures("_mmcv")
def test_every_combination_of_rules_gives_the_same_options() -> None:
    model = Net()

    @settings(max_examples=150, deadline=None)
    @given(RULES)
    def check(paramwise: dict[str, Any]) -> None:
        wrappers = [make("AdamW", ADAMW, paramwise, model) for make in (ours, theirs)]
        assert options_of(wrappers[0], model) == options_of(wrappers[1], model)

    check()


@pytest.mark.parametrize("paramwise", [None, {}])
def test_without_rules_there_is_one_group(paramwise: Any) -> None:
    model = Net()
    mine, other = (make("SGD", SGD, paramwise, model) for make in (ours, theirs))
    assert len(mine.optimizer.param_groups) == len(other.optimizer.param_groups) == 1
    assert mine.get_lr() == other.get_lr() == {"lr": [0.1]}


def test_of_equally_long_keys_the_first_in_the_alphabet_counts() -> None:
    model = nn.ModuleDict({"abxy": nn.Linear(2, 2)})
    keys = {"xy": {"lr_mult": 3.0}, "ab": {"lr_mult": 2.0}}
    found = [
        options_of(make("SGD", SGD, {"custom_keys": keys}, model), model) for make in (ours, theirs)
    ]
    assert found[0] == found[1]
    assert found[0]["abxy.weight"]["lr"] == 0.2


def test_a_shared_parameter_comes_where_it_is_first() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "z": nn.ModuleDict({"b": nn.Linear(2, 2)})})
    model["z"]["b"].weight = model["a"].weight  # type: ignore[index]
    paramwise = {"bypass_duplicate": True, "custom_keys": {"z": {"lr_mult": 0.5}}}
    found = [options_of(make("SGD", SGD, paramwise, model), model) for make in (ours, theirs)]
    assert found[0] == found[1]
    assert found[0]["a.weight"]["lr"] == 0.1


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_the_base_lr_is_tracked(kind: str) -> None:
    model = Net()
    paramwise = {"custom_keys": {"head": {"lr_mult": 3.0}}}
    options = {"lr": 0.1, "weight_decay": 0.02}
    mine, other = (make(kind, options, paramwise, model) for make in (ours, theirs))
    assert mine.get_lr()["base_lr"] == other.get_lr()["base_lr"] == [0.1]
    for wrapper, schedulers in ((mine, "trainkit.param_scheduler"), (other, "mmengine.optim")):
        scheduler = sys.modules[schedulers].LinearLR(wrapper, start_factor=0.5, end=5)
        scheduler.step()
    assert mine.get_lr()["base_lr"] == pytest.approx(other.get_lr()["base_lr"], rel=1e-12)
    assert mine.get_lr()["lr"][0] == pytest.approx(other.get_lr()["lr"][0], rel=1e-12)


# ------------------------------------------------------------- different on purpose


def test_a_frozen_parameter_is_in_no_group() -> None:
    """MMEngine leaves it out of the groups of paramwise_cfg, but not out of the only group."""
    model = Net()
    frozen = model.blocks[0].get_parameter("pointwise.weight")
    for paramwise, theirs_has in ((None, True), ({"bias_lr_mult": 2.0}, False)):
        groups = [
            make("SGD", SGD, paramwise, model).optimizer.param_groups for make in (ours, theirs)
        ]
        has = [any(p is frozen for group in each for p in group["params"]) for each in groups]
        assert has == [False, theirs_has]


def test_parameters_of_equal_options_share_a_group() -> None:
    """MMEngine makes one group for each parameter, which an optimizer updates one by one."""
    model = Net()
    mine, other = (make("SGD", SGD, {"norm_decay_mult": 0.0}, model) for make in (ours, theirs))
    assert len(mine.optimizer.param_groups) == 2
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(other.optimizer.param_groups) == len(trained)


def test_one_shared_parameter_in_two_groups_is_named() -> None:
    """MMEngine leaves it to torch, which does not say which parameter it is."""
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    with pytest.raises(ValueError, match="some parameters appear in more than one"):
        theirs("SGD", SGD, {"norm_decay_mult": 0.0}, model)
    with pytest.raises(ConfigError) as raised:
        ours("SGD", SGD, {"norm_decay_mult": 0.0}, model)
    assert str(raised.value) == (
        "optim_wrapper.paramwise_cfg: a.weight and b.weight are one parameter, which cannot be in "
        "two groups. To take it as the first of them, set bypass_duplicate: true."
    )


def test_a_convolution_of_one_channel_is_not_depthwise() -> None:
    """MMEngine takes it for one, as its one group is as many as its one input channel."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    mine, other = (
        options_of(make("SGD", SGD, {"dwconv_decay_mult": 0.0}, model), model)
        for make in (ours, theirs)
    )
    assert mine["0.weight"]["weight_decay"] == 0.02
    assert other["0.weight"]["weight_decay"] == 0.0


def test_an_rms_norm_is_a_norm() -> None:
    """MMEngine, which is older than it, does not know it."""
    model = nn.Sequential(nn.RMSNorm(4))
    mine, other = (
        options_of(make("SGD", SGD, {"norm_decay_mult": 0.0}, model), model)
        for make in (ours, theirs)
    )
    assert mine["0.weight"]["weight_decay"] == 0.0
    assert other["0.weight"]["weight_decay"] == 0.02


def test_a_flat_multiplier_without_weight_decay_is_an_error() -> None:
    """MMEngine does nothing, and says nothing."""
    model = Net()
    wrapper = theirs("SGD", {"lr": 0.1}, {"flat_decay_mult": 0.5}, model)
    assert {group["weight_decay"] for group in wrapper.optimizer.param_groups} == {0}
    with pytest.raises(ConfigError, match=r"flat_decay_mult multiplies weight_decay, which"):
        ours("SGD", {"lr": 0.1}, {"flat_decay_mult": 0.5}, model)


def test_the_optimizers_own_default_can_be_multiplied() -> None:
    """MMEngine wants weight_decay to be written out."""
    model = Net()
    with pytest.raises(ValueError, match="base_wd should not be None"):
        theirs("AdamW", {"lr": 0.1}, {"norm_decay_mult": 0.5}, model)
    found = options_of(ours("AdamW", {"lr": 0.1}, {"norm_decay_mult": 0.5}, model), model)
    assert found["blocks.0.bn.weight"]["weight_decay"] == 0.005


@pytest.mark.parametrize("paramwise", [{"norm_decay_mul": 0.0}, {"custom_keys": {"a": {"wd": 1}}}])
def test_an_option_that_nobody_reads_is_an_error(paramwise: dict[str, Any]) -> None:
    """MMEngine leaves a misspelt option without effect."""
    model = nn.ModuleDict({"a": nn.Linear(2, 2)})
    theirs("SGD", SGD, paramwise, model)
    with pytest.raises(ConfigError, match=r"optim_wrapper\.paramwise_cfg\."):
        ours("SGD", SGD, paramwise, model)


def test_scaling_the_lr_scales_the_base_lr() -> None:
    """MMEngine's auto_scale_lr leaves the base_lr of the log as it was."""
    wrapper = ours("SGD", SGD, {"custom_keys": {"head": {"lr_mult": 3.0}}}, Net())
    wrapper.scale_lr(2.0)
    assert wrapper.get_lr()["base_lr"] == [0.2]
