"""``-m``: one run for each combination of swept values, by Hydra's sweepers and launchers."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from trainkit.cli.arguments import Arguments
from trainkit.cli.hydra_app import run
from trainkit.cli.train import objective, train_in
from trainkit.config.loader import hydra_loader, parse_override
from trainkit.config.secrets import Redactor, redact_override
from trainkit.errors import ConfigError, Preempted, TrainkitError
from trainkit.launch.environment import refuse_ranks
from trainkit.run_dir import (
    RunRecord,
    experiment_directory,
    identity,
    make_unique,
    read_status,
    safe_name,
    timestamp,
)

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig


def sweep(given: Arguments) -> None:
    """Check every trial, then run them all; print a line for each with its metric.

    A trial that fails does not stop the others; the first error is raised once all are done. One
    that is asked to end is saved, and ends the sweep.
    """
    refuse_ranks("A sweep")
    if any(text.lstrip("+").startswith("hydra.sweep.") for text in given.overrides):
        raise ConfigError("hydra.sweep.* is trainkit's; name the sweep's directory with work_dir=.")
    first = check_trials(given)
    if first.get("resume") not in (None, False):
        raise ConfigError(
            "A sweep starts new runs; it cannot resume. Resume one of its runs: "
            "resume=<sweep>/<trial>."
        )
    named = first.get("work_dir")
    base = experiment_directory(first.get("experiment_name"))
    directory = (
        make_unique(base, f"sweep_{timestamp()}")
        if named is None
        else _new_directory(Path(str(named)))
    )
    # Hydra's record of a sweep, which would hold secrets in clear; each trial has its own.
    record = directory / "multirun.yaml"
    record.symlink_to(os.devnull)
    try:
        run(
            given,
            _trial,
            flags=["--multirun"],
            overrides=(f"hydra.sweep.dir={_quoted(str(directory.absolute()))}",),
        )
    finally:
        record.unlink(missing_ok=True)
        _print_results(directory)


def _quoted(text: str) -> str:
    """Return a text as Hydra reads it back from an override."""
    text = text.replace("${", r"\${")
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), text) + "'"


def _new_directory(path: Path) -> Path:
    """Make and return the directory that ``work_dir`` names for a sweep."""
    made = make_unique(path.parent, path.name)
    if made != path:
        made.rmdir()
        raise ConfigError(
            f"work_dir is {str(path)!r}, which exists already. A sweep needs a directory of its "
            "own."
        )
    return made


def _trial(cfg: DictConfig) -> float | None:
    """Run one trial; Hydra calls this in whatever process its launcher uses."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    redactor = Redactor(cfg)
    shown = [redactor.text(redact_override(text)) for text in overrides]
    directory = make_unique(Path(hydra.sweep.dir), safe_name(f"{hydra.job.num}_{','.join(shown)}"))
    print(f"\nTrial {hydra.job.num}: {' '.join(shown)}")
    try:
        return train_in(
            cfg, directory, identity(str(cfg.get("experiment_name")), overrides), overrides
        )
    except BaseException as error:
        # Else it failed before its training began.
        if read_status(directory).get("status") not in ("failed", "preempted"):
            RunRecord(directory, redactor.facts).end(
                "failed", error=f"{type(error).__name__}: {error}", overrides=shown
            )
        if isinstance(error, Preempted):
            number, place = hydra.job.num, _quoted(str(directory))
            raise Preempted(
                f"Stopped by {error.reason} in trial {number}; the trials after it are not "
                f"started. Go on with it by resume={place} and its overrides.",
                error.reason,
                error.checkpoint,
            ) from None
        if isinstance(error, TrainkitError):
            print(f"Trial {hydra.job.num} failed. {type(error).__name__}: {error}")
        raise


def check_trials(given: Arguments) -> DictConfig:
    """Check every trial of a sweep before the first one starts; return the config of the first.

    Raises:
        ConfigError: It tells the mistakes of all trials, each once.
    """
    from trainkit.config.compose import Composed, make_request
    from trainkit.config.findings import Finding, raise_findings
    from trainkit.runner.check import examine

    first: Composed | None = None
    wrong: dict[Finding, Composed] = {}
    for overrides in grid(given):
        request = make_request(overrides, None, given.config_name, given.config_dirs)
        composed, found = examine(request)
        first = composed if first is None else first
        wrong.update({finding: composed for finding in found if finding not in wrong})
    if first is None:
        raise ConfigError("The sweep has no trial: one of its overrides sweeps over no value.")
    raise_findings(wrong, lambda finding: wrong[finding].origins())
    assert first.cfg is not None, "what has no mistake composes"
    return first.cfg


def grid(given: Arguments) -> Iterator[list[str]]:
    """Yield the overrides of each trial of a grid; what only a sweeper can draw is left out.

    Raises:
        ConfigError: Values to sweep over that cannot be told.
    """
    with hydra_loader(given.config_dirs) as loader:
        texts = [*_sweeper_params(given, loader), *given.overrides]
        choices = [values for text in texts if (values := _values(text, loader)) is not None]
    yield from (list(trial) for trial in itertools.product(*choices))


def _values(text: str, loader: ConfigLoader) -> list[str] | None:
    """Return an override for each value that one sweeps over; None if only a sweeper draws them."""
    try:
        override = parse_override(text, loader)
    except ConfigError:
        return [text]  # told when the trial is composed
    if not override.is_sweep_override():
        return [text]
    if not override.is_discrete_sweep():
        return None
    key = override.get_key_element()
    try:
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    except HydraException as error:  # glob() over what is no group
        reason = str(error).splitlines()[0].rstrip(".")
        told = f"{text} cannot be swept over: {reason}. Give the values: {key}=1,2"
        raise ConfigError(told) from None


def _sweeper_params(given: Arguments, loader: ConfigLoader) -> list[str]:
    """Return what the config itself sweeps over (``hydra.sweeper.params``), as overrides."""
    own = {text.partition("=")[0] for text in given.overrides}
    try:
        cfg = loader.load_configuration(given.config_name, list(given.overrides), RunMode.MULTIRUN)
        params = cfg.hydra.sweeper.get("params") or {}
        return [f"{key}={value}" for key, value in params.items() if key not in own]
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        if isinstance(error, TrainkitError):
            raise
        return []  # told when the first trial is composed
    except (AttributeError, AssertionError, TypeError):
        raise ConfigError(
            "hydra.sweeper.params cannot be read; expected texts by key, as in a file: "
            "hydra: {sweeper: {params: {seed: '1,2'}}}."
        ) from None


def _print_results(directory: Path) -> None:
    trials = sorted((p.parent for p in directory.glob("*/status.json")), key=_number)
    if not trials:
        return
    print(f"\nSweep {directory}")
    for trial in trials:
        status = read_status(trial)
        metric = objective(trial)
        name = next(iter(status.get("best") or status.get("metrics") or {}), "")
        shown = f"{name} {metric:.4f}" if metric is not None else status.get("error", "")
        print(
            f"  {_number(trial):>3}  {status.get('status', '?'):<9} {shown:<18} "
            f"{' '.join(status.get('overrides', []))}"
        )


def _number(trial: Path) -> int:
    head = trial.name.partition("_")[0]
    return int(head) if head.isdigit() else -1
