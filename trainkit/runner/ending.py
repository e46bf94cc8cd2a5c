"""How training ends before its end: asked to, or by an error. What it had come to is saved."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainkit.checkpoint import list_checkpoints, read_manifest, remove_checkpoint
from trainkit.dist import is_main_process, on_main
from trainkit.errors import CheckpointError, Preempted
from trainkit.hooks import CheckpointHook
from trainkit.log import FILE_ONLY
from trainkit.optim_wrapper import OptimWrapperDict
from trainkit.run_dir import lock

if TYPE_CHECKING:
    from trainkit.runner.runner import Runner

_FAILED = "failed_iter_"
_GIB = 2**30


@contextlib.contextmanager
def recorded(runner: Runner) -> Iterator[None]:
    """Keep ``status.json``, so that it says how the run ended."""
    if not is_main_process():
        with _told(runner):
            yield
        return
    facts = {"experiment_name": runner.experiment_name, "seed": runner.seed}
    runner.record.begin(**facts, **runner.record_facts)
    try:
        yield
    except Preempted as stop:
        runner.logger.warning("%s", stop, extra=FILE_ONLY)  # who catches it shows it
        runner.record.end("preempted", reason=stop.reason, checkpoint=stop.checkpoint)
        raise
    except KeyboardInterrupt:
        runner.logger.warning("Stopped by Ctrl-C. resume=true goes on from the last checkpoint.")
        runner.record.end("failed", error="KeyboardInterrupt")
        raise
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        runner.logger.error("The run failed: %s", text, exc_info=True, extra=FILE_ONLY)
        runner.record.end("failed", error=text)
        raise
    runner.record.end("finished")


@contextlib.contextmanager
def _told(runner: Runner) -> Iterator[None]:
    """Log an error on a rank that keeps no ``status.json``."""
    try:
        yield
    except Exception as error:
        runner.logger.error("This rank failed: %s", error, exc_info=True, extra=FILE_ONLY)
        raise


@contextlib.contextmanager
def locked(runner: Runner) -> Iterator[None]:
    """Keep other processes out of the run's directory; rank 0 holds the lock for all ranks."""
    with contextlib.ExitStack() as stack:
        on_main(lambda: stack.enter_context(lock(runner.work_dir)))
        yield


@contextlib.contextmanager
def saved(runner: Runner) -> Iterator[None]:
    """Train meanwhile; save where training stands if it is asked to end, or an error ends it.

    Raises:
        Preempted: It was asked to end.
    """
    try:
        yield
        _tell_open_windows(runner)
    except Preempted as request:
        if not runner.is_exact:  # of another run, trained inside a step of this one
            raise
        raise _preempted(runner, request.reason) from None
    except CheckpointError:
        raise  # what could not be written just now cannot be written now
    except Exception as error:
        reason = runner.interrupts.reason
        if reason is not None and runner.is_exact and not runner.interrupts.several:
            # Such as data workers that got the signal too.
            runner.logger.warning(
                "%s came, and then %s: %s", reason, type(error).__name__, error, extra=FILE_ONLY
            )
            raise _preempted(runner, reason) from error
        _explain_memory(runner, error)
        _rescue(runner, error)
        raise


def _tell_open_windows(runner: Runner) -> None:
    """Say that gradients were accumulated for an update that never came."""
    wrapper = runner.optim_wrapper
    for name, each in (wrapper if isinstance(wrapper, OptimWrapperDict) else {"": wrapper}).items():
        if each.is_accumulating:
            runner.logger.warning(
                "Training ended in the midst of a window of accumulative_counts=%d%s: the "
                "gradients of its last passes made no update.",
                each.accumulative_counts,
                f" of the optimizer {name}" if name else "",
            )


