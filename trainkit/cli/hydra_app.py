"""Hydra's own application over trainkit's conf/: its flags, sweepers and launchers."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from trainkit.cli.arguments import Arguments
from trainkit.config import compose, conf_dir
from trainkit.config.loader import version_base

_FULL_ERROR = "HYDRA_FULL_ERROR"


def show(given: Arguments) -> None:
    """Let Hydra print what its flags ask for, once the config is known to compose."""
    if not given.multirun:
        compose(given.overrides, config_name=given.config_name, config_dirs=given.config_dirs)
    run(given, lambda cfg: None, flags=given.inspect)


def run(
    given: Arguments,
    job: Callable[[Any], Any],
    *,
    flags: list[str],
    overrides: tuple[str, ...] = (),
) -> None:
    """Run ``job`` by Hydra, once for each trial; the user's overrides win over ``overrides``."""
    import hydra

    directories = [
        argument for directory in given.config_dirs for argument in ("--config-dir", directory)
    ]
    argv = [
        "trainkit",
        *flags,
        "--config-name",
        given.config_name,
        *directories,
        *overrides,
        *given.overrides,
    ]
    application = hydra.main(**version_base(), config_path=str(conf_dir()), config_name="config")(
        job
    )
    with _arguments(argv):
        application()


@contextlib.contextmanager
def _arguments(argv: list[str]) -> Iterator[None]:
    """Have Hydra read ``argv``, and raise errors instead of printing them and leaving."""
    before, full_error = sys.argv, os.environ.get(_FULL_ERROR)
    sys.argv, os.environ[_FULL_ERROR] = argv, "1"
    try:
        yield
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = full_error
