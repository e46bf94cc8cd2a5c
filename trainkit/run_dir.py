"""A run's directory: its own, locked while a process works in it, with a status."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import socket
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from trainkit.config.secrets import redact_text
from trainkit.errors import CheckpointError, ConfigError, RunLockedError

logger = logging.getLogger(__name__)

OUTPUTS = Path("outputs")  # where runs are kept, below the working directory
STATUS = "status.json"
# Overrides that do not make another experiment of a run.
NO_IDENTITY = ("resume", "resume_with", "launcher", "env", "hydra", "trust")
_LOCK = ".lock"
_LOCK_PATIENCE = 0.1  # seconds in which is_locked() in another process has let go
_MAX_NAME = 100  # bytes; file systems allow 255 for a name
_MAX_COMPONENT = 255


def safe_name(text: str) -> str:
    """Return ``text`` as one file name: no separator, not hidden, at most 100 bytes."""
    name = re.sub(r"[^\w.,=+-]+", "_", unicodedata.normalize("NFC", text)).lstrip(".") or "_"
    raw = name.encode(errors="surrogateescape")
    if len(raw) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{raw[: _MAX_NAME - 9].decode(errors='ignore')}-{digest}"


def make_directory(path: Path) -> None:
    """Make ``path``, and what is above it, unless it is there.

    Raises:
        ConfigError: It cannot be made.
    """
    check_directory(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The directory {path} cannot be made: {error.strerror}. Choose one with work_dir=..."
        ) from None


def make_writable(path: Path) -> None:
    """Make ``path`` unless it is there, and see that files can be made in it.

    Raises:
        ConfigError: It cannot be made, or written.
    """
    make_directory(path)
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"The directory {path} cannot be written: {error.strerror}. Choose another with "
            "work_dir=..."
        ) from None


def check_directory(path: Path) -> None:
    """Raise unless ``path`` can be the name of a directory that people can also type.

    Raises:
        ConfigError: A control character, or a part that is too long for a file system.
    """
    strange = sorted({c for c in str(path) if unicodedata.category(c) == "Cc"})
    if strange:
        raise ConfigError(
            f"The directory {str(path)!r} has {', '.join(map(repr, strange))} in its name. Choose "
            "a name without control characters with work_dir=..."
        )
    for part in path.parts:
        if len(os.fsencode(part)) > _MAX_COMPONENT:
            raise ConfigError(
                f"The directory {path} cannot be made: File name too long: {len(os.fsencode(part))}"
                f" bytes, where {_MAX_COMPONENT} are allowed. Choose a shorter one with "
                "work_dir=..."
            )


def make_unique(parent: Path, name: str) -> Path:
    """Make and return ``parent/name``, or ``parent/name_n`` where that is taken.

    Raises:
        ConfigError: The directory cannot be made.
    """
    make_directory(parent)
    check_directory(parent / name)
    number = 0
    while True:
        path = parent / (name if number == 0 else f"{name}_{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise ConfigError(
                f"The directory {path} cannot be made: {error.strerror}. Choose another work_dir."
            ) from None
        return path


def experiment_directory(experiment_name: object) -> Path:
    """Return where the runs of an experiment are kept; a secret in its name is left out."""
    return OUTPUTS / safe_name(redact_text(str(experiment_name)))


def new_run_directory(experiment_name: object) -> Path:
    """Make and return ``outputs/<experiment_name>/<time>``, which no other process shares."""
    return make_unique(experiment_directory(experiment_name), timestamp())


def unused(path: Path) -> Path:
    """Return ``path``, or ``path`` with a number where a file of that name is already."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}_{number}")
    return free


def timestamp() -> str:
    """Return the time as run directories carry it."""
    return time.strftime("%Y-%m-%d_%H-%M-%S")


def identity(experiment_name: str, overrides: Sequence[str]) -> list[str]:
    """Return what makes two starts the same run: experiment and sorted overrides."""
    kept = [
        text
        for text in overrides
        if re.split(r"[./=@]", text.lstrip("+~"), maxsplit=1)[0] not in NO_IDENTITY
    ]
    return [experiment_name, *sorted(kept)]


def digest(identity: Sequence[str]) -> str:
    """Return an identity as one word, which holds no secret."""
    return hashlib.sha256("\n".join(identity).encode(errors="surrogateescape")).hexdigest()


def has_identity(status: Mapping[str, Any], wanted: Sequence[str]) -> bool:
    """Whether a run's record is that of the run ``wanted``; in the record, secrets are left out."""
    saved = status.get("identity_digest") or digest([str(x) for x in status.get("identity", [])])
    return bool(saved == digest(wanted))


