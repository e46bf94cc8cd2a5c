"""What a config is composed from: overrides, directories, and what Python gives."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainkit.config.schema import NOT_GIVEN, TrainConfig


@dataclass(frozen=True)
class Request:
    """What a config is composed from.

    Args:
        overrides: As on the command line.
        config_name: The primary config.
        config_dirs: Directories whose groups and options are added to trainkit's own.
        config: Fields that Python gives.
    """

    overrides: tuple[str, ...] = ()
    config_name: str = "config"
    config_dirs: tuple[str | Path, ...] = ()
    config: TrainConfig | None = None

    def facts(self) -> list[str]:
        """Return the fields that Python gives as text, to tell runs from each other."""
        if self.config is None:
            return []
        from omegaconf import OmegaConf

        given = {name: {"value": value} for name, value in given_fields(self.config).items()}
        plain = OmegaConf.to_container(OmegaConf.create(given), resolve=False)
        assert isinstance(plain, dict), "a mapping of fields"
        return [f"{name!s}={json.dumps(node['value'])}" for name, node in plain.items()]


def given_fields(config: TrainConfig) -> dict[str, Any]:
    """Return the fields of ``config`` that are given, by name."""
    every = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    is_open = {name for name, value in every.items() if isinstance(value, str)}
    return {
        name: value for name, value in every.items() if name not in is_open or value != NOT_GIVEN
    }
