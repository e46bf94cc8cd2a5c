"""Seeds: the same one gives the same numbers, and a saved state goes on where it was."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit import seed as seed_module
from trainkit.checkpoint import read_checkpoint, write_checkpoint
from trainkit.errors import ConfigError
from trainkit.seed import get_rng_state, isolated_rng, set_random_seed, set_rng_state


def draw() -> tuple[float, ...]:
    return (random.random(), random.gauss(0, 1), *np.random.randn(3), *torch.rand(2).tolist())


@pytest.fixture
def _torch_flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    yield
    cudnn.deterministic, cudnn.benchmark = before[:2]
    torch.use_deterministic_algorithms(before[2])
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@given(st.integers(0, 2**40))
def test_a_seed_decides_every_generator(seed: int) -> None:
    assert set_random_seed(seed) == seed
    first = draw()
    assert draw() != first
    set_random_seed(seed)
    assert draw() == first


def test_no_seed_draws_one_that_gives_the_same_numbers_again() -> None:
    seeds = {set_random_seed(None) for _ in range(5)}
    assert len(seeds) > 1
    used = set_random_seed(None)
    assert 0 <= used < 2**31
    first = draw()
    set_random_seed(used)
    assert draw() == first


def test_ranks_can_draw_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_module, "get_rank", lambda: 3)
    assert set_random_seed(5) == 5
    assert set_random_seed(5, diff_rank_seed=True) == 8
    different = draw()
    set_random_seed(8)
    assert draw() == different


@pytest.mark.usefixtures("_torch_flags")
def test_deterministic_demands_deterministic_algorithms() -> None:
    set_random_seed(1)
    assert not torch.are_deterministic_algorithms_enabled()
    set_random_seed(1, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_state_goes_on_where_it_was_after_a_checkpoint(tmp_path: Path) -> None:
    set_random_seed(1)
    draw()
    path = write_checkpoint(tmp_path / "epoch_1", {"model.pt": get_rng_state()}, {"iter": 1})
    expected = [draw() for _ in range(3)]
    set_random_seed(2)
    set_rng_state(read_checkpoint(path)["state_dict"])
    assert [draw() for _ in range(3)] == expected


def test_taking_the_state_draws_nothing() -> None:
    set_random_seed(1)
    expected = draw()
    set_random_seed(1)
    get_rng_state()
    assert draw() == expected


def test_isolated_numbers_do_not_change_those_that_follow() -> None:
    set_random_seed(1)
    expected = draw()
    set_random_seed(1)
    with isolated_rng():
        draw()
        set_random_seed(7)
    assert draw() == expected


def test_isolation_holds_when_an_error_passes_through() -> None:
    set_random_seed(1)
    expected = draw()
    set_random_seed(1)
    with pytest.raises(ZeroDivisionError), isolated_rng():
        _ = draw()[0] / 0
    assert draw() == expected


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True])
def test_a_seed_that_is_no_whole_number_is_refused(seed: Any) -> None:
    with pytest.raises(ConfigError, match=f"The seed is {seed!r}; expected a whole number"):
        set_random_seed(seed)
