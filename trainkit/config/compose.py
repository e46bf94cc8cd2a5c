"""Compose a config from trainkit's conf/, with errors that a user can act on."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.config.findings import Finding, raise_findings
from trainkit.config.given import in_python
from trainkit.config.loader import hydra_loader
from trainkit.config.request import Request
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
        traced: Gives who set what, where ``cfg`` was not composed from the request.
    """

    cfg: DictConfig | None
    request: Request
    findings: tuple[Finding, ...] = ()
    unsure: tuple[str, ...] = ()
    traced: Callable[[], Origins] | None = None

    def origins(self) -> Origins | None:
        """Return who set what in ``cfg``."""
        return None if self.cfg is None else self._origins

    @cached_property
    def _origins(self) -> Origins:
        if self.traced is not None:
            return self.traced()
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
    if isinstance(overrides, Mapping) or not isinstance(overrides, Iterable):
        raise ConfigError(f"overrides is {overrides!r}; expected a list such as ['seed=1'].")
    if not isinstance(config_name, str) or not config_name:
        raise ConfigError(f"config_name is {config_name!r}; expected the name of a YAML file.")
    if isinstance(overrides, str):
        raise ConfigError(f"overrides is the text {overrides!r}; expected a list: [{overrides!r}].")
    for text in overrides:
        if not isinstance(text, str):
            raise ConfigError(f"overrides has {text!r}; expected texts such as 'seed=1'.")
    if isinstance(config_dirs, str | Path):
        given = str(config_dirs)
        raise ConfigError(f"config_dirs is {given!r}; expected a list: [{given!r}].")
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
            with (
                hydra_loader(request.config_dirs) as loader,
                in_python(request, loader) as given,
                warnings.catch_warnings(record=True) as caught,
            ):
                warnings.simplefilter("always")
                cfg = hydra_compose(request.config_name, given)
            return Composed(cfg, request, tuple(_told_by_warnings(caught)))
        except YAMLError as error:
            from trainkit.config.file_problems import yaml_problem

            return Composed(None, request, (Finding("", yaml_problem(error)),))
        except (
            *(HydraException, OmegaConfBaseException, ValueError, OSError),
            AssertionError,  # Hydra's own, where an 'override' stands before another default
        ) as failure:
            if isinstance(failure, ConfigError):
                raise
            return _diagnosed(failure, request)  # group=null: a ValueError of Hydra's
    return _diagnosed(None, request, early)


def _told_by_warnings(caught: Iterable[warnings.WarningMessage]) -> Iterator[Finding]:
    """Yield what Hydra only warns of and is a mistake; pass the other warnings on."""
    for warning in caught:
        absent = re.search(r"hydra.searchpath.*path=(.*) is not available", str(warning.message))
        if absent is not None:
            text = f"hydra.searchpath names {absent[1]!r}, which is no directory. Mend the path."
            yield Finding("", text)
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


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

    with warnings.catch_warnings():  # Hydra repeats itself each time it is asked
        warnings.filterwarnings("ignore", message=r".*hydra\.searchpath")
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
        name = text.partition("=")[0].lstrip("+~")
        if text.startswith("~hooks."):
            found.append(Finding("", f"{text}: a hook is removed by {name}=null."))
        elif not name.strip():
            found.append(Finding("", f"The override {text!r} has no key; expected key=value."))
        elif name == "hydra.mode":
            found.append(Finding("", f"{text} has no effect here. Write -m for a sweep."))
    return found
