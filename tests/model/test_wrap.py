"""Changes to a whole model leave what it computes alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from trainkit.errors import ConfigError
from trainkit.model import checkpoint_activations, revert_sync_batchnorm, unwrap


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


@pytest.mark.parametrize("names", ["0", ["0", "1"], ("1.0",), []])
def test_checkpointed_activations_give_the_same_gradients_to_the_bit(names: Any) -> None:
    plain, checkpointed = network(), network()
    checkpoint_activations(checkpointed, names)
    for _ in range(2):
        train_once(plain)
        train_once(checkpointed)
    for ours, theirs in zip(checkpointed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert list(checkpointed.state_dict()) == list(plain.state_dict())


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


def test_an_attribute_called_module_that_is_no_module_is_left() -> None:
    model = Wrapper("a name")
    assert unwrap(model) is model
