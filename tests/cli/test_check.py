"""``trainkit check``: every mistake, without a run; ``--step`` tries one batch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainkit.__main__ import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def check(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code, and what is printed; nothing is left on the disk."""
    before = set(Path().rglob("*.*"))
    code = main(["check", *argv])
    assert {path for path in Path().rglob("*.*") if "__pycache__" not in path.parts} == before
    output = capsys.readouterr()
    return code, (output.err or output.out).rstrip("\n")


def test_a_right_config_is_said_to_be_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert check([], capsys) == (0, "No mistake found.")


def test_mistakes_are_told_as_before_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sede=1", "model.channels=3"]
    assert check(argv, capsys) == (
        2,
        "ConfigError: The config has 2 mistakes.\n"
        "1. The config has no 'sede'. Did you mean 'seed'?\n"
        "2. model.channels is 3; ConvNet takes a list of whole numbers.\n"
        "   Set by the override model.channels=3.",
    )


def test_a_checkpoint_that_is_missing_has_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, message = check(["load_from=nowhere.pt"], capsys)
    assert code == 3
    assert message.startswith("CheckpointError: There is no checkpoint 'nowhere.pt'.")


def test_every_trial_of_a_sweep_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    code, message = check(["-m", "seed=1,2", "train_cfg.max_epochs=1,2"], capsys)
    assert (code, message) == (0, "No mistake found in 4 trials.")
    code, message = check(["-m", "train_cfg.max_epochs=1,2,three", "seed=1,2"], capsys)
    assert (code, message) == (
        2,
        "ConfigError: train_cfg.max_epochs is 'three'; EpochBasedTrainLoop takes a number.\n"
        "   Set by the override train_cfg.max_epochs=three.",
    )


def test_one_step_trains_validates_and_saves(capsys: pytest.CaptureFixture[str]) -> None:
    code, message = check(["--step", "env.num_threads=1"], capsys)
    assert code == 0
    assert re.search(
        r"No mistake found\.\n(.*\n)*One batch was trained and validated on, and a checkpoint "
        r"written, without an error: loss [\d.]+, accuracy [\d.]+\.\n"
        r"Forward of one batch: 161 MFLOPs, 628 kFLOPs for each of its 256 samples .*\n"
        r"  part +class +trained +frozen +memory +FLOPs\n"
        r"  backbone +Sequential +18,912 +0 .*\n",
        message,
    )


def test_one_step_finds_what_only_building_finds(capsys: pytest.CaptureFixture[str]) -> None:
    code, message = check(["--step", "env.device=nonsense"], capsys)
    assert code == 2
    assert "ConfigError: env.device is 'nonsense', which torch cannot use" in message


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--step", "-m"], "trainkit check does not take --multirun with --step."),
        (["--cfg", "job"], "trainkit check does not take --cfg."),
        (["foo"], "The argument 'foo' is no override; expected key=value, +key=value or ~key."),
    ],
)
def test_what_it_does_not_take_is_named(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(argv, capsys) == (2, f"ConfigError: {message}")
