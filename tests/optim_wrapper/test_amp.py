"""AmpOptimWrapper beside the bare PyTorch loop with autocast and GradScaler, on the CPU."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainkit import Runner, compose, main
from trainkit.checkpoint import check_plain
from trainkit.errors import ConfigError
from trainkit.optim_wrapper import AmpOptimWrapper, OptimWrapper, construct, with_amp


def linear() -> nn.Linear:
    return nn.Linear(4, 2)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def batches(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return list(torch.randn(count, 2, 4, generator=generator))


def loss_of(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = (model(batch) - batch[:, :2]).square().mean()
    return loss


def train(wrapper: OptimWrapper, model: nn.Module, data: list[torch.Tensor]) -> None:
    for batch in data:
        with wrapper.optim_context(model):
            loss = loss_of(model, batch)
        wrapper.update_params(loss)


def train_bare(
    model: nn.Module,
    data: list[torch.Tensor],
    dtype: torch.dtype,
    scaler: torch.amp.GradScaler,
    max_norm: float | None = None,
) -> None:
    optimizer = sgd(model)
    for batch in data:
        with torch.autocast("cpu", dtype=dtype):
            loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        if max_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def assert_same_bits(model: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def overflow(wrapper: OptimWrapper, model: nn.Module) -> None:
    with wrapper.optim_context(model):
        loss = loss_of(model, batches(1)[0])
    wrapper.update_params(loss * torch.inf)


def test_bfloat16_is_the_bare_loop_in_autocast() -> None:
    model, data = linear(), batches(5)
    bare, full = copy.deepcopy(model), copy.deepcopy(model)
    train(AmpOptimWrapper(sgd(model), dtype="bfloat16"), model, data)
    optimizer = sgd(bare)
    for batch in data:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(bare, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same_bits(model, bare)
    train(OptimWrapper(sgd(full)), full, data)
    assert not torch.equal(model.weight, full.weight)


@pytest.mark.parametrize("max_norm", [None, 0.1])
def test_float16_is_the_bare_loop_with_a_scaler(max_norm: float | None) -> None:
    model, data = linear(), batches(5)
    bare = copy.deepcopy(model)
    options = {"init_scale": 256.0, "growth_interval": 2}
    clip_grad = None if max_norm is None else {"max_norm": max_norm}
    wrapper = AmpOptimWrapper(sgd(model), options, "float16", clip_grad=clip_grad)
    train(wrapper, model, data)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
    train_bare(bare, data, torch.float16, scaler, max_norm)
    assert_same_bits(model, bare)
    assert wrapper.loss_scaler.get_scale() == scaler.get_scale() == 1024.0


def test_grad_norm_is_that_of_the_unscaled_gradients() -> None:
    model, batch = linear(), batches(1)[0]
    wrapper = AmpOptimWrapper(sgd(model), 512.0, "float16", clip_grad={"max_norm": 1e-3})
    gradients = torch.autograd.grad(loss_of(model, batch), list(model.parameters()))
    train(wrapper, model, [batch])
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert wrapper.grad_norm is not None
    torch.testing.assert_close(wrapper.grad_norm, norm, rtol=1e-2, atol=0)


def test_accumulated_passes_are_unscaled_once() -> None:
    model, data = linear(), batches(6)
    full = copy.deepcopy(model)
    wrapper = AmpOptimWrapper(
        sgd(model), 64.0, "float16", accumulative_counts=3, clip_grad={"max_norm": 0.5}
    )
    train(wrapper, model, data)
    train(OptimWrapper(sgd(full), 3, {"max_norm": 0.5}), full, data)
    for mine, theirs in zip(model.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)
    assert (wrapper.inner_count, wrapper.update_count) == (6, 2)


@pytest.mark.parametrize("clip_grad", [None, {"max_norm": 1.0}])
def test_an_overflow_skips_the_step_and_halves_the_scale(clip_grad: dict[str, Any] | None) -> None:
    model = linear()
    wrapper = AmpOptimWrapper(sgd(model), {"init_scale": 1024.0}, "float16", clip_grad=clip_grad)
    train(wrapper, model, batches(1))
    start = copy.deepcopy(model)
    overflow(wrapper, model)
    assert_same_bits(model, start)
    assert wrapper.loss_scaler.get_scale() == 512.0
    train(wrapper, model, batches(1))
    assert not torch.equal(model.weight, start.weight)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("loss_scale", [128, 128.0])
def test_a_fixed_loss_scale_stays(loss_scale: float) -> None:
    model = linear()
    wrapper = AmpOptimWrapper(sgd(model), loss_scale, "float16")
    train(wrapper, model, batches(2))
    overflow(wrapper, model)
    assert wrapper.loss_scaler.get_scale() == 128.0
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_dict_is_the_scalers_arguments() -> None:
    model = linear()
    loss_scale = {"init_scale": 32.0, "growth_factor": 3.0, "growth_interval": 1}
    wrapper = AmpOptimWrapper(sgd(model), loss_scale, "float16")
    assert wrapper.loss_scaler.get_scale() == 32.0
    train(wrapper, model, batches(1))
    assert wrapper.loss_scaler.get_scale() == 96.0
    assert loss_scale == {"init_scale": 32.0, "growth_factor": 3.0, "growth_interval": 1}


def test_dynamic_is_the_scalers_own_default() -> None:
    wrapper = AmpOptimWrapper(sgd(linear()), dtype="float16")
    assert wrapper.loss_scaler.state_dict() == torch.amp.GradScaler("cpu").state_dict()


@pytest.mark.parametrize(
    ("dtype", "expected", "scaled"),
    [
        (None, torch.bfloat16, False),
        ("bfloat16", torch.bfloat16, False),
        (torch.bfloat16, torch.bfloat16, False),
        ("float16", torch.float16, True),
        (torch.float16, torch.float16, True),
    ],
)
def test_forward_runs_in_the_dtype_and_only_float16_scales(
    dtype: Any, expected: torch.dtype, scaled: bool
) -> None:
    model = linear()
    wrapper = AmpOptimWrapper(sgd(model), dtype=dtype)
    with wrapper.optim_context(model):
        assert model(batches(1)[0]).dtype is expected
    assert not torch.is_autocast_enabled("cpu")
    assert wrapper.loss_scaler.is_enabled() is scaled


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ("float61", ["'float61'", "'float16'"]),
        ("float32", ["'float32'", "float16"]),
        (torch.float64, ["torch.float64", "float16"]),
        (16, ["16", "float16"]),
    ],
)
def test_a_dtype_that_does_not_fit_is_named_with_those_that_do(dtype: Any, said: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"optim_wrapper\.dtype is ") as raised:
        AmpOptimWrapper(sgd(linear()), dtype=dtype)
    assert [part for part in said if part not in str(raised.value)] == []


@pytest.mark.parametrize("loss_scale", ["static", True, None, [128.0], 0, -2.0, float("nan")])
def test_a_loss_scale_that_does_not_fit_is_named(loss_scale: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        AmpOptimWrapper(sgd(linear()), loss_scale, "float16")
    assert f"loss_scale is {loss_scale!r}; expected 'dynamic'" in str(raised.value)


def test_an_unknown_argument_of_the_scaler_is_named() -> None:
    with pytest.raises(ConfigError, match="growth_intervall"):
        AmpOptimWrapper(sgd(linear()), {"growth_intervall": 5}, "float16")


def test_a_loaded_state_continues_to_the_bit_with_its_scale() -> None:
    model, data = linear(), batches(8)
    options = {"init_scale": 1024.0, "growth_interval": 3}
    wrapper = AmpOptimWrapper(sgd(model), options, "float16")
    overflow(wrapper, model)
    train(wrapper, model, data[:4])
    state = copy.deepcopy(wrapper.state_dict())
    resumed_model = copy.deepcopy(model)
    resumed = AmpOptimWrapper(sgd(resumed_model), options, "float16")
    resumed.load_state_dict(state)
    assert resumed.state_dict()["loss_scaler"] == state["loss_scaler"]
    assert state["loss_scaler"]["_growth_tracker"] == 1
    train(wrapper, model, data[4:])
    train(resumed, resumed_model, data[4:])
    assert_same_bits(model, resumed_model)
    assert resumed.loss_scaler.get_scale() == wrapper.loss_scaler.get_scale()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_state_can_be_loaded_back_safely(dtype: str) -> None:
    model = linear()
    wrapper = AmpOptimWrapper(sgd(model), dtype=dtype)
    train(wrapper, model, batches(2))
    check_plain(wrapper.state_dict())


def test_a_changed_loss_scale_wins_over_the_checkpoint() -> None:
    model = linear()
    old, new = (AmpOptimWrapper(sgd(model), scale, "float16") for scale in (128.0, 256.0))
    train(old, model, batches(1))
    new.load_state_dict(old.state_dict())
    assert new.loss_scaler.get_scale() == 256.0


def test_a_changed_growth_interval_wins_over_the_checkpoint() -> None:
    model = linear()
    old, new = (
        AmpOptimWrapper(sgd(model), {"growth_interval": steps}, "float16") for steps in (50, 5)
    )
    train(old, model, batches(1))
    new.load_state_dict(old.state_dict())
    assert new.loss_scaler.get_growth_interval() == 5


def test_the_state_of_a_plain_wrapper_is_taken_and_given() -> None:
    model, data = linear(), batches(3)
    plain = OptimWrapper(sgd(model))
    train(plain, model, data)
    amp = AmpOptimWrapper(sgd(model), 64.0, "float16")
    amp.load_state_dict(plain.state_dict())
    assert torch.equal(
        amp.optimizer.state[model.weight]["momentum_buffer"],
        plain.optimizer.state[model.weight]["momentum_buffer"],
    )
    assert (amp.inner_count, amp.update_count) == (3, 3)
    assert amp.loss_scaler.get_scale() == 64.0
    back = OptimWrapper(sgd(model))
    back.load_state_dict(amp.state_dict())
    assert (back.inner_count, back.update_count) == (3, 3)


def test_float16_takes_the_state_of_bfloat16_which_has_no_scale() -> None:
    model = linear()
    half = AmpOptimWrapper(sgd(model), 64.0, "float16")
    half.load_state_dict(AmpOptimWrapper(sgd(model), 64.0, "bfloat16").state_dict())
    assert half.loss_scaler.get_scale() == 64.0


@pytest.mark.parametrize("loss_scale", [512, 512.0, {"init_scale": 8.0}])
def test_a_loss_scale_without_effect_is_warned_of(
    loss_scale: Any, caplog: pytest.LogCaptureFixture
) -> None:
    AmpOptimWrapper(sgd(linear()), loss_scale, "bfloat16")
    assert caplog.messages == [
        f"loss_scale is {loss_scale}, but bfloat16 needs no scale and gets none; only float16 does."
    ]


# ------------------------------------------------------------------- amp=true

SGD = {"_target_": "torch.optim.SGD", "lr": 0.05}


class Own(OptimWrapper):
    """A wrapper of one's own, of which nobody knows whether it can."""


