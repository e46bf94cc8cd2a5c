"""Errors: their text says what to do, and their exit code tells a scheduler."""

from __future__ import annotations

import pytest

from trainkit.errors import (
    CheckpointError,
    ConfigError,
    MissingExtra,
    RunLockedError,
    TrainkitError,
    did_you_mean,
)


def test_the_nearest_name_is_suggested() -> None:
    assert did_you_mean("acumulate", ["seed", "accumulate"]) == "Did you mean 'accumulate'?"


def test_where_none_is_near_all_are_listed_in_order() -> None:
    assert did_you_mean("xyz", ["b", "a"]) == "Choose from: a, b."
    assert did_you_mean("xyz", ["b", "a"], listed="Levels") == "Levels: a, b."
    assert did_you_mean("xyz", iter([2, 1])) == "Choose from: 1, 2."


def test_where_there_is_nothing_to_choose_it_says_so() -> None:
    assert did_you_mean("xyz", []) == "Nothing can be given here."


def test_a_missing_extra_says_what_to_install() -> None:
    error = MissingExtra("wandb", "wandb", "WandbVisBackend")
    assert str(error) == (
        "WandbVisBackend needs wandb, which is not installed. Run: pip install 'trainkit[wandb]'"
    )


@pytest.mark.parametrize(
    ("error", "builtin", "code"),
    [
        (TrainkitError, Exception, 1),
        (ConfigError, ValueError, 2),
        (MissingExtra, ImportError, 2),
        (CheckpointError, RuntimeError, 3),
        (RunLockedError, CheckpointError, 3),
    ],
)
def test_each_error_has_its_exit_code_and_is_a_builtin_too(
    error: type[TrainkitError], builtin: type[Exception], code: int
) -> None:
    assert error.exit_code == code
    assert issubclass(error, (TrainkitError, builtin))
    assert issubclass(error, builtin)
