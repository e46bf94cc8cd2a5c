"""What ranks of one run have in common."""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tests.ranks import on_ranks
from tests.toy import ToyDataset, ToyModel, loader_config, make_runner
from trainkit import Runner
from trainkit.dataloader import DefaultSampler
from trainkit.evaluator import BaseMetric, DumpResults, Evaluator


def stamp(rank: int, work_dir: str) -> str:
    os.environ["TZ"] = f"UTC-{rank * 5}"  # a clock of its own for each rank
    time.tzset()
    return Runner(ToyModel(), work_dir).timestamp


@pytest.mark.slow
def test_ranks_have_one_time(tmp_path: Path) -> None:
    first, second = on_ranks(partial(stamp, work_dir=str(tmp_path / "run")), tmp_path)
    assert first == second


class Errors(BaseMetric):
    """Targets and errors of all samples, as their entries arrive: one for each batch."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        targets = torch.stack(list(data_batch["y"]))  # offline, they are in a list
        self.results.append((targets.flatten(), (data_samples - targets).flatten()))

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        targets, errors = (torch.cat(parts).tolist() for parts in zip(*results, strict=True))
        return {"targets": targets, "errors": errors}


def evaluated(rank: int, directory: str) -> dict[str, Any]:
    """Evaluate seven samples on all ranks, with a sampler of trainkit's and with one's own."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("trainkit").addHandler(handler)
    data = ToyDataset(7)
    own = DefaultSampler(data, shuffle=False, round_up=False)
    found: dict[str, Any] = {}
    for name, loader in {
        "given": loader_config(dataset=data, batch_size=2),
        "own": DataLoader(data, batch_size=2, sampler=own),
    }.items():
        metrics = [Errors(), DumpResults(out_file_path="kept.pt")]
        work_dir = Path(directory) / name
        runner = make_runner(work_dir, test_dataloader=loader, test_evaluator=metrics)
        found[name] = runner.test(load=False)
    found["told"] = [line for line in told if "deals samples out in turn" in line]
    return found


@pytest.mark.slow
def test_two_ranks_find_what_one_does_in_the_datasets_order(tmp_path: Path) -> None:
    """So a file of predictions can be evaluated offline; MMEngine takes entries in turn."""
    of_rank = on_ranks(partial(evaluated, directory=str(tmp_path)), tmp_path)
    data = ToyDataset(7)
    targets = data.y
    offline: dict[str, Any] = {}
    for name in ("given", "own"):
        kept = torch.load(tmp_path / name / "kept.pt", weights_only=True)
        offline[name] = Evaluator(Errors()).offline_evaluate(kept, data)
    for found in of_rank:
        given, own = found["given"], found["own"]
        assert given["targets"] == targets.flatten().tolist()
        assert given == offline["given"]
        assert own["targets"] == targets[[0, 2, 4, 6, 1, 3, 5]].flatten().tolist()
        assert own != offline["own"]  # of which the warning tells
    assert of_rank[1]["told"] == []
    (line,) = of_rank[0]["told"]
    assert line.startswith("test_dataloader: its DefaultSampler deals samples out in turn")
