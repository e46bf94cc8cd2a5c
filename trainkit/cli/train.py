"""``trainkit train``, the default command: find the run's directory, and train in it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.config.compose import make_request
from trainkit.config.findings import told_with_origin
from trainkit.config.schema import TrainConfig
from trainkit.config.secrets import redact, redact_override
from trainkit.errors import CheckpointError, ConfigError
from trainkit.run_dir import (
    NO_IDENTITY,
    digest,
    experiment_directory,
    find_run,
    has_identity,
    identity,
    make_unique,
    make_writable,
    new_run_directory,
    next_number,
    read_status,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trainkit.config.origins import Origins


def train(
    config: TrainConfig | DictConfig | None = None,
    overrides: Sequence[str] = (),
    *,
    config_name: str = "config",
    config_dirs: Sequence[str | Path] = (),
) -> float | None:
    """Train one config, in a new directory or that of the run it goes on with; return its metric.

    This is what ``python -m trainkit`` does::

        train(TrainConfig(train_cfg=EpochBasedTrainLoopConfig(max_epochs=3)), ["optim_wrapper=amp"])

    Args:
        config: Fields that are given in Python; or a config that is composed already, as in an own
            ``@hydra.main``.
        overrides: As on the command line; they apply after ``config``.
        config_name: The primary config.
        config_dirs: Directories whose groups and options are added to trainkit's own.

    Raises:
        ConfigError: It tells every mistake in the config at once, before anything is built.
    """
    if config is not None and not isinstance(config, TrainConfig):
        if config_name != "config" or config_dirs:
            raise ConfigError(
                "train() got a composed config and config_name or config_dirs; they are for "
                "composing one."
            )
        return _train_composed(config, overrides)
    request = make_request(overrides, config, config_name, config_dirs)
    from trainkit.runner.check import compose_checked

    composed = compose_checked(request)
    assert composed.cfg is not None, "what has no mistake composes"
    given = [] if config is None else request.facts()
    primary = [] if config_name == "config" else [f"config_name={config_name}"]
    return _train(composed.cfg, [*given, *overrides], composed.origins, primary)


def _train_composed(cfg: DictConfig, overrides: Sequence[str]) -> float | None:
    """Train a config that was composed elsewhere; Hydra's job, if there is one, has overrides."""
    from hydra.core.hydra_config import HydraConfig

    from trainkit.config import is_config
    from trainkit.config.findings import raise_findings
    from trainkit.config.signature import with_article
    from trainkit.runner.check import find_mistakes

    if not is_config(cfg):
        kind = with_article(type(cfg).__name__)
        raise ConfigError(f"train() got {kind}; expected a TrainConfig, or a composed config.")
    if overrides:
        raise ConfigError(
            "train() got a composed config and overrides; give the overrides where it is composed."
        )
    raise_findings(find_mistakes(cfg))
    if HydraConfig.initialized():
        job = HydraConfig.get()
        own = [f"config_name={job.job.config_name}"]
        return _train(cfg, list(job.overrides.task), lambda: None, own)
    return _train(cfg, [], lambda: None, [f"config={_digest_of(cfg)}"])


def _digest_of(cfg: DictConfig) -> str:
    """Return in one word what a config says of the run, apart from where and how it is started."""
    from omegaconf import OmegaConf

    said = {key: value for key, value in cfg.items_ex(resolve=False) if key not in NO_IDENTITY}
    return digest([OmegaConf.to_yaml(said, sort_keys=True)])[:16]


def _train(
    cfg: DictConfig,
    overrides: Sequence[str],
    origins: Callable[[], Origins | None],
    own: Sequence[str],
) -> float | None:
    """Train; ``own`` is what else, beside experiment and overrides, makes it the same run."""
    from trainkit.dist import on_main  # imports torch
    from trainkit.launch import process_group

    wanted = identity(str(cfg.get("experiment_name")), [*overrides, *own])
    with process_group(cfg.get("launcher", "auto"), cfg.get("env")):
        run, load_from, resume = on_main(lambda: _choose_run(cfg, wanted))
        goes_on = run if resume and load_from is None else None
        if goes_on is not None and on_main(partial(_is_finished, goes_on, wanted)):
            return on_main(partial(_tell_finished, goes_on, cfg))
        with told_with_origin(origins):
            return train_in(cfg, run, wanted, overrides, resume=resume, load_from=load_from)


def _tell_finished(run: Path, cfg: DictConfig) -> float | None:
    metric = objective(run)
    shown = "" if metric is None else f" Its metric: {metric:.4f}."
    changed = _changed_since(run, cfg)
    print(
        f"{run} is finished already, so there is nothing to resume.{shown} resume=fresh starts "
        "a new run."
        + (f" Its config had other values of {changed}; resume={run} takes yours." * bool(changed))
    )
    return metric


def _changed_since(run: Path, cfg: DictConfig) -> str:
    """Return the keys whose values in files have changed since a run, as a text."""
    import yaml

    from trainkit.cli.diff import differing, flat
    from trainkit.config.secrets import Redactor, as_yaml

    try:
        before = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return ""
    sides = (before, yaml.safe_load(as_yaml(cfg, Redactor(cfg))))
    keys = [key for key in differing(*(dict(flat(side)) for side in sides))]
    return ", ".join(key for key in keys if key.partition(".")[0] not in NO_IDENTITY)


