"""Small runs with everything in them that a resume has to bring back, and what they leave.

A run keeps a ledger, a file beside its directory: where each attempt started, what samples it read,
and what it trained on.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from tests.toy import MeanSquaredError, make_runner
from trainkit import BaseModel, Hook, Runner
from trainkit.checkpoint import list_checkpoints, read_checkpoint
from trainkit.evaluator import BaseMetric
from trainkit.optim_wrapper import OptimWrapper, OptimWrapperDict

SAMPLES, BATCH = 26, 4
BATCHES = 7  # of an epoch, the last with two samples
ITERATIONS = 21
SAVE_EVERY = 2
TIMES = ("time", "memory")
ASIDE = "failed_iter_"  # what an error left


class Log:
    """A file to which several processes append lines; a killed one loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *words: Any) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
        os.close(file)

    def read(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()]


class Augmented(Dataset[dict[str, torch.Tensor]]):
    """A linear problem under noise from all three generators; what is read is logged."""

    def __init__(self, log: Log | None = None) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(SAMPLES, 5, generator=generator)
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0], [1.5]])
        self.log = log

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if self.log is not None:
            self.log.write("read", index)
        noise = 0.1 * torch.randn(5) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        return {"x": self.x[index] + noise, "y": self.y[index], "index": torch.tensor(index)}


class Net(BaseModel):
    """Batch norm and dropout between two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.body = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 1)

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, index: torch.Tensor, mode: str = "tensor"
    ) -> Any:
        out = self.head(self.body(x))
        return {"loss": (out.float() - y).square().mean()} if mode == "loss" else out


class TwoOptimizers(Net):
    """The body and the head are trained in turn."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        losses = {}
        for name in ("body", "head"):
            losses[f"loss_{name}"] = self(**data, mode="loss")["loss"]
            optim_wrapper[name].update_params(losses[f"loss_{name}"])
        return losses


class MeanAbsoluteError(BaseMetric):
    """Mean absolute error, as ``mae``."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append((data_samples - data_batch["y"]).abs().sum().item())

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"mae": sum(results) / SAMPLES}


class Ledger(Hook):
    """Log where training starts, and the samples of each step that was taken."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def before_train(self, runner: Runner) -> None:
        self.log.write("start", runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.log.write("step", runner.iter, *data_batch["index"].tolist())


def scaler() -> dict[str, Any]:
    """float16 with a GradScaler, accumulation that an epoch does not divide into, an average."""
    wrapper = {
        "_target_": "trainkit.optim_wrapper.AmpOptimWrapper",
        "dtype": "float16",
        "loss_scale": {"init_scale": 1024.0, "growth_interval": 2},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9},
        "accumulative_counts": 3,
        "clip_grad": {"max_norm": 1.0},
    }
    return {
        "optim_wrapper": wrapper,
        "param_scheduler": [
            {"_target_": "trainkit.param_scheduler.LinearLR", "by_epoch": False, "end": 6},
            {
                "_target_": "trainkit.param_scheduler.CosineAnnealingLR",
                "by_epoch": False,
                "begin": 6,
                "T_max": ITERATIONS - 6,
            },
        ],
        "custom_hooks": _hooks({"_target_": "trainkit.hooks.EMAHook", "momentum": 0.1}),
    }


def plateau() -> dict[str, Any]:
    """bfloat16, AdamW, a schedule that looks at the validation, another kind of average."""
    wrapper = {
        "_target_": "trainkit.optim_wrapper.AmpOptimWrapper",
        "dtype": "bfloat16",
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.01},
    }
    plateau = {"_target_": "trainkit.param_scheduler.ReduceOnPlateauLR", "monitor": "mse"}
    average = {"_target_": "trainkit.hooks.EMAHook", "ema_type": "MomentumAnnealingEMA"}
    return {
        "optim_wrapper": wrapper,
        "param_scheduler": [{**plateau, "patience": 0, "threshold": 0.3, "factor": 0.5}],
        "custom_hooks": _hooks(average),
    }


def several() -> dict[str, Any]:
    """Two optimizers with windows and schedules of their own; checkpoints in the background."""
    model = TwoOptimizers()
    body = OptimWrapper(torch.optim.AdamW(model.body.parameters(), 0.01), accumulative_counts=2)
    head = OptimWrapper(torch.optim.SGD(model.head.parameters(), 0.05, momentum=0.9))
    step = {"_target_": "trainkit.param_scheduler.StepLR", "by_epoch": False, "step_size": 5}
    return {
        "model": model,
        "optim_wrapper": OptimWrapperDict(body=body, head=head),
        "param_scheduler": {"body": [step]},
        "custom_hooks": _hooks(),
    }


def _hooks(*others: dict[str, Any]) -> list[dict[str, Any]]:
    stopping = {"_target_": "trainkit.hooks.EarlyStoppingHook", "monitor": "mse", "patience": 99}
    return [stopping, *others]


