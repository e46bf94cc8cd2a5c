"""Parts are built when they are needed, in MMEngine's order."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.parity.test_hook_order import Their, TheirMetric
from tests.toy import MeanSquaredError, ToyDataset, ToyModel, make_runner
from trainkit import param_scheduler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.runner
    from mmengine.optim import LinearLR as TheirLinearLR

pytestmark = pytest.mark.filterwarnings("ignore")

BUILT: list[str] = []


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine asks compilers for their versions first."""
    monkeypatch.setattr(mmengine.runner.runner, "collect_env", dict)
    BUILT.clear()


def counted(kind: Any, given_name: str = "") -> Any:
    """A class that tells when it is built; ``name`` may be an argument."""

    class Counted(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, name: str = given_name, **kwargs: Any) -> None:
            BUILT.append(name)
            super().__init__(*args, **kwargs)

    return Counted


class TheirError(TheirMetric):  # type: ignore[misc]
    """A metric that does nothing."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [0.0]

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"error": 0.0}


Data = counted(ToyDataset)
Model, TheirModel = counted(ToyModel, "model"), counted(Their, "model")


class SGD(torch.optim.SGD):
    """Of which MMEngine looks for the first argument's name."""

    def __init__(self, params: Any, lr: float) -> None:
        BUILT.append("optimizer")
        super().__init__(params, lr)


Linear = counted(param_scheduler.LinearLR, "schedule")
TheirLinear = counted(TheirLinearLR, "schedule")
Error, TheirCounted = counted(MeanSquaredError, "metric"), counted(TheirError, "metric")


def loaders(key: str, collate: dict[str, Any], **sampler: Any) -> dict[str, Any]:
    return {
        f"{split}_dataloader": {
            "batch_size": 4,
            "dataset": {key: Data, "name": f"{split} data"},
            "collate_fn": collate,
            **sampler,
        }
        for split in ("train", "val", "test")
    }


def ours(tmp_path: Path) -> Any:
    return make_runner(
        tmp_path / "ours",
        model={"_target_": Model},
        **loaders("_target_", {"_target_": "trainkit.dataloader.default_collate"}),
        optim_wrapper={"optimizer": {"_target_": SGD, "lr": 0.1}},
        param_scheduler=[{"_target_": Linear}],
        val_evaluator=[{"_target_": Error}],
        test_evaluator=[{"_target_": Error}],
    )


def theirs(tmp_path: Path) -> Any:
    order = {"type": "DefaultSampler"}
    return mmengine.runner.Runner(
        work_dir=str(tmp_path / "theirs"),
        model={"type": TheirModel},
        **loaders("type", {"type": "default_collate"}, sampler=order),
        train_cfg={"by_epoch": True, "max_epochs": 2},
        val_cfg={},
        test_cfg={},
        optim_wrapper={"optimizer": {"type": SGD, "lr": 0.1}},
        param_scheduler=[{"type": TheirLinear}],
        val_evaluator=[{"type": TheirCounted}],
        test_evaluator=[{"type": TheirCounted}],
        experiment_name=f"building_{tmp_path.name}",
        log_level="ERROR",
    )


@pytest.mark.parametrize("calls", [["train"], ["train", "test", "val"]], ids=str)
def test_parts_are_built_in_the_same_order(tmp_path: Path, calls: list[str]) -> None:
    found = []
    for make in (ours, theirs):
        BUILT.clear()
        runner = make(tmp_path)
        assert BUILT == ["model"]
        for call in calls:
            BUILT.append(f"{call}:")
            getattr(runner, call)()
        found.append(list(BUILT))
    assert found[0] == found[1]
    assert found[0][:4] == ["model", "train:", "train data", "optimizer"]
