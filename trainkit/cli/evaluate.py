"""``trainkit val`` and ``trainkit test``: evaluate a run, or a checkpoint, once more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.cli.arguments import Arguments, parse
from trainkit.config.compose import Composed, make_request, try_compose
from trainkit.config.findings import raise_findings, told_with_origin
from trainkit.config.request import Request
from trainkit.config.stored import stored_config
from trainkit.errors import ConfigError
from trainkit.run_dir import experiment_directory, make_unique, timestamp

if TYPE_CHECKING:
    from trainkit.config.origins import Origins


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
        _evaluate(purpose, _stored(directory, overrides, given), directory)
    else:
        request = make_request(overrides, None, given.config_name, given.config_dirs)
        _evaluate(purpose, try_compose(request), None)


def _stored(run: Path, overrides: list[str], given: Arguments) -> Composed:
    """Return the config of a run as if it were composed, with its own origins."""
    cfg = stored_config(
        run, overrides, config_name=given.config_name, config_dirs=given.config_dirs
    )

    def origins() -> Origins:
        from trainkit.config.origins import trace_stored

        return trace_stored(run / "config.yaml", overrides)

    return Composed(cfg, Request(tuple(overrides)), traced=origins)


def _evaluate(purpose: str, evaluated: Composed, directory: Path | None) -> None:
    """Check the config, and evaluate with it; None as directory makes one."""
    from trainkit.dist import is_main_process, on_main
    from trainkit.launch import process_group
    from trainkit.runner import Runner
    from trainkit.runner.check import find_mistakes
    from trainkit.runner.from_config import make

    cfg, found = evaluated.cfg, list(evaluated.findings)
    if cfg is not None:
        for split in {"train", "val", "test"} - {purpose}:
            cfg[f"{split}_cfg"] = None  # what the others need may be gone
        found += find_mistakes(cfg, ("work_dir",))
    raise_findings(found, lambda _: evaluated.origins())
    assert cfg is not None, "what has no mistake composes"
    if directory is None and cfg.get("load_from") is None:
        raise ConfigError(
            f"trainkit {purpose} needs weights: give run=DIR, or load_from=CHECKPOINT."
        )
    with (
        process_group(cfg.get("launcher", "auto"), cfg.get("env")),
        told_with_origin(evaluated.origins),
    ):
        home = experiment_directory(cfg.get("experiment_name"))
        place = on_main(lambda: directory or make_unique(home, f"{purpose}_{timestamp()}"))
        runner = make(Runner, cfg, work_dir=str(place), resume=False)
        metrics: dict[str, Any] = getattr(runner, purpose)()
        if is_main_process():
            for name, value in metrics.items():
                print(f"{name}: {value}")
