"""A small convolutional classifier, the model of the default run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from trainkit.errors import ConfigError
from trainkit.model.base import BaseModel
from trainkit.model.module import InitCfg


class ConvNet(BaseModel):
    """Blocks of convolution, batch norm and ReLU with pooling between; mean; linear.

    Args:
        in_channels: Channels of the images.
        num_classes: Classes to tell apart.
        channels: Output channels of each block.
        dropout: Share of the features that is zeroed before the linear layer in training.
        data_preprocessor: See :class:`BaseModel`.
        init_cfg: See :class:`BaseModel`.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: Sequence[int] = (32, 64),
        dropout: float = 0.0,
        data_preprocessor: nn.Module | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not channels or not all(type(width) is int and width > 0 for width in channels):
            raise ConfigError(
                f"ConvNet got channels={channels!r}; expected the output channels of at least one "
                "block, as [32, 64]."
            )
        layers: list[nn.Module] = []
        for index, (width_in, width_out) in enumerate(
            zip([in_channels, *channels], channels, strict=False)
        ):
            layers += [nn.MaxPool2d(2)] if index else []
            layers += [
                nn.Conv2d(width_in, width_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(),
            ]
        self.backbone = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(
        self, inputs: torch.Tensor, labels: torch.Tensor | None = None, mode: str = "tensor"
    ) -> Any:
        """Classify images.

        Args:
            inputs: ``(N, in_channels, H, W)``.
            labels: ``(N,)``, class indices; needed by ``mode="loss"``.
            mode: ``"loss"`` gives ``{"loss": mean cross entropy}``; the others give logits ``(N,
                num_classes)``.
        """
        logits = self.head(self.dropout(self.backbone(inputs).mean(dim=(2, 3))))
        if mode == "loss":
            if labels is None:
                raise ValueError(
                    "ConvNet got no labels; a batch for mode='loss' needs 'inputs' and 'labels'."
                )
            return {"loss": F.cross_entropy(logits, labels)}
        return logits
