"""Data workers: what each of them reads, and an error that tells it when one dies or hangs."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch.utils.data import Subset

from trainkit.dataloader.subset import FirstOfStream, FirstSamples
from trainkit.errors import DataWorkerError

logger = logging.getLogger(__name__)

_POLL = 0.5  # seconds in which a death is noticed: what torch's iterator takes for its timeout
_NOTICE = 60.0  # seconds without a batch after which, and after which again, that is told
_SIZE = 160  # bytes in which a worker says what it reads
_READING, _DONE = b"r", b"d"
_REAPED = 2.0  # seconds in which a worker whose connection broke is seen to be dead
_PIDS = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
_OF_A_WORKER = "in DataLoader worker process"  # an error of the dataset, as torch passes it on


def name_of(dataset: Any) -> str:
    """Return what a dataset is called in a message: its class, behind what cuts it."""
    while type(dataset) in (FirstOfStream, FirstSamples):
        dataset = dataset.dataset
    inside = f"({name_of(dataset.dataset)})" if type(dataset) is Subset else ""
    return f"{type(dataset).__name__}{inside}"


def tell_sample(error: Exception, what: str, dataset: Any) -> None:
    """Say below an error's traceback what was being read."""
    if hasattr(error, "add_note"):  # since Python 3.11
        error.add_note(f"It came from reading {what} of {name_of(dataset)}.")


class Marks:
    """Memory that the workers share with the main process: what each of them reads.

    Args:
        workers: Their number; 0: nothing is marked.
    """

    def __init__(self, workers: int) -> None:
        texts: Any = torch.zeros(max(workers, 1), _SIZE, dtype=torch.uint8)  # torch's: untyped
        self._texts: torch.Tensor = texts.share_memory_() if workers else texts
        self._own: memoryview | None = None

    @property
    def in_worker(self) -> bool:
        """Whether this process is a worker, which marks what it reads."""
        return self._own is not None

    def begin(self, worker: int) -> None:
        """Mark from now on what this process reads, as a worker."""
        array: Any = self._texts[worker].numpy()
        self._own = memoryview(array)

    def reading(self, what: str) -> None:
        """Say that this worker begins to read ``what``, such as ``"sample 3"``."""
        if self._own is not None:
            text = what.encode(errors="replace")[: _SIZE - 1]
            self._own[:] = (_READING + text).ljust(_SIZE, b"\0")

    def done(self) -> None:
        """Say that it is read."""
        if self._own is not None:
            self._own[:1] = _DONE

    def told(self, worker: int, dataset: str) -> str:
        """Return, as the end of a sentence, what a worker reads, or has read."""
        marked = bytes(self._texts[worker].tolist()).rstrip(b"\0")
        what = f"{marked[1:].decode(errors='replace')} of {dataset}"
        if not marked:
            return f"before it read anything of {dataset}"
        if marked[:1] == _READING:
            return f"while it read {what}"
        return f"after it had read {what}"


def watched(loader: Any) -> Iterator[Any]:
    """Return the batches of any loader, watched if it has workers as torch's and torchdata's."""
    batches: Iterator[Any] = iter(loader)
    if not (hasattr(batches, "_workers") and hasattr(batches, "_workers_status")):
        return batches
    timeout = float(getattr(loader, "timeout", 0))
    return WatchedBatches(batches, getattr(loader, "dataset", loader), None, timeout)