def _preempted(runner: Runner, reason: str) -> Preempted:
    """Save, and return what is to be raised."""
    path = _save_here(runner)
    if path is None:
        text = (
            f"Stopped by {reason} before the first iteration, so there is nothing to save. The "
            f"same command with resume=true starts again, in {runner.work_dir}."
        )
        return Preempted(text, reason)
    text = (
        f"Stopped by {reason} after iteration {runner.iter} of {runner.max_iters}; it is saved as "
        f"{path}. The same command with resume=true goes on from there."
    )
    return Preempted(text, reason, path.name)


def _save_here(runner: Runner) -> Path | None:
    """Save where training stands, unless it is saved, or nothing was trained; return where."""
    if runner.iter == 0:
        return None
    hooks = runner.hooks.hooks.values()
    own = next((hook for hook in hooks if isinstance(hook, CheckpointHook)), CheckpointHook())
    return own.save_here(runner)


def _rescue(runner: Runner, error: Exception) -> None:
    """Save what the error would lose, and say in the error and the log what there is."""
    if runner.interrupts.several:
        _add_note(runner, error, f"{_place(runner)} Nothing is saved then.")
        return
    try:
        note = _rescued(runner)
    except Exception as failure:  # the first error is the one to be seen
        note = f"What was trained could not be saved: {type(failure).__name__}: {failure}"
    if note:
        _add_note(runner, error, note)


def _place(runner: Runner) -> str:
    return (
        f"This came on rank {runner.rank} of {runner.world_size}. Where it tells of a connection, "
        f"another rank has ended before; the logs of all are in {runner.work_dir}."
    )


def _rescued(runner: Runner) -> str:
    finish_writing(runner)
    done = runner.train_loop.iters_done
    standing = list_checkpoints(runner.checkpoint_dir)
    if done == 0 or (not runner.is_exact and standing and _iteration(standing[-1]) == done):
        return ""
    if runner.is_exact:
        path = _save_here(runner)
        bad = path is not None and read_manifest(path).get("non_finite")
        place = "there" if not bad else "from the newest whose weights are finite"
        return (
            f"Training stood after iteration {done}, saved as {path}. resume=true goes on {place}."
        )
    path = runner.save_checkpoint(runner.checkpoint_dir, f"{_FAILED}{done}")
    for older in path.parent.glob(f"{_FAILED}*"):
        if older != path:
            remove_checkpoint(older)
    last = f"goes on from {standing[-1].name}" if standing else "starts anew"
    return (
        f"The error came inside a step, so the state after iteration {done} is not exact. It is "
        f"kept as {path}, for resume={path}; resume=true {last}."
    )


def finish_writing(runner: Runner) -> None:
    """Wait for a checkpoint that is being written, and log why it failed, if it did."""
    failure = runner.checkpoint_writer.close()
    if failure is not None:
        runner.logger.error("%s", failure)


def _iteration(checkpoint: Path) -> int:
    return int(read_manifest(checkpoint)["iter"])


def _add_note(runner: Runner, error: Exception, note: str) -> None:
    """Say something after the traceback; before it, nothing is printed."""
    runner.logger.warning("%s", note, extra=FILE_ONLY)
    if hasattr(error, "add_note"):  # since Python 3.11
        error.add_note(note)


def _explain_memory(runner: Runner, error: Exception) -> None:
    """Tell an error of memory how much was in use, and what needs less."""
    on_cpu = "can't allocate memory" in str(error)  # torch's own, a plain RuntimeError
    if not (on_cpu or isinstance(error, MemoryError | torch.OutOfMemoryError)):
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB  # Linux counts in KiB
    used = f"This process had up to {peak:.1f} GiB of the machine's memory"
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        used += (
            f"; on the GPU {torch.cuda.memory_allocated() / _GIB:.1f} GiB in tensors, "
            f"{torch.cuda.memory_reserved() / _GIB:.1f} GiB reserved, {free / _GIB:.1f} GiB of "
            f"{total / _GIB:.1f} free"
        )
    advice = (
        "A smaller dataloader.train.batch_size with optim_wrapper.accumulative_counts trains on "
        "as many samples per update; amp=true and activation_checkpointing=[...] need less."
    )
    _add_note(runner, error, f"{used}. {advice}")
