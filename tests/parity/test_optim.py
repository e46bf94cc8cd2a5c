"""Losses, gradient norms and weights are MMEngine's to the bit, in whole runs of both Runners."""

from __future__ import annotations

import copy
import itertools
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainkit.optim_wrapper
from tests.toy import ToyDataset, make_runner
from trainkit import BaseModel, Hook, Runner
from trainkit.errors import ConfigError
from trainkit.optim_wrapper import AmpOptimWrapper, OptimWrapper, OptimWrapperDict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.hooks
    import mmengine.optim
    import mmengine.runner
    from mmengine.model import BaseModel as TheirModel

pytestmark = pytest.mark.filterwarnings("ignore")

ITERATIONS = 10  # three windows of 3 and one of 1; two of 4 and one of 2
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "AdamW": {"lr": 0.02, "weight_decay": 0.1},
}
CLIPS: dict[str, Any] = {
    "no": None,
    "norm": {"max_norm": 0.2},
    "norm_1": {"type": "norm", "max_norm": 0.4, "norm_type": 1},
    "value": {"type": "value", "clip_value": 0.05},
}
PARAMWISE: dict[str, Any] = {
    "norms": {"norm_decay_mult": 0.0, "bias_lr_mult": 2.0, "bias_decay_mult": 0.0},
    "flat": {"flat_decay_mult": 0.0},
    "keys": {"custom_keys": {"0": {"lr_mult": 0.1}, "0.bias": {"decay_mult": 0.0}}},
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine asks compilers for their versions before each run, which takes seconds."""
    monkeypatch.setattr(mmengine.runner.runner, "collect_env", dict)


def body() -> nn.Sequential:
    torch.manual_seed(11)
    layers = [nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 1)]
    return nn.Sequential(*layers)


class Ours(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        return {"loss": (self.body(x) - y).square().mean()}


class Theirs(TheirModel):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        return {"loss": (self.body(x) - y).square().mean()}


@dataclass
class Trace:
    """What a run has shown."""

    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def assert_same(self, other: Trace) -> None:
        assert self.losses == other.losses
        assert self.lrs == other.lrs
        assert self.norms == other.norms
        assert self.weights.keys() == other.weights.keys()
        for name, value in self.weights.items():
            assert torch.equal(value, other.weights[name]), name


def loader() -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(ToyDataset(4 * ITERATIONS), batch_size=4)


def ours(work_dir: Path, optimizer: str, schedule: bool, **options: Any) -> Trace:
    trace = Trace()

    class Watch(Hook):
        def before_train_iter(self, runner: Runner, *_: Any) -> None:
            trace.lrs += runner.optim_wrapper.get_lr()["lr"][:1]

        def after_train_iter(
            self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            trace.losses.append(float(outputs["loss"]))
            trace.norms += map(float, runner.optim_wrapper.get_grad_norm().values())

    cfg = {"_target_": f"torch.optim.{optimizer}", **OPTIMIZERS[optimizer]}
    steps = {"_target_": "trainkit.param_scheduler.MultiStepLR", "milestones": [2, 7], "gamma": 0.5}
    runner = make_runner(
        work_dir,
        model=Ours(),
        train_dataloader=loader(),
        train_cfg={"by_epoch": False, "max_iters": ITERATIONS, "val_interval": 100},
        optim_wrapper={"optimizer": cfg, **copy.deepcopy(options)},
        param_scheduler=[steps] if schedule else None,
        custom_hooks=[Watch()],
        default_hooks={"checkpoint": None, "logger": None},
        **dict.fromkeys(("val_dataloader", "val_cfg", "val_evaluator")),
    )
    trace.weights = dict(runner.train().state_dict())
    return trace


def theirs(work_dir: Path, optimizer: str, schedule: bool, **options: Any) -> Trace:
    trace = Trace()

    class Watch(mmengine.hooks.Hook):  # type: ignore[misc]
        def before_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            trace.lrs += runner.optim_wrapper.get_lr()["lr"][:1]

        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            trace.losses.append(float(outputs["loss"]))

    cfg = {"type": optimizer, **OPTIMIZERS[optimizer]}
    steps = {"type": "MultiStepLR", "milestones": [2, 7], "gamma": 0.5, "by_epoch": False}
    runner = mmengine.runner.Runner(
        model=Theirs(),
        work_dir=str(work_dir),
        train_dataloader=loader(),
        train_cfg={"by_epoch": False, "max_iters": ITERATIONS},
        optim_wrapper={"optimizer": cfg, **copy.deepcopy(options)},
        param_scheduler=[steps] if schedule else None,
        custom_hooks=[Watch()],
        default_hooks={"checkpoint": None, "logger": None},
        experiment_name=f"optim_{work_dir.parent.name}",
        log_level="ERROR",
    )
    trace.weights = {
        name: value
        for name, value in runner.train().state_dict().items()
        if name.startswith("body.")
    }
    scalars = runner.message_hub.log_scalars
    if "train/grad_norm" in scalars:
        trace.norms = [float(value) for value in scalars["train/grad_norm"].data[0]]
    return trace


@pytest.mark.parametrize(
    ("optimizer", "counts", "clip"), list(itertools.product(OPTIMIZERS, (1, 3, 4), CLIPS))
)
def test_accumulation_and_clipping(tmp_path: Path, optimizer: str, counts: int, clip: str) -> None:
    options = {"accumulative_counts": counts, "clip_grad": CLIPS[clip]}
    mine, other = (
        run(tmp_path / name, optimizer, False, **options)
        for run, name in ((ours, "ours"), (theirs, "theirs"))
    )
    mine.assert_same(other)
    updates = -(-ITERATIONS // counts)
    assert len(mine.norms) == (updates if clip.startswith("norm") else 0)


@pytest.mark.parametrize(
    ("optimizer", "counts", "rules"), list(itertools.product(OPTIMIZERS, (1, 3), PARAMWISE))
)
def test_paramwise_options_with_a_schedule(
    tmp_path: Path, optimizer: str, counts: int, rules: str
) -> None:
    options = {
        "accumulative_counts": counts,
        "paramwise_cfg": PARAMWISE[rules],
        "clip_grad": {"max_norm": 1.0},
    }
    mine, other = (
        run(tmp_path / name, optimizer, True, **options)
        for run, name in ((ours, "ours"), (theirs, "theirs"))
    )
    mine.assert_same(other)
    assert len(set(mine.lrs)) == 3


# ------------------------------------------------------------ several optimizers


def wrappers(package: Any, model: nn.ModuleDict) -> dict[str, Any]:
    return {
        "a": package.OptimWrapper(torch.optim.SGD(model["a"].parameters(), lr=0.1), 2),
        "b": package.OptimWrapper(torch.optim.AdamW(model["b"].parameters(), lr=0.2)),
    }


def test_several_optimizers_answer_alike() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    mine = OptimWrapperDict(**wrappers(trainkit.optim_wrapper, model))
    other = mmengine.optim.OptimWrapperDict(**wrappers(mmengine.optim, model))
    assert mine.get_lr() == other.get_lr() == {"a.lr": [0.1], "b.lr": [0.2]}
    assert mine.get_momentum() == other.get_momentum()
    assert list(mine.keys()) == list(other.keys())
    assert [name for name, _ in mine.items()] == [name for name, _ in other.items()]
    assert ("a" in mine, "c" in mine, len(mine)) == ("a" in other, "c" in other, len(other))
    assert mine.state_dict().keys() == other.state_dict().keys()
    for call in ("update_params", "backward"):
        with pytest.raises(NotImplementedError):
            getattr(other, call)(torch.zeros(1))
        with pytest.raises(ConfigError, match="There are several optimizers"):
            getattr(mine, call)(torch.zeros(1))


# ------------------------------------------------------------- different on purpose


def test_a_whole_number_is_a_loss_scale() -> None:
    """MMEngine refuses an int."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    wrapper = AmpOptimWrapper(optimizer, loss_scale=512, dtype="float16")
    assert wrapper.loss_scaler.get_scale() == 512.0


def test_mixed_precision_runs_on_a_cpu() -> None:
    """MMEngine's AmpOptimWrapper needs an accelerator."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    if not torch.cuda.is_available():
        with pytest.raises(AssertionError):
            mmengine.optim.AmpOptimWrapper(optimizer=optimizer)
    assert AmpOptimWrapper(optimizer).dtype is torch.bfloat16


def test_the_clip_grad_that_is_given_stays_as_it_is() -> None:
    """MMEngine takes the type out of it, so that a second wrapper clips otherwise."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    for make, kept in ((OptimWrapper, True), (mmengine.optim.OptimWrapper, False)):
        clip_grad = {"type": "value", "clip_value": 0.5}
        make(optimizer, clip_grad=clip_grad)
        assert ("type" in clip_grad) is kept


def test_two_runners_keep_their_norms_apart() -> None:
    """MMEngine's wrapper writes to the newest message hub, whoever's it is."""
    model = nn.Linear(2, 2)
    made = [
        OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), clip_grad={"max_norm": 1.0})
        for _ in range(2)
    ]
    made[0].update_params(model(torch.ones(2)).sum())
    assert list(made[0].get_grad_norm()) == ["grad_norm"]
    assert made[1].get_grad_norm() == {}


def test_norms_of_several_optimizers_have_names() -> None:
    """MMEngine mixes them in one train/grad_norm."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    both = OptimWrapperDict(a=OptimWrapper(optimizer, clip_grad={"max_norm": 1.0}))
    both["a"].update_params(model(torch.ones(2)).sum())
    assert list(both.get_grad_norm()) == ["a.grad_norm"]
