"""What launchers say in the environment, and what is missing there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.toy import ToyModel
from trainkit import Runner, compose
from trainkit.errors import ConfigError
from trainkit.launch import Ranks, check_dist_cfg, find_ranks, join, refuse_ranks
from trainkit.launch.environment import first_host
from trainkit.runner.check import find_mistakes

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29400",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_ID": "0",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "gpu[03-05,9],big1",
    "SLURM_JOB_ID": "1234567",
}
MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}


@pytest.mark.parametrize("launcher", ["pytorch", "auto"])
def test_torchrun_says_who_a_process_is(launcher: str) -> None:
    assert find_ranks(launcher, TORCHRUN) == Ranks("pytorch", 3, 4, 1, "node1", 29400)
    again = {"TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    found = find_ranks(launcher, {**TORCHRUN, **again})
    assert found is not None
    assert (found.attempt, found.is_hosted) == (2, True)


@pytest.mark.parametrize("launcher", ["slurm", "auto"])
def test_slurm_says_who_a_process_is(launcher: str) -> None:
    assert find_ranks(launcher, SLURM) == Ranks("slurm", 5, 8, 1, "gpu03", 29500 + 567)
    given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000", "SLURM_RESTART_COUNT": "1"}
    assert find_ranks(launcher, {**SLURM, **given}) == Ranks("slurm", 5, 8, 1, "10.0.0.1", 4000, 1)
    found = find_ranks(launcher, {**SLURM, **given}, port=5000)
    assert found is not None
    assert found.port == 5000


@pytest.mark.parametrize("launcher", ["mpi", "auto"])
def test_open_mpi_says_who_a_process_is(launcher: str) -> None:
    assert find_ranks(launcher, MPI) == Ranks("mpi", 1, 2, 1, "127.0.0.1", 29500)
    two_machines = {**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
    with pytest.raises(ConfigError, match="MASTER_ADDR is not in the environment"):
        find_ranks(launcher, two_machines)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {**TORCHRUN, "WORLD_SIZE": "1"},
        # A batch script that has not called srun (yet) is alone, whatever the job was given.
        {key: value for key, value in SLURM.items() if "STEP" not in key},
        {**SLURM, "SLURM_STEP_ID": "4294967291"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},
    ],
)
def test_a_process_that_is_alone_makes_no_group(environ: dict[str, str]) -> None:
    assert find_ranks("auto", environ) is None


@pytest.mark.parametrize(
    ("launcher", "environ", "missing"),
    [
        ("pytorch", {}, "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not"),
        ("auto", {"RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not"),
        ("slurm", {}, "SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_JOB_NODELIST are not"),
        ("mpi", {"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE, .*_LOCAL_RANK are not"),
        ("pytorch", {**TORCHRUN, "RANK": "one"}, "RANK is 'one' in the environment"),
    ],
)
def test_what_is_missing_in_the_environment_is_named(
    launcher: str, environ: dict[str, str], missing: str
) -> None:
    with pytest.raises(ConfigError, match=missing):
        find_ranks(launcher, environ)


def test_none_looks_at_nothing() -> None:
    assert find_ranks("none", TORCHRUN) is None


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("node[03-05,7],gpu1", "node03"),
        ("r[1-2]n[07,09]", "r1n07"),
        ("n[1-2].cluster", "n1.cluster"),
        ("", ""),
    ],
)
def test_the_first_machine_of_slurms_list_is_found(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backnd": "gloo"}, "env.dist_cfg has no 'backnd'. Did you mean 'backend'"),
        ({"timeout": 0}, "env.dist_cfg.timeout is 0; expected seconds"),
        ({"port": "x"}, "env.dist_cfg.port is 'x'"),
        (["gloo"], r"env.dist_cfg is \['gloo'\]; expected a mapping"),
    ],
)
def test_a_wrong_option_of_the_group_is_named(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_dist_cfg(given)


@pytest.mark.parametrize(
    ("backend", "message"), [("nccl", "but the run is on the CPU"), ("glo", "Did you mean 'gloo'")]
)
def test_a_backend_that_cannot_work_is_refused(
    backend: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        join("auto", "cpu", {"backend": backend})


def test_the_check_knows_launchers() -> None:
    found = find_mistakes(compose(["launcher=torchrum", "+env.dist_cfg.timeot=3"]))
    assert [finding.key for finding in found] == ["launcher", "env.dist_cfg"]
    assert "launcher is 'torchrum'" in found[0].text


def test_ranks_that_are_left_alone_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert not Runner(ToyModel(), tmp_path / "run").distributed
    assert "each of them trains alone, on all data. Set launcher=auto" in caplog.text


def test_what_is_for_one_process_is_refused_among_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_ranks("A sweep")
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="A sweep runs in one process, and this is one of 4"):
        refuse_ranks("A sweep")
