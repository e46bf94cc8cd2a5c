"""OptimWrapper beside the bare PyTorch loop, and beside MMEngine's wrapper."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from trainkit.checkpoint import check_plain
from trainkit.errors import ConfigError
from trainkit.optim_wrapper import OptimWrapper
from trainkit.param_scheduler import LinearLR

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.optim

OPTIMIZERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
}
either_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def linear() -> nn.Linear:
    return nn.Linear(4, 2)


def batches(count: int, size: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return list(torch.randn(count, size, 4, generator=generator))


def loss_of(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = (model(batch) - batch[:, :2]).square().mean()
    return loss


def train(wrapper: Any, model: nn.Module, data: list[torch.Tensor]) -> None:
    for batch in data:
        with wrapper.optim_context(model):
            loss = loss_of(model, batch)
        wrapper.update_params(loss)


def assert_same_bits(model: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def sgd_wrapper(model: nn.Module, lr: float = 0.1, **options: Any) -> OptimWrapper:
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, **options))


@either_optimizer
def test_update_params_is_the_bare_loop(
    make: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    model, data = linear(), batches(10)
    bare = copy.deepcopy(model)
    wrapper, optimizer = OptimWrapper(make(model)), make(bare)
    train(wrapper, model, data)
    for batch in data:
        loss_of(bare, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert_same_bits(model, bare)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "clip_grad",
    [
        None,
        {"max_norm": 0.3},
        {"type": "norm", "max_norm": 0.5, "norm_type": 1.0},
        {"type": "value", "clip_value": 0.05},
    ],
)
@either_optimizer
def test_accumulation_with_a_remainder_is_mmengines(
    make: Callable[[nn.Module], torch.optim.Optimizer], clip_grad: dict[str, Any] | None
) -> None:
    model = linear()
    other = copy.deepcopy(model)
    ours = OptimWrapper(make(model), 3, clip_grad)
    theirs = mmengine.optim.OptimWrapper(make(other), 3, copy.deepcopy(clip_grad))
    ours.initialize_count_status(model, 0, 10)
    theirs.initialize_count_status(other, 0, 10)
    updates = []
    for call, batch in enumerate(batches(10), start=1):
        before = ours.update_count
        train(ours, model, [batch])
        train(theirs, other, [batch])
        assert_same_bits(model, other)
        if ours.update_count > before:
            updates.append(call)
    assert updates == [3, 6, 9, 10]


def test_without_a_known_end_a_remainder_is_not_flushed_as_in_mmengine() -> None:
    model = linear()
    other = copy.deepcopy(model)
    make = OPTIMIZERS["sgd"]
    ours = OptimWrapper(make(model), 3)
    train(ours, model, batches(10))
    train(mmengine.optim.OptimWrapper(make(other), 3), other, batches(10))
    assert_same_bits(model, other)
    assert (ours.inner_count, ours.update_count) == (10, 3)


def test_four_passes_of_two_are_one_batch_of_eight() -> None:
    model, data = linear(), batches(8)
    whole = copy.deepcopy(model)
    make = OPTIMIZERS["sgd"]
    train(OptimWrapper(make(model), 4), model, data)
    train(OptimWrapper(make(whole)), whole, [torch.cat(data[:4]), torch.cat(data[4:])])
    for mine, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_remainder_window_gives_the_mean_gradient() -> None:
    model, data = linear(), batches(5)
    start = copy.deepcopy(model)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0), 3)
    wrapper.initialize_count_status(model, 3, 5)
    train(wrapper, model, data[3:])
    mean = (loss_of(start, data[3]) + loss_of(start, data[4])) / 2
    mean.backward()
    for after, before in zip(model.parameters(), start.parameters(), strict=True):
        assert before.grad is not None
        torch.testing.assert_close(after, before - before.grad)


def test_step_and_zero_arguments_reach_the_optimizer() -> None:
    model = linear()
    wrapper = sgd_wrapper(model)
    closed: list[bool] = []

    def closure() -> float:
        closed.append(True)
        return 0.0

    wrapper.update_params(
        loss_of(model, batches(1)[0]), {"closure": closure}, {"set_to_none": False}
    )
    assert closed == [True]
    assert model.weight.grad is not None
    assert not model.weight.grad.any()


def test_grad_norm_is_that_before_clipping() -> None:
    model, batch = linear(), batches(1)[0]
    wrapper = OptimWrapper(OPTIMIZERS["sgd"](model), clip_grad={"max_norm": 1e-3})
    gradients = torch.autograd.grad(loss_of(model, batch), list(model.parameters()))
    train(wrapper, model, [batch])
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert wrapper.grad_norm is not None
    torch.testing.assert_close(wrapper.grad_norm, norm)
    assert norm > 1e-3


@pytest.mark.parametrize("clip_grad", [None, {"type": "value", "clip_value": 0.1}])
def test_grad_norm_is_none_unless_clipped_by_norm(clip_grad: dict[str, Any] | None) -> None:
    model = linear()
    wrapper = OptimWrapper(OPTIMIZERS["sgd"](model), clip_grad=clip_grad)
    train(wrapper, model, batches(2))
    assert wrapper.grad_norm is None


def test_the_given_clip_grad_is_left_as_it_was() -> None:
    clip_grad = {"type": "norm", "max_norm": 1.0}
    model = linear()
    train(OptimWrapper(OPTIMIZERS["sgd"](model), clip_grad=clip_grad), model, batches(1))
    assert clip_grad == {"type": "norm", "max_norm": 1.0}


@pytest.mark.parametrize("given", [0, -1, 1.5, True, "2"])
def test_accumulative_counts_must_be_a_positive_whole_number(given: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        OptimWrapper(OPTIMIZERS["sgd"](linear()), accumulative_counts=given)
    assert f"accumulative_counts is {given!r}; expected a whole number" in str(raised.value)


@pytest.mark.parametrize(
    ("clip_grad", "said"),
    [
        ({"type": "nrom", "max_norm": 1.0}, ["clip_grad.type is 'nrom'", "'norm'"]),
        ({"type": "norm"}, ["{'type': 'norm'}", "max_norm"]),
        ({"type": "value"}, ["{'type': 'value'}", "clip_value"]),
        ({}, ["clip_grad is {}", "max_norm"]),
        ({"max_nrom": 1.0}, ["max_nrom", "max_norm"]),
        ({"norm_type": 1.0}, ["norm_type", "max_norm"]),
        ({"type": "value", "max_norm": 1.0}, ["max_norm", "clip_value"]),
        (1.0, ["clip_grad is 1.0", "max_norm"]),
        ({"max_norm": -1}, ["clip_grad.max_norm is -1; expected a number above 0."]),
        ({"max_norm": 0}, ["clip_grad.max_norm is 0"]),
        ({"max_norm": "1"}, ["clip_grad.max_norm is '1'"]),
        ({"max_norm": True}, ["clip_grad.max_norm is True"]),
        ({"max_norm": float("nan")}, ["clip_grad.max_norm is nan"]),
        ({"max_norm": None}, ["clip_grad.max_norm is None"]),
        ({"type": "value", "clip_value": -0.5}, ["clip_grad.clip_value is -0.5"]),
        (
            {"max_norm": 1.0, "norm_type": "two"},
            ["clip_grad.norm_type is 'two'; expected a number above 0, or inf."],
        ),
    ],
    ids=str,
)
def test_clip_grad_that_cannot_work_is_an_error_at_once(clip_grad: Any, said: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        OptimWrapper(OPTIMIZERS["sgd"](linear()), clip_grad=clip_grad)
    assert [part for part in said if part not in str(raised.value)] == []


@pytest.mark.parametrize("norm_type", [1, 2.0, "inf", float("inf")])
def test_a_norm_of_any_kind_clips(norm_type: Any) -> None:
    given = {"max_norm": float("inf"), "norm_type": norm_type}
    wrapper = OptimWrapper(OPTIMIZERS["sgd"](linear()), clip_grad=given)
    assert wrapper.clip_kwargs == given


def test_what_is_no_optimizer_is_named() -> None:
    given: Any = linear()
    with pytest.raises(ConfigError, match=r"a Linear; expected a torch\.optim\.Optimizer"):
        OptimWrapper(given)


@either_optimizer
def test_a_loaded_state_continues_to_the_bit(
    make: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    model, data = linear(), batches(12)
    wrapper = OptimWrapper(make(model), 2, {"max_norm": 0.3})
    train(wrapper, model, data[:6])
    resumed_model = copy.deepcopy(model)
    resumed = OptimWrapper(make(resumed_model), 2, {"max_norm": 0.3})
    resumed.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    train(wrapper, model, data[6:])
    train(resumed, resumed_model, data[6:])
    assert_same_bits(model, resumed_model)
    assert (resumed.inner_count, resumed.update_count) == (12, 6)


def test_the_state_can_be_loaded_back_safely() -> None:
    model = linear()
    wrapper = OptimWrapper(OPTIMIZERS["adamw"](model), 2, {"max_norm": 0.3})
    LinearLR(wrapper, start_factor=0.5, end=5)
    train(wrapper, model, batches(4))
    check_plain(wrapper.state_dict())


def test_a_bare_optimizers_state_is_taken() -> None:
    model = linear()
    optimizer = OPTIMIZERS["sgd"](model)
    train(OptimWrapper(optimizer), model, batches(2))
    wrapper = OptimWrapper(OPTIMIZERS["sgd"](model))
    wrapper.load_state_dict(optimizer.state_dict())
    assert torch.equal(
        wrapper.optimizer.state[model.weight]["momentum_buffer"],
        optimizer.state[model.weight]["momentum_buffer"],
    )


def test_a_changed_lr_wins_over_the_checkpoint_which_gives_the_momentum(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = linear()
    old, new = sgd_wrapper(model, lr=0.1), sgd_wrapper(model, lr=0.5)
    train(old, model, batches(3))
    with caplog.at_level(logging.INFO, "trainkit"):
        new.load_state_dict(old.state_dict())
    assert new.get_lr() == {"lr": [0.5]}
    assert torch.equal(
        new.optimizer.state[model.weight]["momentum_buffer"],
        old.optimizer.state[model.weight]["momentum_buffer"],
    )
    assert caplog.messages == ["lr of group 0: the config's 0.5, not the checkpoint's 0.1."]


def test_what_the_config_has_not_changed_is_the_checkpoints(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = linear()
    old, new = sgd_wrapper(model, lr=0.1), sgd_wrapper(model, lr=0.1)
    old.param_groups[0]["lr"] = 0.07
    old.param_groups[0]["weight_decay"] = 0.3
    with caplog.at_level(logging.INFO, "trainkit"):
        new.load_state_dict(old.state_dict())
    assert new.param_groups[0]["lr"] == 0.07
    assert new.param_groups[0]["weight_decay"] == 0.3
    assert caplog.messages == []


def test_a_change_of_the_config_outlives_a_second_resume() -> None:
    model = linear()
    first, second, third = (sgd_wrapper(model, lr=lr) for lr in (0.1, 0.5, 0.5))
    second.load_state_dict(first.state_dict())
    second.param_groups[0]["lr"] = 0.4
    third.load_state_dict(second.state_dict())
    assert third.get_lr() == {"lr": [0.4]}


def test_a_change_in_one_group_leaves_the_others_to_the_checkpoint() -> None:
    model = linear()

    def make(lr_of_bias: float) -> OptimWrapper:
        groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": lr_of_bias}]
        return OptimWrapper(torch.optim.SGD(groups, lr=0.1))

    old, new = make(0.2), make(0.8)
    for group in old.param_groups:
        group["lr"] /= 10
    new.load_state_dict(old.state_dict())
    assert new.get_lr()["lr"] == [0.01, 0.8]


def test_betas_that_a_config_gives_as_a_list_are_no_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = linear()
    old, new = (
        OptimWrapper(torch.optim.RAdam(model.parameters(), betas=betas))
        for betas in ((0.9, 0.95), [0.9, 0.95])
    )
    with caplog.at_level(logging.INFO, "trainkit"):
        new.load_state_dict(old.state_dict())
    assert caplog.messages == []


def test_a_schedule_goes_on_from_the_configs_lr() -> None:
    model = linear()
    old, new = sgd_wrapper(model, lr=1.0), sgd_wrapper(model, lr=2.0)
    before, after = (LinearLR(each, start_factor=0.0, end=5) for each in (old, new))
    before.step()
    new.load_state_dict(old.state_dict())
    after.load_state_dict(before.state_dict())
    assert new.get_lr() == {"lr": [0.5]}


class Replica(nn.Module):
    """A model whose ``no_sync`` is seen by its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()
        self.sync = True
        self.synced: list[bool] = []

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        self.sync = False
        try:
            yield
        finally:
            self.sync = True

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.synced.append(self.sync)
        output: torch.Tensor = self.inner(batch)
        return output


