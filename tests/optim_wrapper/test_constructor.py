"""Groups of parameters from a config; what MMEngine gives is in tests/parity."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import ToyModel, make_runner
from trainkit.errors import ConfigError
from trainkit.optim_wrapper import (
    AmpOptimWrapper,
    DefaultOptimWrapperConstructor,
    OptimWrapper,
    construct,
)

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.01}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.head = nn.Linear(2, 2)


def build(model: nn.Module | None = None, **options: Any) -> OptimWrapper:
    node = {"optimizer": SGD, **options}
    wrapper = construct(node, "optim_wrapper", Net() if model is None else model)
    assert isinstance(wrapper, OptimWrapper)
    return wrapper


def message(**options: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        build(**options)
    return str(raised.value)


def test_the_base_settings_follow_the_groups_and_a_schedule() -> None:
    wrapper = build(paramwise_cfg={"custom_keys": {"head": {"lr_mult": 0.5}}})
    assert wrapper.get_lr() == {"lr": [0.1, 0.05], "base_lr": [0.1]}
    assert len(wrapper.param_groups) == 3
    assert wrapper.param_groups[-1]["params"] == []
    assert build().base_param_settings is None


def test_any_option_of_the_optimizer_can_be_set_by_key() -> None:
    keys = {"head": {"momentum": 0.5, "lr": 0.7}, "1": {"decay_mult": 0.0}}
    groups = build(paramwise_cfg={"custom_keys": keys}).optimizer.param_groups
    assert [(g["lr"], g["momentum"], g["weight_decay"]) for g in groups] == [
        *((0.1, 0, 0.01), (0.1, 0, 0.0), (0.7, 0.5, 0.01))
    ]


def test_groups_are_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "trainkit"):
        build(paramwise_cfg={"bias_lr_mult": 2.0})
    assert caplog.messages == [
        "optim_wrapper: group 0 has the base values: backbone.0.weight, backbone.1.weight, "
        "backbone.1.bias and 1 more",
        "optim_wrapper: group 1 has lr=0.2: backbone.0.bias, head.bias",
    ]


def test_a_key_that_no_name_has_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    build(paramwise_cfg={"custom_keys": {"haed": {"lr_mult": 0.5}}})
    assert caplog.messages == [
        "optim_wrapper.paramwise_cfg.custom_keys.haed: no parameter of Net has this in its name."
    ]


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ("head", ["head.weight", "head.bias"]),
        (["head.bias", "backbone.1"], ["backbone.1.weight", "backbone.1.bias", "head.bias"]),
        ("*.1", ["backbone.1.weight", "backbone.1.bias"]),
        (None, [name for name, _ in Net().named_parameters()]),
    ],
)
@pytest.mark.parametrize("paramwise", [None, {"bias_lr_mult": 2.0}])
def test_modules_choose_what_is_trained(modules: Any, expected: list[str], paramwise: Any) -> None:
    model = Net()
    wrapper = build(model, modules=modules, paramwise_cfg=paramwise)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {names[p] for group in wrapper.optimizer.param_groups for p in group["params"]}
    assert found == set(expected)


def test_a_module_that_is_not_there_is_named() -> None:
    assert message(modules=["haed"]) == (
        "optim_wrapper.modules is 'haed', but Net has no parameter there that requires a gradient. "
        "Did you mean 'head'?"
    )


@pytest.mark.parametrize(
    ("paramwise", "expected"),
    [
        (
            {"norm_decay_mul": 0.0},
            "optim_wrapper.paramwise_cfg.norm_decay_mul: Paramwise has no argument "
            "'norm_decay_mul'. Did you mean 'norm_decay_mult'?",
        ),
        (
            {"custom_keys": {"head": {"lr_mlt": 0.1}}},
            "optim_wrapper.paramwise_cfg.custom_keys.head.lr_mlt: a group has no option 'lr_mlt'. "
            "Did you mean 'lr_mult'?",
        ),
        (
            {"custom_keys": {"head": 0.1}},
            "optim_wrapper.paramwise_cfg.custom_keys.head is 0.1; expected a mapping, such as "
            "{lr_mult: 0.1}.",
        ),
        (
            {"custom_keys": {"head": {"lr_mult": 0.1, "lr": 0.2}}},
            "optim_wrapper.paramwise_cfg.custom_keys.head has both lr_mult and lr, which is what "
            "it gives. Drop one.",
        ),
        (
            {"bias_lr_mult": -1.0},
            "optim_wrapper.paramwise_cfg.bias_lr_mult is -1.0; expected a number of at least 0.",
        ),
        (
            {"bias_lr_mult": True},
            "optim_wrapper.paramwise_cfg.bias_lr_mult is True; expected a number of at least 0.",
        ),
        ("norms", "optim_wrapper.paramwise_cfg is 'norms'; expected a mapping, or null."),
    ],
)
def test_options_that_do_not_fit_are_named(paramwise: Any, expected: str) -> None:
    assert message(paramwise_cfg=paramwise) == expected


def test_a_multiplier_of_nothing_is_an_error() -> None:
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.1}
    assert message(optimizer=optimizer, paramwise_cfg={"norm_decay_mult": 0.0}) == (
        "optim_wrapper.paramwise_cfg.norm_decay_mult multiplies weight_decay, which "
        "optim_wrapper.optimizer does not give. Give it there, or drop the multiplier."
    )


@pytest.mark.parametrize("key", ["paramwise_cfg", "modules"])
def test_an_optimizer_that_is_an_object_has_its_groups(key: str) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    value = {"bias_lr_mult": 2.0} if key == "paramwise_cfg" else "head"
    assert message(optimizer=optimizer, model=model, **{key: value}) == (
        f"optim_wrapper.{key} is for an optimizer that is a config; this one is an object, with "
        "its parameters. Give the object groups of parameters, or a config here."
    )
    assert build(model, optimizer=optimizer).optimizer is optimizer


# ------------------------------------------------------------------ constructors


class Halving(DefaultOptimWrapperConstructor):
    """As of the guide: a subclass with its own groups."""

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **_: Any) -> None:
        for index, parameter in enumerate(module.parameters()):
            params.append({"params": [parameter], "lr": self.base_lr * 0.5**index})


class FromScratch:
    """As MMEngine's: whatever takes the two configs, and then the model."""

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: Any = None, factor: float = 1.0
    ) -> None:
        self.cfg, self.paramwise_cfg, self.factor = optim_wrapper_cfg, paramwise_cfg, factor

    def __call__(self, model: nn.Module) -> OptimWrapper:
        lr = self.cfg["optimizer"]["lr"] * self.factor
        return OptimWrapper(torch.optim.SGD(model.parameters(), lr=lr))


