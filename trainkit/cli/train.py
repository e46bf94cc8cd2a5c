"""``trainkit train``, the default command: find the run's directory, and train in it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.cli.arguments import Arguments
from trainkit.config import compose
from trainkit.config.secrets import redact, redact_override
from trainkit.errors import CheckpointError, ConfigError
from trainkit.run_dir import (
    digest,
    find_run,
    has_identity,
    identity,
    make_unique,
    read_status,
    safe_name,
    timestamp,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

OUTPUTS = Path("outputs")


def train(given: Arguments) -> float | None:
    """Train one config, in a new directory or that of the run it goes on with."""
    cfg = compose(given.overrides, config_name=given.config_name, config_dirs=given.config_dirs)
    if not cfg.get("experiment_name"):
        raise ConfigError("The config has no experiment_name, under which its runs are kept.")
    wanted = identity(str(cfg.get("experiment_name")), given.overrides)
    run, load_from, resume = _choose_run(cfg, wanted)
    if run is not None and resume and load_from is None and _is_finished(run, wanted):
        metric = objective(run)
        shown = "" if metric is None else f" Its metric: {metric:.4f}."
        print(
            f"{run} is finished already, so there is nothing to resume.{shown} resume=fresh starts "
            "a new run."
        )
        return metric
    return train_in(cfg, run, wanted, given.overrides, resume=resume, load_from=load_from)


def train_in(
    cfg: DictConfig,
    run: Path | None,
    wanted: Sequence[str],
    overrides: Sequence[str],
    *,
    resume: bool = False,
    load_from: str | None = None,
) -> float | None:
    """Train a config in the directory ``run``, or in a new one; return its metric."""
    from trainkit.runner import (
        Runner,
    )  # imports torch, which a mistake in the config need not wait for

    fresh = run is None
    if run is None:
        run = make_unique(OUTPUTS / safe_name(str(cfg.get("experiment_name"))), timestamp())
    try:
        start = cfg.get("load_from") if load_from is None else load_from
        runner = Runner.from_cfg(cfg, work_dir=str(run), resume=resume, load_from=start)
        runner.build_training()
    except BaseException:
        if fresh:
            shutil.rmtree(run)
        raise
    runner.record_facts = {
        "identity": [redact_override(text) for text in wanted],
        "identity_digest": digest(wanted),
        "overrides": [redact_override(text) for text in overrides],
        "tags": redact(list(cfg.get("tags") or ())),
    }
    runner.train()
    return objective(run)


def objective(run: Path) -> float | None:
    """Return what a run is judged by: the best value of its first metric, else the last."""
    status = read_status(run)
    for entry in (status.get("best") or {}).values():
        return float(entry["value"])
    for value in (status.get("metrics") or {}).values():
        return float(value)
    return None


def _choose_run(cfg: DictConfig, wanted: Sequence[str]) -> tuple[Path | None, str | None, bool]:
    """Return where to train, the checkpoint to go on from, and whether to resume.

    None stands for a new directory, and for the newest checkpoint of the run.
    """
    resume = cfg.get("resume")
    if cfg.get("work_dir") == "":
        raise ConfigError("work_dir is empty; expected a directory, or null for a new one.")
    named = None if cfg.get("work_dir") is None else Path(str(cfg.work_dir))
    if resume in (None, False, "fresh"):
        return named, None, False
    if resume is True:
        found = named or find_run(OUTPUTS / safe_name(wanted[0]), wanted)
        if found is None:
            print(
                f"resume=true: no earlier run of {' '.join(wanted)} in "
                f"{OUTPUTS / safe_name(wanted[0])}; starting afresh."
            )
        return found, None, True
    if cfg.get("load_from") is not None:
        raise ConfigError(
            f"resume is {resume!r} and load_from is {cfg.load_from!r}; both name where to start. "
            "Drop one."
        )
    return _run_of(str(resume), named)


def _run_of(resume: str, named: Path | None) -> tuple[Path, str | None, bool]:
    path = Path(resume).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"resume is {resume!r}, which does not exist. Expected true, fresh, a run or a "
            "checkpoint."
        )
    if path.name.startswith("sweep_") and not (path / "status.json").exists():
        raise CheckpointError(
            f"resume is {resume!r}, a sweep; expected one of its runs: resume={resume}/<trial>."
        )
    is_run = (path / "checkpoints").is_dir() or (path / "status.json").exists()
    if is_run:
        return path, None, True
    own = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return named or own, str(path), True


def _is_finished(run: Path, wanted: Sequence[str]) -> bool:
    status = read_status(run)
    return status.get("status") == "finished" and has_identity(status, wanted)
