"""The command line: ``python -m trainkit [overrides]`` trains; ``--help`` tells the rest."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

from trainkit import __version__
from trainkit.cli.arguments import COMMANDS
from trainkit.errors import ConfigError, Preempted, TrainkitError, did_you_mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code.

    0 done, 2 a wrong config, 3 no usable checkpoint or a locked run, 75 asked to end and saved, 130
    ended at once by Ctrl-C. A second SIGTERM ends the process with 143.

    An error in the user's own code passes through with its traceback, and Python exits with 1.
    """
    _prepare_streams()
    sys.path.insert(0, os.getcwd())  # so that _target_ finds modules of the directory one stands in
    try:
        run_command(list(sys.argv[1:] if argv is None else argv))
    except TrainkitError as error:
        notes: list[str] = getattr(error, "__notes__", [])
        print("\n".join([f"{type(error).__name__}: {error}", *notes]), file=sys.stderr)
        return error.exit_code
    except Preempted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        pass  # the reader has gone (``trainkit ... | head``); what it would have read is in the log
    _flush()
    return 0


def run_command(argv: list[str]) -> None:
    """Run the command that ``argv`` names, or train.

    Raises:
        ConfigError: There is no such command.
    """
    if argv == ["--version"]:
        print(f"trainkit {__version__}")
        return
    if argv[:1] in (["-sc"], ["--shell-completion"]):
        importlib.import_module("trainkit.cli.completion").run(argv[0], argv[1:])
        return
    named = bool(argv) and "=" not in argv[0] and not argv[0].startswith(("-", "+", "~"))
    command, rest = (argv[0], argv[1:]) if named else ("train", argv)
    if command not in COMMANDS:
        raise ConfigError(
            f"There is no command {command!r}. {did_you_mean(command, COMMANDS)} An override is "
            "key=value."
        )
    if "--help" in rest or "-h" in rest:
        from trainkit.cli.help import print_command_help, print_help

        if command != "train":
            print_command_help(command)
        else:
            print_help([argument for argument in rest if argument not in ("--help", "-h")])
    else:
        home = importlib.import_module(f"trainkit.cli.{COMMANDS[command].module}")
        home.run(command, rest)


def _prepare_streams() -> None:
    """Have both streams take whatever is printed: one may be closed, or know only ASCII's letters.

    The number of a closed one would else become that of the next file.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Flush standard output now, so that a reader that has gone is no error at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
