"""The command line: ``python -m trainkit [overrides]`` trains; ``--help`` tells the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from trainkit.errors import TrainkitError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code.

    0 done, 2 a wrong config, 3 no usable checkpoint or a locked run, 130 stopped by Ctrl-C.

    An error in the user's own code passes through with its traceback, and Python exits with 1.
    """
    from trainkit.cli import run_command

    sys.path.insert(0, os.getcwd())  # so that _target_ finds modules of the directory one stands in
    try:
        run_command(list(sys.argv[1:] if argv is None else argv))
    except TrainkitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        pass  # the reader has gone (``trainkit ... | head``); what it would have read is in the log
    _flush()
    return 0


def _flush() -> None:
    """Flush standard output now, so that a reader that has gone is no error at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