def train_in(
    cfg: Any,
    run: Path | None,
    wanted: Sequence[str],
    overrides: Sequence[str],
    *,
    resume: bool = False,
    load_from: str | None = None,
    **facts: Any,
) -> float | None:
    """Train a config that was checked in the directory ``run``, or in a new one.

    Every rank calls it; rank 0 finds the directory.

    Args:
        cfg: The config.
        run: The directory; None: a new one.
        wanted: The run's identity.
        overrides: What is recorded as given.
        resume: Go on from ``load_from``, or from the newest checkpoint in ``run``.
        load_from: Weights to start from; None: as the config says.
        facts: What else ``status.json`` says of the run.

    Returns:
        What the run is judged by, see :func:`objective`.

    Raises:
        Preempted: A signal or a limit has ended training; it is saved.
    """
    from trainkit.dist import on_main
    from trainkit.runner import Runner  # imports torch
    from trainkit.runner.from_config import make
    from trainkit.runner.interrupt import Interrupts

    with Interrupts() as interrupts:
        with _run_directory(cfg, run) as directory:
            start = cfg.get("load_from") if load_from is None else load_from
            runner = make(Runner, cfg, work_dir=str(directory), resume=resume, load_from=start)
            runner.interrupts = interrupts
            runner.build_training()
        runner.record_facts = {
            "identity": [redact_override(text) for text in wanted],
            "identity_digest": digest(wanted),
            "overrides": [redact_override(text) for text in overrides],
            "tags": redact(list(cfg.get("tags") or ())),
            **_numbered(directory, experiment_directory(cfg.get("experiment_name"))),
            **facts,
        }
        runner.train()
    return on_main(lambda: objective(directory))


def _numbered(run: Path, home: Path) -> dict[str, int]:
    """Return the number of a run that has none yet."""
    return {} if "number" in read_status(run) else {"number": next_number(home)}


@contextlib.contextmanager
def _run_directory(cfg: Any, run: Path | None) -> Iterator[Path]:
    """Give every rank the directory of a run, which rank 0 sees to."""
    from trainkit.dist import on_main

    with contextlib.ExitStack() as stack:
        yield on_main(lambda: stack.enter_context(_made(cfg, run)))


@contextlib.contextmanager
def _made(cfg: Any, run: Path | None) -> Iterator[Path]:
    """Give the directory of a run; what is new goes again if what is done meanwhile fails."""
    place = experiment_directory(cfg.get("experiment_name")) if run is None else run
    made = [directory for directory in (place, *place.parents) if not directory.exists()]
    directory = new_run_directory(cfg.get("experiment_name")) if run is None else run
    try:
        make_writable(directory)
        yield directory
    except BaseException:
        if run is None:
            shutil.rmtree(directory)
        for empty in made:
            with contextlib.suppress(OSError):  # another run is in it by now
                empty.rmdir()
        raise


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
    named = None if cfg.get("work_dir") is None else Path(str(cfg.work_dir))
    if resume == "fresh" and named is not None and "started" in read_status(named):
        fresh = make_unique(named.parent, named.name)
        print(f"resume=fresh: {named} holds a run, so this one is in {fresh}.")
        return fresh, None, False
    if resume in (None, False, "fresh"):
        return named, None, False
    if resume is True:
        home = experiment_directory(wanted[0])
        found = named or find_run(home, wanted)
        if found is None:
            print(f"resume=true: no earlier run of {' '.join(wanted)} in {home}; starting afresh.")
        return found, None, True
    if cfg.get("load_from") is not None:
        raise ConfigError(
            f"resume is {resume!r} and load_from is {cfg.load_from!r}; both name where to start. "
            "Drop one."
        )
    return _run_of(str(resume), named)


def _run_of(resume: str, named: Path | None) -> tuple[Path, str | None, bool]:
    path = Path(resume).expanduser()
    if not os.path.exists(path):  # which takes a name that is too long for one that is not there
        path = _checkpoint_of(resume)
    if path.name.startswith("sweep_") and not (path / "status.json").exists():
        raise CheckpointError(
            f"resume is {resume!r}, a sweep; expected one of its runs: resume={resume}/<trial>."
        )
    is_run = (path / "checkpoints").is_dir() or (path / "status.json").exists()
    if is_run:
        return path, None, True
    own = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return named or own, str(path), True


def _checkpoint_of(resume: str) -> Path:
    """Return the checkpoint that is spelt in another way, such as ``<run>/epoch_5.pth``."""
    from trainkit.checkpoint import locate_checkpoint  # imports torch

    try:
        return locate_checkpoint(resume)
    except CheckpointError:
        raise CheckpointError(
            f"resume is {resume!r}, which does not exist. Expected true, fresh, a run or a "
            "checkpoint."
        ) from None


def _is_finished(run: Path, wanted: Sequence[str]) -> bool:
    status = read_status(run)
    return status.get("status") == "finished" and has_identity(status, wanted)
