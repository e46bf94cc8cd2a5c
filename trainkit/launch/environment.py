"""What a launcher says in the environment of each process that it starts: who it is, and where."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainkit.errors import ConfigError, did_you_mean

LAUNCHERS = ("none", "pytorch", "slurm", "mpi", "auto")
_NAMES = {"pytorch": "torchrun", "slurm": "srun", "mpi": "mpirun"}
_PORT = 29500  # torchrun's own
# A step of Slurm's that `srun` did not start, such as the batch script, is numbered from here on.
_SPECIAL_STEP = 2**32 - 16


@dataclass(frozen=True)
class Ranks:
    """One process of several, as its launcher numbers it.

    Args:
        launcher: ``"pytorch"``, ``"slurm"`` or ``"mpi"``.
        rank: Its number among all.
        world_size: How many there are.
        local_rank: Its number on its machine.
        address: The machine of rank 0.
        port: Where the ranks meet there.
        attempt: How often all of them were started again.
        is_hosted: Whether the launcher keeps that port open, so that rank 0 need not.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int
    attempt: int = 0
    is_hosted: bool = False


def check_launcher(launcher: object) -> str:
    """Return ``launcher``.

    Raises:
        ConfigError: There is no such launcher.
    """
    if launcher not in LAUNCHERS:
        near = did_you_mean(str(launcher), LAUNCHERS)
        raise ConfigError(f"launcher is {launcher!r}. {near}")
    return str(launcher)


def find_ranks(
    launcher: str, environ: Mapping[str, str] | None = None, port: int | None = None
) -> Ranks | None:
    """Return what the environment says of this process; None where it is the only one.

    Args:
        launcher: ``"auto"`` takes whichever has started several processes; ``"none"`` looks at
            nothing.
        environ: The environment.
        port: Where the ranks meet, for launchers that do not say.

    Raises:
        ConfigError: The environment is not that of ``launcher``.
    """
    env = os.environ if environ is None else environ
    check_launcher(launcher)
    if launcher == "auto":
        launcher = _started_by(env)
    return None if launcher == "none" else _READERS[launcher](env, port)


def refuse_ranks(what: str) -> None:
    """Raise if a launcher has started several processes, each of which would do the same.

    Raises:
        ConfigError: ``what`` is for one process.
    """
    ranks = find_ranks("auto")
    if ranks is not None:
        raise ConfigError(
            f"{what} runs in one process, and this is one of {ranks.world_size} that "
            f"{_NAMES[ranks.launcher]} has started. Start it without; or one run at a time with."
        )


def _started_by(env: Mapping[str, str]) -> str:
    """Return the launcher that has started several processes, or ``"none"``."""
    if "RANK" in env and env.get("WORLD_SIZE", "1") != "1":
        return "pytorch"
    step = env.get("SLURM_STEP_ID", "")
    if (
        env.get("SLURM_STEP_NUM_TASKS", "1") != "1"
        and step.isdecimal()
        and int(step) < _SPECIAL_STEP
    ):
        return "slurm"
    return "mpi" if env.get("OMPI_COMM_WORLD_SIZE", "1") != "1" else "none"


def _from_torchrun(env: Mapping[str, str], port: int | None) -> Ranks:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    _need("pytorch", env, names, "torchrun --nproc-per-node N -m trainkit ...")
    return Ranks(
        "pytorch",
        _number(env, "RANK"),
        _number(env, "WORLD_SIZE"),
        _number(env, "LOCAL_RANK"),
        address=env["MASTER_ADDR"],
        port=_number(env, "MASTER_PORT"),
        attempt=_number(env, "TORCHELASTIC_RESTART_COUNT", 0),
        is_hosted=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _from_slurm(env: Mapping[str, str], port: int | None) -> Ranks:
    names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    _need("slurm", env, (*names, "SLURM_JOB_NODELIST"), "srun python -m trainkit ...")
    nodes = env.get("SLURM_STEP_NODELIST") or env["SLURM_JOB_NODELIST"]
    # Jobs that share a machine meet at different ports.
    fallback = _PORT + _number(env, "SLURM_JOB_ID", 0) % 1000
    return Ranks(
        "slurm",
        _number(env, "SLURM_PROCID"),
        _number(env, "SLURM_STEP_NUM_TASKS", _number(env, "SLURM_NTASKS")),
        _number(env, "SLURM_LOCALID"),
        address=env.get("MASTER_ADDR") or first_host(nodes),
        port=port or _number(env, "MASTER_PORT", fallback),
        attempt=_number(env, "SLURM_RESTART_COUNT", 0),
    )


def _from_mpi(env: Mapping[str, str], port: int | None) -> Ranks:
    prefix = "OMPI_COMM_WORLD"
    names = (f"{prefix}_RANK", f"{prefix}_SIZE", f"{prefix}_LOCAL_RANK")
    example = "mpirun -x MASTER_ADDR=<host of rank 0> python -m trainkit ..."
    _need("mpi", env, names, example)
    is_one_machine = env.get(f"{prefix}_LOCAL_SIZE") == env[f"{prefix}_SIZE"]
    if not is_one_machine:
        _need("mpi", env, ("MASTER_ADDR",), example)
    return Ranks(
        "mpi",
        _number(env, f"{prefix}_RANK"),
        _number(env, f"{prefix}_SIZE"),
        _number(env, f"{prefix}_LOCAL_RANK"),
        address=env.get("MASTER_ADDR") or "127.0.0.1",
        port=port or _number(env, "MASTER_PORT", _PORT),
    )


_READERS: dict[str, Callable[[Mapping[str, str], int | None], Ranks]] = {
    "pytorch": _from_torchrun,
    "slurm": _from_slurm,
    "mpi": _from_mpi,
}


def first_host(nodes: str) -> str:
    """Return the first of Slurm's list of machines: ``node03`` of ``node[03-05,7],gpu1``."""
    parts = re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", parts[0]) if parts else ""


def _need(launcher: str, env: Mapping[str, str], names: tuple[str, ...], example: str) -> None:
    missing = [name for name in names if not env.get(name)]
    if missing:
        raise ConfigError(
            f"launcher is {launcher!r}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not in the environment. Start the run by: "
            f"{example}; or in one process by launcher=none."
        )


def _number(env: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = env.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdecimal():
        raise ConfigError(f"{name} is {text!r} in the environment; expected a whole number.")
    return int(text)
