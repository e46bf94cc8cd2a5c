"""Compose a config from trainkit's conf/, with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.config.loader import hydra_loader
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(
    overrides: Sequence[str] = (),
    *,
    config_name: str = "config",
    config_dirs: Sequence[str | Path] = (),
) -> DictConfig:
    """Compose a config as ``python -m trainkit`` does.

    Args:
        overrides: As on the command line, such as ``["optim_wrapper=amp", "seed=1"]``.
        config_name: The primary config.
        config_dirs: Directories whose groups and options are added to trainkit's own.

    Raises:
        ConfigError: An unknown key, group or option, or an override that cannot be read.
    """
    if isinstance(overrides, str):
        raise ConfigError(
            f"compose() got the text {overrides!r}; expected a list: [{overrides!r}]."
        )
    for text in overrides:
        if text.startswith("~hooks."):
            name = text.partition("=")[0].removeprefix("~")
            raise ConfigError(f"{text}: a hook is removed by {name}=null.")
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        with hydra_loader(config_dirs):
            return hydra_compose(config_name, list(overrides))
    except YAMLError as error:
        raise ConfigError(f"A config file is no YAML: {' '.join(str(error).split())}") from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # group=null: ValueError
        if isinstance(error, ConfigError):
            raise
        from trainkit.config.diagnose import diagnose

        raise diagnose(error, list(overrides), config_name, config_dirs) from None
