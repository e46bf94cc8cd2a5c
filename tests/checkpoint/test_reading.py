"""Reading runs no code, and says what is wrong."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.checkpoint.helpers import facts, flip_bit, write
from trainkit.checkpoint import (
    FORMAT_VERSION,
    MANIFEST,
    locate_checkpoint,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from trainkit.errors import CheckpointError


def test_model_pt_is_a_state_dict_that_plain_torch_loads(tmp_path: Path) -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    path = write_checkpoint(tmp_path / "epoch_1", {"model.pt": model.state_dict()}, {"iter": 1})
    other.load_state_dict(torch.load(path / "model.pt", weights_only=True))
    assert torch.equal(other.weight, model.weight)


def test_a_rank_reads_its_own_state(tmp_path: Path) -> None:
    files = {"model.pt": {}, "rank_0.pt": {"mine": 0}, "rank_1.pt": {"mine": 1}}
    path = write_checkpoint(tmp_path / "epoch_1", files, {"iter": 1})
    assert read_checkpoint(path, rank=1)["rank"] == {"mine": 1}
    assert "rank" not in read_checkpoint(path, rank=2)


def test_a_plain_file_is_read_as_weights(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "plain.pth")
    torch.save({"state_dict": {"w": torch.ones(1)}, "meta": {"epoch": 3}}, tmp_path / "mm.pth")
    assert list(read_checkpoint(tmp_path / "plain.pth")) == ["state_dict"]
    assert read_checkpoint(tmp_path / "mm.pth")["meta"] == {"epoch": 3}


def test_a_newer_format_says_to_update(tmp_path: Path) -> None:
    path = write(tmp_path / "epoch_1")
    manifest = {**json.loads((path / MANIFEST).read_text()), "format_version": FORMAT_VERSION + 1}
    del manifest["sha256"]
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        CheckpointError, match=r"has format 2; this trainkit reads up to 1\. Update"
    ):
        read_checkpoint(path)


def zipped(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "x")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"root:x:0:0\n", "it is neither a zip archive nor a pickle"),
        (b"K", "it is neither a zip archive nor a pickle"),
        (zipped("notes/x.txt"), "it is a zip archive without a data.pkl"),
        (zipped("weights/data.pkl")[:-9], "its zip archive is cut short or damaged"),
    ],
)
def test_a_file_that_is_none_of_torchs_is_refused_where_it_is_named(
    tmp_path: Path, content: bytes, why: str
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    for read in (locate_checkpoint, read_checkpoint):
        with pytest.raises(CheckpointError) as caught:
            read(file)
        assert str(caught.value) == (
            f"{file} is no file that torch.load reads: {why}. Expected a checkpoint of a run, or "
            "weights that torch.save has written."
        )


def test_what_only_reading_tells_is_told_in_words(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"w": torch.ones(3)}, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[:-5])
    assert locate_checkpoint(file) == file
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(file)
    assert str(caught.value) == (
        f"{file} is damaged, or nothing that torch.save has written (unexpected EOF, expected 5 "
        "more bytes. The file might be corrupted.)."
    )


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
def test_a_pickled_object_is_refused_and_its_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary, file = tmp_path / "canary", tmp_path / "evil.pth"
    torch.save({"weight": Canary(canary)}, file)
    with pytest.raises(CheckpointError, match=r"evil\.pth needs pickle"):
        read_checkpoint(file)
    assert not canary.exists()


def test_a_pickled_object_in_a_checkpoint_with_a_true_digest_is_refused_too(tmp_path: Path) -> None:
    canary, evil, path = tmp_path / "canary", tmp_path / "evil", write(tmp_path / "epoch_1")
    torch.save({"weight": Canary(canary)}, evil)
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["sha256"]
    manifest["files"]["model.pt"] = facts(evil)
    shutil.copy(evil, path / "model.pt")
    (path / MANIFEST).write_text(json.dumps(manifest))
    assert verify_checkpoint(path)["iter"] == 1
    with pytest.raises(CheckpointError, match="needs pickle"):
        read_checkpoint(path)
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_plain_file_raises_nothing_but_checkpoint_error(
    tmp_path: Path, zipped: bool
) -> None:
    file, chance = tmp_path / "weights.pth", random.Random(0)
    torch.save({"w": torch.ones(9), "b": [1, "x"]}, file, _use_new_zipfile_serialization=zipped)
    original = file.read_bytes()
    surprises = set()
    for attempt in range(200):
        cut = original if attempt % 2 else original[: chance.randrange(1, len(original))]
        file.write_bytes(cut)
        flip_bit(file, chance.randrange(8 * len(cut)))
        try:
            read_checkpoint(file)
        except CheckpointError:
            pass
        except Exception as error:
            surprises.add(repr(error))
    assert not surprises


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "module", "net", "network", "params"]
)
def test_weights_under_a_usual_key_are_found(tmp_path: Path, key: str) -> None:
    optimizer = {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 1}]}
    saved = {key: {"w": torch.ones(2)}, "optimizer": optimizer, "epoch": 3, "args": {"lr": 1}}
    torch.save(saved, tmp_path / "other.pt")
    read = read_checkpoint(tmp_path / "other.pt")
    assert list(read["state_dict"]) == ["w"]
    assert read["epoch"] == 3


@pytest.mark.parametrize(
    "saved",
    [
        {"teacher": {"w": torch.ones(2)}},
        {"model": {"w": torch.ones(2)}, "model_ema": {"w": torch.ones(2)}},
        {"model": {"w": torch.ones(2)}, "bias": torch.ones(2)},
        {"model": {"lr": 1}},
    ],
)
def test_weights_are_not_guessed(tmp_path: Path, saved: dict[str, Any]) -> None:
    torch.save(saved, tmp_path / "other.pt")
    assert read_checkpoint(tmp_path / "other.pt")["state_dict"].keys() == saved.keys()


def test_the_advice_for_a_file_that_needs_pickle_works(tmp_path: Path) -> None:
    old, new = tmp_path / "mm.pth", tmp_path / "weights.pth"
    torch.save({"state_dict": {"w": torch.ones(2)}, "meta": {"root": Path("x")}}, old)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(old)
    assert "needs pickle, which can run any code, so it is not loaded" in str(caught.value)
    line = "torch.save(torch.load(path, weights_only=False)['state_dict'], 'weights.pth')"
    assert line in str(caught.value)
    exec(line.replace("'weights.pth'", "new"), {"torch": torch, "path": old, "new": new})
    assert torch.equal(read_checkpoint(new)["state_dict"]["w"], torch.ones(2))
