"""A run's directory: made once, locked while its process lives, found again by its identity."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainkit.errors import CheckpointError, ConfigError, RunLockedError
from trainkit.run_dir import (
    RunRecord,
    check_directory,
    find_run,
    identity,
    is_locked,
    lock,
    make_directory,
    make_unique,
    make_writable,
    next_number,
    read_status,
    safe_name,
    unused,
)

HOLD = """
import os, sys
from pathlib import Path
from trainkit.run_dir import lock
with lock(Path(sys.argv[1])):
    if sys.argv[2] == "with a worker" and os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print("in", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(run: Path, kind: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of ``run``."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run), kind], stdin=pipe, stdout=pipe, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        yield process


ODD = ("..", "a/../b", ".hidden", "CON", "a b", "e\u0301", "\U0001f600", "a\nb", "a\0b", "\ud800")


@given(st.text(st.characters()) | st.sampled_from(ODD) | st.text("./ \\", max_size=5))
def test_a_safe_name_is_one_visible_path_component(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name.encode()) <= 100
    assert Path(name).parts == (name,)
    assert not name.startswith(".")
    assert not any(character in "/\\\n\r\0 '\"$*" for character in name)
    assert safe_name(text) == name


@given(st.text(min_size=101, max_size=300, alphabet="ab/é漢"), st.text(min_size=1, alphabet="cd"))
def test_long_names_that_differ_at_the_end_stay_apart(text: str, end: str) -> None:
    assert len(safe_name(text).encode()) <= 100
    assert safe_name(text) != safe_name(text + end)


@given(st.text(st.characters(), max_size=300))
def test_a_safe_name_of_a_safe_name_is_itself(text: str) -> None:
    assert safe_name(safe_name(text)) == safe_name(text)


def test_composed_and_decomposed_letters_are_one_name() -> None:
    assert safe_name("caf\u00e9") == safe_name("cafe\u0301") == "caf\u00e9"


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "a\x1b[31mb", "a\u0085b"])
def test_a_directory_with_control_characters_is_refused(tmp_path: Path, name: str) -> None:
    message = r"The directory '.*' has '.*' in its name\. Choose a name without control"
    for make in (check_directory, make_directory):
        with pytest.raises(ConfigError, match=message):
            make(tmp_path / name / "run")
    with pytest.raises(ConfigError, match=message):
        make_unique(tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a b", "\u00e9", "e\u0301", "\U0001f600", "it's", "..", ".dot", "-x"]
)
def test_other_odd_names_of_directories_are_the_users_choice(tmp_path: Path, name: str) -> None:
    make_directory(tmp_path / "deep" / name)
    assert (tmp_path / "deep" / name).is_dir()


def test_a_name_that_is_safe_already_is_kept() -> None:
    assert safe_name("lr=0.1,seed=2") == "lr=0.1,seed=2"
    assert safe_name("a" * 100) == "a" * 100


@pytest.mark.parametrize("length", [1, 200])
def test_bytes_of_the_command_line_that_are_no_text_are_named_too(length: int) -> None:
    text = os.fsdecode(b"name=\xff" + b"x" * length)
    assert safe_name(text).startswith("name=_")


def test_a_new_directory_is_never_one_that_exists(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run_1").write_text("a file counts as well")
    assert make_unique(tmp_path, "run") == tmp_path / "run_2"
    assert make_unique(tmp_path / "deep" / "er", "run") == tmp_path / "deep" / "er" / "run"


def test_twenty_threads_at_once_get_twenty_directories(tmp_path: Path) -> None:
    start = threading.Barrier(20)

    def make(_: int) -> Path:
        start.wait()
        return make_unique(tmp_path / "outputs", "run")

    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(make, range(20)))
    assert len(set(made)) == 20
    assert all(path.is_dir() for path in made)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_twenty_processes_at_once_get_twenty_directories(tmp_path: Path) -> None:
    children = []
    for number in range(20):
        child = os.fork()
        if child == 0:
            try:
                (make_unique(tmp_path / "outputs", "run") / "mine").write_text(str(number))
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    owners = [(path / "mine").read_text() for path in (tmp_path / "outputs").iterdir()]
    assert sorted(map(int, owners)) == list(range(20))