@pytest.mark.parametrize("target", [{}, {"_target_": "trainkit.optim_wrapper.OptimWrapper"}])
def test_amp_makes_a_plain_wrapper_one_of_mixed_precision(target: dict[str, Any]) -> None:
    node = {**target, "optimizer": SGD, "clip_grad": {"max_norm": 1.0}}
    wrapper = construct(with_amp(node, "optim_wrapper"), "optim_wrapper", linear())
    assert type(wrapper) is AmpOptimWrapper
    assert wrapper.clip_kwargs == {"max_norm": 1.0}


def test_amp_makes_each_of_several(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.ModuleDict({"a": linear(), "b": linear()})
    amp = {"_target_": AmpOptimWrapper, "optimizer": SGD}
    node = with_amp({"a": {"optimizer": SGD}, "b": amp}, "optim_wrapper")
    both = construct(node, "optim_wrapper", model)
    assert [type(wrapper) for wrapper in both.values()] == [AmpOptimWrapper, AmpOptimWrapper]
    assert len(caplog.messages) == 1


def test_amp_on_what_has_it_already_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    node = {"_target_": "trainkit.optim_wrapper.AmpOptimWrapper", "optimizer": SGD}
    assert with_amp(node, "optim_wrapper") is node
    assert caplog.messages == [
        "amp is true, and optim_wrapper is an AmpOptimWrapper already: nothing to change."
    ]


@pytest.mark.parametrize(
    ("node", "what"),
    [
        ({"_target_": Own, "optimizer": SGD}, "optim_wrapper is of class Own"),
        (OptimWrapper(sgd(linear())), "optim_wrapper is an object"),
        ({"a": {"_target_": Own, "optimizer": SGD}}, "optim_wrapper.a is of class Own"),
    ],
    ids=["class", "object", "several"],
)
def test_amp_on_a_wrapper_that_cannot_is_refused(node: Any, what: str) -> None:
    with pytest.raises(ConfigError) as raised:
        with_amp(node, "optim_wrapper")
    assert str(raised.value) == (
        f"amp is true, but {what}, which cannot be told to use mixed precision: only a config of "
        "an OptimWrapper can. Drop amp, or use an AmpOptimWrapper there."
    )


def test_amp_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["optim_wrapper=default", "amp=true", "optim_wrapper.clip_grad={max_norm: 1.0}"]
    runner = Runner.from_cfg(compose(overrides), work_dir=tmp_path)
    assert type(runner.optim_wrapper) is AmpOptimWrapper
    own = f"optim_wrapper._target_={__name__}.Own"
    with pytest.raises(SystemExit):
        raise SystemExit(main(["check", "optim_wrapper=default", own, "amp=true"]))
    assert "amp is true, but optim_wrapper is of class Own" in capsys.readouterr().err
