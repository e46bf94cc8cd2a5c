"""ConvNet: shapes, modes, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainkit.errors import ConfigError
from trainkit.model import ConvNet
from trainkit.optim_wrapper import OptimWrapper


@pytest.mark.parametrize("channels", [(4,), (4, 6), [4, 6, 8, 5]])
def test_it_has_a_block_for_each_entry_of_channels(channels: list[int]) -> None:
    model = ConvNet(in_channels=3, num_classes=7, channels=channels)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == list(channels)
    assert sum(isinstance(m, nn.MaxPool2d) for m in model.modules()) == len(channels) - 1
    assert model(torch.randn(2, 3, 16, 8)).shape == (2, 7)


def test_the_loss_is_the_cross_entropy_of_the_logits() -> None:
    model = ConvNet(channels=(4,)).eval()
    images, labels = torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    logits = model(images)
    assert list(model(images, labels, mode="loss")) == ["loss"]
    expected = F.cross_entropy(logits, labels)
    assert torch.equal(model(images, labels, mode="loss")["loss"], expected)
    assert torch.equal(model(images, labels, mode="predict"), logits)
    assert torch.equal(model.val_step({"inputs": images, "labels": labels}), logits)


def test_dropout_is_active_in_training_only() -> None:
    model = ConvNet(channels=(8,), dropout=0.5)
    model.backbone.eval()
    images = torch.randn(2, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_it_learns_a_batch_by_heart() -> None:
    model = ConvNet(num_classes=4, channels=(8,))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9))
    batch = {"inputs": torch.randn(4, 1, 8, 8), "labels": torch.arange(4)}
    losses = [model.train_step(batch, wrapper)["loss"].item() for _ in range(40)]
    assert losses[-1] < 0.1 < losses[0]


def test_a_batch_without_labels_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="needs 'inputs' and 'labels'"):
        ConvNet(channels=(4,))(torch.randn(1, 1, 8, 8), mode="loss")


@pytest.mark.parametrize("channels", [[], "abc", [0], [1.5]])
def test_no_channels_are_refused(channels: Any) -> None:
    with pytest.raises(ConfigError, match="ConvNet got channels="):
        ConvNet(channels=channels)