def read_status(run: Path) -> dict[str, Any]:
    """Return the record of a run; empty where there is none that can be read."""
    try:
        record = json.loads((run / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def find_run(root: Path, wanted: Sequence[str]) -> Path | None:
    """Return the newest run below ``root`` of an identity that no process works in."""
    free = (run for run in _runs(root) if _is_writable(run) and not is_locked(run))
    same = [run for run in free if has_identity(read_status(run), wanted)]
    return max(same, key=_age, default=None)


def next_number(root: Path) -> int:
    """Return the number of the next run below ``root``, by which the newest one is known.

    Times do not tell it: a clock may be set back.
    """
    return 1 + max((_age(run)[0] for run in _runs(root)), default=0)


def _age(run: Path) -> tuple[int, float, str]:
    """Return what is greater for a newer run; those of one number were begun at the same time."""
    status = read_status(run)
    number, created = status.get("number"), status.get("created")
    return (
        number if type(number) is int else 0,
        float(created) if isinstance(created, int | float) else 0.0,
        run.name,
    )


def _runs(root: Path) -> list[Path]:
    """Return the runs of an experiment, the trials of its sweeps included."""
    return [path.parent for path in (*root.glob(f"*/{STATUS}"), *root.glob(f"sweep_*/*/{STATUS}"))]


def is_locked(run: Path) -> bool:
    """Whether a live process works in the run's directory; nothing is changed there."""
    try:
        file = (run / _LOCK).open("rb")
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's, who lets nobody look
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _is_writable(run: Path) -> bool:
    file = run / _LOCK
    return os.access(file if file.exists() else run, os.W_OK)


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Keep other processes out of a run's directory; the lock dies with its process.

    Raises:
        RunLockedError: Another one is in.
    """
    try:
        file = (run / _LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The run's directory {run} cannot be written: {error.strerror}. Choose another "
            "work_dir."
        ) from None
    with file, _not_inherited(file.fileno()):
        if not _take(file):
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise RunLockedError(
                f"{owner} works in {run}. Wait for it or stop it; or leave work_dir out to start a "
                "run of its own."
            ) from None
        file.truncate(0)
        file.write(
            f"Process {os.getpid()} on {socket.gethostname()}, since "
            f"{time.strftime('%Y-%m-%d %H:%M:%S')},"
        )
        file.flush()
        yield


def _take(file: IO[str]) -> bool:
    """Lock a file; whether that succeeded. A process that only looks is waited for."""
    end = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(_LOCK_PATIENCE / 100)
        else:
            return True


@contextlib.contextmanager
def _not_inherited(descriptor: int) -> Iterator[None]:
    """Close a file in processes that are forked meanwhile.

    A data worker would else keep the lock for as long as it outlives a killed run.
    """
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)


def _close_held() -> None:
    while _held:
        os.close(_held.pop())


_held: set[int] = set()
os.register_at_fork(after_in_child=_close_held)


class RunRecord:
    """``status.json``: how a run stands, for people and for ``resume=true``.

    It must be there when a run begins. One that cannot be written later, on a full disk, is told of
    once and tried again with what comes next.

    Args:
        run: The run's directory.
        redact: What every fact goes through, so that no secret is written.
    """

    def __init__(self, run: Path, redact: Callable[[Any], Any] | None = None) -> None:
        self.run = run
        self._redact = redact
        self._unwritten: dict[str, Any] = {}  # facts that a full disk has refused
        self._told = False

    def begin(self, **facts: Any) -> None:
        """Say that a process works on the run; earlier facts stay unless renewed."""
        before = read_status(self.run)
        created = before.get("created", time.time())
        of_end = ("error", "ended", "reason")
        kept = {key: value for key, value in before.items() if key not in of_end}
        self._write(
            {
                **kept,
                "created": created,
                **self._clean(facts),
                "status": "running",
                "pid": os.getpid(),
                "started": time.time(),
            }
        )

    def update(self, **facts: Any) -> None:
        """Renew some facts."""
        self._renew({**self._clean(facts), "updated": time.time()})

    def end(self, status: str, **facts: Any) -> None:
        """Say how it ended: ``finished``, ``failed`` or ``preempted``."""
        now = time.time()
        self._renew({**self._clean(facts), "updated": now, "status": status, "ended": now})

    def _renew(self, facts: dict[str, Any]) -> None:
        self._unwritten.update(facts)
        try:
            self._write({**read_status(self.run), **self._unwritten})
        except CheckpointError as error:
            if not self._told:
                logger.warning("%s Training goes on.", error)
            self._told = True
        else:
            self._unwritten.clear()

    def _clean(self, facts: dict[str, Any]) -> dict[str, Any]:
        return facts if self._redact is None else dict(self._redact(facts))

    def _write(self, record: dict[str, Any]) -> None:
        temporary = self.run / f".{STATUS}.tmp"
        try:
            temporary.write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")
            temporary.replace(self.run / STATUS)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise CheckpointError(
                f"{self.run / STATUS} cannot be written: {error.strerror}. Make room or mend the "
                "rights."
            ) from error
