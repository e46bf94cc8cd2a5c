"""MMEngine's migration tutorial on trainkit: ``python examples/tutorial.py``.

A model with three modes, a metric that keeps sums of each batch, plain data loaders, a run, two
ways to test it, and a train loop of one's own; in a new directory below ``outputs/tutorial``. On
CIFAR-10 where torchvision is there and finds it in ``data/``, else on the digits that ship with
trainkit.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset

from trainkit import BaseModel, Runner
from trainkit.data import Digits
from trainkit.evaluator import BaseMetric
from trainkit.loops import EpochBasedTrainLoop


class Pairs(Dataset[tuple[torch.Tensor, int]]):
    """The digits as (image, label), enlarged to CIFAR-10's 3x32x32."""

    def __init__(self, split: str) -> None:
        digits = Digits(split)
        images = F.interpolate(digits.images, size=(32, 32), mode="nearest")
        self.images, self.labels = images.expand(-1, 3, -1, -1).contiguous(), digits.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.labels[index]


def make_datasets() -> tuple[Any, Any]:
    """Return CIFAR-10's train and test part if they are on disk, else the digits'."""
    try:
        from torchvision import datasets, transforms

        normalize = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )
        train = datasets.CIFAR10("data", train=True, transform=normalize)
        return train, datasets.CIFAR10("data", train=False, transform=normalize)
    except (ImportError, RuntimeError):  # RuntimeError: there is no CIFAR-10 in data/
        return Pairs("train"), Pairs("val")


class Model(BaseModel):
    """The tutorial's convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)
        self.loss_fn = nn.CrossEntropyLoss()

    def forward(self, img: torch.Tensor, label: torch.Tensor, mode: str) -> Any:
        feat = self.pool(F.relu(self.conv1(img)))
        feat = self.pool(F.relu(self.conv2(feat)))
        feat = F.relu(self.fc1(feat.flatten(1)))
        feat = self.fc3(F.relu(self.fc2(feat)))
        if mode == "loss":
            return dict(loss=self.loss_fn(feat, label))
        return [feat.argmax(1)]


class ToyAccuracyMetric(BaseMetric):
    """Accuracy, from the right ones and the size of each batch."""

    def process(self, label: Any, pred: Any) -> None:
        self.results.append(((label[1] == torch.stack(pred)).sum(), len(label[1])))

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        right = sum(correct for correct, _ in results)
        return dict(Accuracy=right / sum(batch_size for _, batch_size in results))


class CustomEpochBasedTrainLoop(EpochBasedTrainLoop):
    """Train twice on every batch."""

    def run_iter(self, idx: int, data_batch: Any) -> None:
        super().run_iter(idx, data_batch)
        super().run_iter(idx, data_batch)


def main() -> None:
    torch.manual_seed(5)  # the models are made before a Runner seeds
    train, val = make_datasets()
    train_dataloader = DataLoader(train, batch_size=32, shuffle=True)
    val_dataloader = DataLoader(val, batch_size=32)
    directory = Path("outputs/tutorial") / time.strftime("%Y-%m-%d_%H-%M-%S")
    directory.mkdir(parents=True)
    os.chdir(directory)
    model = Model()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    common = dict(
        randomness=dict(seed=5),
        env_cfg=dict(dist_cfg=dict(backend="nccl")),
        launcher="none",
    )
    validation = dict(
        val_dataloader=val_dataloader,
        val_evaluator=dict(_target_="__main__.ToyAccuracyMetric"),
        val_cfg=dict(_target_="trainkit.loops.ValLoop"),
    )
    testing = dict(
        test_dataloader=val_dataloader,
        test_evaluator=dict(_target_="__main__.ToyAccuracyMetric"),
        test_cfg=dict(_target_="trainkit.loops.TestLoop"),
    )

    print("== train")
    runner = Runner(
        model=model,
        work_dir="./work_dir",
        optim_wrapper=dict(optimizer=optimizer),
        param_scheduler=dict(
            _target_="trainkit.param_scheduler.MultiStepLR", milestones=[2, 3], gamma=0.1
        ),
        train_dataloader=train_dataloader,
        train_cfg=dict(by_epoch=True, max_epochs=4, val_interval=1),
        **validation,
        **common,
    )
    runner.train()

    print("== test: the same work_dir, so the checkpoint is found")
    runner = Runner(model=Model(), work_dir="./work_dir", **testing, **common)
    print(runner.test())

    print("== test: another work_dir, so the checkpoint is named")
    runner = Runner(
        model=Model(),
        work_dir="./test_work_dir",
        load_from="./work_dir/epoch_4.pth",
        **testing,
        **common,
    )
    print(runner.test())

    print("== a train loop of one's own")
    model = Model()
    runner = Runner(
        model=model,
        work_dir="./custom_work_dir",
        optim_wrapper=dict(optimizer=SGD(model.parameters(), lr=0.01, momentum=0.9)),
        train_dataloader=train_dataloader,
        train_cfg=dict(_target_="__main__.CustomEpochBasedTrainLoop", max_epochs=5, val_interval=1),
        **validation,
        **common,
    )
    runner.train()


if __name__ == "__main__":
    main()
