"""``trainkit explain KEY``: who set a value, in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainkit.__main__ import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def told(argv: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of the explanation; columns are joined by one space, lines of conf/ are ``:N``."""
    assert main(["explain", *argv]) == 0
    lines = re.sub(r"(conf/[\w/]+\.yaml):\d+", r"\1:N", capsys.readouterr().out).splitlines()
    return [re.sub(r"(?<=\S) +", " ", line) for line in lines]


def test_a_value_of_conf_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(["seed"], capsys) == ["seed = 0", "  conf/config.yaml:N 0"]


def test_files_and_overrides_come_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["experiment_name", "experiment=digits_cosine", "experiment_name=mine"], capsys)
    assert lines == [
        "experiment_name = 'mine'",
        "  conf/config.yaml:N 'digits'",
        "  conf/experiment/digits_cosine.yaml:N 'digits_cosine' "
        "(chosen by experiment=digits_cosine)",
        "  the override experiment_name=mine 'mine'",
    ]


def test_an_option_is_shown_with_who_chose_it(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["optim_wrapper.optimizer.lr", "experiment=digits_cosine"], capsys)
    assert lines == [
        "optim_wrapper.optimizer.lr = 0.002",
        "  conf/optim_wrapper/optimizer/adamw.yaml:N 0.002 "
        "(chosen by the defaults of experiment/digits_cosine)",
    ]


def test_an_interpolation_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["seed", "seed=${fast_dev_run}", "fast_dev_run=2"], capsys)
    assert lines == [
        "seed = 2",
        "  conf/config.yaml:N 0",
        "  the override seed=${fast_dev_run} '${fast_dev_run}'",
        "    fast_dev_run = 2",
        "      conf/config.yaml:N 0",
        "      the override fast_dev_run=2 2",
    ]


def test_a_mapping_is_explained_key_by_key(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["param_scheduler.cosine"], capsys)
    assert [line.partition(" =")[0] for line in lines if not line.startswith(" ")] == [
        "param_scheduler.cosine._target_",
        "param_scheduler.cosine.eta_min",
        "param_scheduler.cosine.by_epoch",
    ]


def test_a_group_may_be_written_with_a_slash(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(["optim_wrapper/optimizer.lr"], capsys)[0] == "optim_wrapper.optimizer.lr = 0.1"


def test_what_was_removed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["model.dropout", "~model.dropout"], capsys)
    assert lines[-1] == "  the override ~model.dropout (removed)"


def test_an_argument_that_only_the_signature_gives(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(["dataloader.train.drop_last"], capsys) == [
        "dataloader.train.drop_last is not in the config. It has the default false in DataLoader; "
        "set it by +dataloader.train.drop_last=..."
    ]


def test_a_line_of_ones_own_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my/experiment").mkdir(parents=True)
    Path("my/experiment/mine.yaml").write_text("# @package _global_\nseed: 3\n")
    lines = told(["seed", "--config-dir", "my", "experiment=mine"], capsys)
    assert lines[-1] == "  my/experiment/mine.yaml:2 3 (chosen by experiment=mine)"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            [],
            "trainkit explain got 0 keys; expected one, such as: trainkit explain "
            "optim_wrapper.optimizer.lr [overrides].",
        ),
        (
            ["seed", "tags"],
            "trainkit explain got 2 keys: seed, tags; expected one, such as: trainkit explain "
            "optim_wrapper.optimizer.lr [overrides].",
        ),
        (["lr"], "The config has no 'lr'. It stands at optim_wrapper.optimizer.lr."),
        (["sead"], "The config has no 'sead'. Did you mean 'seed'?"),
        (["seed", "sede=1"], "The config has no 'sede'. Did you mean 'seed'?"),
        (["seed", "-m"], "trainkit explain looks at one config; it takes overrides only."),
    ],
)
def test_a_mistake_is_answered(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *argv]) == 2
    assert capsys.readouterr().err == f"ConfigError: {message}\n"


def test_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(["seed"], capsys)
    assert list(tmp_path.iterdir()) == []
