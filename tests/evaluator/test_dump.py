"""DumpResults: predictions in a file that is safe to read, and their evaluation afterwards."""

from __future__ import annotations

import pickle
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.toy import MeanSquaredError, ToyDataset, ToyModel, make_runner
from trainkit import ConfigError
from trainkit.data import Digits
from trainkit.evaluator import Accuracy, BaseMetric, DumpResults, Evaluator


def dumped(path: Path, *batches: Any) -> Any:
    metric = DumpResults(out_file_path=str(path))
    for batch in batches:
        metric.process(None, batch)
    assert metric.evaluate(0) == {}
    if path.suffix == ".pkl":
        return pickle.loads(path.read_bytes())
    return torch.load(path, weights_only=True)


def test_tensors_become_one_tensor_with_a_row_for_each_sample(tmp_path: Path) -> None:
    first, second = torch.rand(4, 3), torch.rand(2, 3)
    kept = dumped(tmp_path / "p.pt", first, second)
    assert kept.equal(torch.cat([first, second]))


def test_tensors_that_do_not_fit_together_become_a_list(tmp_path: Path) -> None:
    kept = dumped(tmp_path / "p.pt", torch.ones(2, 3), torch.ones(1, 4))
    assert [tuple(row.shape) for row in kept] == [(3,), (3,), (4,)]


def test_lists_become_one_list(tmp_path: Path) -> None:
    kept = dumped(tmp_path / "p.pt", [{"a": 1}, {"a": 2}], ({"a": 3},))
    assert kept == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_dict_of_outputs_becomes_one_for_each_sample(tmp_path: Path) -> None:
    """MMEngine goes through its keys, as if these were the samples."""
    scores, boxes = torch.rand(3, 10), torch.rand(3, 2, 4)
    batch = {"scores": scores, "more": {"boxes": boxes, "names": ["a", "b", "c"]}}
    kept = dumped(tmp_path / "p.pt", batch, batch)
    assert len(kept) == 6
    for index, sample in enumerate(kept):
        assert sample["scores"].equal(scores[index % 3])
        assert sample["more"]["boxes"].equal(boxes[index % 3])
        assert sample["more"]["names"] == "abc"[index % 3]


def test_several_outputs_become_a_tuple_for_each_sample_on_purpose(tmp_path: Path) -> None:
    """MMEngine takes each output for a sample."""
    scores, boxes = torch.rand(3, 10), torch.rand(3, 4)
    for name, outputs in (("tuple", (scores, boxes)), ("list", [scores, boxes])):
        metric = DumpResults(out_file_path=str(tmp_path / f"{name}.pt"))
        metric.process({"x": torch.zeros(3, 1)}, outputs)
        metric.evaluate(3)
        kept = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert [len(sample) for sample in kept] == [2, 2, 2]
        assert torch.stack([sample[0] for sample in kept]).equal(scores)
        assert torch.stack([sample[1] for sample in kept]).equal(boxes)
    kept = dumped(tmp_path / "p.pt", (scores, boxes))  # the size of the batch is not known
    assert [len(sample) for sample in kept] == [2, 2, 2]


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_sequence_with_an_entry_for_each_sample_stays_one(tmp_path: Path, kind: Any) -> None:
    boxes = kind(torch.rand(5, 4) for _ in range(3))
    metric = DumpResults(out_file_path=str(tmp_path / "p.pt"))
    metric.process({"x": torch.zeros(3, 1)}, boxes)
    metric.evaluate(3)
    kept = torch.load(tmp_path / "p.pt", weights_only=True)
    assert torch.stack(kept).equal(torch.stack(list(boxes)))


@pytest.mark.parametrize(
    ("outputs", "named"),
    [
        ({"scores": torch.ones(2), "loss": torch.tensor(1.0)}, "dict with entries of the lengths "),
        ({"scores": torch.ones(2, 3), "boxes": torch.ones(1, 4)}, "lengths scores: 2, boxes: 1,"),
        ({}, "type dict,"),
        (torch.tensor(3.0), "type Tensor,"),
        ("text", "type str,"),
        (None, "type NoneType,"),
    ],
)
def test_predictions_that_cannot_be_told_apart_by_sample_are_refused(
    tmp_path: Path, outputs: Any, named: str
) -> None:
    with pytest.raises(ConfigError, match="cannot be told apart by sample") as caught:
        dumped(tmp_path / "p.pt", outputs)
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_arrays_become_tensors_and_their_numbers_numbers(tmp_path: Path) -> None:
    kept = dumped(tmp_path / "p.pt", [np.ones(2, dtype=np.float32), np.float64(2.5)])
    assert kept[0].equal(torch.ones(2))
    assert kept[1] == 2.5


def test_what_is_kept_is_a_copy(tmp_path: Path) -> None:
    batch = torch.zeros(2, 1, requires_grad=True)
    metric = DumpResults(out_file_path=str(tmp_path / "p.pt"))
    metric.process(None, batch)
    with torch.no_grad():
        batch += 1
    metric.evaluate(2)
    kept = torch.load(tmp_path / "p.pt", weights_only=True)
    assert kept.equal(torch.zeros(2, 1))
    assert not kept.requires_grad


