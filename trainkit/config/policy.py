"""Hydra's policy on targets, the same under 1.3 and 1.4: what a config may never name."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from trainkit.errors import ConfigError


def authorized(name: str, path: str, found: Any) -> Callable[..., Any]:
    """Return the target ``name`` if Hydra lets a config name it.

    It is no sandbox: whoever writes a config that is trusted can name any code.

    Args:
        name: The dotted name.
        path: Where it stands in the config.
        found: What it names.

    Raises:
        ConfigError: It is refused, as ``os.system`` and the like are.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    if _is_destructive(found):
        raise ConfigError(
            f"{path}: Hydra refuses {name!r}: a config may not name what changes files or processes"
        )
    try:
        with _whitelist(name):
            target: Callable[..., Any] = instantiate({"_target_": name, "_partial_": True}).func
    except InstantiationException as error:
        raise ConfigError(
            f"{path}: Hydra refuses {name!r}: {' '.join(str(error).split())}"
        ) from None
    return target


def _whitelist(name: str) -> AbstractContextManager[None]:
    """Return what tells Hydra 1.4 and later that the name is meant; 1.3 does not ask."""
    import hydra.utils

    whitelist = getattr(hydra.utils, "execution_whitelist", None)
    return contextlib.nullcontext() if whitelist is None else whitelist([name])


def _is_destructive(found: Any) -> bool:
    """Whether Hydra 1.4 refuses a target unless it is whitelisted; 1.3 refuses it by itself."""
    try:
        policy = importlib.import_module("hydra._internal.execution_policy")
    except ModuleNotFoundError:
        return False
    for name in policy.DEFAULT_BLACKLISTED_MODULES:
        module, _, attribute = name.rpartition(".")
        if found is getattr(sys.modules.get(module), attribute, sys):  # sys: what is never found
            return True
    return False
