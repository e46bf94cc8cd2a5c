"""The process that a run lives in: device, threads, limits, and a report of what it is."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch
import torch.multiprocessing as mp

from trainkit.errors import ConfigError, did_you_mean

_PACKAGES = ("trainkit", "torch", "numpy", "hydra-core", "omegaconf", "tensorboard")
_MP_OPTIONS = ("mp_start_method", "opencv_num_threads")
_MAX_DIFF = 1_000_000  # characters of a dirty diff that are kept


def setup_env(
    device: str = "auto",
    num_threads: int | None = None,
    cudnn_benchmark: bool = False,
    mp_start_method: str | None = None,
    mp_cfg: Mapping[str, Any] | None = None,
    dist_cfg: Mapping[str, Any] | None = None,
    resource_limit: int = 4096,
) -> torch.device:
    """Set what holds for the whole process; return the device of the run.

    Args:
        device: A torch device such as ``"cpu"`` or ``"cuda:1"``; ``"auto"``: the accelerator there
            is, else the CPU.
        num_threads: Threads of one torch operation; None leaves torch's choice.
        cudnn_benchmark: Let cuDNN try its algorithms for each new shape.
        mp_start_method: How data workers start: ``"fork"``, ``"spawn"`` or ``"forkserver"``; None
            leaves Python's.
        mp_cfg: MMEngine's spelling, ``{"mp_start_method": ..., "opencv_num_threads": ...}``.
        dist_cfg: ``{"backend": ..., "timeout": seconds, "port": ...}`` of a run with several ranks,
            which :func:`trainkit.launch.join` reads; of no effect with one.
        resource_limit: The number of open files that is asked for, within the hard limit.

    Raises:
        ConfigError: A device that torch does not have, or an unknown start method.
    """
    options = check_mp_cfg(mp_cfg)
    for method in (mp_start_method, options.get("mp_start_method")):
        check_start_method(method)
        if method is not None:
            mp.set_start_method(method, force=True)
    _set_opencv_threads(options.get("opencv_num_threads"))
    check_num_threads(num_threads)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if cudnn_benchmark:
        torch.backends.cudnn.benchmark = True
    _raise_file_limit(resource_limit)
    return find_device(device)


def check_num_threads(number: int | None) -> None:
    """Raise a ConfigError unless torch can be told to use so many threads."""
    if number is not None and number < 1:
        raise ConfigError(
            f"env.num_threads is {number}; expected at least 1, or null for torch's choice."
        )


def check_start_method(method: str | None) -> None:
    """Raise a ConfigError unless this system can start processes so."""
    if method is not None and method not in mp.get_all_start_methods():
        raise ConfigError(
            f"env.mp_start_method is {method!r}; this system has "
            f"{', '.join(mp.get_all_start_methods())}."
        )


def check_mp_cfg(mp_cfg: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return MMEngine's options of processes.

    Raises:
        ConfigError: One that there is not, or an unknown start method.
    """
    given = dict(mp_cfg or {})
    for key in given:
        if key not in _MP_OPTIONS:
            raise ConfigError(f"env.mp_cfg has no {key!r}. {did_you_mean(key, _MP_OPTIONS)}")
    check_start_method(given.get("mp_start_method"))
    return given


def check_device(name: str) -> torch.device | None:
    """Return the device of a name, which need not be in this machine; None for ``"auto"``.

    Raises:
        ConfigError: torch has no device of this name.
    """
    if name == "auto":
        return None
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise _no_device(name, error) from None


def _no_device(name: str, error: Exception) -> ConfigError:
    reason = str(error).splitlines()[0]
    return ConfigError(
        f"env.device is {name!r}, which torch cannot use: {reason}. Expected auto, cpu, cuda, …"
    )


def _set_opencv_threads(number: int | None) -> None:
    if number is not None and importlib.util.find_spec("cv2") is not None:
        import cv2  # its threads and those of data workers get in each other's way

        cv2.setNumThreads(number)


def find_device(name: str = "auto") -> torch.device:
    """Return the device ``name``, once something has been put on it.

    Raises:
        ConfigError: torch does not have it.
    """
    device = check_device(name)
    if device is None:
        accelerator = (
            torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        )
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise _no_device(name, error) from None
    return device


def _raise_file_limit(limit: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Data workers pass tensors as open files; too few of them end in "received 0 items of ancdata".
    wanted = max(soft, limit) if hard == resource.RLIM_INFINITY else min(max(soft, limit), hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def collect_env(device: torch.device | None = None) -> dict[str, Any]:
    """Return what another person needs to repeat the run: versions, machine, devices, git state."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": str(device) if device is not None else None,
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "git": _git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Return commit and uncommitted changes of the working directory; None outside git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    # Plain text, whatever git is told to show on a terminal: colours would hide what is a secret.
    diff = _git("diff", "--no-color", "--no-ext-diff", "HEAD") or ""
    return {"commit": commit.strip(), "dirty": bool(diff), "diff": diff[:_MAX_DIFF]}


def _git(*args: str) -> str | None:
    try:
        result = subprocess.run(["git", *args], capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.decode("utf-8", errors="replace")
