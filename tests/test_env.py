"""The process: what is asked of it is set or refused, and its report is complete."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from trainkit.env import collect_env, find_device, setup_env
from trainkit.errors import ConfigError


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    files, method = resource.getrlimit(resource.RLIMIT_NOFILE), mp.get_start_method(allow_none=True)
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    mp.set_start_method(method, force=True)


def test_defaults_leave_the_process_as_it_is() -> None:
    before = torch.get_num_threads(), mp.get_start_method(allow_none=True)
    setup_env(resource_limit=0)
    assert (torch.get_num_threads(), mp.get_start_method(allow_none=True)) == before
    assert not torch.backends.cudnn.benchmark


def test_what_is_asked_for_is_set() -> None:
    device = setup_env("cpu", num_threads=2, cudnn_benchmark=True, mp_start_method="spawn")
    assert device == torch.device("cpu")
    assert torch.get_num_threads() == 2
    assert torch.backends.cudnn.benchmark
    assert mp.get_start_method() == "spawn"


def test_mmengines_spelling_of_the_start_method_is_taken() -> None:
    setup_env("cpu", mp_cfg={"mp_start_method": "forkserver", "opencv_num_threads": 0})
    assert mp.get_start_method() == "forkserver"


def test_the_limit_of_open_files_rises_within_the_hard_limit_and_never_falls() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    setup_env("cpu", resource_limit=300)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
    setup_env("cpu", resource_limit=100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
    if hard != resource.RLIM_INFINITY:
        setup_env("cpu", resource_limit=hard + 1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


@pytest.mark.parametrize("name", ["cuda:99", "warp", "cpu:x"])
def test_a_device_that_torch_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"env\.device is '{name}'.*Expected auto, cpu"):
        find_device(name)


def test_auto_is_the_accelerator_or_else_the_cpu() -> None:
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    assert find_device("auto") == (there or torch.device("cpu"))


def test_an_unknown_start_method_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"env\.mp_start_method is 'frok'.*fork"):
        setup_env("cpu", mp_start_method="frok")


@pytest.mark.parametrize("threads", [0, -1])
def test_a_thread_count_below_one_is_refused(threads: int) -> None:
    with pytest.raises(ConfigError, match=rf"env\.num_threads is {threads}; expected at least 1"):
        setup_env("cpu", num_threads=threads)


def test_a_misspelt_key_of_mp_cfg_is_refused() -> None:
    with pytest.raises(ConfigError, match="mp_start_metod"):
        setup_env("cpu", mp_cfg={"mp_start_metod": "spawn"})


def test_the_report_names_versions_and_can_be_written_as_json() -> None:
    report = json.loads(json.dumps(collect_env(torch.device("cpu"))))
    assert report["packages"]["torch"] == torch.__version__
    assert report["device"] == "cpu"
    assert set(report) >= {"python", "platform", "packages", "accelerators", "cpus", "git"}


def test_the_report_holds_commit_and_uncommitted_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*args: str) -> str:
        user = ("-c", "user.name=me", "-c", "user.email=me@localhost", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *user, *args], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.chdir(tmp_path)
    assert collect_env()["git"] is None
    git("init", "-q")
    Path("a.txt").write_text("one\n")
    git("add", "a.txt")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")
    assert collect_env()["git"] == {"commit": commit, "dirty": False, "diff": ""}
    Path("a.txt").write_bytes(b"\xfftwo\n")
    state = collect_env()["git"]
    assert (state["commit"], state["dirty"]) == (commit, True)
    assert "-one" in state["diff"]
    assert "two" in state["diff"]
