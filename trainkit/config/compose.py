"""Compose a config from trainkit's conf/, with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.config.findings import Finding, raise_findings
from trainkit.config.loader import hydra_loader
from trainkit.config.request import Request, in_python
from trainkit.config.schema import TrainConfig
from trainkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trainkit.config.origins import Origins


@dataclass(frozen=True)
class Composed:
    """What came of composing.

    Args:
        cfg: The config; without the overrides that are wrong, where some are; None where nothing
            composes.
        request: What ``cfg`` was composed from.
        findings: What is wrong.
        unsure: Groups of which a wrong option was chosen: what is below says nothing.
    """

    cfg: DictConfig | None
    request: Request
    findings: tuple[Finding, ...] = ()
    unsure: tuple[str, ...] = ()

    def origins(self) -> Origins | None:
        """Return who set what in ``cfg``."""
        return None if self.cfg is None else self._origins

    @cached_property
    def _origins(self) -> Origins:
        from trainkit.config.origins import trace

        return trace(self.request)


def compose(
    overrides: Sequence[str] = (),
    *,
    config: TrainConfig | None = None,
    config_name: str = "config",
    config_dirs: Sequence[str | Path] = (),
) -> DictConfig:
    """Compose a config as ``python -m trainkit`` does.

    Args:
        overrides: As on the command line, such as ``["optim_wrapper=amp", "seed=1"]``.
        config: Fields that are given in Python; ``overrides`` apply after them.
        config_name: The primary config.
        config_dirs: Directories whose groups and options are added to trainkit's own.

    Raises:
        ConfigError: An unknown key, group or option, or an override that cannot be read.
    """
    composed = try_compose(make_request(overrides, config, config_name, config_dirs))
    raise_findings(composed.findings)
    assert composed.cfg is not None, "what does not compose has findings"
    return composed.cfg


def make_request(
    overrides: Sequence[str],
    config: TrainConfig | None,
    config_name: str,
    config_dirs: Sequence[str | Path],
) -> Request:
    """Return a request of these parts.

    Raises:
        ConfigError: They are of the wrong kind.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides is the text {overrides!r}; expected a list: [{overrides!r}].")
    if config is not None and not isinstance(config, TrainConfig):
        kind = type(config).__name__
        raise ConfigError(
            f"config is a {kind}; expected a TrainConfig, whose fields are the groups."
        )
    return Request(tuple(overrides), config_name, tuple(config_dirs), config)


def try_compose(request: Request) -> Composed:
    """Compose; where that fails, say why, and compose what is left without the wrong overrides."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    unknown = tuple(_unknown_local(request))
    if unknown:
        left = tuple(text for text in request.overrides if not text.startswith("local="))
        request = replace(request, overrides=left)
    early = (*_early_problems(request.overrides), *unknown)
    if not early:
        try:
            with hydra_loader(request.config_dirs) as loader, in_python(request, loader) as given:
                return Composed(hydra_compose(request.config_name, given), request)
        except YAMLError as error:
            from trainkit.config.file_problems import yaml_problem

            return Composed(None, request, (Finding("", yaml_problem(error)),))
        except (HydraException, OmegaConfBaseException, ValueError, OSError) as failure:
            if isinstance(failure, ConfigError):
                raise
            return _diagnosed(failure, request)  # group=null: a ValueError of Hydra's
    return _diagnosed(None, request, early)


def _unknown_local(request: Request) -> Iterator[Finding]:
    """Yield an option of ``local`` that is not there, which Hydra passes over as optional."""
    for text in request.overrides:
        group, _, option = text.partition("=")
        if group == "local" and option:
            others = [other for other in request.overrides if other != text]
            with hydra_loader(request.config_dirs) as loader:
                options = loader.get_group_options(
                    group, config_name=request.config_name, overrides=others
                )
            if option not in options:
                near = did_you_mean(option, options)
                near = near if options else f"Expected local/{option}.yaml in a --config-dir."
                yield Finding("", f"{text}: there is no option {option!r}. {near}")


def _diagnosed(
    failure: Exception | None, request: Request, early: tuple[Finding, ...] = ()
) -> Composed:
    from trainkit.config.diagnose import diagnose

    found = diagnose(failure, request, early)
    return Composed(found.cfg, found.request, found.findings, found.unsure)


def _early_problems(overrides: Sequence[str]) -> list[Finding]:
    """Return what Hydra would take, or answer in a misleading way."""
    found = []
    keys = [text.partition("=")[0].lstrip("+") for text in overrides]
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        given = " and ".join(text for text, k in zip(overrides, keys, strict=True) if k == key)
        found.append(Finding("", f"{key} is given more than once: {given}. Drop one."))
    for text in overrides:
        if text.startswith("~hooks."):
            name = text.partition("=")[0].removeprefix("~")
            found.append(Finding("", f"{text}: a hook is removed by {name}=null."))
    return found