class WatchedBatches(Iterator[Any]):
    """The batches of a torch loader's iterator; a worker that dies or hangs is told of by name.

    torch tells a death by an error in whatever line the main process stands, in the middle of a
    step or of a checkpoint, or by one of the connection. Here it comes when a batch is asked for.

    Args:
        batches: The iterator, of a loader with workers.
        dataset: What the workers read.
        marks: Where they say what; None: it is not known.
        timeout: Seconds to wait for a batch; 0: any time.
    """

    def __init__(self, batches: Any, dataset: Any, marks: Marks | None, timeout: float) -> None:
        self._batches, self._marks, self._timeout = batches, marks, timeout
        self._dataset = name_of(dataset)
        self._workers: list[Any] = batches._workers
        batches._timeout = _POLL  # of a loader that waits longer, a death would be seen as late
        _watched.add(batches)
        _hold_deaths_back()

    def __next__(self) -> Any:
        try:
            return self._next()
        except StopIteration:
            raise
        except Exception:
            self._end_workers()
            raise

    def _next(self) -> Any:
        begun = noticed = time.monotonic()
        while True:
            self._raise_if_dead(_dead(self._batches))
            try:
                return next(self._batches)
            except StopIteration:
                raise
            except Exception as error:
                if _OF_A_WORKER in str(error):
                    raise
                self._raise_if_dead(self._dead_by(error))
                if not str(error).startswith("DataLoader timed out"):
                    raise
            now = time.monotonic()
            if 0 < self._timeout <= now - begun:
                raise DataWorkerError(
                    f"No batch came for {self._timeout:g} s. {self._hanging()}. See why that takes "
                    "so long, or give the loader another timeout (seconds; 0: wait for ever)."
                )
            if now - noticed >= _NOTICE:
                noticed = now
                logger.warning("No batch has come for %.0f s. %s.", now - begun, self._hanging())

    def _dead_by(self, error: Exception) -> list[int]:
        """Return the workers whose death an error comes from."""
        pids = _pids(error)
        if pids:
            return [number for number, each in enumerate(self._workers) if each.pid in pids]
        broken = isinstance(error, OSError | EOFError)
        end = time.monotonic() + (_REAPED if broken else 0)
        while not (dead := _dead(self._batches)) and time.monotonic() < end:
            time.sleep(_REAPED / 100)
        return dead

    def _end_workers(self) -> None:
        """End what is of no more use, and would be waited for, 5 s each, when the process ends."""
        for each in self._workers:
            each.kill()
        for each in self._workers:
            each.join(_REAPED)

    def _told(self, number: int) -> str:
        if self._marks is None:
            return f"in reading {self._dataset}"
        return self._marks.told(number, self._dataset)

    def _raise_if_dead(self, dead: list[int]) -> None:
        if not dead:
            return
        told = [
            f"Data worker {number} (process {self._workers[number].pid}) "
            f"{_ending(self._workers[number])} {self._told(number)}."
            for number in dead
        ]
        advice = "Read that by itself, or set the loader's num_workers=0, to see where it ends."
        if any(self._workers[number].exitcode == -signal.SIGKILL for number in dead):
            advice += (
                " SIGKILL is mostly how the machine frees memory: fewer workers, or a smaller "
                "prefetch_factor or batch_size, need less."
            )
        raise DataWorkerError(f"{' '.join(told)} {advice}") from None

    def _hanging(self) -> str:
        tasks = getattr(self._batches, "_task_info", {})
        waited_for = tasks.get(getattr(self._batches, "_rcvd_idx", None), ())
        numbers = list(waited_for[:1]) or list(range(len(self._workers)))
        return "; ".join(
            f"Data worker {number} (process {self._workers[number].pid}) hangs {self._told(number)}"
            for number in numbers
        )


def _ending(worker: Any) -> str:
    """Return in words how a worker's process ended."""
    worker.join(timeout=_REAPED)
    code = worker.exitcode
    if code is None:
        return "was lost"
    if code >= 0:
        return f"ended itself, with exit code {code},"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _pids(error: Exception) -> set[int]:
    """Return the processes whose end an error of torch tells."""
    found = _PIDS.search(str(error))
    return {int(pid) for pid in found[1].split(",")} if found else set()


def _dead(batches: Any) -> list[int]:
    """Return the workers of torch's iterator that have ended before their time."""
    pairs = enumerate(zip(batches._workers, batches._workers_status, strict=True))
    return [
        number
        for number, (each, works) in pairs
        if not each.is_alive() and (works or each.exitcode)
    ]


class _AtNextBatch:
    """A handler of SIGCHLD in which torch's raises nothing of workers that are watched.

    Their death is seen when a batch is asked for or waited for.
    """

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self.handler(number, frame)
        except RuntimeError as error:
            own = {worker.pid for each in list(_watched) for worker in each._workers}
            if not _pids(error) & own:
                raise


def _hold_deaths_back() -> None:
    """Put the handler around torch's, which comes with the first worker, if it is not yet."""
    if threading.current_thread() is not threading.main_thread():
        return  # where torch sets none either
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler) and not isinstance(handler, _AtNextBatch):
        signal.signal(signal.SIGCHLD, _AtNextBatch(handler))


_watched: weakref.WeakSet[Any] = weakref.WeakSet()
