"""A run's state: put together for a checkpoint, and taken from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainkit.checkpoint import (
    check_plain,
    compact,
    find_latest,
    locate_checkpoint,
    non_finite,
    point_to,
    read_manifest,
    set_aside_newer,
    write_checkpoint,
)
from trainkit.checkpoint.fit import some
from trainkit.dataloader import num_batches
from trainkit.dist import all_gather_object, is_main_process, on_main
from trainkit.errors import CheckpointError
from trainkit.model import unwrap
from trainkit.optim_wrapper import load_gradients, open_gradients
from trainkit.runner.load import LoadOptions, load_weights
from trainkit.runner.settings import scheduler_settings, take_settings
from trainkit.seed import get_rng_state

if TYPE_CHECKING:
    from trainkit.runner.runner import Runner


def save(
    runner: Runner,
    directory: Path,
    *,
    save_optimizer: bool = True,
    save_param_scheduler: bool = True,
    meta: Mapping[str, Any] | None = None,
    background: bool = False,
    then: Callable[[], None] = lambda: None,
) -> Path:
    """Write a checkpoint of everything, and point ``last_checkpoint`` at it; all ranks call.

    Args:
        runner: The runner.
        directory: The checkpoint's path.
        save_optimizer: Save what resuming needs of the optimizer.
        save_param_scheduler: Save what resuming needs of the schedulers.
        meta: Further entries of ``meta``.
        background: Copy the state and return; see ``runner.checkpoint_writer``.
        then: Called on every rank once the checkpoint stands.
    """
    runner.checkpoint_writer.settle(wait=True)  # hooks may have to say that an older one is gone
    checkpoint = _state(runner, meta or {})
    if not save_optimizer:
        del checkpoint["optimizer"]
    if not save_param_scheduler:
        del checkpoint["param_schedulers"]
    runner.hooks.before_save_checkpoint(runner, checkpoint)
    own: dict[str, Any] = {"rng": get_rng_state()}
    gradients = open_gradients(runner.optim_wrapper)
    if gradients:  # each rank has its own until a window ends
        own["gradients"] = {name: gradient.cpu() for name, gradient in gradients.items()}
    if runner.world_size > 1:  # such as the statistics of batch norms
        own["buffers"] = {name: value.cpu() for name, value in _buffers(runner).items()}
    ranks = all_gather_object(own)
    files = {"model.pt": checkpoint.pop("state_dict"), "state.pt": checkpoint}
    files |= {f"rank_{rank}.pt": state for rank, state in enumerate(ranks)}

    def prepare() -> Callable[[], None]:
        for name, state in files.items():
            check_plain(state, name.removesuffix(".pt"))
        taken = runner.checkpoint_writer.snapshot.take(files) if background else files
        return partial(_write, runner, directory, taken)

    runner.checkpoint_writer.write(
        prepare if is_main_process() else None, then, background=background
    )
    return directory


def _write(runner: Runner, directory: Path, files: Mapping[str, Any]) -> None:
    """Write a checkpoint; this may run in a thread of its own."""
    state = compact(files)
    bad = _non_finite(runner, state)
    meta, facts = state["state.pt"]["meta"], ("epoch", "iter", "trainkit_version", "torch_version")
    told = {key: meta[key] for key in (*facts, "scheduled") if key in meta}
    write_checkpoint(directory, state, {**told, "non_finite": bad})
    if bad:
        runner.logger.warning(
            "%s has NaN or infinity in its weights (%s). The newest without is kept, and a resume "
            "goes on from there.",
            directory,
            some(bad),
        )
    if not directory.name.startswith(("best_", "failed_")):
        point_to(directory)


def _non_finite(runner: Runner, files: Mapping[str, Any]) -> list[str]:
    """Return the names of weights, and of averages of them, that are not finite."""
    # In a buffer, infinity may be meant: attention masks have it.
    buffers = {name for name, _ in unwrap(runner.model).named_buffers(remove_duplicate=False)}
    other = files["state.pt"].get("ema_state_dict", {})
    other = {name.removeprefix("module."): value for name, value in other.items()}
    names = [name for each in (files["model.pt"], other) for name in non_finite(each, buffers)]
    return list(dict.fromkeys(names))


def _state(runner: Runner, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of every part, under MMEngine's names where it has one."""
    progress = runner.train_loop.state_dict()
    counters = {"epoch": progress["epoch"], "iter": progress["iter"]}
    return {
        "meta": {**_meta(runner), **counters, **meta},
        "state_dict": unwrap(runner.model).state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "param_schedulers": [_scheduler_state(s) for s in runner.param_schedulers],
        "message_hub": runner.message_hub.state_dict(),
        "train_loop": progress,
        "end": {"by_epoch": runner.by_epoch, "last": getattr(runner.train_loop, "last", None)},
        "hooks": runner.hooks.state_dict(),
        "visualizer": runner.visualizer.state_dict(),
    }