def test_a_subclass_makes_its_own_groups() -> None:
    wrapper = build(constructor={"_target_": Halving}, paramwise_cfg={"bias_lr_mult": 1.0})
    assert wrapper.get_lr()["lr"] == [0.1 * 0.5**index for index in range(6)]


@pytest.mark.parametrize("given", [FromScratch, {"_target_": FromScratch, "factor": 3.0}])
def test_a_constructor_of_ones_own_gets_the_configs(given: Any) -> None:
    lr = build(constructor=given, paramwise_cfg={"anything": 1}).get_lr()["lr"][0]
    assert lr == pytest.approx(0.1 if given is FromScratch else 0.3)


def test_a_constructor_by_its_bare_name_is_refused() -> None:
    assert message(constructor="Halving") == (
        "optim_wrapper.constructor is 'Halving'; expected a config, such as {_target_: "
        "trainkit.optim_wrapper.LearningRateDecayOptimWrapperConstructor}, or a class."
    )


def test_a_constructor_that_makes_no_wrapper_is_refused(tmp_path: Path) -> None:
    class Wrong(FromScratch):
        def __call__(self, model: nn.Module) -> Any:
            return torch.optim.SGD(model.parameters(), lr=0.1)

    node = {"optimizer": SGD, "constructor": Wrong}
    with pytest.raises(ConfigError) as raised:
        _ = make_runner(tmp_path, optim_wrapper=node).optim_wrapper
    assert str(raised.value) == (
        "optim_wrapper.constructor gives a SGD; expected an OptimWrapper, or a config of one."
    )


