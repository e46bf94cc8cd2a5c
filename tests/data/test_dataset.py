"""BaseDataset: what a file of annotations becomes, and what is said of one that is wrong."""

from __future__ import annotations

import json
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from torch.utils.data import DataLoader

from trainkit.data import BaseDataset
from trainkit.errors import ConfigError

CONTENT: dict[str, Any] = {
    "metainfo": {"classes": ["cat", "dog"], "task": "toy"},
    "data_list": [{"img_path": f"{n}.jpg", "size": n} for n in range(6)],
}


def annotate(directory: Path, content: Any = CONTENT, name: str = "ann.json") -> str:
    path = directory / name
    write: Any = json.dumps if name.endswith(".json") else yaml.safe_dump
    path.write_text(write(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def ann_file(tmp_path: Path) -> str:
    return annotate(tmp_path)


class Recorded(BaseDataset):
    """Counts how often the file is read."""

    reads = 0

    def load_data_list(self) -> list[dict[str, Any]]:
        self.reads += 1
        return super().load_data_list()


class Even(BaseDataset):
    """Keeps samples that are a multiple of ``filter_cfg["of"]``."""

    METAINFO: ClassVar = {"task": "even", "palette": [1]}

    def filter_data(self) -> list[dict[str, Any]]:
        step = (self.filter_cfg or {}).get("of", 2)
        return [info for info in self.data_list if info["size"] % step == 0]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [self.get_data_info(idx)["size"] % 3]


def sizes(dataset: BaseDataset) -> list[int]:
    return [dataset.get_data_info(index)["size"] for index in range(len(dataset))]


class DropOdd:
    """Returns None for every other sample."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | None:
        return None if data["size"] % 2 else data


# ------------------------------------------------------------------------- files and paths


@pytest.mark.parametrize("name", ["ann.json", "ann.yaml", "ann.yml", "ANN.JSON"])
def test_annotations_are_read_from_json_and_yaml(tmp_path: Path, name: str) -> None:
    annotate(tmp_path, name=name if name != "ANN.JSON" else "a.json")
    path = tmp_path / name
    if name == "ANN.JSON":
        (tmp_path / "a.json").rename(path)
    dataset = BaseDataset(str(path))
    assert len(dataset) == 6
    assert dataset[3] == {"img_path": "3.jpg", "size": 3, "sample_idx": 3}
    assert dataset.metainfo == CONTENT["metainfo"]


@pytest.mark.parametrize(
    ("root", "file", "prefix", "expected"),
    [
        ("", "a.json", "", ("a.json", "x.jpg")),
        (None, "a.json", "img", ("a.json", "img/x.jpg")),
        ("data", "ann/a.json", "img/", ("data/ann/a.json", "data/img/x.jpg")),
        ("data", "/abs/a.json", "/abs/img", ("/abs/a.json", "/abs/img/x.jpg")),
        ("s3://b/data", "a.json", "img", ("s3://b/data/a.json", "s3://b/data/img/x.jpg")),
        ("data", "http://h/a.json", "http://h/i/", ("http://h/a.json", "http://h/i/x.jpg")),
    ],
)
def test_paths_begin_at_the_root_unless_they_are_absolute_or_urls(
    root: str | None, file: str, prefix: str, expected: tuple[str, str]
) -> None:
    dataset = BaseDataset(file, data_root=root, data_prefix={"img": prefix}, lazy_init=True)
    parsed = dataset.parse_data_info({"img": "x.jpg", "label": 1})
    assert (dataset.ann_file, parsed["img"]) == expected  # type: ignore[call-overload]


def test_an_absolute_path_in_an_annotation_stays_itself(tmp_path: Path) -> None:
    ann_file = annotate(tmp_path, {"metainfo": {}, "data_list": [{"img_path": "/x/1.jpg"}]})
    assert BaseDataset(ann_file, data_prefix={"img_path": "img"})[0]["img_path"] == "/x/1.jpg"


def test_the_prefix_that_is_given_stays_as_it_is(ann_file: str) -> None:
    prefix = {"img_path": "img"}
    BaseDataset(ann_file, data_root=str(Path(ann_file).parent), data_prefix=prefix)
    assert prefix == {"img_path": "img"}


@pytest.mark.parametrize("suffix", [".pkl", ".pickle"])
def test_a_pickle_is_refused_and_not_read_on_purpose(tmp_path: Path, suffix: str) -> None:
    """MMEngine loads pickles, which can run any code."""
    path = tmp_path / f"ann{suffix}"
    path.write_bytes(pickle.dumps(CONTENT))
    with pytest.raises(ConfigError, match=r"A pickle can run any code .* write it as JSON once"):
        BaseDataset(str(path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"expected a file of one of the kinds \.json, \.yaml, \.yml"),
        ("a.jsn", "", r"Did you mean '\.json'\?"),
        ("a.json", "{", r"is no valid JSON: Expecting property name .* line 1 column 2"),
        ("a.yaml", "a: [", r"is no valid YAML: while parsing a flow"),
        ("a.json", "[]", r"has a list at its top; expected a mapping with 'metainfo'"),
        ("a.json", '{"data_list": [], "a": 1}', r"has no 'metainfo', but data_list, a; expected"),
        ("a.json", '{"data_list": {}, "metainfo": {}}', r"a dict under 'data_list'; .* a list\."),
        ("a.json", '{"data_list": [3], "metainfo": {}}', r"data_list\[0\] of .* found a int"),
        (
            "a.json",
            '{"data_list": [{"img_path": "a"}, {"image": "b"}], "metainfo": {}}',
            r"data_list\[1\] of .* expected a path under 'img_path', which data_prefix names; it "
            r"has image\. Set data_prefix",
        ),
    ],
)
def test_a_file_of_another_form_is_refused_with_what_it_has(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        BaseDataset(str(tmp_path / name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"has no ann_file\. Give it one, or a class that overrides load_data_list"),
        ({"ann_file": "absent.json"}, r"'absent\.json' cannot be read: No such file .* data_root"),
        ({"ann_file": "https://h/a.json"}, r"expected a file\. Download it first"),
        ({"data_prefix": {"img": None}}, r"data_prefix\.img is None; expected a text"),
        ({"data_prefix": "img"}, r"data_prefix is 'img'; expected a mapping"),
        ({"metainfo": [1]}, r"metainfo is \[1\]; expected a mapping"),
        ({"max_refetch": -1}, r"max_refetch is -1; expected at least 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BaseDataset(**arguments)


# -------------------------------------------------------------------------------- metainfo


def test_metainfo_of_the_argument_wins_over_the_class_and_that_over_the_file(
    ann_file: str,
) -> None:
    dataset = Even(ann_file, metainfo={"palette": [2], "more": "x"})
    assert dataset.metainfo == {
        "classes": ["cat", "dog"],
        "task": "even",
        "palette": [2],
        "more": "x",
    }
    assert Even.METAINFO == {"task": "even", "palette": [1]}


def test_changing_the_metainfo_one_has_read_changes_nothing(ann_file: str) -> None:
    dataset = BaseDataset(ann_file)
    dataset.metainfo["classes"].append("cow")
    assert dataset.metainfo["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_text_that_names_a_file_stands_for_its_lines(tmp_path: Path, ending: str) -> None:
    (tmp_path / "classes.txt").write_bytes(f"cat\r\n\ndog{ending}".encode())
    metainfo = {"classes": str(tmp_path / "classes.txt"), "name": "toy"}
    dataset = BaseDataset(metainfo=metainfo, lazy_init=True)
    assert dataset.metainfo == {"classes": ["cat", "", "dog"], "name": "toy"}


def test_a_text_that_looks_like_a_file_that_is_not_there_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = BaseDataset(metainfo={"classes": "absent.txt"}, lazy_init=True)
    assert dataset.metainfo == {"classes": "absent.txt"}
    assert "metainfo.classes is 'absent.txt', which is no file" in caplog.text


def test_a_file_of_metainfo_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"metainfo\.classes names .* no text file"):
        BaseDataset(metainfo={"classes": str(tmp_path / "classes.bin")}, lazy_init=True)


# ------------------------------------------------------------------- reading and filtering


@pytest.mark.parametrize("need", [len, lambda d: d[0], lambda d: d.get_data_info(1)])
def test_a_lazy_dataset_reads_its_file_once_when_it_is_needed(ann_file: str, need: Any) -> None:
    dataset = Recorded(ann_file, lazy_init=True)
    assert dataset.reads == 0
    need(dataset)
    need(dataset)
    dataset.full_init()
    assert dataset.reads == 1


def test_filtering_comes_before_indices(ann_file: str) -> None:
    assert sizes(Even(ann_file)) == [0, 2, 4]
    assert sizes(Even(ann_file, filter_cfg={"of": 3})) == [0, 3]
    assert sizes(Even(ann_file, indices=2)) == [0, 2]


def test_an_entry_may_stand_for_several_samples(ann_file: str) -> None:
    class Frames(BaseDataset):
        def parse_data_info(self, raw_data_info: dict[str, Any]) -> list[dict[str, Any]]:
            return [{"size": raw_data_info["size"], "frame": frame} for frame in range(2)]

    dataset = Frames(ann_file)
    assert len(dataset) == 12
    assert dataset[3] == {"size": 1, "frame": 1, "sample_idx": 3}


@pytest.mark.parametrize("parsed", [None, [{"size": 1}, 5]])
def test_an_entry_that_becomes_something_else_is_refused(ann_file: str, parsed: Any) -> None:
    class Odd(BaseDataset):
        def parse_data_info(self, raw_data_info: dict[str, Any]) -> Any:
            return parsed

    with pytest.raises(ConfigError, match=r"Odd\.parse_data_info gave a .* for data_list\[0\]"):
        Odd(ann_file)


def test_categories_are_the_subclass_s_to_tell(ann_file: str) -> None:
    assert Even(ann_file).get_cat_ids(1) == [2]
    with pytest.raises(ConfigError, match=r"BaseDataset does not tell .* Override get_cat_ids"):
        BaseDataset(ann_file).get_cat_ids(0)


# ------------------------------------------------------------------------ items and subsets


@pytest.mark.parametrize("serialize", [True, False])
class TestStorage:
    """Both ways to keep annotations give the same."""

    @pytest.fixture
    def dataset(self, ann_file: str, serialize: bool) -> BaseDataset:
        return BaseDataset(ann_file, serialize_data=serialize)

    def test_each_read_gives_a_fresh_copy(self, dataset: BaseDataset) -> None:
        dataset.get_data_info(0)["size"] = 100
        assert dataset.get_data_info(0) == {"img_path": "0.jpg", "size": 0, "sample_idx": 0}

    def test_negative_indices_count_from_the_end(self, dataset: BaseDataset) -> None:
        for index in range(-6, 6):
            info = dataset.get_data_info(index)
            assert info["size"] == info["sample_idx"] == index % 6

    @pytest.mark.parametrize("index", [6, -7])
    def test_there_is_nothing_beyond_the_ends(self, dataset: BaseDataset, index: int) -> None:
        with pytest.raises(IndexError):
            _ = dataset[index]

    def test_iterating_ends(self, dataset: BaseDataset) -> None:
        assert [sample["size"] for sample in dataset] == list(range(6))

    @pytest.mark.parametrize(
        ("indices", "expected"),
        [
            (2, [0, 1]),
            (-2, [4, 5]),
            (0, []),
            (6, [0, 1, 2, 3, 4, 5]),
            (-6, [0, 1, 2, 3, 4, 5]),
            (100, [0, 1, 2, 3, 4, 5]),
            ([3, -1, 3], [3, 5, 3]),
            ([], []),
            (np.array([1, 2]), [1, 2]),
            (range(0, 6, 3), [0, 3]),
        ],
    )
    def test_subsets(
        self, dataset: BaseDataset, ann_file: str, indices: Any, expected: list[int]
    ) -> None:
        serialize = dataset.serialize_data
        assert sizes(BaseDataset(ann_file, indices=indices, serialize_data=serialize)) == expected
        assert sizes(dataset.get_subset(indices)) == expected
        assert sizes(dataset) == list(range(6))
        dataset.get_subset_(indices)
        assert sizes(dataset) == expected

    @pytest.mark.parametrize("indices", [[6], [-7], "12", True, 1.5, [0.5]])
    def test_indices_of_another_kind_or_beyond_the_ends_are_refused(
        self, dataset: BaseDataset, indices: Any
    ) -> None:
        with pytest.raises(ConfigError, match="indices "):
            dataset.get_subset(indices)

    def test_a_subset_has_nothing_in_common_with_the_whole(self, dataset: BaseDataset) -> None:
        subset = dataset.get_subset([1])
        subset.data_prefix["img_path"] = "changed"
        subset._metainfo["classes"].append("cow")
        second = dataset.get_subset([1])
        assert dataset.data_prefix == second.data_prefix == {"img_path": ""}
        assert dataset.metainfo == second.metainfo == CONTENT["metainfo"]

    def test_a_subset_of_a_subset(self, dataset: BaseDataset) -> None:
        assert sizes(dataset.get_subset([5, 4, 3]).get_subset(-2)) == [4, 3]

    def test_it_survives_pickling(self, dataset: BaseDataset) -> None:
        assert sizes(pickle.loads(pickle.dumps(dataset))) == list(range(6))


def test_a_dataset_without_samples_is_empty(tmp_path: Path) -> None:
    assert len(BaseDataset(annotate(tmp_path, {"metainfo": {}, "data_list": []}))) == 0


def test_what_workers_are_sent_does_not_grow_with_the_data(tmp_path: Path) -> None:
    def sent(samples: int) -> int:
        data_list = [{"img_path": f"{n}.jpg"} for n in range(samples)]
        dataset = BaseDataset(annotate(tmp_path, {"metainfo": {}, "data_list": data_list}))
        return len(ForkingPickler.dumps(dataset))

    assert abs(sent(5000) - sent(50)) < 100


def test_a_sample_that_cannot_be_serialized_is_named() -> None:
    class Live(BaseDataset):
        def load_data_list(self) -> list[dict[str, Any]]:
            return [{"size": 1}, {"make": lambda: 1}]

    with pytest.raises(ConfigError, match=r"Sample 1 cannot be serialized.*serialize_data: false"):
        Live()
    assert Live(serialize_data=False).get_data_info(0) == {"size": 1, "sample_idx": 0}


class Plain(BaseDataset):
    """Gives sizes, which a loader can put together."""

    def __getitem__(self, idx: int) -> int:
        return int(super().__getitem__(idx)["size"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_what_the_main_process_reads(ann_file: str, method: str) -> None:
    loader = DataLoader(
        Plain(ann_file), 2, num_workers=2, collate_fn=list, multiprocessing_context=method
    )
    assert list(loader) == [[0, 1], [2, 3], [4, 5]]


# ---------------------------------------------------------------------- dropped samples


def test_the_pipeline_gets_the_annotation_and_its_place(ann_file: str) -> None:
    dataset = BaseDataset(ann_file, pipeline=[lambda data: (data["sample_idx"], data["size"])])
    assert [dataset[0], dataset[5], dataset[-1]] == [(0, 0), (5, 5), (5, 5)]


def test_another_sample_takes_the_place_of_one_that_is_dropped(ann_file: str) -> None:
    dataset = BaseDataset(ann_file, pipeline=[DropOdd()])
    found = [dataset[1]["size"] for _ in range(30)]
    assert set(found) == {0, 2, 4}
    assert dataset[2]["size"] == 2


def test_the_draw_is_numpys_and_can_be_repeated(ann_file: str) -> None:
    dataset = BaseDataset(ann_file, pipeline=[DropOdd()])

    def draws() -> list[int]:
        np.random.seed(5)
        return [dataset[1]["size"] for _ in range(10)]

    state = np.random.get_state()
    try:
        assert draws() == draws()
    finally:
        np.random.set_state(state)


def test_it_gives_up_after_max_refetch_others(ann_file: str) -> None:
    calls = []

    def drop(data: dict[str, Any]) -> None:
        calls.append(data["size"])

    dataset = BaseDataset(ann_file, pipeline={"gone": drop}, max_refetch=4)
    with pytest.raises(
        ConfigError,
        match=r"Sample 2 of BaseDataset\(.*\), and 4 others in its place, are dropped; the last by "
        r"the transform 'gone' \(drop\)",
    ):
        _ = dataset[2]
    assert len(calls) == 5
    assert calls[0] == 2


def test_a_test_drops_no_sample(ann_file: str) -> None:
    dataset = BaseDataset(ann_file, pipeline=[DropOdd()], test_mode=True)
    assert dataset[2]["size"] == 2
    with pytest.raises(
        ConfigError,
        match=r"Sample 1 of .* is dropped by the transform 0 \(DropOdd\), but test_mode",
    ):
        _ = dataset[1]


def test_what_a_pipeline_and_a_test_give_need_not_be_true(ann_file: str) -> None:
    for test_mode in (True, False):
        dataset = BaseDataset(ann_file, pipeline=[lambda data: 0], test_mode=test_mode)
        assert dataset[1] == 0
