"""Changes to a whole model leave what it computes alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from trainkit.errors import ConfigError
from trainkit.model import (
    checkpoint_activations,
    convert_sync_batchnorm,
    has_checkpointed,
    mark_wrapper,
    revert_sync_batchnorm,
    unwrap,
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3)),
        nn.Sequential(nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2, affine=False)),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


def train_once(model: nn.Module) -> None:
    torch.manual_seed(1)
    model(torch.randn(6, 1, 8, 8)).square().sum().backward()


def test_a_reverted_sync_batch_norm_gives_what_a_batch_norm_gives() -> None:
    plain = network()
    train_once(plain)
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    assert isinstance(sync[0][1], nn.SyncBatchNorm)
    reverted = revert_sync_batchnorm(sync)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in reverted.modules())
    for model in (plain, reverted):
        train_once(model)
        model.eval()
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(reverted(images), plain(images))
    assert list(reverted.state_dict()) == list(plain.state_dict())


def test_a_reverted_batch_norm_takes_inputs_of_any_rank() -> None:
    model = revert_sync_batchnorm(nn.Sequential(nn.SyncBatchNorm(3)))
    for shape in [(4, 3), (4, 3, 5), (4, 3, 5, 5), (4, 3, 2, 2, 2)]:
        assert model(torch.randn(shape)).shape == shape


def test_reverting_keeps_the_settings_and_what_is_frozen() -> None:
    model = nn.Sequential(nn.SyncBatchNorm(3, eps=0.1, momentum=0.2)).eval()
    model[0].weight.requires_grad_(False)
    (norm,) = revert_sync_batchnorm(model)
    assert (norm.eps, norm.momentum, norm.training) == (0.1, 0.2, False)
    assert norm.bias.requires_grad
    assert not norm.weight.requires_grad


def test_reverting_keeps_the_dtype() -> None:
    model = nn.Sequential(nn.SyncBatchNorm(3)).double()
    values = torch.randn(3, dtype=torch.float64)
    model[0].running_mean.copy_(values)
    (norm,) = revert_sync_batchnorm(model)
    assert norm.weight.dtype == torch.float64
    assert torch.equal(norm.running_mean, values)


def test_a_model_that_is_itself_a_sync_batch_norm_is_reverted() -> None:
    assert not isinstance(revert_sync_batchnorm(nn.SyncBatchNorm(3)), nn.SyncBatchNorm)


def test_converted_and_reverted_a_model_is_what_it_was() -> None:
    plain = network()
    train_once(plain)
    plain[0].eval()
    plain[1][1].requires_grad_(False)
    model = convert_sync_batchnorm(copy.deepcopy(plain))
    norms = [module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert [norm.training for norm in norms] == [False, True]
    model = revert_sync_batchnorm(model)
    assert [p.requires_grad for p in model.parameters()] == [
        p.requires_grad for p in plain.parameters()
    ]
    images = torch.randn(3, 1, 8, 8)
    torch.manual_seed(2)
    expected = plain(images)
    torch.manual_seed(2)
    assert torch.equal(model(images), expected)
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert [name for name, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]


def test_the_weights_of_a_converted_batch_norm_are_the_very_same() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    weight, mean = model[0].weight, model[0].running_mean
    convert_sync_batchnorm(model)
    assert model[0].weight is weight
    assert model[0].running_mean is mean
    assert isinstance(convert_sync_batchnorm(nn.BatchNorm3d(2)), nn.SyncBatchNorm)


def test_a_batch_norm_in_two_places_is_one_afterwards_too_with_its_hooks() -> None:
    norm = nn.BatchNorm2d(3)
    seen: list[str] = []
    norm.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    model = nn.Sequential(norm, nn.ReLU(), norm, nn.ModuleDict({"a": norm}))
    model = revert_sync_batchnorm(convert_sync_batchnorm(model))
    assert model[0] is model[2] is model[3]["a"]
    model[0](torch.ones(2, 3, 1, 1))
    assert seen == ["_AnyBatchNorm"]
    copy.deepcopy(model)


CHECKPOINTED = ["0", ["0", "1"], ("1.0",), [], ["0", "0"], ["0", "0.1", "0.3"]]


@pytest.mark.parametrize("names", CHECKPOINTED, ids=str)
def test_checkpointed_activations_change_nothing_to_the_bit(names: Any) -> None:
    """Gradients with dropout, running statistics, random numbers afterwards."""
    plain, checkpointed = network(), network()
    checkpoint_activations(checkpointed, names)
    for _ in range(2):
        train_once(plain)
        drawn = torch.rand(1)
        train_once(checkpointed)
        assert torch.rand(1) == drawn
    for ours, theirs in zip(checkpointed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    expected, found = plain.state_dict(), checkpointed.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_statistics_of_any_kind_are_taken_once() -> None:
    def models() -> nn.Module:
        return nn.Sequential(
            nn.BatchNorm1d(2, momentum=None),
            nn.BatchNorm1d(2, track_running_stats=False),
            nn.BatchNorm1d(2).eval(),
        )

    plain, checkpointed = models(), nn.Sequential(models())
    checkpoint_activations(checkpointed, "0")
    x = torch.randn(4, 2, requires_grad=True)
    for model in (plain, checkpointed, plain, checkpointed):
        total = model(x).square().sum()
        total.backward(retain_graph=True)
        total.backward()
    for ours, theirs in zip(checkpointed.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert checkpointed[0][0].momentum is None
    assert checkpointed[0][2].momentum == 0.1


def test_arguments_are_passed_by_position_and_by_name() -> None:
    class Block(nn.Module):
        def forward(self, x: Any, *, debug: Any = None, use_reentrant: Any = None) -> Any:
            seen.append(debug)
            return {"y": x["a"] * debug * use_reentrant}

    seen: list[Any] = []
    model = nn.ModuleDict({"block": Block()})
    checkpoint_activations(model, "block")
    x = torch.ones(2, requires_grad=True)
    factor = torch.full((2,), 3.0, requires_grad=True)
    model["block"]({"a": x}, debug=factor, use_reentrant=2)["y"].sum().backward()
    assert x.grad.tolist() == [6, 6]
    assert factor.grad.tolist() == [2, 2]
    assert len(seen) == 2
    with torch.no_grad():
        model["block"]({"a": x}, debug=1, use_reentrant=1)
    assert len(seen) == 3


def test_an_input_without_a_gradient_is_fine() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    checkpoint_activations(model, "0")
    model(torch.ones(1, 2)).sum().backward()
    assert model[0].weight.grad is not None


def test_a_forward_that_was_replaced_is_the_one_that_is_used() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].forward = lambda x: x * 7
    checkpoint_activations(model, "0")
    assert model(torch.ones(1)).item() == 7
    assert has_checkpointed(model)
    assert not has_checkpointed(nn.Linear(1, 1))


def test_a_checkpointed_model_can_be_saved_whole(tmp_path: Path) -> None:
    model = network()
    checkpoint_activations(model, "0")
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False).eval()
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(again(images), model.eval()(images))
    assert has_checkpointed(again)


def test_a_checkpointed_module_keeps_fewer_activations() -> None:
    def kept(model: nn.Module) -> int:
        saved = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(6, 1, 8, 8))
        return len(saved)

    model = network()
    whole = kept(model)
    checkpoint_activations(model, "0")
    assert kept(model) < whole


def test_a_copy_of_a_checkpointed_model_computes_with_its_own_weights() -> None:
    model = network().eval()
    checkpoint_activations(model, ["0", "1"])
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert other(torch.ones(1, 1, 8, 8)).abs().sum() > 0
    assert model(torch.ones(1, 1, 8, 8)).abs().sum() == 0


def test_an_unknown_submodule_gets_a_suggestion() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(1, 1)})
    with pytest.raises(ConfigError, match=r"names 'bakbone', which ModuleDict.*'backbone'"):
        checkpoint_activations(model, "bakbone")


class Wrapper(nn.Module):
    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module


def test_unwrapping_gives_the_model_inside_a_wrapper() -> None:
    model = nn.Linear(1, 1)
    assert unwrap(nn.DataParallel(model)) is model
    assert unwrap(model) is model


def test_a_model_with_a_submodule_called_module_is_no_wrapper() -> None:
    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)
            self.head = nn.Linear(2, 1)

    model = Mine()
    assert unwrap(model) is model


def test_a_model_whose_only_part_is_called_module_is_no_wrapper_unless_marked() -> None:
    inner = nn.Linear(2, 2)
    model = Wrapper(inner)
    assert unwrap(model) is model
    mark_wrapper(model)
    assert unwrap(model) is inner
    assert unwrap(copy.deepcopy(model)).weight.equal(inner.weight)


def test_an_average_is_a_wrapper_and_one_wrapper_may_be_inside_of_another() -> None:
    model = nn.Linear(1, 1)
    average = AveragedModel(nn.DataParallel(model))
    assert unwrap(average) is average.module.module


def test_an_attribute_called_module_that_is_no_module_is_left() -> None:
    model = Wrapper("a name")
    mark_wrapper(model)
    assert unwrap(model) is model