FEATURES = {"scaler": scaler, "plateau": plateau, "several": several}
LOOPS = {
    "epochs": {"by_epoch": True, "max_epochs": ITERATIONS // BATCHES},
    "iters": {"by_epoch": False, "max_iters": ITERATIONS, "val_interval": 5},
}
VARIANTS = [f"{features}-{loop}" for features in FEATURES for loop in LOOPS]


def ledger_of(work_dir: Path) -> Log:
    return Log(work_dir.with_suffix(".ledger"))


def make(variant: str, work_dir: Path, *, workers: int = 0, save_every: int = SAVE_EVERY) -> Runner:
    """A runner that goes on wherever ``work_dir`` stands."""
    features, loop = variant.split("-")
    log = ledger_of(work_dir)
    endless = variant == "several-iters"
    sampler = {"_target_": "trainkit.dataloader.InfiniteSampler"} if endless else {"shuffle": True}
    collate = {"_target_": "trainkit.dataloader.default_collate"}
    read = {"batch_size": BATCH, "collate_fn": collate}
    checkpoint = {
        "by_epoch": False,
        "interval": save_every,
        "max_keep_ckpts": 2,
        "save_best": ["mse", "mae"] if features == "plateau" else "mse",
        "async_save": features == "several",
    }
    arguments = {
        "model": Net(),
        "work_dir": work_dir,
        "train_dataloader": {
            **read,
            "dataset": Augmented(log),
            "sampler": sampler,
            "num_workers": workers,
        },
        "train_cfg": LOOPS[loop],
        "val_dataloader": {**read, "dataset": Augmented()},
        "val_evaluator": [MeanSquaredError(), MeanAbsoluteError()],
        "default_hooks": {"logger": {"interval": 3}, "checkpoint": checkpoint},
        "log_processor": {"window_size": 5, "log_with_hierarchy": False},
        "visualizer": {
            "vis_backends": [
                {"_target_": "trainkit.visualizer.LocalVisBackend"},
                {"_target_": "trainkit.visualizer.TensorboardVisBackend"},
            ]
        },
        "experiment_name": variant,
        "resume": True,
        **FEATURES[features](),
    }
    runner = make_runner(**arguments)
    runner.register_hook(Ledger(log), priority="HIGHEST")
    return runner


def metrics(work_dir: Path) -> list[dict[str, Any]]:
    """The logged rows, without times."""
    lines = [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not _is_time(key)} for line in lines]


def curves(work_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Every point in TensorBoard's files, without times."""
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]  # has no types

    directory = str(work_dir / "tensorboard")
    events = event_accumulator.EventAccumulator(directory, purge_orphaned_data=False).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not _is_time(tag)]
    # Of two files of one second, either may be read first.
    return {tag: sorted((event.step, event.value) for event in events.Scalars(tag)) for tag in tags}


def state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds, without times, and places in files, which hold times."""
    content = read_checkpoint(checkpoint)
    del content["visualizer"]
    scalars = content["message_hub"]["scalars"]
    content["message_hub"]["scalars"] = {k: v for k, v in scalars.items() if not _is_time(k)}
    return content


def _is_time(name: str) -> bool:
    return name.endswith(TIMES)


def results(work_dir: Path, *, broken_off: bool = False) -> dict[str, Any]:
    """What a finished run has left, to be compared.

    Args:
        work_dir: The run's directory.
        broken_off: Of a run that was saved where it was broken off too: leave out which checkpoints
            there were.
    """
    directory = work_dir / "checkpoints"
    periodic, best = list_checkpoints(directory), sorted(directory.glob("best_*"))
    kept = [*periodic[-1:], *best] if broken_off else [*periodic, *best]
    states = {path.name: state(path) for path in kept}
    if broken_off:
        for each in states.values():
            del each["hooks"]["checkpoint"]["saved"], each["hooks"]["checkpoint"]["former"]
    names = {path.name for path in directory.iterdir() if not path.name.startswith(ASIDE)}
    return {
        "checkpoints": states,
        "names": {name for name in names if not (broken_off and name.startswith("iter_"))},
        "metrics": metrics(work_dir),
        "curves": curves(work_dir),
        "status": json.loads((work_dir / "status.json").read_text())["status"],
    }


def differences(one: Any, other: Any, path: str = "run") -> Iterator[str]:
    """Name whatever is not equal to the bit."""
    left, right = dict(_leaves(one, path)), dict(_leaves(other, path))
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            yield f"{name} is on one side only"
        elif not _same(left[name], right[name]):
            yield f"{name}: {left[name]!r} and {right[name]!r}"


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every value by its path; of a container, its type too."""
    if isinstance(node, Mapping | list | tuple):
        yield path, type(node).__name__
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in pairs:
            yield from _leaves(value, f"{path}.{key}")
    else:
        yield path, node


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)
