"""A run's state: put together for a checkpoint, and taken from one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainkit.checkpoint import (
    check_plain,
    find_latest,
    locate_checkpoint,
    read_checkpoint,
    set_aside_newer,
    write_checkpoint,
)
from trainkit.dataloader import num_batches
from trainkit.dist import all_gather_object, barrier, get_rank, is_main_process
from trainkit.errors import CheckpointError
from trainkit.model import trained_weights, unwrap
from trainkit.seed import get_rng_state

if TYPE_CHECKING:
    from trainkit.runner.runner import Runner

# Prefixes that wrappers of an earlier run put before every name: DistributedDataParallel's and
# torch.compile's.
WRAPPER_PREFIXES = ((r"^module\.", ""), (r"^_orig_mod\.", ""))


def save(
    runner: Runner,
    directory: Path,
    *,
    save_optimizer: bool = True,
    save_param_scheduler: bool = True,
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint of everything, and point ``last_checkpoint`` at it; all ranks call."""
    checkpoint = _state(runner, meta or {})
    if not save_optimizer:
        del checkpoint["optimizer"]
    if not save_param_scheduler:
        del checkpoint["param_schedulers"]
    runner.hooks.before_save_checkpoint(runner, checkpoint)
    ranks = all_gather_object({"rng": get_rng_state()})
    if is_main_process():
        files = {"model.pt": checkpoint.pop("state_dict"), "state.pt": checkpoint}
        files |= {f"rank_{rank}.pt": state for rank, state in enumerate(ranks)}
        facts = ("epoch", "iter", "trainkit_version", "torch_version")
        write_checkpoint(directory, files, {key: checkpoint["meta"][key] for key in facts})
        if not directory.name.startswith("best_"):
            (directory.parent / "last_checkpoint").write_text(f"{directory.name}\n")
    barrier()
    return directory


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
    dataset_meta = getattr(getattr(runner.train_dataloader, "dataset", None), "metainfo", None)
    try:
        check_plain(dataset_meta)
    except CheckpointError:
        return meta  # a description with arrays in it; nothing depends on it
    return {**meta, "dataset_meta": runner.redactor.facts(dataset_meta)}


def _scheduler_state(scheduler: Any) -> dict[str, Any]:
    return {
        "class": type(scheduler).__name__,
        "unit": scheduler.unit,
        "state": scheduler.state_dict(),
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
    path, problems = find_latest(runner.checkpoint_dir, own=own)
    for problem in problems:
        done = "It was set aside" if own else "It is passed over"
        runner.logger.warning("%s %s, and the checkpoint before it is used.", problem, done)
    return path


def load_weights(
    runner: Runner,
    path: Path,
    *,
    map_location: str | torch.device = "cpu",
    strict: bool = False,
    revise_keys: Sequence[tuple[str, str]] = WRAPPER_PREFIXES,
) -> dict[str, Any]:
    """Load a checkpoint's weights into the model; return the checkpoint.

    Raises:
        CheckpointError: The weights do not fit: any key if ``strict``, else no key at all.
    """
    checkpoint = read_checkpoint(path, map_location, get_rank())
    runner.hooks.after_load_checkpoint(runner, checkpoint)
    if runner.is_resuming and "ema_state_dict" in checkpoint:
        runner.logger.warning("%s holds an average that no hook keeps; it is left out.", path)
        checkpoint["state_dict"] = trained_weights(checkpoint.pop("ema_state_dict"))
    weights = {
        _renamed(name, revise_keys): value for name, value in checkpoint["state_dict"].items()
    }
    model = unwrap(runner.model)
    problems, fitting = _compare(model.state_dict(), weights)
    if problems and (strict or not fitting):
        raise CheckpointError(f"{path} does not fit {type(model).__name__}: {'; '.join(problems)}.")
    for problem in problems:
        runner.logger.warning("%s: %s", path, problem)
    model.load_state_dict(fitting, strict=False)
    return checkpoint


def _renamed(name: str, revise_keys: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in revise_keys:
        name = re.sub(pattern, replacement, name)
    return name


def _compare(own: Mapping[str, Any], loaded: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return what does not fit, in words, and the entries that do."""
    wrong_shape = [k for k in own.keys() & loaded.keys() if _shape(own[k]) != _shape(loaded[k])]
    missing = [k for k in own if k not in loaded and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in loaded if k not in own]
    shapes = [f"{k} {_shape(loaded[k])} for {_shape(own[k])}" for k in sorted(wrong_shape)]
    kinds = (
        ("missing in it", missing),
        ("not in the model", unexpected),
        ("of another shape", shapes),
    )
    fitting = {k: v for k, v in loaded.items() if k in own and k not in wrong_shape}
    return [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names], fitting


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def _some(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (
        f" and {len(names) - limit} more" if len(names) > limit else ""
    )


def resume(runner: Runner, path: Path) -> None:
    """Take the whole state of a run from a checkpoint.

    The config wins where it was changed since: learning rates, milestones, ``max_epochs`` and the
    like.

    Raises:
        CheckpointError: The weights or the optimizer's state do not fit, or it is no whole
            checkpoint.
    """
    checkpoint = load_weights(runner, path, strict=True)
    if "train_loop" not in checkpoint or "optimizer" not in checkpoint:
        raise CheckpointError(
            f"{path} holds weights only, so training cannot go on from it. Use load_from without "
            "resume."
        )
    loop = runner.train_loop
    _check_data(runner, checkpoint["train_loop"])
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
    for newer in set_aside_newer(runner.checkpoint_dir, loop.iter):
        runner.logger.warning("%s is newer than what is gone on from; it was set aside.", newer)
    runner.logger.info("Resumed from %s: epoch %d, iteration %d", path, loop.epoch, loop.iter)


def _check_data(runner: Runner, progress: Mapping[str, Any]) -> None:
    """Say so if an epoch has another number of batches than when the checkpoint was written."""
    before, now = progress.get("batches"), num_batches(runner.train_dataloader)
    if before is not None and before != now:
        runner.logger.warning(
            "An epoch had %s batches when the checkpoint was written and has %s now: iterations, "
            "and schedules that count them, no longer stand for the same epochs.",
            before,
            now,
        )


def _resume_schedulers(runner: Runner, states: Sequence[Mapping[str, Any]]) -> None:
    """Set each scheduler's step: the saved one if it is the same, else the loop's count."""
    loop = runner.train_loop
    for index, scheduler in enumerate(runner.param_schedulers):
        saved = states[index] if index < len(states) else {}
        same = (saved.get("class"), saved.get("unit")) == (type(scheduler).__name__, scheduler.unit)
        counted = {"epoch": loop.epoch, "iteration": loop.iter}.get(scheduler.unit)
        counted = scheduler.updates_made if counted is None else counted
        scheduler.load_state_dict(saved["state"] if same else {"last_step": counted})
