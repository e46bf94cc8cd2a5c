"""``trainkit val`` and ``trainkit test``: evaluate a run, or a checkpoint, once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainkit.cli.arguments import parse
from trainkit.config import compose
from trainkit.config.stored import stored_config
from trainkit.errors import ConfigError
from trainkit.run_dir import experiment_directory, make_unique, timestamp


def run(purpose: str, argv: list[str]) -> None:
    """Validate or test, and print the metrics; ``run=DIR`` takes that run's config and weights.

    A stored config is not trusted: ``trust=[mypkg]`` lets it name what is in that package.
    """
    given = parse(argv)
    if given.multirun or given.inspect:
        flag = "--multirun" if given.multirun else given.inspect[0]
        raise ConfigError(f"trainkit {purpose} evaluates one run; it does not take {flag}.")
    runs = [text.partition("=")[2] for text in given.overrides if text.startswith("run=")]
    overrides = [text for text in given.overrides if not text.startswith("run=")]
    if runs:
        directory = Path(runs[-1]).expanduser()
        cfg = stored_config(
            directory, overrides, config_name=given.config_name, config_dirs=given.config_dirs
        )
    else:
        cfg = compose(overrides, config_name=given.config_name, config_dirs=given.config_dirs)
        if cfg.get("load_from") is None:
            raise ConfigError(
                f"trainkit {purpose} needs weights: give run=DIR, or load_from=CHECKPOINT."
            )
        directory = make_unique(
            experiment_directory(cfg.get("experiment_name")), f"{purpose}_{timestamp()}"
        )
    from trainkit.runner import Runner

    runner = Runner.from_cfg(cfg, work_dir=str(directory), resume=False)
    metrics: dict[str, Any] = getattr(runner, purpose)()
    for name, value in metrics.items():
        print(f"{name}: {value}")
