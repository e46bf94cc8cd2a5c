"""A toy problem for tests: a linear regression on 12 samples, in batches of 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from trainkit import BaseModel, Hook, Runner
from trainkit.evaluator import BaseMetric
from trainkit.log_processor import LogProcessor

SAMPLES = 12


class ToyDataset(Dataset[dict[str, torch.Tensor]]):
    """``y`` is a fixed linear function of ``x`` (3 features)."""

    def __init__(self, samples: int = SAMPLES) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(samples, 3, generator=generator)
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [0.5]])
        self.metainfo = {"name": "toy"}

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[index], "y": self.y[index]}


class ToyModel(BaseModel):
    """One linear layer, and dropout so that random numbers matter."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.linear = nn.Linear(3, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        out = self.linear(self.dropout(x))
        return {"loss": (out - y).square().mean()} if mode == "loss" else out


class MeanSquaredError(BaseMetric):
    """Mean squared error, as ``mse``."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(
            ((data_samples - data_batch["y"]).square().sum().item(), len(data_samples))
        )

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"mse": sum(error for error, _ in results) / sum(size for _, size in results)}


class Recorder(Hook):
    """Keep every point that is called, with the counters at that time."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]


def _recording(point: str) -> Any:
    def record(self: Recorder, runner: Runner, *args: Any) -> None:
        self.calls.append((point, runner.epoch, runner.iter))

    return record


for _point in [name for name in vars(Hook) if name.startswith(("before_", "after_"))]:
    setattr(Recorder, _point, _recording(_point))


def loader(shuffle: bool = False, **options: Any) -> DataLoader[Any]:
    return DataLoader(ToyDataset(), batch_size=4, shuffle=shuffle, **options)


def loader_config(**options: Any) -> dict[str, Any]:
    collate = {"_target_": "trainkit.dataloader.default_collate"}
    return {"batch_size": 4, "dataset": ToyDataset(), "collate_fn": collate, **options}


def make_runner(work_dir: Path, **changes: Any) -> Runner:
    """A runner for two epochs of three batches, with validation and test; ``changes`` win."""
    arguments: dict[str, Any] = {
        "model": ToyModel(),
        "work_dir": work_dir,
        "train_dataloader": loader_config(),
        "train_cfg": {"by_epoch": True, "max_epochs": 2},
        "optim_wrapper": {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}},
        "val_dataloader": loader_config(),
        "val_cfg": {},
        "val_evaluator": {"_target_": MeanSquaredError},
        "test_dataloader": loader_config(),
        "test_cfg": {},
        "test_evaluator": [MeanSquaredError()],
        "randomness": {"seed": 3},
        "log_processor": LogProcessor(),  # the plain names of scalars
    }
    return Runner(**{**arguments, **changes})