def test_a_pickle_is_written_only_where_it_is_asked_for(tmp_path: Path) -> None:
    assert dumped(tmp_path / "p.pkl", [{"a": {1}}], [{"a": {2}}]) == [{"a": {1}}, {"a": {2}}]


def test_what_cannot_be_pickled_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"p\.pkl cannot hold the predictions: "):
        dumped(tmp_path / "p.pkl", [lambda: 1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["p.json", "p", "p.pt.txt", ""])
def test_another_ending_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a name that ends with \.pt"):
        DumpResults(out_file_path=name)


def test_what_cannot_be_read_back_safely_is_refused_and_named(tmp_path: Path) -> None:
    point = namedtuple("point", "x")(1)
    with pytest.raises(ConfigError, match=r"p\.pt cannot hold the predictions: \[0\]\.a is a"):
        dumped(tmp_path / "p.pt", [{"a": object()}])
    assert dumped(tmp_path / "p.pt", [[point]]) == [[(1,)]]
    assert [path.name for path in tmp_path.iterdir()] == ["p.pt"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .*/file/p\.pt: "):
        dumped(tmp_path / "file" / "p.pt", [1])


def test_a_relative_path_is_below_the_runs_directory(tmp_path: Path) -> None:
    """Two runs of one working directory never write over each other's predictions."""
    for name in ("a", "b"):
        evaluator = [DumpResults(out_file_path="kept/p.pt"), MeanSquaredError()]
        make_runner(tmp_path / name, test_evaluator=evaluator).test(load=False)
        kept = torch.load(tmp_path / name / "kept" / "p.pt", weights_only=True)
        with torch.no_grad():
            assert kept.equal(ToyModel().linear(ToyDataset().x))


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "p.pt"
    evaluator = DumpResults(out_file_path=str(path))
    make_runner(tmp_path / "run", test_evaluator=evaluator).test(load=False)
    assert len(torch.load(path, weights_only=True)) == 12


def test_a_stored_config_may_not_say_where_to_write(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    from trainkit.config.trust import check_trust

    target = "trainkit.evaluator.DumpResults"
    for place in ("/x/p.pt", "../p.pt", "~/p.pt"):
        with pytest.raises(ConfigError, match=r"out_file_path is .*, a place outside the new run"):
            check_trust(OmegaConf.create({"a": {"_target_": target, "out_file_path": place}}), [])
    check_trust(OmegaConf.create({"a": {"_target_": target, "out_file_path": "in/p.pt"}}), [])
    with pytest.raises(TypeError, match="positional"):
        DumpResults("p.pt")  # type: ignore[misc]  # by _args_ a config could name it unseen


# ---------------------------------------------------------------- offline


class Chunks(BaseMetric):
    """What it is fed with."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append((data_batch, data_samples))

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {"chunks": results}


@given(st.integers(0, 9), st.integers(1, 4), st.booleans())
def test_predictions_come_in_chunks_with_their_samples(size: int, chunk: int, data: bool) -> None:
    samples = [{"y": index} for index in range(size)] if data else None
    chunks = Evaluator(Chunks()).offline_evaluate(list(range(size)), samples, chunk)["chunks"]
    assert [p for _, part in chunks for p in part] == list(range(size))
    assert all(len(part) == chunk for _, part in chunks[:-1])
    for batch, part in chunks:
        assert batch == ({"y": part} if data else None)


def test_what_was_dumped_gives_the_same_numbers_offline(tmp_path: Path) -> None:
    data = Digits("val")
    scores = torch.randn(len(data), 10, generator=torch.Generator().manual_seed(1))
    online = Evaluator([Accuracy(), DumpResults(out_file_path=str(tmp_path / "p.pt"))])
    for start in range(0, len(data), 64):
        labels = data.labels[start : start + 64]
        online.process(scores[start : start + 64], {"labels": torch.tensor(labels)})
    expected = online.evaluate(len(data))
    kept = torch.load(tmp_path / "p.pt", weights_only=True)
    for chunk in (1, 100, 1000):
        assert Evaluator(Accuracy()).offline_evaluate(kept, data, chunk) == expected


def test_samples_without_predictions_are_refused() -> None:
    with pytest.raises(ConfigError, match="got 2 predictions for 3 samples"):
        Evaluator(Chunks()).offline_evaluate([1, 2], [1, 2, 3])
    with pytest.raises(ConfigError, match="chunk_size is 0; expected at least 1"):
        Evaluator(Chunks()).offline_evaluate([1, 2], chunk_size=0)


def test_an_offline_evaluation_starts_anew() -> None:
    evaluator = Evaluator(Chunks())
    evaluator.process("left", "over")
    assert evaluator.offline_evaluate(["a"]) == {"chunks": [(None, ["a"])]}
