"""Find trainkit's conf/ and compose a config from it, with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import DictConfig

VERSION_BASE = "1.3"


def conf_dir() -> Path:
    """Return the shipped conf/: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    # The checkout first: an editable install leaves a stale copy inside site-packages that nobody
    # should read.
    for candidate in (package.parent / "conf", package / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise ConfigError(
        f"trainkit's conf/ is neither in {package} nor beside it. Reinstall trainkit."
    )


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
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    with hydra_loader():
        try:
            return hydra_compose(config_name, [*search_path(config_dirs), *overrides])
        except (HydraException, OmegaConfBaseException) as error:
            from trainkit.config.diagnose import diagnose

            raise diagnose(error, list(overrides), config_name, search_path(config_dirs)) from None


def compose_with_hydra(
    overrides: Sequence[str], *, config_name: str, config_dirs: Sequence[str | Path]
) -> DictConfig:
    """Compose with the ``hydra`` node kept: what a group's default option is stands only there."""
    from hydra import compose as hydra_compose

    with hydra_loader():
        return hydra_compose(
            config_name, [*search_path(config_dirs), *overrides], return_hydra_config=True
        )


@contextmanager
def hydra_loader() -> Iterator[ConfigLoaderImpl]:
    """Hydra's config loader over trainkit's conf/; Hydra's global state is put back afterwards."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        yield GlobalHydra.instance().config_loader()  # type: ignore[misc]  # declared as the abstract ConfigLoader


def search_path(config_dirs: Sequence[str | Path]) -> list[str]:
    """Return the override that adds ``config_dirs`` to Hydra's search path, if there are any.

    Raises:
        ConfigError: One of them is no directory.
    """
    for directory in config_dirs:
        if not Path(directory).is_dir():
            raise ConfigError(
                f"--config-dir {str(directory)!r} is no directory. Name one that holds group "
                "folders."
            )
    quoted = ",".join(f'"file://{Path(directory).resolve()}"' for directory in config_dirs)
    return [f"hydra.searchpath=[{quoted}]"] if config_dirs else []
