"""``trainkit runs``: what is listed, in which order, and that nothing is touched."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from trainkit.__main__ import main
from trainkit.run_dir import RunRecord, lock

OLD = 1_700_000_000.0  # seconds since 1970, of the first run that is made


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def make_run(path: str, status: str = "finished", **facts: Any) -> Path:
    """A run with the record that one of three epochs has."""
    run = Path("outputs", path)
    run.mkdir(parents=True)
    record = RunRecord(run)
    begun = {"experiment_name": "digits", "seed": 0, "overrides": ["seed=0", "env=gpu"]}
    record.begin(**{"created": OLD, **begun, **facts})
    progress = {"epoch": 3, "iter": 30, "max_epochs": 3, "max_iters": 30}
    record.update(**{**progress, "metrics": {"accuracy": 0.5}, **facts})
    if status != "running":
        record.end(status)
    return run


def table(capsys: pytest.CaptureFixture[str], *argv: str) -> list[list[str]]:
    """The cells of the plain table that a command prints."""
    assert main(["runs", *argv]) == 0
    return [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]


def names(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert main(["runs", "--json", *argv]) == 0
    return [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]


def everything() -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in Path().rglob("*")
    }


def test_a_real_run_is_listed_with_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["env.num_threads=1", "fast_dev_run=2", "param_scheduler=none"]
    main([*short, "optim_wrapper.optimizer.lr=0.5"])
    (run,) = Path("outputs/digits").iterdir()
    capsys.readouterr()
    before = everything()
    assert main(["runs"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == [
        *("run", "experiment", "status", "progress", "metrics", "age", "took", "overrides")
    ]
    assert row.startswith(f"digits/{run.name}  digits      finished  iter 2/2  accuracy 0.")
    assert row.endswith("  fast_dev_run=2 optim_wrapper.optimizer.lr=0.5 param_scheduler=none")
    assert everything() == before


def test_the_newest_comes_first_and_a_sweep_lists_its_trials(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run("digits/old", created=OLD)
    make_run("digits/sweep_1/0_seed=1", created=OLD + 1)
    make_run("digits/sweep_1/1_seed=2", created=OLD + 2)
    make_run("other/new", created=OLD + 3)
    newest = ["other/new", "digits/sweep_1/1_seed=2", "digits/sweep_1/0_seed=1", "digits/old"]
    assert names(capsys) == newest
    assert names(capsys, "outputs/digits/sweep_1") == ["1_seed=2", "0_seed=1"]
    two = ["outputs/digits/sweep_1", "outputs/digits"]
    assert names(capsys, *two)[0] == "outputs/digits/sweep_1/1_seed=2"
    assert len(names(capsys, *two)) == 3
    assert names(capsys, "outputs/digits/old") == ["outputs/digits/old"]


def test_a_run_whose_process_is_gone_has_died(capsys: pytest.CaptureFixture[str]) -> None:
    alive, _ = make_run("digits/alive", "running"), make_run("digits/dead", "running")
    with lock(alive):
        before = everything()
        statuses = {row[0]: row for row in table(capsys)[1:]}
        assert everything() == before
    assert "running" in statuses["digits/alive"]
    assert "died" in statuses["digits/dead"]
    assert not Path("outputs/digits/dead/.lock").exists()
    assert sorted(names(capsys, "--status", "died")) == ["digits/alive", "digits/dead"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{torn", b"[1]", b"\xff", b"[" * 100_000, b"{}", b'{"status": null}'),
        b'{"status": 3, "created": "x", "best": 1, "metrics": [], "overrides": {}, "epoch": []}',
        b'{"created": NaN, "started": 1e999, "ended": 1, "epoch": NaN, "best": {"a": 1}}',
        b'{"created": ' + b"9" * 400 + b', "best": {"a": {"value": "b"}}, "error": ["\\ud800"]}',
    ],
)
def test_a_record_that_is_damaged_is_a_row_and_no_error(
    capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    make_run("digits/good")
    bad = make_run("digits/bad")
    (bad / "status.json").write_bytes(content)
    for flags in ([], ["--json"], ["--sort", "accuracy:less"]):
        assert main(["runs", *flags]) == 0
        assert "digits/bad" in capsys.readouterr().out
    assert main(["diff", "digits/bad", "digits/good"]) == 0


@pytest.mark.parametrize("status", [{"a": 1}, ["finished"], 3, None, ""])
def test_a_status_that_is_no_text_is_unreadable(
    capsys: pytest.CaptureFixture[str], status: object
) -> None:
    run = Path("outputs/digits/bad")
    run.mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"status": status}))
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "unreadable"


def test_an_unreadable_record_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    (make_run("digits/bad") / "status.json").write_text("{torn")
    assert "unreadable" in table(capsys)[1]
    assert names(capsys, "--status", "unreadable") == ["digits/bad"]


def test_a_trial_that_never_began_shows_why(capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("outputs/digits/sweep_1/0_x")
    run.mkdir(parents=True)
    RunRecord(run).end("failed", error="ConfigError: one\ntwo", overrides=["x=1"])
    head, row = table(capsys)
    assert head[-1].strip() == "error"
    assert row[0] == "digits/sweep_1/0_x"
    assert row[-2:] == ["x=1", "ConfigError: one two"]


def test_what_all_have_in_common_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("digits/a", overrides=["hooks=ema", "seed=1", "resume=true"])
    make_run("digits/b", overrides=["seed=2", "hooks=ema", "env.num_threads=1"])
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("  seed=2")
    assert lines[2].endswith("  seed=1")
    assert lines[3:] == ["All of them: hooks=ema"]


def test_progress_is_told_in_the_unit_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("digits/a", epoch=1, max_epochs=15, iter=7, max_iters=105)
    make_run("digits/b", epoch=4, max_epochs=1, iter=300, max_iters=1000)
    assert main(["runs"]) == 0
    later, first = capsys.readouterr().out.splitlines()[1:3]
    assert "iter 300/1000" in later
    assert "epoch 1/15" in first


def test_best_values_are_shown_and_sorted_by(capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("a", 0.5), ("b", 0.75), ("c", float("nan")), ("d", None)):
        best = {} if value is None else {"accuracy": {"value": value, "checkpoint": "best"}}
        make_run(f"digits/{name}", best=best, metrics={"loss": 2.0} if value is None else {})
    assert names(capsys, "--sort", "accuracy") == [f"digits/{name}" for name in "badc"]
    assert names(capsys, "--sort", "accuracy:less") == [f"digits/{name}" for name in "abdc"]
    assert "accuracy 0.75" in table(capsys)[3]
    assert main(["runs", "--sort", "acuracy"]) == 2
    assert capsys.readouterr().err == (
        "ConfigError: --sort is 'acuracy'. Did you mean 'accuracy'?\n"
    )


def test_a_metric_without_a_direction_needs_one(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("digits/a", metrics={"zeal": 1.0})
    assert main(["runs", "--sort", "zeal"]) == 2
    assert "--sort zeal:less, or --sort zeal:greater" in capsys.readouterr().err
    assert names(capsys, "--sort", "zeal:less") == ["digits/a"]


def test_twenty_are_shown_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(25):
        make_run(f"digits/{number:02}", created=OLD + number)
    lines = table(capsys)
    assert len(lines) == 1 + 20 + 2
    assert lines[-1] == ["… and 5 more; --limit 0 shows all"]
    assert lines[1][0] == "digits/24"
    assert len(table(capsys, "--limit", "0")) == 1 + 25 + 1
    assert len(names(capsys)) == 25
    assert names(capsys, "--limit", "2") == ["digits/24", "digits/23"]


def test_json_holds_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("digits/a", "running", tags=["x"], metrics={"loss": float("nan")})
    assert main(["runs", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert facts["path"] == "outputs/digits/a"
    assert (facts["status"], facts["tags"], facts["metrics"]) == ("died", ["x"], {"loss": "nan"})
    assert facts["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["nowhere"],
            "ConfigError: 'nowhere' does not exist. Expected a directory with runs below it, such "
            "as outputs or a sweep's.\n",
        ),
        (
            ["file"],
            "ConfigError: 'file' is no directory. Expected a directory with runs below it, such "
            "as outputs or a sweep's.\n",
        ),
        (
            ["--limit", "-1"],
            "ConfigError: --limit is -1; expected a number of runs, or 0 for all.\n",
        ),
    ],
)
def test_mistakes_are_told(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    Path("file").write_text("")
    assert main(["runs", *argv]) == 2
    assert capsys.readouterr().err == message


def test_a_status_that_there_is_not_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--status", "dead"]) == 2
    # How argparse lists the choices depends on Python.
    assert re.fullmatch(
        r"ConfigError: The command line cannot be read: argument --status: invalid choice: 'dead' "
        r"\(choose from '?running'?, .*\)\. See trainkit --help\.\n",
        capsys.readouterr().err,
    )


def test_where_nothing_is_found_it_is_told_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == f"No run below {tmp_path}/outputs.\n"
    make_run("digits/a")
    assert main(["runs", "--status", "died", "outputs/digits"]) == 0
    assert capsys.readouterr().out == (
        f"No run with status died among the 1 runs below {tmp_path}/outputs/digits.\n"
    )
    assert main(["runs", "--json", "--status", "died"]) == 0
    assert capsys.readouterr().out == ""


def test_links_show_a_run_once_and_by_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("digits/a")
    Path("outputs/digits/latest").symlink_to("a")
    Path("outputs/again").symlink_to(".")
    Path("elsewhere/b").mkdir(parents=True)
    RunRecord(Path("elsewhere/b")).begin()
    Path("outputs/scratch").symlink_to(Path("elsewhere").absolute())
    assert sorted(names(capsys)) == ["digits/a", "scratch/b"]


def test_a_name_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("digits/a\x1b[31m\nb", experiment_name="[red]x[/red]")
    (line,) = table(capsys)[1:]
    assert line[0] == "digits/a\ufffd[31m\ufffdb"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["runs"]) == 0
    drawn = capsys.readouterr().out
    assert "digits/a\ufffd[31m\ufffdb" in drawn
    assert "[red]x[/red]" in drawn


def test_a_terminal_gets_the_whole_of_a_narrow_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("digits/" + "n" * 90, overrides=["o" * 120])
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["runs"]) == 0
    drawn = capsys.readouterr().out
    assert (drawn.count("n") >= 90, drawn.count("o") >= 120) == (True, True)
    plain = re.sub(r"\x1b\[[\d;]*m", "", drawn)
    assert max(map(len, plain.splitlines())) <= 80
    assert "finished" in plain


def test_a_thousand_runs_are_listed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    text = (make_run("digits/0000") / "status.json").read_text()
    for number in range(1, 1000):
        run = Path(f"outputs/digits/{number:04}")
        (run / "checkpoints" / "epoch_1").mkdir(parents=True)
        (run / "status.json").write_text(text)
    before = time.monotonic()
    assert len(names(capsys)) == 1000
    assert time.monotonic() - before < 3  # a tenth of it on an idle machine
