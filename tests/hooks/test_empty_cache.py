"""EmptyCacheHook: when the accelerator's cache is emptied."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.toy import make_runner
from trainkit.hooks import EmptyCacheHook

OPTIONS = [
    ({}, ["after_epoch"]),
    ({"before_epoch": True, "after_epoch": False}, ["before_epoch"]),
    ({"after_iter": True}, ["after_iter", "after_epoch"]),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS, ids=str)
@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_the_cache_is_emptied_at_the_points_that_are_chosen(
    options: dict[str, bool], expected: list[str], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[str] = []
    point = ""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: emptied.append(point))
    hook, runner = EmptyCacheHook(**options), SimpleNamespace(device=torch.device("cuda"))
    for point, arguments in (("before_epoch", ()), ("after_iter", (0,)), ("after_epoch", ())):
        when, _, what = point.partition("_")
        method: Any = getattr(hook, f"{when}_{mode}_{what}")
        method(runner, *arguments)
    assert emptied == expected


def test_on_the_cpu_it_does_nothing(tmp_path: Path) -> None:
    hook = EmptyCacheHook(before_epoch=True, after_epoch=True, after_iter=True)
    runner = make_runner(tmp_path, custom_hooks=[hook])
    runner.train()
    runner.test()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_unused_memory_goes_back_to_the_device() -> None:
    held = torch.empty(1 << 24, device="cuda")
    del held
    before = torch.cuda.memory_reserved()
    runner: Any = SimpleNamespace(device=torch.device("cuda"))
    EmptyCacheHook().after_train_epoch(runner)
    assert torch.cuda.memory_reserved() < before
