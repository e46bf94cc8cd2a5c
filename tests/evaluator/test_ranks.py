"""Metrics and losses of two ranks: in rank order, nothing cut; uneven ranks and empty ones."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import on_ranks
from trainkit import dist
from trainkit.evaluator import BaseMetric, DumpResults, Evaluator, LossAverage, TorchMetric

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Metric `.*` will save all:UserWarning"),
]

UNEVEN = {0: range(5), 1: range(5, 7)}  # samples by rank
EMPTY = {0: range(3), 1: range(0)}
EMPTY_FIRST = {0: range(0), 1: range(3)}
CASES = {"uneven": UNEVEN, "empty": EMPTY, "empty_first": EMPTY_FIRST}


class Order(BaseMetric):
    """The entries, as they arrive."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += data_samples

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {"order": results}


class Broken(Order):
    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        raise ValueError("a mistake of the user's")


def gathered(rank: int, dealt: dict[int, range], directory: Path) -> dict[str, Any]:
    """Evaluate the samples of a rank, one by one."""
    evaluator = Evaluator([Order(), DumpResults(out_file_path=str(directory / "kept.pt"))])
    losses = LossAverage()
    for sample in dealt[rank]:
        evaluator.process([sample])
        losses.update({"loss": torch.tensor(float(sample))}, 1 + sample)
    metrics = evaluator.evaluate(2)  # fewer than there are: nothing is cut
    kept = torch.load(directory / "kept.pt", weights_only=True)
    return {**metrics, **losses.compute(), "kept": kept}


def measures() -> dict[str, Any]:
    """Metrics that add up, that keep every prediction, that share a state, and a wrapped one."""
    from torchmetrics import MinMaxMetric
    from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score
    from torchmetrics.regression import MeanSquaredError, PearsonCorrCoef, SpearmanCorrCoef

    return {
        "mse": MeanSquaredError(),
        "auroc": BinaryAUROC(),
        "accuracy": BinaryAccuracy(),
        "f1": BinaryF1Score(),
        "spearman": SpearmanCorrCoef(),
        "pearson": PearsonCorrCoef(),
        "wrapped": MinMaxMetric(MeanSquaredError()),
    }


def numbers_of(metric: TorchMetric, samples: Any) -> dict[str, float]:
    """Two evaluations of the samples, one by one; the second starts anew."""
    found: dict[str, float] = {}
    for _ in range(2):
        for sample in samples:
            scores = torch.tensor([(3 * sample % 7) / 10])
            metric.process({"labels": torch.tensor([sample % 2])}, scores)
        found = metric.evaluate(0)
    return found


def by_torchmetrics(samples: Any) -> dict[str, float]:
    alone = {name: TorchMetric(metric, name=name) for name, metric in measures().items()}
    for name in ("spearman", "pearson"):
        alone[name].inputs = lambda batch, scores: (scores, batch["labels"].float())
    found: dict[str, float] = {}
    for metric in alone.values():
        found |= numbers_of(metric, samples)
    several = {n: m for n, m in measures().items() if n in ("auroc", "accuracy", "f1")}
    together = TorchMetric(several, prefix="together")
    return {**found, **numbers_of(together, samples)}


def broken(rank: int) -> str:
    metric = Broken()
    metric.process(None, [rank])
    try:
        metric.evaluate(2)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def work(rank: int) -> dict[str, Any]:
    warned: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("trainkit").addHandler(handler)
    directory = Path(dist.broadcast_object(tempfile.mkdtemp()))
    found: dict[str, Any] = {
        name: gathered(rank, dealt, directory) for name, dealt in CASES.items()
    }
    if importlib.util.find_spec("torchmetrics") is not None:
        found["torchmetrics"] = {name: by_torchmetrics(d[rank]) for name, d in CASES.items()}
    found["broken"] = broken(rank)
    found["warned"] = [text for text in warned if "no results" in text]
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(work, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES)
def test_entries_come_in_rank_order_and_none_is_cut_on_purpose(
    ranks: list[dict[str, Any]], case: str
) -> None:
    """MMEngine takes one entry of each rank in turn, and cuts to the size of the dataset."""
    samples = [sample for rank in (0, 1) for sample in CASES[case][rank]]
    for found in ranks:
        assert found[case]["order"] == samples
        assert found[case]["kept"] == samples


@pytest.mark.parametrize("case", CASES)
def test_losses_are_averaged_over_all_ranks_on_purpose(
    ranks: list[dict[str, Any]], case: str
) -> None:
    """In MMEngine each rank has the mean of its own batches."""
    samples = [sample for rank in (0, 1) for sample in CASES[case][rank]]
    expected = sum(s * (1 + s) for s in samples) / sum(1 + s for s in samples)
    assert [found[case]["loss"] for found in ranks] == pytest.approx([expected] * 2)


@pytest.mark.skipif(
    importlib.util.find_spec("torchmetrics") is None, reason="torchmetrics is not installed"
)
@pytest.mark.parametrize("case", CASES)
def test_torchmetrics_numbers_are_those_of_one_process(
    ranks: list[dict[str, Any]], case: str
) -> None:
    expected = by_torchmetrics([sample for rank in (0, 1) for sample in CASES[case][rank]])
    assert len(expected) == 12
    for found in ranks:
        assert found["torchmetrics"][case] == pytest.approx(expected)


def test_a_rank_without_entries_gives_no_warning(ranks: list[dict[str, Any]]) -> None:
    assert [found["warned"] for found in ranks] == [[], []]


def test_an_error_on_rank_0_ends_the_others_too(ranks: list[dict[str, Any]]) -> None:
    """In MMEngine they wait for rank 0 until the process group gives up."""
    assert ranks[0]["broken"] == "ValueError: a mistake of the user's"
    assert ranks[1]["broken"] == (
        "RuntimeError: Rank 0 could not compute Broken: ValueError: a mistake of the user's"
    )
