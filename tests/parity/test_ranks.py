"""Metrics gathered over two ranks are MMEngine's numbers, whatever the length of the data."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from tests.ranks import on_ranks
from tests.toy import ToyDataset
from trainkit import dist
from trainkit.evaluator import BaseMetric, Evaluator
from trainkit.runner.data import build_dataloader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.dataset
    import mmengine.evaluator
    from mmengine.evaluator import BaseMetric as TheirMetric

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LENGTHS = (1, 7, 8)  # an empty rank, an uneven one, and even ones


class _Sizes:
    """One entry for each sample: the sum of them, and how many there are."""

    results: list[Any]

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [float(value) for value in data_samples]

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"sum": sum(sorted(results)), "samples": float(len(results))}


class Sizes(_Sizes, BaseMetric):
    default_prefix = "all"


class TheirSizes(_Sizes, TheirMetric):  # type: ignore[misc]
    default_prefix = "all"


def evaluated(evaluator: Any, loader: Any, samples: int) -> dict[str, float]:
    for batch in loader:
        evaluator.process(data_samples=batch["y"].flatten(), data_batch=batch)
    return dict(evaluator.evaluate(samples))


def work(rank: int) -> dict[str, Any]:
    """Evaluate each length of the data in both, each over the loader that it makes."""
    shared = Path(dist.broadcast_object(tempfile.mkdtemp()))
    found: dict[str, Any] = {}
    for length in LENGTHS:
        data = ToyDataset(length)
        config = {
            "dataset": data,
            "batch_size": 2,
            "collate_fn": {"_target_": "trainkit.dataloader.default_collate"},
        }
        mine = build_dataloader(config, "val_dataloader", seed=0, training=False)
        padded = mmengine.dataset.DefaultSampler(data, shuffle=False)
        other = DataLoader(data, batch_size=2, sampler=padded)
        metric = TheirSizes(collect_dir=str(shared / str(length)))
        found[str(length)] = [
            evaluated(Evaluator([Sizes()]), mine, length),
            evaluated(mmengine.evaluator.Evaluator([metric]), other, length),
            [float(value) for batch in mine for value in batch["y"].flatten()],
        ]
    return found


def test_metrics_of_two_ranks_are_mmengines(tmp_path: Path) -> None:
    found = on_ranks(work, tmp_path)
    for length in LENGTHS:
        expected = ToyDataset(length).y.flatten().tolist()
        read = [value for of_rank in found for value in of_rank[str(length)][2]]
        assert read == expected  # one rank after the other: in the dataset's order
        for mine, other, _ in (of_rank[str(length)] for of_rank in found):
            assert mine == other
            assert mine["all/samples"] == length