def test_a_file_where_the_outputs_should_be_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    def give_up(signum: int, frame: FrameType | None) -> NoReturn:
        raise AssertionError("make_unique does not end")

    (tmp_path / "outputs").write_text("mine")
    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        with pytest.raises(ConfigError, match="work_dir"):
            make_unique(tmp_path / "outputs", "run")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x+ cannot be made: File name too long.*work_dir"):
        make_unique(tmp_path, "x" * 300)


def test_a_name_beside_one_that_is_taken_is_free(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    taken = []
    for _ in range(4):
        free = unused(path)
        assert free.parent == tmp_path
        assert not free.exists()
        free.write_text("")
        taken.append(free)
    assert len(set(taken)) == 4


def test_the_order_of_overrides_makes_no_other_run() -> None:
    assert identity("digits", ["b=2", "a=1"]) == identity("digits", ["a=1", "b=2"])
    assert identity("digits", ["a=1"]) == ["digits", "a=1"]


@pytest.mark.parametrize(
    "override",
    [
        "resume=true",
        "resume=outputs/digits/x",
        "resume_with=checkpoint",
        "launcher=local",
        "launcher.nproc=4",
        "+launcher=local",
        "env=gpu",
        "env.device=cpu",
        "++env.num_threads=1",
        "~env",
        "hydra.job.chdir=true",
        "hydra/launcher=submitit_slurm",
        "hydra/launcher@hydra.launcher=basic",
    ],
)
def test_how_a_run_is_started_makes_no_other_run(override: str) -> None:
    assert identity("digits", ["seed=1", override]) == ["digits", "seed=1"]


@pytest.mark.parametrize(
    "override",
    ["environment=x", "resume_from=x", "model.env=1", "hooks=ema", "~hooks.logger", "seed=2"],
)
def test_what_changes_a_run_is_in_its_identity(override: str) -> None:
    assert identity("digits", [override]) == ["digits", override]


def make_run(path: Path, wanted: list[str], created: float) -> Path:
    path.mkdir(parents=True)
    RunRecord(path).begin(identity=wanted, created=created)
    return path


def test_the_newest_run_of_the_same_identity_is_found(tmp_path: Path) -> None:
    wanted = identity("digits", ["seed=1"])
    make_run(tmp_path / "b", wanted, created=1)
    newest = make_run(tmp_path / "a", wanted, created=2)
    make_run(tmp_path / "c", identity("digits", ["seed=2"]), created=3)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "status.json").write_text("{torn")
    os.utime(newest / "status.json", (0, 0))
    assert find_run(tmp_path, wanted) == newest
    assert find_run(tmp_path, identity("digits", [])) is None
    assert find_run(tmp_path / "missing", wanted) is None


def test_a_sweeps_trial_is_found(tmp_path: Path) -> None:
    wanted = identity("digits", ["seed=1"])
    trial = make_run(tmp_path / "sweep_1" / "0_seed=1", wanted, created=1)
    assert find_run(tmp_path, wanted) == trial


