"""The errors that a user can meet. Each says what was given, what was expected and what to do.

TrainkitError
├── ConfigError       a value, key or argument does not fit        exit code 2
├── CheckpointError   a checkpoint or run cannot be used           exit code 3
│   └── RunLockedError    another process works in the run
└── MissingExtra      an optional package is not installed         exit code 2
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class TrainkitError(Exception):
    """Base of all errors for a user's mistake; ``exit_code`` is the command line's.

    ``findings`` are the single mistakes of a config, where there are several; ``key`` is the place
    in the config that an error is about, where it is known.
    """

    exit_code = 1
    findings: tuple[Any, ...] = ()

    def __init__(self, *args: object, key: str = "") -> None:
        super().__init__(*args)
        self.key = key


class ConfigError(TrainkitError, ValueError):
    """A config value, a key or an argument does not fit."""

    exit_code = 2


class CheckpointError(TrainkitError, RuntimeError):
    """A checkpoint or a run's directory cannot be used."""

    exit_code = 3


class RunLockedError(CheckpointError):
    """Another live process works in the run's directory."""


class MissingExtra(TrainkitError, ImportError):
    """An optional package is not installed.

    Args:
        package: What could not be imported, such as ``"wandb"``.
        extra: The extra of trainkit that installs it.
        purpose: What needs it, as the subject of a sentence.
    """

    exit_code = 2

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed. Run: pip install "
            f"'trainkit[{extra}]'"
        )


def did_you_mean(given: str, options: Iterable[str], *, listed: str = "Choose from") -> str:
    """Return a sentence with the nearest of ``options``, or with all of them where none is near."""
    names = sorted(map(str, options))
    close = difflib.get_close_matches(given, names, n=1) or _abbreviated(given, names)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"{listed}: {', '.join(names)}." if names else "Nothing can be given here."


def _abbreviated(given: str, names: list[str]) -> list[str]:
    """Return the one name that ``given`` is the beginning of, if there is one."""
    longer = [name for name in names if len(given) > 1 and name.startswith(given)]
    return longer if len(longer) == 1 else []
