"""What ranks say together: two real processes on gloo, and one process alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.ranks import on_ranks
from trainkit import dist
from trainkit.dataloader import DefaultSampler
from trainkit.errors import ConfigError, MissingExtra
from trainkit.evaluator import Accuracy
from trainkit.seed import set_random_seed

SAMPLES = 7


_ERRORS = (ConfigError("a"), MissingExtra("p", "x", "That"))


def _refused(error: Exception) -> list[str]:
    def action() -> None:
        raise error

    try:
        dist.on_main(action)
    except Exception as raised:
        return [type(raised).__name__, str(raised)]
    return []


def work(rank: int) -> dict[str, Any]:
    sampler = DefaultSampler(range(SAMPLES), shuffle=True, seed=4, round_up=False)
    metric = Accuracy()
    for index in sampler:
        batch = {"labels": torch.tensor([index % 3])}
        metric.process(batch, torch.tensor([0]))
    return {
        "rank": [dist.get_rank(), dist.get_world_size(), dist.is_main_process()],
        "gathered": dist.all_gather_object(rank * 10),
        "broadcast": dist.broadcast_object(f"from {rank}"),
        "seed": set_random_seed(None),
        "diff_seed": set_random_seed(5, diff_rank_seed=True),
        "indices": list(sampler),
        "on_main": [dist.on_main(lambda: f"of {rank}"), *(_refused(kind) for kind in _ERRORS)],
        "metrics": metric.evaluate(SAMPLES),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(work, tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
def test_ranks_know_each_other(ranks: list[dict[str, Any]]) -> None:
    assert [found["rank"] for found in ranks] == [[0, 2, True], [1, 2, False]]
    assert [found["gathered"] for found in ranks] == [[0, 10], [0, 10]]
    assert [found["broadcast"] for found in ranks] == ["from 0", "from 0"]


@pytest.mark.slow
def test_a_drawn_seed_is_shared_and_a_given_one_can_differ(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["seed"] == ranks[1]["seed"]
    assert [found["diff_seed"] for found in ranks] == [5, 6]


@pytest.mark.slow
def test_what_rank_zero_does_is_known_to_all(ranks: list[dict[str, Any]]) -> None:
    text = str(_ERRORS[1])
    first, second = (found["on_main"] for found in ranks)
    assert first == ["of 0", ["ConfigError", "a"], ["MissingExtra", text]]
    assert second == ["of 0", ["ConfigError", "a"], ["RuntimeError", f"MissingExtra: {text}"]]


@pytest.mark.slow
def test_every_sample_is_counted_once_over_uneven_ranks(ranks: list[dict[str, Any]]) -> None:
    indices = [index for found in ranks for index in found["indices"]]
    assert sorted(indices) == list(range(SAMPLES))
    expected = sum(index % 3 == 0 for index in range(SAMPLES)) / SAMPLES
    assert [found["metrics"]["accuracy"] for found in ranks] == [expected] * 2


def test_one_process_is_rank_zero_of_one() -> None:
    assert (dist.get_rank(), dist.get_world_size(), dist.is_main_process()) == (0, 1, True)
    assert dist.all_gather_object(3) == [3]
    assert dist.broadcast_object(3) == 3
    dist.barrier()
    assert not dist.is_distributed()
