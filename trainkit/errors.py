"""The errors that a user can meet. Each says what was given, what was expected and what to do.

TrainkitError
├── ConfigError       a value, key or argument does not fit        exit code 2
├── CheckpointError   a checkpoint or run cannot be used           exit code 3
│   └── RunLockedError    another process works in the run
├── MissingExtra      an optional package is not installed         exit code 2
├── DataWorkerError   a process that reads data has died or hangs  exit code 1
└── NonFiniteError    a loss or a gradient is NaN or infinite      exit code 1

KeyboardInterrupt
└── Preempted         training was asked to end, and was saved     exit code 75
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


class DataWorkerError(TrainkitError, RuntimeError):
    """A process that reads data for training has died, or gives no batch any more."""


class NonFiniteError(TrainkitError, FloatingPointError):
    """Training came upon a loss or a gradient that is NaN or infinite, and made no update of it."""


class Preempted(KeyboardInterrupt):
    """Training was asked to end before its end, and its state is saved.

    A KeyboardInterrupt, so that no ``except Exception`` takes it for an error of the run, and a
    sweep starts no further trial.

    Args:
        message: What happened, where it is saved, and how to go on.
        reason: Who asked: ``"SIGTERM"``, ``"Ctrl-C"``, a limit.
        checkpoint: The name of the checkpoint; None: nothing was trained yet.
    """

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later

    def __init__(self, message: str, reason: str = "", checkpoint: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or message
        self.checkpoint = checkpoint


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
