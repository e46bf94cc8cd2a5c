"""``trainkit check``: every mistake of a config, without running it; ``--step`` tries one batch.

It also tells what the model is made of, and the operations of a forward.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from trainkit.cli.arguments import Arguments, parse
from trainkit.config.compose import Composed, make_request
from trainkit.config.findings import told_with_origin
from trainkit.errors import ConfigError
from trainkit.run_dir import read_status

_STEP = "--step"


def run(command: str, argv: list[str]) -> None:
    """Check a config, or with ``-m`` every trial of a sweep; say so if there is no mistake.

    Raises:
        ConfigError: It tells every mistake.
    """
    step = _STEP in argv
    given = parse([argument for argument in argv if argument != _STEP])
    if given.inspect or (step and given.multirun):
        flag = given.inspect[0] if given.inspect else "--multirun with --step"
        raise ConfigError(f"trainkit check does not take {flag}.")
    if given.multirun:
        from trainkit.cli.sweep import check_trials, grid

        check_trials(given)
        print(f"No mistake found in {len(list(grid(given)))} trials.")
        return
    composed = _checked(given)
    print("No mistake found.")
    if step:
        with told_with_origin(composed.origins):
            print(_dry_step(composed.cfg))


def _checked(given: Arguments) -> Composed:
    from trainkit.runner.check import compose_checked

    return compose_checked(
        make_request(given.overrides, None, given.config_name, given.config_dirs)
    )


def _dry_step(cfg: Any) -> str:
    """Train and validate on one batch, in a directory that goes again; return what came of it.

    With it what the model is made of, and what a forward of the validation costs.
    """
    from omegaconf import open_dict

    from trainkit.runner import Runner
    from trainkit.runner.from_config import make
    from trainkit.runner.summary import flops_summary, parameter_table

    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.fast_dev_run, cfg.resume, cfg.log_level = 1, False, "WARNING"
        cfg.visualizer = {"vis_backends": {}}  # nothing of it leaves the machine
    with tempfile.TemporaryDirectory(prefix="trainkit_check_") as directory:
        # Below it, so that checkpoints are written and read as in a run.
        runner = make(Runner, cfg, work_dir=Path(directory) / "run")
        runner.train()
        metrics = read_status(runner.work_dir).get("metrics") or {}
    numbers = {"loss": runner.message_hub.get_scalar("train/loss").current(), **metrics}
    told = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    tried = "trained and validated on" if runner.has_val else "trained on"
    if runner.has_val:
        loaders = getattr(runner.val_dataloader, "loaders", {"": runner.val_dataloader})
        first = next(iter(loaders.values()))  # of several sets, one will do
        model = flops_summary(runner.model, next(iter(first)))
    else:
        model = parameter_table(runner.model)
    return f"One batch was {tried}, and a checkpoint written, without an error: {told}.\n{model}"
