"""The process group of a run: joined as the environment says, and left without waiting."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from trainkit.dist import barrier, is_distributed
from trainkit.errors import ConfigError, did_you_mean
from trainkit.launch.environment import Ranks, find_ranks

logger = logging.getLogger(__name__)

_OPTIONS = ("backend", "timeout", "port")
_MEETING_TIMEOUT = 300.0  # seconds in which all ranks must have come


def check_dist_cfg(dist_cfg: Any) -> dict[str, Any]:
    """Return the options of a process group.

    Raises:
        ConfigError: One that there is not, or a value that does not fit.
    """
    if dist_cfg is not None and not isinstance(dist_cfg, Mapping):
        raise ConfigError(f"env.dist_cfg is {dist_cfg!r}; expected a mapping, or null.")
    given = dict(dist_cfg or {})
    for key in given:
        if key not in _OPTIONS:
            raise ConfigError(f"env.dist_cfg has no {key!r}. {did_you_mean(str(key), _OPTIONS)}")
    for key, kinds, expected in (
        ("timeout", (int, float), "seconds, above 0"),
        ("port", (int,), "the number of a free port"),
    ):
        value = given.get(key)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, kinds) or value <= 0
        ):
            raise ConfigError(f"env.dist_cfg.{key} is {value!r}; expected {expected}.")
    return given


def join(launcher: str = "none", device: str = "auto", dist_cfg: Any = None) -> bool:
    """Join the ranks that ``launcher`` has started; return whether a group was made for that.

    A group that there is already is kept. Each rank takes the GPU of its local rank.

    Args:
        launcher: See :func:`find_ranks`.
        device: The run's; on the CPU ranks talk by gloo, on CUDA by NCCL.
        dist_cfg: ``{"backend": ..., "timeout": seconds, "port": ...}`` instead of the defaults.

    Raises:
        ConfigError: The environment or the backend does not fit.
    """
    options = check_dist_cfg(dist_cfg)
    if is_distributed():
        return False
    ranks = find_ranks(launcher, port=options.get("port"))
    if ranks is None:
        if launcher == "none":
            _warn_of_others()
        return False
    on_cuda = torch.device(device).type == "cuda" if device != "auto" else True
    on_cuda = on_cuda and torch.cuda.is_available()
    backend = _backend(options.get("backend"), on_cuda)
    if on_cuda:
        _take_gpu(ranks)
    seconds = options.get("timeout")
    torch_dist.init_process_group(
        backend,
        store=_store(ranks),
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=None if seconds is None else timedelta(seconds=seconds),
    )
    return True


def _store(ranks: Ranks) -> Any:
    """Return where the ranks meet.

    Each attempt has its own keys: those of a dead one send the new one to addresses that are gone,
    with torchrun's shared store (https://github.com/pytorch/pytorch/issues/135712).
    """
    try:
        store = torch_dist.TCPStore(  # type: ignore[attr-defined]  # torch lists no stores
            ranks.address,
            ranks.port,
            ranks.world_size,
            is_master=ranks.rank == 0 and not ranks.is_hosted,
            timeout=timedelta(seconds=_MEETING_TIMEOUT),
            wait_for_workers=False,
        )
    except torch_dist.DistError as error:
        raise ConfigError(
            f"Rank {ranks.rank} of {ranks.world_size} cannot meet the others at "
            f"{ranks.address}:{ranks.port}: {str(error).splitlines()[0]}"
        ) from None
    prefix = f"trainkit/{ranks.attempt}"
    return torch_dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]  # nor this one


def _backend(given: str | None, on_cuda: bool) -> str:
    if given is None:
        return "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    if "nccl" in str(given) and not on_cuda:
        raise ConfigError(
            f"env.dist_cfg.backend is {given!r}, which talks between GPUs, but the run is on the "
            "CPU. Leave it out: gloo is taken there."
        )
    known = [str(name) for name in torch_dist.Backend.backend_list if name != "undefined"]
    for name in str(given).split(","):
        if name.rpartition(":")[2] not in known:
            near = did_you_mean(str(given), known)
            raise ConfigError(f"env.dist_cfg.backend is {given!r}. {near}")
    return str(given)


def _take_gpu(ranks: Ranks) -> None:
    """Have ``cuda`` mean this rank's own GPU; where a launcher shows each rank one, that."""
    count = torch.cuda.device_count()
    if count > 1 and ranks.local_rank >= count:
        raise ConfigError(
            f"This is local rank {ranks.local_rank}, but the machine shows {count} GPUs. Start at "
            f"most {count} ranks on it, or train on the CPU: env.device=cpu."
        )
    torch.cuda.set_device(ranks.local_rank if count > 1 else 0)


def _warn_of_others() -> None:
    other = None
    with contextlib.suppress(ConfigError):
        other = find_ranks("auto")
    if other is not None and other.world_size > 1:
        logger.warning(
            "This is one of %d processes of a launcher (%s), but launcher is none: each of them "
            "trains alone, on all data. Set launcher=auto.",
            *(other.world_size, other.launcher),
        )


def leave() -> None:
    """Leave the group, whatever the other ranks do."""
    if is_distributed():
        torch_dist.destroy_process_group()
    # The group's threads end with the last reference to it, which a cycle holds. One that frees a
    # tensor while the interpreter shuts down aborts the process (seen in torch 2.13).
    gc.collect()


def leave_at_exit() -> None:
    """Leave the group when the process ends."""
    atexit.register(leave)


@contextlib.contextmanager
def process_group(launcher: str, env_cfg: Any = None) -> Iterator[None]:
    """Be one of the ranks that ``launcher`` has started meanwhile, if it has.

    Args:
        launcher: See :func:`find_ranks`.
        env_cfg: The config of the process, of which ``device`` and ``dist_cfg`` are read.
    """
    made = join(launcher, **group_options(env_cfg))
    if not made:
        yield
        return
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception):
            get_error_handler().record_exception(error)  # torchrun shows the first of all ranks
        leave()  # at once, so that ranks that wait for this one hear of it
        raise
    barrier()
    leave()


def group_options(env_cfg: Any) -> dict[str, Any]:
    """Return what a config of the process says of the group."""
    given = env_cfg if isinstance(env_cfg, Mapping) else {}
    found = {key: given.get(key) for key in ("device", "dist_cfg")}
    return {key: value for key, value in found.items() if value is not None}
