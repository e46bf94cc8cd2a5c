"""What each hook point is called with is MMEngine's: index, batch, outputs, metrics, counters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import loader, make_runner
from trainkit import BaseModel, Hook
from trainkit.evaluator import BaseMetric
from trainkit.hook import POINTS
from trainkit.hooks import EarlyStoppingHook

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.hooks
    import mmengine.runner
    from mmengine.evaluator import BaseMetric as TheirMetric
    from mmengine.model import BaseModel as TheirModel

pytestmark = pytest.mark.filterwarnings("ignore")

Calls = list[tuple[Any, ...]]


def told(value: Any) -> Any:
    """Return an argument as plain values that compare exactly, kinds of containers included."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.dtype, value.detach().flatten().tolist())
    if isinstance(value, Mapping):
        return {key: told(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (type(value).__name__, [told(item) for item in value])
    return value


class _Recorder:
    """Keep each point with the counters and the arguments; of a checkpoint what both have."""

    def __init__(self) -> None:
        self.calls: Calls = []
        self.counts_epochs = True


def _arguments(point: str, given: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    names = ("batch_idx", "data_batch", "outputs")
    if point in ("after_val_epoch", "after_test_epoch"):
        names = ("metrics",)
    elif "checkpoint" in point:
        return _common(*given, **named)
    return {**dict(zip(names, given, strict=False)), **named}


def _common(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint has in both: the counters, the weights, the optimizer's values."""
    optimizer = checkpoint["optimizer"]
    groups = [
        {key: group[key] for key in ("params", "lr", "momentum", "weight_decay")}
        for group in optimizer["param_groups"]
    ]
    return {
        "counters": {key: checkpoint["meta"][key] for key in ("epoch", "iter")},
        "state_dict": checkpoint["state_dict"],
        "optimizer": {"state": optimizer["state"], "param_groups": groups},
    }


def _recording(point: str) -> Any:
    def record(self: Any, runner: Any, *given: Any, **named: Any) -> None:
        arguments = told(_arguments(point, given, named))
        # In MMEngine the epoch of an iteration run stays 0.
        epoch = runner.epoch if self.counts_epochs else 0
        if "counters" in arguments and not self.counts_epochs:
            arguments["counters"]["epoch"] = 0
        self.calls.append((point, epoch, runner.iter, arguments))

    return record


class Recorder(_Recorder, Hook):
    pass


class TheirRecorder(_Recorder, mmengine.hooks.Hook):  # type: ignore[misc]
    pass


for _point in POINTS:
    setattr(Recorder, _point, _recording(_point))
    setattr(TheirRecorder, _point, _recording(_point))


class _Net(nn.Module):
    """The same model for both; what it predicts depends on what it has learnt."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        out = self.linear(x)
        if mode == "loss":
            return {"loss_a": (out - y).square().mean(), "acc": out.mean().detach()}
        return list(out)


class Net(_Net, BaseModel):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.linear = nn.Linear(3, 1)


class TheirNet(_Net, TheirModel):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.linear = nn.Linear(3, 1)


class _Sum:
    """Of all predictions; and how often it was computed, which only rises."""

    results: list[Any]
    rounds = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += list(data_samples)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        self.rounds += 1
        return {"sum": torch.stack(results).sum().item(), "rounds": float(self.rounds)}


class Sum(_Sum, BaseMetric):
    pass


class TheirSum(_Sum, TheirMetric):  # type: ignore[misc]
    pass


def ours(tmp_path: Path, train_cfg: dict[str, Any], hooks: list[Any], **changes: Any) -> Any:
    model = Net()
    changes.setdefault("default_hooks", {"checkpoint": None})
    return make_runner(
        tmp_path / "ours",
        model=model,
        train_dataloader=loader(),
        train_cfg=train_cfg,
        optim_wrapper={"optimizer": torch.optim.SGD(model.parameters(), lr=0.05)},
        val_dataloader=loader(),
        val_evaluator=[Sum()],
        test_dataloader=loader(),
        test_evaluator=[Sum(prefix="p")],
        custom_hooks=hooks,
        **changes,
    )


def theirs(tmp_path: Path, train_cfg: dict[str, Any], hooks: list[Any], **changes: Any) -> Any:
    model = TheirNet()
    changes.setdefault("default_hooks", {"checkpoint": None})
    changes["default_hooks"] = {**changes["default_hooks"], "logger": None}
    return mmengine.runner.Runner(
        model=model,
        work_dir=str(tmp_path / "theirs"),
        train_dataloader=loader(),
        train_cfg=train_cfg,
        optim_wrapper={"optimizer": torch.optim.SGD(model.parameters(), lr=0.05)},
        val_dataloader=loader(),
        val_cfg={},
        val_evaluator=[TheirSum()],
        test_dataloader=loader(),
        test_cfg={},
        test_evaluator=[TheirSum(prefix="p")],
        custom_hooks=hooks,
        experiment_name=f"arguments_{tmp_path.name}_{len(list(tmp_path.rglob('*')))}",
        log_level="ERROR",
        **changes,
    )


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine sleeps two seconds where the data begins again, and loads its own pickles."""
    monkeypatch.setattr(mmengine.runner.loops.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


def recorders(train_cfg: dict[str, Any]) -> tuple[Recorder, TheirRecorder]:
    pair = Recorder(), TheirRecorder()
    for recorder in pair:
        recorder.counts_epochs = train_cfg["by_epoch"]
    return pair


def block(calls: Calls, first: str, last: str) -> tuple[int, int]:
    """Return where the first block from one point to another begins and ends."""
    names = [call[0] for call in calls]
    return names.index(first), names.index(last) + 1


LOOPS: list[dict[str, Any]] = [
    {"max_epochs": 2},
    {"max_epochs": 3, "val_begin": 2},
    {"max_epochs": 5, "val_begin": 2, "val_interval": 2},
    {"max_epochs": 4, "val_begin": 9},
    {"max_epochs": 6, "val_interval": 4, "dynamic_intervals": [(4, 1)]},
    {"max_epochs": 6, "val_interval": 2, "dynamic_intervals": [(3, 3), (5, 1)]},
    {"max_iters": 7, "val_interval": 3},
    {"max_iters": 7, "val_begin": 4, "val_interval": 2},
    {"max_iters": 8, "val_interval": 5, "dynamic_intervals": [(4, 2), (7, 1)]},
    {"max_iters": 4, "val_begin": 9},
]


@pytest.mark.parametrize("loop", LOOPS, ids=str)
def test_training_and_test(tmp_path: Path, loop: dict[str, Any]) -> None:
    train_cfg = {"by_epoch": "max_epochs" in loop, **loop}
    mine, other = recorders(train_cfg)
    their_runner = theirs(tmp_path, train_cfg, [other])
    their_runner.train()
    their_runner.test()
    runner = ours(tmp_path, train_cfg, [mine])
    runner.train()
    runner.test()
    assert mine.calls == other.calls
    points = {point for point, *_ in mine.calls}
    assert {"before_test_iter", "after_test_epoch", "after_train_iter"} <= points


@pytest.mark.parametrize(
    "loop", [{"max_epochs": 9}, {"max_epochs": 9, "val_interval": 2}, {"max_iters": 9}], ids=str
)
def test_early_stopping(tmp_path: Path, loop: dict[str, Any]) -> None:
    train_cfg = {"by_epoch": "max_epochs" in loop, "val_interval": 1, **loop}
    options: dict[str, Any] = {"monitor": "rounds", "rule": "less", "patience": 2, "min_delta": 0.0}
    mine, other = recorders(train_cfg)
    theirs(tmp_path, train_cfg, [mmengine.hooks.EarlyStoppingHook(**options), other]).train()
    runner = ours(tmp_path, train_cfg, [EarlyStoppingHook(**options), mine])
    runner.train()
    assert mine.calls == other.calls
    done = runner.epoch if train_cfg["by_epoch"] else runner.iter
    assert done == 3 * train_cfg["val_interval"]


class _Stop:
    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        runner.train_loop.stop_training = runner.iter == 1


class Stop(_Stop, Hook):
    pass


class TheirStop(_Stop, mmengine.hooks.Hook):  # type: ignore[misc]
    pass


@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_stop_in_the_middle(tmp_path: Path, by_epoch: bool) -> None:
    length = {"max_epochs": 4} if by_epoch else {"max_iters": 9, "val_interval": 2}
    train_cfg = {"by_epoch": by_epoch, **length}
    mine, other = recorders(train_cfg)
    theirs(tmp_path, train_cfg, [TheirStop(), other]).train()
    ours(tmp_path, train_cfg, [Stop(), mine]).train()
    # In MMEngine an epoch that is under way takes back what was asked in its second iteration.
    assert mine.calls == other.calls


@pytest.mark.parametrize(
    ("loop", "end"),
    [
        ({"by_epoch": True, "max_epochs": 2, "val_interval": 3}, 4),
        ({"by_epoch": True, "max_epochs": 3, "val_begin": 4}, 5),
        ({"by_epoch": False, "max_iters": 4, "val_interval": 3}, 8),
    ],
    ids=str,
)
def test_a_resumed_run(tmp_path: Path, loop: dict[str, Any], end: int) -> None:
    name = "max_epochs" if loop["by_epoch"] else "max_iters"
    saving = {"interval": 2, "by_epoch": loop["by_epoch"]}
    their_hooks = {"checkpoint": {"type": "CheckpointHook", **saving}}
    theirs(tmp_path, loop, [], default_hooks=their_hooks).train()
    ours(tmp_path, loop, [], default_hooks={"checkpoint": saving}).train()
    longer = {**loop, name: end}
    mine, other = recorders(longer)
    theirs(tmp_path, longer, [other], default_hooks=their_hooks, resume=True).train()
    runner = ours(tmp_path, longer, [mine], default_hooks={"checkpoint": saving}, resume=True)
    runner.train()
    assert "after_load_checkpoint" in {point for point, *_ in mine.calls}
    first = next(call for call in mine.calls if call[0] == "before_train_iter")
    assert first[1:3] == ((loop[name], 3 * loop[name]) if loop["by_epoch"] else (0, 4))
    assert mine.calls == other.calls


def test_a_resumed_run_first_validates_what_was_not_on_purpose(tmp_path: Path) -> None:
    """The checkpoint of an epoch is written before its validation, which MMEngine leaves out."""
    loop = {"by_epoch": True, "max_epochs": 1}
    saving = {"interval": 1}
    their_hooks = {"checkpoint": {"type": "CheckpointHook", **saving}}
    theirs(tmp_path, loop, [], default_hooks=their_hooks).train()
    ours(tmp_path, loop, [], default_hooks={"checkpoint": saving}).train()
    longer = {**loop, "max_epochs": 2}
    mine, other = recorders(longer)
    theirs(tmp_path, longer, [other], default_hooks=their_hooks, resume=True).train()
    ours(tmp_path, longer, [mine], default_hooks={"checkpoint": saving}, resume=True).train()
    start, end = block(mine.calls, "before_val", "after_val")
    assert mine.calls[start - 1][0] == "before_train"
    without = mine.calls[:start] + mine.calls[end:]
    # The metric counts how often it was computed, here once more.
    assert [call[:3] for call in without] == [call[:3] for call in other.calls]


def test_validation_before_training_comes_on_top_on_purpose(tmp_path: Path) -> None:
    """MMEngine has no such option; what follows is its sequence."""
    loop = {"by_epoch": True, "max_epochs": 2}
    mine, other = recorders(loop)
    theirs(tmp_path, loop, [other]).train()
    ours(tmp_path, {**loop, "val_before_train": True}, [mine]).train()
    start, end = block(mine.calls, "before_val", "after_val")
    assert mine.calls[start - 1][0] == "before_train"
    without = mine.calls[:start] + mine.calls[end:]
    assert [call[:3] for call in without] == [call[:3] for call in other.calls]


@pytest.mark.parametrize("purpose", ["val", "test"])
def test_evaluating_alone(tmp_path: Path, purpose: str) -> None:
    loop = {"by_epoch": True, "max_epochs": 1}
    mine, other = recorders(loop)
    getattr(theirs(tmp_path, loop, [other]), purpose)()
    getattr(ours(tmp_path, loop, [mine]), purpose)(load=False)
    assert mine.calls == other.calls
