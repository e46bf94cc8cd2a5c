"""Hydra's policy on targets, the same under 1.3 and 1.4: what a config may never name."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
from contextlib import AbstractContextManager
from types import FunctionType
from typing import Any

from trainkit.errors import ConfigError


def check_policy(name: str, path: str, found: Any) -> None:
    """Raise unless Hydra lets a config name a target.

    It is no sandbox: whoever writes a config that is trusted can name any code.

    Args:
        name: The dotted name.
        path: Where it stands in the config.
        found: What it names.

    Raises:
        ConfigError: It is refused, as ``os.system`` and the like are.
    """
    remembered = isinstance(found, type | FunctionType)
    refusal = _refusal(name, found) if remembered else _refusal.__wrapped__(name, found)
    if refusal is not None:
        raise ConfigError(f"{path}: Hydra refuses {name!r}: {refusal}")


@functools.lru_cache(maxsize=1024)  # a sweep asks for the same targets in every trial
def _refusal(name: str, found: Any) -> str | None:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    if _is_destructive(found):
        return "a config may not name what changes files or processes."
    try:
        with _whitelist(name):
            instantiate({"_target_": name, "_partial_": True})
    except InstantiationException as error:
        # Hydra's words name environment variables and arguments that are of no use here.
        if re.search("blocklisted|cannot be authorized", str(error)):
            return "a config may not name what runs or changes whatever it is given."
        return str(error).splitlines()[0].partition(", set env var")[0] + "."
    return None


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