def test_ranks_exchange_gradients_exactly_in_passes_that_end_a_window() -> None:
    model = Replica()
    wrapper = OptimWrapper(OPTIMIZERS["sgd"](model), 3)
    wrapper.initialize_count_status(model, 0, 10)
    train(wrapper, model, batches(10))
    assert [call for call, sync in enumerate(model.synced, start=1) if sync] == [3, 6, 9, 10]
    assert model.sync


def test_without_accumulation_every_pass_exchanges_gradients() -> None:
    model = Replica()
    train(OptimWrapper(OPTIMIZERS["sgd"](model)), model, batches(3))
    assert model.synced == [True, True, True]


def test_batch_norm_under_accumulation_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(linear(), nn.BatchNorm1d(2))
    wrapper = OptimWrapper(OPTIMIZERS["sgd"](model), 2)
    wrapper.initialize_count_status(model, 0, 10)
    assert "batch norm still sees one pass at a time" in caplog.text


def test_momentum_is_read_from_sgd_adam_and_neither() -> None:
    parameters = list(linear().parameters())
    sgd = torch.optim.SGD(parameters, lr=0.1, momentum=0.8)
    adam = torch.optim.AdamW(parameters, betas=(0.7, 0.99))
    adagrad = torch.optim.Adagrad(parameters)
    found = [OptimWrapper(optimizer).get_momentum() for optimizer in (sgd, adam, adagrad)]
    assert found == [{"momentum": [0.8]}, {"momentum": [0.7]}, {"momentum": [0.0]}]
