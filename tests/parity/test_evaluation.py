"""Evaluation: metrics, losses and predictions are MMEngine's, but for what is said below."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.toy import ToyDataset, loader, make_runner
from trainkit import BaseModel, ConfigError
from trainkit.evaluator import BaseMetric, DumpResults, Evaluator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.evaluator
    import mmengine.runner
    from mmengine.evaluator import BaseMetric as TheirMetric
    from mmengine.model import BaseModel as TheirModel
    from mmengine.structures import BaseDataElement

pytestmark = pytest.mark.filterwarnings("ignore")


class _Stats:
    """Of numbers: the entries in their order, and their sum."""

    results: list[Any]

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.extend((data_batch, float(sample)) for sample in data_samples)

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {"entries": list(results), "sum": sum(value for _, value in results)}


class Stats(_Stats, BaseMetric):
    pass


class TheirStats(_Stats, TheirMetric):  # type: ignore[misc]
    pass


class Named(Stats):
    default_prefix = "own"


class TheirNamed(TheirStats):
    default_prefix = "own"


PAIRS = [(Stats, TheirStats), (Named, TheirNamed)]

_batches = st.lists(st.lists(st.integers(-9, 9), min_size=1, max_size=4), max_size=5)


@given(_batches, st.sampled_from(PAIRS), st.none() | st.sampled_from(["p", "a/b"]))
def test_names_and_gathered_entries(
    batches: list[list[int]], kinds: tuple[Any, Any], prefix: str | None
) -> None:
    found = []
    for kind in kinds:
        metric = kind(prefix=prefix)
        for number, batch in enumerate(batches):
            metric.process(number, batch)
        found.append(metric.evaluate(sum(map(len, batches))))
        assert metric.results == []
    assert found[0] == found[1]
    assert list(found[0]) == list(found[1])


def test_an_empty_prefix_is_none_on_purpose() -> None:
    """MMEngine takes it for one that is not given."""
    for kind, name in ((Named, "sum"), (TheirNamed, "own/sum")):
        metric = kind(prefix="")
        metric.process(0, [1])
        assert name in metric.evaluate(1)


def test_entries_beyond_the_size_of_the_dataset_count_on_purpose() -> None:
    """MMEngine cuts what it takes for padding, and with it a metric's second entry of a sample."""
    sums = []
    for kind in (Stats, TheirStats):
        metric = kind()
        metric.process(0, [1, 2, 4])
        sums.append(metric.evaluate(2)["sum"])
    assert sums == [7, 3]


def test_metrics_take_mmengines_arguments() -> None:
    for kind in (Stats, TheirStats):
        for device in ("cpu", "gpu"):
            assert kind(device, "p").prefix == kind(collect_device=device, prefix="p").prefix == "p"
            assert kind(device, None, None).prefix is None
    with pytest.raises(ConfigError, match="collect_device is 'tpu'; expected 'cpu' or 'gpu'"):
        Stats("tpu")  # type: ignore[arg-type]


def test_a_directory_to_collect_in_is_refused_on_purpose() -> None:
    """Ranks exchange entries through the process group: none need be shared, none is left over."""
    TheirStats(collect_dir="shared")
    with pytest.raises(ConfigError, match=r"collect_dir is 'shared', but ranks .* Remove it"):
        Stats(collect_dir="shared")


def test_several_metrics_and_names_that_clash() -> None:
    found = []
    for evaluator, one, named in (
        (Evaluator, Stats, Named),
        (mmengine.evaluator.Evaluator, TheirStats, TheirNamed),
    ):
        whole = evaluator([one(), named(), one(prefix="p")])
        whole.process([1, 2], "batch")
        found.append(whole.evaluate(2))
        clash = evaluator([one(), one()])
        clash.process([1], "batch")
        with pytest.raises(ValueError, match=r"(same metric name|Two metrics give) .?entries"):
            clash.evaluate(1)
    assert found[0] == found[1]


@given(st.integers(0, 8), st.integers(1, 4), st.booleans())
def test_offline_evaluation(size: int, chunk_size: int, with_data: bool) -> None:
    data = [{"x": index, "y": "a"} for index in range(size)] if with_data else None
    found = [
        evaluator(metric).offline_evaluate(list(range(size)), data, chunk_size)
        for evaluator, metric in (
            (Evaluator, Stats()),
            (mmengine.evaluator.Evaluator, TheirStats()),
        )
    ]
    assert found[0] == found[1]


