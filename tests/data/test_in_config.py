"""Datasets, wrappers and transforms in a config: checked before a run, built by it, trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainkit.__main__ import main
from trainkit.data import BaseDataset, ConcatDataset
from trainkit.runner.data import build_dataloader

HERE = "tests.data.test_in_config"
RUN = ("--config-dir", "conf", "--config-name", "run")


class Pixels(BaseDataset):
    """Images that stand in the annotations."""

    reads: list[str] = []  # noqa: RUF012 - of all of them

    def load_data_list(self) -> list[dict[str, Any]]:
        self.reads.append(self.ann_file)
        return super().load_data_list()

    def get_cat_ids(self, idx: int) -> list[int]:
        return [self.get_data_info(idx)["labels"]]


class ToImage:
    """Makes the tensor that the model takes."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        image = torch.tensor(data["pixels"], dtype=torch.float32).reshape(1, 8, 8)
        return {"inputs": image * self.scale, "labels": data["labels"]}


def drop(data: dict[str, Any], label: int) -> dict[str, Any] | None:
    return None if data["labels"] == label else data


LOADERS = """
train:
  _target_: torch.utils.data.DataLoader
  batch_size: 4
  batch_sampler:
    _target_: trainkit.dataloader.AspectRatioBatchSampler
  dataset:
    _target_: trainkit.data.RepeatDataset
    times: 2
    dataset:
      _target_: trainkit.data.ConcatDataset
      datasets:
        rare:
          _target_: trainkit.data.ClassBalancedDataset
          oversample_thr: 0.5
          dataset: ${own}
        all: ${own}
  collate_fn:
    _target_: trainkit.dataloader.default_collate
val:
  batch_size: 4
  dataset: ${own}
  collate_fn:
    _target_: trainkit.dataloader.default_collate
test: null
"""
CONFIG = f"""
defaults: [config, override dataloader: own, override test_cfg: none, _self_]
own:
  _target_: {HERE}.Pixels
  ann_file: ann.json
  data_root: data
  data_prefix: {{}}
  pipeline:
    drop:
      _target_: {HERE}.drop
      _partial_: true
      label: 7
    image:
      _target_: {HERE}.ToImage
      scale: 0.5
env:
  num_threads: 1
train_cfg:
  max_epochs: 1
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with configs and data of one's own: 9 samples, 2 of them of the label 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    for path, text in (("conf/dataloader/own.yaml", LOADERS), ("conf/run.yaml", CONFIG)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    data_list = [
        {"pixels": [n / 9] * 64, "labels": int(n > 6), "width": 8 + n % 3, "height": 9}
        for n in range(9)
    ]
    Path("data").mkdir()
    Path("data/ann.json").write_text(json.dumps({"metainfo": {}, "data_list": data_list}))


def told(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    """What ``trainkit check`` says, without who set it."""
    code = main(["check", *RUN, *overrides])
    output = capsys.readouterr()
    assert code == (2 if output.err else 0)
    lines = (output.err or output.out).splitlines()
    return "\n".join(line for line in lines if not line.startswith("   Set by"))


def test_a_right_config_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys) == "No mistake found."
    assert told(capsys, "own.pipeline.drop=null") == "No mistake found."


VAL = "dataloader.val.dataset"
INNER = "dataloader.train.dataset.dataset.datasets"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+own.anfile=x",
            f"{INNER}.rare.dataset.anfile: Pixels has no argument 'anfile'. Did you mean "
            "'ann_file'?",
        ),
        (
            "+own.pipeline.image.scael=2",
            f"{VAL}.pipeline.image.scael: ToImage has no argument 'scael'. Did you mean 'scale'?",
        ),
        (
            "+own.pipeline.drop.labl=2",
            f"{INNER}.all.pipeline.drop.labl: drop has no argument 'labl'. Did you mean 'label'?",
        ),
        ("own.pipeline.image.scale=x", f"{VAL}.pipeline.image.scale is 'x'; ToImage takes a numb"),
        ("own.ann_file=absent.json", f"{VAL}.ann_file is 'absent.json', which does not exist in"),
        (
            "+dataloader.train.dataset.tims=3",
            "dataloader.train.dataset.tims: RepeatDataset has no argument 'tims'. Did you mean "
            "'times'?",
        ),
        ("+own.indices=few", f"{VAL}.indices is 'few'; Pixels takes a whole number, a list of"),
        ("dataloader.train.dataset.dataset=x", "is 'x'; RepeatDataset takes a Dataset."),
        (
            "+own.pipeline.flip={type: Flip}",
            f"{VAL}.pipeline.flip is {{type: 'Flip'}}; expected a transform: a config with "
            "_target_. MMEngine's 'type' is '_target_: <full import path>' here.",
        ),
        ("+own.pipeline.flip=Flip", f"{VAL}.pipeline.flip is 'Flip'; expected a transform"),
        (
            "dataloader.train.batch_sampler._target_=trainkit.dataloader.AspectBatchSampler",
            "Did you mean 'AspectRatioBatchSampler'?",
        ),
        (
            "+dataloader.train.batch_sampler.batch_size=3",
            "dataloader.train.batch_size is 4, but dataloader.train.batch_sampler, which makes the "
            "batches, has 3. Drop dataloader.train.batch_size.",
        ),
    ],
)
def test_a_mistake_far_inside_is_found_before_a_run(
    override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in told(capsys, override)
    assert not Path("outputs").exists()


def test_entries_of_a_list_are_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    config = Path("conf/run.yaml")
    head, _, tail = config.read_text().partition("  pipeline:\n")
    tail = tail[tail.index("env:") :]
    entries = f"  pipeline: [Flip, {{_target_: {HERE}.ToImage, scael: 1}}]\n"
    config.write_text(f"{head}{entries}{tail}")
    message = told(capsys)
    assert f"{VAL}.pipeline[0] is 'Flip'; expected a transform" in message
    assert f"{VAL}.pipeline[1].scael: ToImage has no argument 'scael'." in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataloader.train.dataset.times=0", "times is 0; expected a whole number of at least 1."),
        ("+own.test_mode=true", "is dropped by the transform 'drop' (drop), but test_mode is true"),
    ],
)
def test_a_value_that_is_refused_ends_the_run_with_a_message(
    override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, override, "own.pipeline.drop.label=0"]) == 2
    assert message in capsys.readouterr().err


def test_a_run_trains_on_them() -> None:
    assert main([*RUN]) == 0
    (run,) = Path("outputs/digits").iterdir()
    status = json.loads((run / "status.json").read_text())
    # f(1) = 2/9: sqrt(0.5 / (2/9)) = 1.5, so 2 samples come twice. (11 + 9) * 2 in batches of 4.
    assert (status["status"], status["iter"]) == ("finished", 10)


def test_a_lazy_dataset_is_read_once_and_before_there_are_workers() -> None:
    own = {"_target_": f"{HERE}.Pixels", "ann_file": "data/ann.json", "data_prefix": {}}
    part = {**own, "lazy_init": True, "indices": [0, 8]}
    node = {
        "dataset": {
            "_target_": "trainkit.data.ConcatDataset",
            "datasets": {"one": part, "two": None, "three": part},
            "lazy_init": True,
        },
        "sampler": [0, 3],
    }
    Pixels.reads.clear()
    loader = build_dataloader(node, "loader", seed=1, training=True)
    assert Pixels.reads == ["data/ann.json"] * 2
    assert isinstance(loader.dataset, ConcatDataset)
    assert [batch["labels"] for batch in loader] == [[0], [1]]
    assert len(Pixels.reads) == 2
