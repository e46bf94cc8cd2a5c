"""The UCI handwritten digits: 1,797 real 8x8 images, so that a first run needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from trainkit.errors import ConfigError, did_you_mean


class Digits(Dataset[dict[str, Any]]):
    """One split of the digits, stratified by label: 1,259 train, 269 val, 269 test.

    Each item is ``{"inputs": float32 tensor (1, 8, 8) in [0, 1], "labels": int}``.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.

    Source: E. Alpaydin, C. Kaynak (1998), UCI Machine Learning Repository, doi:10.24432/C50P49, CC
        BY 4.0.
    """

    SPLITS: ClassVar = {"train": 0, "val": 1, "test": 2}
    SAMPLES: ClassVar = {"train": 1259, "val": 269, "test": 269}
    deterministic = True  # reading draws no random number, so nothing needs to be seeded for it

    def __init__(self, split: Literal["train", "val", "test"] = "train") -> None:
        if split not in self.SPLITS:
            raise ConfigError(
                f"Digits has no split {split!r}. {did_you_mean(str(split), self.SPLITS)}"
            )
        with np.load(Path(__file__).with_name("digits.npz")) as file:
            chosen = file["split"] == self.SPLITS[split]
            images, labels = file["images"][chosen], file["labels"][chosen]
        self.split = split
        self.images = (
            torch.from_numpy(images).unsqueeze(1).float() / 16.0
        )  # (N, 1, 8, 8); the set's own range is 0..16
        self.labels: list[int] = labels.tolist()
        self.metainfo = {"dataset": "UCI digits", "classes": [str(digit) for digit in range(10)]}

    @classmethod
    def declared_length(cls, split: str = "train") -> int | None:
        """Return the samples of a split without reading it; None for one that there is not."""
        samples: int | None = cls.SAMPLES.get(split)
        return samples

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": self.images[index], "labels": self.labels[index]}