def test_a_run_that_a_process_works_in_is_passed_over(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old", ["digits"], created=1)
    new = make_run(tmp_path / "new", ["digits"], created=2)
    with lock(new):
        assert find_run(tmp_path, ["digits"]) == old
    assert find_run(tmp_path, ["digits"]) == new


def test_a_second_process_is_told_who_works_there(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        assert is_locked(tmp_path)
        with pytest.raises(RunLockedError) as caught, lock(tmp_path):
            pass
    assert f"Process {process.pid} on {socket.gethostname()}" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not is_locked(tmp_path)


def test_to_look_whether_a_run_is_locked_changes_nothing_there(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".lock").write_text("Process 1 on host,")
    before = (tmp_path / ".lock").stat()
    assert not is_locked(tmp_path)
    assert (tmp_path / ".lock").stat() == before
    assert not is_locked(tmp_path / "missing")


def test_one_who_looks_keeps_nobody_out(tmp_path: Path) -> None:
    with lock(tmp_path):
        pass
    with (tmp_path / ".lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        release = threading.Timer(0.02, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        with lock(tmp_path):
            assert is_locked(tmp_path)
        release.join()


@pytest.mark.parametrize("kind", ["alone", "with a worker"])
def test_the_lock_dies_with_its_process(tmp_path: Path, kind: str) -> None:
    with holder(tmp_path, kind) as process:
        process.kill()
        process.wait()
        with lock(tmp_path):
            assert is_locked(tmp_path)


def test_a_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        _ = 1 / 0
    assert not is_locked(tmp_path)


def test_a_run_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    message = r"cannot be written: No such file.*work_dir"
    with pytest.raises(ConfigError, match=message), lock(tmp_path / "missing"):
        pass


def test_a_record_keeps_earlier_facts(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    record.begin(identity=["digits"], seed=1)
    first = read_status(tmp_path)
    record.update(iter=10, best={"accuracy": 0.5})
    record.end("failed", error="ValueError")
    failed = read_status(tmp_path)
    assert (failed["status"], failed["iter"], failed["seed"]) == ("failed", 10, 1)
    RunRecord(tmp_path).begin(seed=2)
    again = read_status(tmp_path)
    assert again["created"] == first["created"]
    assert again["identity"] == ["digits"]
    assert again["best"] == {"accuracy": 0.5}
    assert (again["status"], again["seed"], again["pid"]) == ("running", 2, os.getpid())
    assert not {"error", "ended"} & set(again)
    record.end("finished")
    assert read_status(tmp_path)["status"] == "finished"
    assert read_status(tmp_path)["ended"] >= again["started"]
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_record_holds_what_is_left_of_its_facts(tmp_path: Path) -> None:
    def redact(facts: dict[str, object]) -> dict[str, object]:
        return {key: str(value).replace("hunter2", "-") for key, value in facts.items()}

    record = RunRecord(tmp_path, redact)
    record.begin(tags="hunter2")
    record.update(best="hunter2")
    record.end("failed", error="not hunter2")
    status = read_status(tmp_path)
    assert (status["tags"], status["best"], status["error"]) == ("-", "-", "not -")
    assert (status["status"], status["pid"]) == ("failed", os.getpid())


@pytest.mark.parametrize("text", ["", "{torn", "[1]", "null", "[" * 100_000])
def test_a_record_that_cannot_be_read_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)
    assert read_status(tmp_path) == {}
    RunRecord(tmp_path).begin(seed=1)
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "running"


def test_a_record_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(
        CheckpointError, match=r"run/status\.json cannot be written: Not a dir.*rights"
    ):
        RunRecord(tmp_path / "run").begin()


@pytest.mark.parametrize("jump", [-86400, 86400])
def test_the_newest_run_is_found_though_the_clock_was_set_back(tmp_path: Path, jump: int) -> None:
    for name in ("sweep_1/0_a", "b", "c"):
        run = tmp_path / name
        run.mkdir(parents=True)
        number = next_number(tmp_path)
        RunRecord(run).begin(identity=["digits"], number=number, created=1e9 + jump * number)
        assert find_run(tmp_path, ["digits"]) == run
    make_run(tmp_path / "without a number", ["digits"], created=2e9)
    assert find_run(tmp_path, ["digits"]) == tmp_path / "c"
    assert next_number(tmp_path) == 4
    assert next_number(tmp_path / "missing") == 1


@pytest.mark.parametrize("wrong", ["7", None, 1.5, True, [1]])
def test_what_is_no_number_in_a_record_stops_no_search(tmp_path: Path, wrong: object) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        RunRecord(tmp_path / name).begin(identity=["digits"], number=wrong, created=wrong)
    assert find_run(tmp_path, ["digits"]) == tmp_path / "b"
    assert next_number(tmp_path) == 1


def test_a_record_that_cannot_be_written_later_is_told_of_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = RunRecord(tmp_path)
    record.begin(seed=1)
    (tmp_path / ".status.json.tmp").mkdir()
    record.update(iter=10, best=0.5)
    record.update(iter=20)
    assert read_status(tmp_path).get("iter") is None
    (told,) = caplog.messages
    assert "status.json cannot be written: Is a directory." in told
    (tmp_path / ".status.json.tmp").rmdir()
    record.end("finished")
    status = read_status(tmp_path)
    assert (status["iter"], status["best"], status["status"]) == (20, 0.5, "finished")
    assert status["seed"] == 1


def test_a_directory_that_takes_no_file_is_refused(tmp_path: Path) -> None:
    make_writable(tmp_path / "deep" / "run")
    assert not list((tmp_path / "deep" / "run").iterdir())
    with pytest.raises(
        ConfigError, match=r"The directory /proc/self cannot be written: .*work_dir"
    ):
        make_writable(Path("/proc/self"))
