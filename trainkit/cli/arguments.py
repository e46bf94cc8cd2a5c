"""Read a command line: flags on one side, overrides on the other."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from trainkit.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """A sub-command: ``run(name, argv)`` of a module in ``trainkit.cli``, and what help says of it.

    Args:
        module: The module.
        usage: What comes after its name.
        text: What it does.
        flags: What else it takes, with a line for each.
    """

    module: str
    usage: str
    text: str
    flags: Mapping[str, str] = field(default_factory=dict)


_TRUST = {"trust=[PACKAGE]": "a package of your own that the stored config may name"}
COMMANDS = {
    "train": Command(
        "start",
        "[overrides]",
        "Train (the default). resume=true goes on with the newest run of these overrides.",
    ),
    "val": Command("evaluate", "run=DIR [overrides]", "Validate a run again.", _TRUST),
    "test": Command("evaluate", "run=DIR [overrides]", "Test a run.", _TRUST),
    "check": Command(
        "check",
        "[overrides]",
        "Find every mistake in a config without running it.",
        {
            "--step": "then train and validate on one batch, in a directory that goes again",
            "-m, --multirun": "check every trial of a sweep",
        },
    ),
    "explain": Command(
        "explain", "KEY [overrides]", "Tell who set a value, and all below it, in order."
    ),
    "lr": Command(
        "lr",
        "[overrides]",
        "Draw the schedules of a config, without model or data.",
        {
            "--out FILE": "as a picture too: .png, .pdf or .svg",
            "--iters-per-epoch N": "the length of an epoch, where the config does not tell it",
            "-m, --multirun": "every trial of a sweep",
        },
    ),
    "runs": Command(
        "runs",
        "[DIR ...]",
        "List runs, newest first, below outputs/ or the given directories.",
        {
            "--limit N": "at most so many; 0: all",
            "--status STATUS": "running, died, finished, failed, preempted or unreadable",
            "--sort METRIC": "the best first; METRIC:less or METRIC:greater says what is better",
            "--json": "one JSON object for each run",
        },
    ),
    "diff": Command(
        "diff",
        "A B",
        "Compare config, metrics and environment of two runs.",
        {"--json": "as one JSON object"},
    ),
    "rerun": Command(
        "rerun",
        "RUN [overrides]",
        "Train the stored config of a run again, in a new directory.",
        _TRUST,
    ),
}

# Flags that Hydra answers itself, with what is composed; those on the right take a value.
_HYDRA_FLAGS = ("--resolve", "--hydra-help")
_HYDRA_OPTIONS = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": None,
}


@dataclass
class Arguments:
    """What a command line asks for."""

    overrides: list[str]
    config_name: str = "config"
    config_dirs: list[str] = field(default_factory=list)
    multirun: bool = False
    # Flags for Hydra, which then prints, and nothing is run.
    inspect: list[str] = field(default_factory=list)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is a :class:`ConfigError`."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise ConfigError(f"The command line cannot be read: {message}. See trainkit --help.")


def parse(argv: list[str]) -> Arguments:
    """Return what ``argv`` asks for.

    Raises:
        ConfigError: An unknown flag, or an argument that is no override.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-name", "-cn", default="config")
    parser.add_argument("--config-dir", "-cd", action="append", default=[], dest="config_dirs")
    parser.add_argument("--multirun", "-m", action="store_true")
    for flag in _HYDRA_FLAGS:
        parser.add_argument(flag, action="store_true", dest=f"hydra {flag}")
    for flag, choices in _HYDRA_OPTIONS.items():
        short = flag[1] + flag[2]  # --cfg is -c for Hydra, and so on
        parser.add_argument(flag, short, choices=choices, dest=f"hydra {flag}")
    given = vars(parser.parse_intermixed_args(argv))
    _check_overrides(given["overrides"])
    inspect: list[str] = []
    for name, value in given.items():
        if name.startswith("hydra ") and value not in (None, False):
            flag = name.removeprefix("hydra ")
            inspect += [flag] if value is True else [flag, value]
    if inspect and given["multirun"]:
        raise ConfigError(f"{inspect[0]} shows one config, so it does not go with --multirun.")
    if "--resolve" in inspect and "--cfg" not in inspect:
        raise ConfigError("--resolve belongs to --cfg: write --cfg job --resolve.")
    return Arguments(
        given["overrides"], given["config_name"], given["config_dirs"], given["multirun"], inspect
    )


def _check_overrides(overrides: list[str]) -> None:
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise ConfigError(
                f"The argument {override!r} is no override; expected key=value, +key=value or ~key."
            )