def _meta(runner: Runner) -> dict[str, Any]:
    from trainkit import __version__

    meta: dict[str, Any] = {
        "seed": runner.seed,
        "experiment_name": runner.redactor.text(runner.experiment_name),
        "cfg": runner.config_text,
        "trainkit_version": __version__,
        "torch_version": str(torch.__version__),
        "world_size": runner.world_size,
    }
    return {**meta, **_dataset_meta(runner)}


def _dataset_meta(runner: Runner) -> dict[str, Any]:
    """Return what the training data says of itself, as ``{"dataset_meta": ...}``."""
    dataset_meta = getattr(getattr(runner.train_dataloader, "dataset", None), "metainfo", None)
    try:
        check_plain(dataset_meta)
    except CheckpointError:
        return {}  # a description with arrays in it; nothing depends on it
    return {"dataset_meta": runner.redactor.facts(dataset_meta)}


def _scheduler_state(scheduler: Any) -> dict[str, Any]:
    return {
        "class": type(scheduler).__name__,
        "unit": scheduler.unit,
        "state": scheduler.state_dict(),
        "settings": scheduler_settings(scheduler),
    }


def find(runner: Runner, purpose: str) -> Path | None:
    """Return the checkpoint that ``load_from`` and ``resume`` mean, or the run's newest.

    ============  =========  =======================================
    resume        load_from  meaning
    ============  =========  =======================================
    False         None       start anew
    False         path       start anew from the weights
    True          None       go on from the newest in ``work_dir``
    True          path       go on from that one
    ============  =========  =======================================

    Raises:
        CheckpointError: ``load_from`` names none; none in ``work_dir`` is good; an evaluation has
            no weights.
    """
    path = _meant(runner, purpose)
    if path is None and purpose == "train" and runner.resume_wanted:
        _leave_behind(runner, 0, asked=False)  # a best one of an attempt that came to no other
    bad = read_manifest(path).get("non_finite") if path is not None and path.is_dir() else None
    if bad:
        runner.logger.warning(
            "%s, which is used, has NaN or infinity in its weights (%s).", path, some(bad)
        )
    return path


def _meant(runner: Runner, purpose: str) -> Path | None:
    if runner.load_from is not None:
        named = locate_checkpoint(runner.load_from)
        foreign = named.parent.resolve() != runner.checkpoint_dir.resolve()
        if not (purpose == "train" and runner.resume_wanted and foreign):
            return named
        # The same command again: the run has checkpoints of its own by now.
        return _newest(runner, own=True) or named
    if not runner.resume_wanted and purpose == "train":
        return None
    path = _newest(runner, own=purpose == "train")
    if path is None and purpose != "train":
        raise CheckpointError(
            f"There is no checkpoint in {runner.checkpoint_dir} to {purpose}. Give load_from=..., "
            "or train first. (From Python, the weights that the model has now: "
            f"runner.{purpose}(load=False).)"
        )
    return path


def _newest(runner: Runner, *, own: bool) -> Path | None:
    runner.checkpoint_writer.settle(wait=True)
    path, problems = on_main(lambda: find_latest(runner.checkpoint_dir, own=own))
    for problem in problems:
        done = "It was set aside" if own else "It is passed over"
        runner.logger.warning("%s %s, and the checkpoint before it is used.", problem, done)
    return path


