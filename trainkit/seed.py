"""Seed everything, and read and set every random state of a process."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from trainkit.dist import broadcast_object, get_rank
from trainkit.errors import ConfigError


def set_random_seed(
    seed: int | None, *, deterministic: bool | None = None, diff_rank_seed: bool = False
) -> int:
    """Seed ``random``, NumPy, torch and every CUDA device; return the seed that was used.

    Args:
        seed: The seed; None draws one on rank 0 and shares it.
        deterministic: True demands deterministic algorithms of torch, whose operations without one
            then raise; False takes that back; None leaves what is set.
        diff_rank_seed: Add the rank, so that ranks draw different numbers.
    """
    if seed is not None and (type(seed) is not int or seed < 0):
        raise ConfigError(f"The seed is {seed!r}; expected a whole number of at least 0, or null.")
    if seed is None:
        seed = broadcast_object(int.from_bytes(os.urandom(4), "little") % 2**31)
    used = seed + get_rank() if diff_rank_seed else seed
    random.seed(used)
    np.random.seed(used % 2**32)
    torch.manual_seed(used)
    if deterministic:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        # Read by cuBLAS when its handle is made; without it deterministic matmuls raise (torch's
        # Reproducibility note).
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    elif deterministic is False:
        torch.backends.cudnn.deterministic = False
        torch.use_deterministic_algorithms(False)
    return used


def get_rng_state() -> dict[str, Any]:
    """Return every random state of this process, in types that load without pickle."""
    legacy: Any = np.random.get_state(
        legacy=True
    )  # a tuple, which NumPy declares as a dict or tuple
    kind, keys, position, has_gauss, cached_gauss = legacy
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [
            kind,
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached_gauss),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Set what :func:`get_rng_state` returned, on as many devices as there are."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached_gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached_gauss))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        for device, cuda_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda_state.cpu(), device)


@contextmanager
def isolated_rng() -> Iterator[None]:
    """Leave the random states as they were, so that validating does not change training."""
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