def test_a_pickle_of_predictions(tmp_path: Path) -> None:
    files = []
    for name, metric in (
        ("ours", DumpResults(out_file_path=str(tmp_path / "ours.pkl"))),
        ("theirs", mmengine.evaluator.DumpResults(str(tmp_path / "theirs.pkl"))),
    ):
        metric.process(None, [{"label": 1}, {"label": 2}])
        metric.process(None, [{"label": 3}])
        assert metric.evaluate(3) == {}
        files.append(pickle.loads((tmp_path / f"{name}.pkl").read_bytes()))
    assert files[0] == files[1]


def test_predictions_are_kept_in_a_file_that_is_safe_to_read_on_purpose(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a pkl file"):
        mmengine.evaluator.DumpResults("p.pt")
    metric = DumpResults(out_file_path=str(tmp_path / "p.pt"))
    metric.process(None, [{"label": 1}])
    metric.evaluate(1)
    assert torch.load(tmp_path / "p.pt", weights_only=True) == [{"label": 1}]


# ---------------------------------------------------------------- in a run


class _Net(nn.Module):
    """Predictions, with losses behind them if asked for; ``element`` makes the last entry."""

    element: Any = None

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        out = self.linear(x)
        if mode == "loss":
            return {"loss": (out - y).square().mean()}
        if type(self).element is None:
            return list(out)
        error = (out - y).square()
        losses = {"loss_a": error.mean(), "loss_b": [error.min(), error.max()], "c": error.sum()}
        return [*out, type(self).element(loss=losses)]


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


class LossNet(Net):
    element = dict


class TheirLossNet(TheirNet):
    element = BaseDataElement


def both(
    tmp_path: Path, purpose: str, kinds: tuple[Any, Any], cfg: dict[str, Any]
) -> list[dict[str, Any]]:
    """Evaluate in trainkit and in MMEngine."""
    given = {f"{purpose}_dataloader": loader(), f"{purpose}_cfg": cfg}
    runner = make_runner(
        tmp_path / "ours", model=kinds[0](), **{**given, f"{purpose}_evaluator": Stats()}
    )
    their = mmengine.runner.Runner(
        model=kinds[1](),
        work_dir=str(tmp_path / "theirs"),
        **{**given, f"{purpose}_evaluator": [TheirStats()]},
        default_hooks={"logger": None},
        experiment_name=f"evaluation_{tmp_path.name}",
        log_level="ERROR",
    )
    found = [getattr(runner, purpose)(load=False), getattr(their, purpose)()]
    for metrics in found:
        metrics["entries"] = [value for _, value in metrics["entries"]]
    return found


@pytest.mark.parametrize("purpose", ["val", "test"])
@pytest.mark.parametrize("fp16", [False, True])
def test_predictions_and_metrics_with_and_without_autocast(
    tmp_path: Path, purpose: str, fp16: bool
) -> None:
    ours, theirs = both(tmp_path, purpose, (Net, TheirNet), {"fp16": fp16})
    assert ours == theirs
    assert len(ours["entries"]) == 12
    exact = torch.tensor(ours["entries"]).bfloat16().float().tolist() == ours["entries"]
    assert exact == fp16  # in autocast they are numbers of bfloat16


@pytest.mark.parametrize("purpose", ["val", "test"])
def test_losses_behind_the_predictions(tmp_path: Path, purpose: str) -> None:
    ours, theirs = both(tmp_path, purpose, (LossNet, TheirLossNet), {})
    assert list(ours) == list(theirs)
    assert list(ours)[2:] == ["loss_a", "loss_b", "c", f"{purpose}_loss"]
    assert ours.pop("entries") == theirs.pop("entries")
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_both_have_the_toy_data(tmp_path: Path) -> None:
    ours, _ = both(tmp_path, "val", (Net, TheirNet), {})
    with torch.no_grad():
        expected = Net().linear(ToyDataset().x).flatten()
    assert ours["entries"] == pytest.approx(expected.tolist())


def test_a_step_may_return_a_dict_or_nothing_on_purpose(tmp_path: Path) -> None:
    """MMEngine looks at the last entry without asking whether there is one."""

    class Nothing(Net):
        def val_step(self, data: Any) -> Any:
            return []

    class TheirNothing(TheirNet):
        def val_step(self, data: Any) -> Any:
            return []

    with pytest.raises(IndexError):
        both(tmp_path, "val", (Nothing, TheirNothing), {})
    runner = make_runner(tmp_path / "again", model=Nothing(), val_evaluator=Stats())
    assert runner.val(load=False)["sum"] == 0
