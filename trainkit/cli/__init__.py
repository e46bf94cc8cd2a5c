"""The commands, one in each file. Torch is imported only by those that need it."""

from __future__ import annotations

from trainkit.errors import ConfigError, did_you_mean

COMMANDS = {
    "train": "Train (the default). resume=true goes on with the newest run of the same overrides.",
    "val": "Validate a run again: trainkit val run=DIR [overrides].",
    "test": "Test a run: trainkit test run=DIR [overrides].",
}


def run_command(argv: list[str]) -> None:
    """Run the command that ``argv`` names, or train.

    Raises:
        ConfigError: There is no such command.
    """
    command, rest = (
        ("train", argv)
        if not argv or "=" in argv[0] or argv[0][0] in "-+~"
        else (argv[0], argv[1:])
    )
    if command not in COMMANDS:
        raise ConfigError(
            f"There is no command {command!r}. {did_you_mean(command, COMMANDS)} An override is "
            "key=value."
        )
    if "--help" in rest or "-h" in rest:
        from trainkit.cli.help import print_help

        print_help([argument for argument in rest if argument not in ("--help", "-h")])
    elif command == "train":
        from trainkit.cli.train import train

        train(rest)
    else:
        from trainkit.cli.evaluate import evaluate

        evaluate(command, rest)