def test_the_wrapper_is_what_the_config_names() -> None:
    wrapper = build(_target_="trainkit.optim_wrapper.AmpOptimWrapper", dtype="bfloat16")
    assert type(wrapper) is AmpOptimWrapper


# ------------------------------------------------------------------------ resume


def trained(wrapper: OptimWrapper, model: nn.Module, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(4, 2, generator=generator)
        wrapper.update_params(model.head(model.backbone(x)).square().mean())  # type: ignore[operator]


ADAM = {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.01}


def test_a_state_finds_its_parameters_in_other_groups(caplog: pytest.LogCaptureFixture) -> None:
    """Paramwise options are changed by a resume: the optimizer's memory stays with each."""
    model = Net()
    old = build(model, optimizer=ADAM, paramwise_cfg={"custom_keys": {"head": {"lr_mult": 0.5}}})
    old.name_parameters(model)
    trained(old, model, 2)
    new = build(
        model,
        optimizer=ADAM,
        paramwise_cfg={"norm_decay_mult": 0.0, "custom_keys": {"head": {"lr_mult": 0.2}}},
    )
    new.name_parameters(model)
    with caplog.at_level(logging.INFO, "trainkit"):
        new.load_state_dict(old.state_dict())
    for parameter in model.parameters():
        mine, before = new.optimizer.state[parameter], old.optimizer.state[parameter]
        assert all(torch.equal(mine[key], before[key]) for key in before)
    assert new.get_lr() == {"lr": [0.1, 0.1, pytest.approx(0.02)], "base_lr": [0.1]}
    assert (
        "weight_decay of group 1: the config's 0.0, not the checkpoint's 0.01." in caplog.messages
    )
    assert "lr_mult of group 2: the config's 0.2, not the checkpoint's 0.5." in caplog.messages


def test_paramwise_options_can_be_dropped_by_a_resume() -> None:
    model = Net()
    old = build(model, optimizer=ADAM, paramwise_cfg={"custom_keys": {"head": {"lr_mult": 0.5}}})
    old.name_parameters(model)
    trained(old, model, 2)
    new = build(model, optimizer=ADAM)
    new.name_parameters(model)
    new.load_state_dict(old.state_dict())
    assert new.get_lr() == {"lr": [0.1]}
    assert len(new.optimizer.state) == 6
    again = build(model, optimizer=ADAM, paramwise_cfg={"bias_lr_mult": 2.0})
    again.name_parameters(model)
    again.load_state_dict(new.state_dict())
    assert again.get_lr() == {"lr": [0.1, 0.2], "base_lr": [0.1]}


def test_other_parameters_do_not_fit() -> None:
    model = Net()
    old, new = build(model, modules="head"), build(model, modules="backbone")
    for wrapper in (old, new):
        wrapper.name_parameters(model)
    with pytest.raises(ValueError, match="doesn't match the size"):
        new.load_state_dict(old.state_dict())


@pytest.mark.parametrize("paramwise", [None, {"custom_keys": {"bias": {"lr_mult": 2.0}}}])
def test_a_resumed_run_with_groups_and_a_schedule_is_the_whole_one(
    tmp_path: Path, paramwise: Any
) -> None:
    changes: dict[str, Any] = {
        "optim_wrapper": {"optimizer": ADAM, "paramwise_cfg": paramwise},
        "param_scheduler": {"_target_": "trainkit.param_scheduler.PolyLR", "end": 4},
        "custom_hooks": [],
    }
    whole = make_runner(
        tmp_path / "a", train_cfg={"by_epoch": True, "max_epochs": 4}, model=ToyModel(), **changes
    )
    whole.train()
    for epochs in (2, 4):
        part = make_runner(
            tmp_path / "b",
            train_cfg={"by_epoch": True, "max_epochs": epochs},
            model=ToyModel(),
            resume=True,
            **changes,
        )
        part.train()
    for mine, other in zip(part.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert part.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
