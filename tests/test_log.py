"""The text log: plain lines in a file, one live line on a terminal, all lines in train.log."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy import make_runner
from trainkit import ConfigError
from trainkit.log import RunLog, check_level

COMMAND = (
    *(sys.executable, "-m", "trainkit", "train_cfg.max_epochs=2", "env.num_threads=1"),
    *("test_cfg=none", "visualizer=local"),
)


def on_a_terminal(command: tuple[str, ...], cwd: Path) -> str:
    """Run a command with a terminal as its standard output; return what it printed."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    process = subprocess.Popen(command, cwd=cwd, stdout=theirs, env=environment)
    os.close(theirs)
    printed = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # how Linux says that the other side has closed
            break
        if not chunk:
            break
        printed += chunk
    os.close(ours)
    assert process.wait() == 0
    return printed.decode()


@pytest.mark.slow
def test_a_terminal_has_one_live_line(tmp_path: Path) -> None:
    printed = on_a_terminal(COMMAND, tmp_path)
    assert "\x1b[2K" in printed  # a line is wiped and written anew
    assert printed.count("[20/20]") >= 2  # the last line of each epoch stays
    (log,) = tmp_path.glob("outputs/*/*/train.log")
    assert log.read_text().count("Epoch(train)") == 4


@pytest.mark.slow
def test_elsewhere_lines_are_plain(tmp_path: Path) -> None:
    printed = subprocess.run(COMMAND, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert printed.stdout.count("Epoch(train)") == 4
    assert "\x1b" not in printed.stdout
    assert "\r" not in printed.stdout


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_stop_training(tmp_path: Path) -> None:
    process = subprocess.Popen(
        COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert errors == ""
    (status,) = tmp_path.glob("outputs/*/*/status.json")
    assert '"finished"' in status.read_text()


def test_the_file_has_what_is_too_long_for_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_runner(tmp_path).train()
    text = (tmp_path / "train.log").read_text()
    assert "Environment: " in text
    assert "after_train_iter        runtime_info (10), timer (50), logger (60)" in text
    assert "Environment: " not in capsys.readouterr().out


def test_levels_filter(tmp_path: Path) -> None:
    make_runner(tmp_path, log_level="WARNING").train()
    assert (tmp_path / "train.log").read_text() == ""


def test_handlers_live_as_long_as_the_work(tmp_path: Path) -> None:
    log = RunLog("INFO")
    with log.active(tmp_path):
        log.logger.info("inside")
        inside = set(log.logger.handlers)
        assert inside
    assert not inside & {*log.logger.handlers, *logging.getLogger("trainkit").handlers}
    assert "inside" in (tmp_path / "train.log").read_text()


def test_what_is_logged_before_and_between_is_shown_at_once_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = make_runner(tmp_path, log_level="INFO")
    runner.logger.debug("Not asked for.")
    runner.logger.info("Before %s.", "training")
    try:
        raise ValueError("odd")
    except ValueError:
        runner.logger.warning("Wrong.", exc_info=True)
    printed = capsys.readouterr().out
    assert all(line in printed for line in ("Before training.", "Wrong.", "ValueError: odd"))
    assert not (tmp_path / "train.log").exists()
    runner.train()
    assert "Before training." not in capsys.readouterr().out
    runner.logger.info("Between.")
    assert capsys.readouterr().out.rstrip().endswith("Between.")
    runner.test()
    text = (tmp_path / "train.log").read_text()
    lines = ("Before training.", "Wrong.", "ValueError: odd", "Epoch(train)", "Between.")
    places = [text.index(line) for line in (*lines, "Epoch(test)")]
    assert places == sorted(places)
    assert [text.count(line) for line in ("Before training.", "Between.", "Not asked")] == [1, 1, 0]


def test_early_lines_stay_with_their_runner_and_leave_secrets_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_runner(tmp_path / "first", cfg={"api_key": "hush-hush-1"})
    second = make_runner(tmp_path / "second")
    first.logger.info("Mine: %s", "hush-hush-1")
    assert "Mine: <redacted>" in capsys.readouterr().out
    second.train()
    first.train()
    assert "Mine: <redacted>" in (tmp_path / "first" / "train.log").read_text()
    assert "Mine" not in (tmp_path / "second" / "train.log").read_text()


def test_lines_that_no_file_comes_for_go_with_their_runner(tmp_path: Path) -> None:
    log = RunLog("INFO")
    logger = log.logger
    for number in range(1500):
        logger.info("Line %d.", number)
    assert len(logger.handlers) == 1
    with log.active(tmp_path):
        pass
    text = (tmp_path / "train.log").read_text()
    assert (text.count("Line"), "Line 499." in text, "Line 500." in text) == (1000, False, True)
    del log
    assert not logger.handlers


def test_a_level_has_a_name() -> None:
    assert check_level("debug") == "DEBUG"
    assert check_level(15) == 15
    with pytest.raises(ConfigError, match=r"log_level is 'INFOO'\. Did you mean 'INFO'"):
        check_level("INFOO")


def test_a_warning_that_comes_again_is_shown_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog("INFO")
    for _ in range(2):
        with log.active(tmp_path):
            for number in (1, 1, 2):
                log.logger.warning("Slow data in %d workers.", number)
                log.logger.info("Epoch")
                log.logger.error("Lost.")
    text, printed = (tmp_path / "train.log").read_text(), capsys.readouterr().out
    for shown in (text, printed):
        assert shown.count("Slow data in 1 workers.") == 2  # once in each of the two
        assert shown.count("Slow data in 2 workers.") == 2
        assert (shown.count("Epoch"), shown.count("Lost.")) == (6, 6)


def test_another_rank_has_a_file_of_its_own_and_no_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainkit.log.get_rank", lambda: 3)
    monkeypatch.setattr("trainkit.log.is_main_process", lambda: False)
    log = RunLog("INFO")
    with log.active(tmp_path):
        log.logger.info("inside")
    assert [path.name for path in tmp_path.iterdir()] == ["rank_3.log"]
    assert capsys.readouterr().out == ""
