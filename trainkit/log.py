"""The text log of a run: a file with every line, and the console.

On a terminal the training line is renewed in place and only epoch ends and messages stay;
elsewhere, in a file or a batch job, every line is printed plainly.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from logging.handlers import QueueHandler
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.dist import get_rank, is_main_process
from trainkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

LIVE = {
    "live": True
}  # logger.info(line, extra=LIVE): a line that the next one may replace on a terminal
FILE_ONLY = {"file_only": True}  # too long for the console
_LEVELS = ("CRITICAL", "DEBUG", "ERROR", "INFO", "WARNING")
_numbers = itertools.count()


def check_level(level: str | int) -> str | int:
    """Return ``level`` as logging takes it.

    Raises:
        ConfigError: There is no such level.
    """
    if isinstance(level, int):
        return level
    if isinstance(level, str) and level.upper() in _LEVELS:
        return level.upper()
    raise ConfigError(f"log_level is {level!r}. {did_you_mean(str(level).upper(), _LEVELS)}")


class RunLog:
    """The logger of one Runner, and its handlers while :meth:`active`.

    What is logged at other times is shown at once, and comes into the file when there is one.

    Args:
        level: The least level that is shown.
        redact: What every line goes through, so that no secret is written.
    """

    def __init__(self, level: str | int, redact: Callable[[str], str] | None = None) -> None:
        # A name of its own: two runners in one process share no handlers.
        self.logger = logging.getLogger(f"trainkit.run_{next(_numbers)}")
        self.logger.propagate = False
        self.redact = redact
        self.level = check_level(level)
        self.logger.setLevel(self.level)
        self._waiting = _Waiting(redact)
        self.logger.addHandler(self._waiting)
        # Loggers live as long as the process.
        weakref.finalize(self, self.logger.handlers.clear)

    @contextlib.contextmanager
    def active(self, directory: Path) -> Iterator[None]:
        """Log to the console and to ``directory`` meanwhile, trainkit's modules included."""
        if self._waiting not in self.logger.handlers:  # a hook evaluates during training
            yield
            return
        main = is_main_process()
        file = directory / ("train.log" if main else f"rank_{get_rank()}.log")
        handlers: list[logging.Handler] = [_File(file)]
        handlers[0].setFormatter(
            _Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y/%m/%d %H:%M:%S", self.redact)
        )
        self._waiting.hand_over(handlers[0])
        self.logger.removeHandler(self._waiting)
        if main:
            handlers.append(console_handler(self.redact))
        shared = logging.getLogger("trainkit")
        for handler in handlers:
            handler.addFilter(_Once())
        level, shared_level = self.level, shared.level
        for target in (self.logger, shared):
            target.setLevel(level)
            for handler in handlers:
                target.addHandler(handler)
        try:
            yield
        finally:
            shared.setLevel(shared_level)
            self.logger.addHandler(self._waiting)
            for handler in handlers:
                self.logger.removeHandler(handler)
                shared.removeHandler(handler)
                with contextlib.suppress(OSError):  # what it could not write, it has told already
                    handler.close()


class _Waiting(QueueHandler):
    """Print lines at once, and keep them for a file that is not open yet."""

    _MOST = 1000  # lines that are kept; then the oldest go

    def __init__(self, redact: Callable[[str], str] | None) -> None:
        self._kept: deque[logging.LogRecord] = deque(maxlen=self._MOST)
        super().__init__(self._kept)  # type: ignore[arg-type]  # only enqueue() uses it
        self._redact = redact

    def enqueue(self, record: logging.LogRecord) -> None:
        self._kept.append(record)
        if is_main_process():
            console = console_handler(self._redact)  # for standard output as it is now
            console.handle(record)
            console.close()

    def hand_over(self, file: logging.Handler) -> None:
        while self._kept:
            file.handle(self._kept.popleft())


class _File(logging.FileHandler):
    """A file of lines. One that cannot be written, on a full disk, is told of once.

    Raises:
        ConfigError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise ConfigError(
                f"The log {path} cannot be written: {error.strerror}. Choose another work_dir."
            ) from None
        self._told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            logging.getLogger(__name__).warning(
                "%s cannot be written: %s. Training goes on; what cannot be written is missing "
                "there.",
                self.baseFilename,
                error.strerror,
            )


class _Once:
    """Let each warning pass once: what is wrong in every iteration shall not fill the log."""

    _MOST = 1000  # warnings that are remembered

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        message = record.getMessage()
        if message in self._seen:
            return False
        if len(self._seen) < self._MOST:
            self._seen.add(message)
        return True


class _Formatter(logging.Formatter):
    """Format whole lines, tracebacks included, and leave secrets out of them."""

    def __init__(self, form: str, time: str, redact: Callable[[str], str] | None) -> None:
        super().__init__(form, time)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if self._redact is None else self._redact(text)


def console_handler(redact: Callable[[str], str] | None = None) -> logging.Handler:
    """Return the handler that fits standard output."""
    handler: logging.Handler = (
        _TerminalHandler() if sys.stdout.isatty() else _PlainHandler(sys.stdout)
    )
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", "%m/%d %H:%M:%S", redact))
    handler.addFilter(lambda record: not getattr(record, "file_only", False))
    return handler


class _PlainHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only since Python 3.11
    """Print each line; fall silent when the reader has gone (``trainkit ... | head``).

    So too where it goes to a file on a full disk.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], OSError | ValueError):
            self.setLevel(logging.CRITICAL + 1)
        else:
            super().handleError(record)


class _TerminalHandler(logging.Handler):
    """Print through rich: live records renew one line at the bottom, others scroll above it."""

    _INTERVAL = 0.1  # seconds between renewals of the live line

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self.console: Console = Console(highlight=False)
        # Renewed by hand: a refreshing thread would be forked into data workers.
        self.line: Live = Live("", console=self.console, auto_refresh=False, transient=True)
        self.renewed = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(record.levelname, "")
        text = Text(self.format(record), style=style)
        if not getattr(record, "live", False):
            self.line.stop()  # what it showed is older than this line
            self.console.print(text, soft_wrap=True)
            return
        now = time.monotonic()
        if now - self.renewed >= self._INTERVAL:
            self.renewed = now
            text.no_wrap, text.overflow = True, "ellipsis"
            self.line.start()
            self.line.update(text, refresh=True)

    def close(self) -> None:
        self.line.stop()
        super().close()