def resume(runner: Runner, path: Path) -> None:
    """Take the whole state of a run from a checkpoint.

    The config wins where it was changed since (learning rates, milestones, ``max_epochs`` and the
    like), unless ``resume_with`` is ``"checkpoint"``.

    Raises:
        CheckpointError: The weights or the optimizer's state do not fit, or it is no whole
            checkpoint.
    """
    checkpoint = load_weights(runner, path, options=LoadOptions(strict=True))
    if "train_loop" not in checkpoint or "optimizer" not in checkpoint:
        raise CheckpointError(
            f"{path} holds weights only, so training cannot go on from it. Use load_from without "
            "resume."
        )
    if runner.resume_with == "checkpoint":
        take_settings(runner, checkpoint, path)
    loop = runner.train_loop
    _check_data(runner, checkpoint)
    loop.load_state_dict(checkpoint["train_loop"])
    if checkpoint["meta"].get("seed") != runner.seed:
        seed = checkpoint["meta"].get("seed")
        runner.logger.warning(
            "The run began with seed %s; it goes on with its own random state, not seed %s.",
            seed,
            runner.seed,
        )
    runner.message_hub.load_state_dict(checkpoint["message_hub"])
    try:
        runner.optim_wrapper.load_state_dict(checkpoint["optimizer"])
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: the optimizer's state does not fit: {error}. Use load_from without resume."
        ) from None
    _resume_schedulers(runner, checkpoint.get("param_schedulers", []))
    runner.hooks.load_state_dict(checkpoint["hooks"])
    runner.visualizer.load_state_dict(checkpoint.get("visualizer", {}))
    runner.resumed_rng = checkpoint.get("rank", {}).get("rng")
    _resume_gradients(runner, checkpoint)
    _resume_buffers(runner, checkpoint)
    _leave_behind(runner, loop.iter, asked=_is_named(runner, path))
    runner.logger.info("Resumed from %s: epoch %d, iteration %d", path, loop.epoch, loop.iter)


def _is_named(runner: Runner, path: Path) -> bool:
    """Whether someone has named that checkpoint of this run to go on from."""
    is_own = path.parent.resolve() == runner.checkpoint_dir.resolve()
    return is_own and runner.load_from is not None and locate_checkpoint(runner.load_from) == path


def _leave_behind(runner: Runner, iteration: int, *, asked: bool) -> None:
    """Set aside what an earlier attempt has made after ``iteration``."""
    directory = runner.checkpoint_dir
    for newer in on_main(lambda: set_aside_newer(directory, iteration, asked=asked)):
        runner.logger.warning("%s is newer than what is gone on from; it was set aside.", newer)


def _resume_gradients(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Take the gradients of a window in which the checkpoint was written."""
    gradients = checkpoint.get("rank", {}).get("gradients", {})
    if gradients and checkpoint["meta"].get("world_size", 1) == runner.world_size:
        load_gradients(runner.optim_wrapper, gradients)
    elif runner.optim_wrapper.is_accumulating:
        runner.logger.warning(
            "The checkpoint was written inside a window of accumulated gradients, and holds none "
            "for this number of ranks: the window's update is smaller."
        )


def _buffers(runner: Runner) -> dict[str, torch.Tensor]:
    """Return the model's buffers that a state dict has."""
    model = unwrap(runner.model)
    kept = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in kept}


def _resume_buffers(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Take this rank's own buffers, if the checkpoint is of as many ranks."""
    saved = checkpoint.get("rank", {}).get("buffers", {})
    if checkpoint["meta"].get("world_size", 1) == runner.world_size:
        for name, buffer in _buffers(runner).items():
            if name in saved:
                buffer.copy_(saved[name])


def _check_data(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Say so if the training data is other data than when the checkpoint was written."""
    before, now = checkpoint["train_loop"].get("batches"), num_batches(runner.train_dataloader)
    if before is not None and before != now:
        runner.logger.warning(
            "An epoch had %s batches when the checkpoint was written and has %s now: iterations, "
            "and schedules that count them, no longer stand for the same epochs.",
            before,
            now,
        )
    old, new = checkpoint["meta"].get("dataset_meta"), _dataset_meta(runner).get("dataset_meta")
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys(), key=str):
            was, says = repr(old.get(key)), repr(new.get(key))
            if was != says:
                runner.logger.warning(
                    "The training data says %s of its %s; it said %s when the checkpoint was "
                    "written.",
                    *(_shortened(says), key, _shortened(was)),
                )


def _shortened(text: str, limit: int = 100) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _resume_schedulers(runner: Runner, states: Sequence[Mapping[str, Any]]) -> None:
    """Set each scheduler's step: the saved one if it is the same, else the loop's count."""
    loop = runner.train_loop
    for index, scheduler in enumerate(runner.param_schedulers):
        saved = states[index] if index < len(states) else {}
        same = (saved.get("class"), saved.get("unit")) == (type(scheduler).__name__, scheduler.unit)
        counted = {"epoch": loop.epoch, "iteration": loop.iter}.get(scheduler.unit)
        counted = scheduler.updates_made if counted is None else counted
        scheduler.load_state_dict(saved["state"] if same else {"last_step": counted})
