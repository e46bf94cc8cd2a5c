"""Damage that torch.load does not see is seen, and the checkpoint before is gone on from."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from tests.faults.runs import differences, make, results
from tests.runner.test_interrupt import Sender, preempt
from trainkit import CheckpointError
from trainkit.checkpoint import list_checkpoints, verify_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")

PAGE = 512  # bytes; the files of a run this small have a few of the file system's own


def flip_a_bit(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def zero_a_page(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    pages = range(0, len(content), PAGE)
    begin = chance.choice([page for page in pages if any(content[page : page + PAGE])])
    content[begin : begin + PAGE] = bytes(len(content[begin : begin + PAGE]))
    file.write_bytes(content)


def torch_sees(file: Path) -> bool:
    try:
        torch.load(file, weights_only=True)
    except Exception:
        return True
    return False


def is_seen(checkpoint: Path) -> bool:
    try:
        verify_checkpoint(checkpoint)
    except CheckpointError:
        return True
    return False


@pytest.mark.slow
def test_a_hundred_damages_are_seen_of_which_torch_sees_few(tmp_path: Path) -> None:
    make("scaler-epochs", tmp_path / "run").train()
    good = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    chance, bad = random.Random(6), tmp_path / "bad"
    seen = seen_by_torch = 0
    for damage in [flip_a_bit] * 60 + [zero_a_page] * 40:
        shutil.copytree(good, bad)
        file = chance.choice(sorted(bad.glob("*.pt")))
        damage(file, chance)
        seen += is_seen(bad)
        seen_by_torch += torch_sees(file)
        shutil.rmtree(bad)
    assert seen == 100
    assert seen_by_torch < 50


@pytest.mark.slow
def test_a_run_whose_newest_checkpoint_is_damaged_ends_the_same(tmp_path: Path) -> None:
    make("plateau-epochs", tmp_path / "whole").train()
    runner = make("plateau-epochs", tmp_path / "run")
    preempt(runner, Sender("before_train_iter", 13))
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    flip_a_bit(newest / "model.pt", random.Random(1))
    make("plateau-epochs", tmp_path / "run").train()
    one, other = (results(tmp_path / name, broken_off=True) for name in ("whole", "run"))
    corrupt = [name for name in other["names"] if name.startswith(".corrupt-")]
    assert [name.split("-")[1] for name in corrupt] == [newest.name]
    other["names"] -= set(corrupt)
    assert list(differences(one, other)) == []
