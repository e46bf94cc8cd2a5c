"""``trainkit lr``: the schedules that a config gives, in the terminal and as a picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.cli.arguments import Arguments, Parser, parse
from trainkit.cli.chart import check_picture, draw, save_picture
from trainkit.cli.sweep import grid
from trainkit.config.compose import Composed, make_request
from trainkit.config.findings import raise_findings, told_with_origin
from trainkit.config.loader import parse_override
from trainkit.config.secrets import redact_override
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from trainkit.runner.schedule import Curve, Plan

_ROWS = 12  # of a table at most
# Where a mistake spoils the schedules, and arguments that may be wrong only since the run is short.
_PARTS = ("train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr")
_HORIZONS = ("begin", "milestones", "val_begin", "dynamic_intervals")


def run(command: str, argv: list[str]) -> None:
    """Show the schedules of a config, or of each trial of a sweep; nothing is trained or read."""
    flags = Parser(add_help=False, allow_abbrev=False)
    flags.add_argument("--out", type=Path)
    flags.add_argument("--iters-per-epoch", type=int)
    own, rest = flags.parse_known_args(argv)
    given = parse(rest)
    if given.inspect:
        raise ConfigError(f"trainkit lr draws schedules; it does not take {given.inspect[0]}.")
    if own.iters_per_epoch is not None and own.iters_per_epoch < 1:
        raise ConfigError(f"--iters-per-epoch is {own.iters_per_epoch}; expected at least 1.")
    if own.out is not None:
        check_picture(own.out)
    title, plans = _plans(given, own.iters_per_epoch)
    if own.out is not None:
        save_picture(own.out, title, plans)
    print(title.rstrip())
    for label, plan in plans.items():
        print("\n".join(_report(label, plan)))
    print("--out lr.png draws it as a picture." if own.out is None else f"Drawn: {own.out}")


def _plans(given: Arguments, iters_per_epoch: int | None) -> tuple[str, dict[str, Plan]]:
    """Return a title, and what is scheduled by what sets a trial apart: one, "", without sweep."""
    trials = _swept(given) if given.multirun else [given.overrides]
    from trainkit.runner.schedule import plan  # imports torch

    composed = [_composed(trial, given) for trial in trials]
    shared = [text for text in trials[0] if all(text in trial for trial in trials)]
    plans = {}
    for trial, found in zip(trials, composed, strict=True):
        with told_with_origin(found.origins):
            label = _shown([text for text in trial if text not in shared])
            plans[label] = plan(found.cfg, iters_per_epoch)
    assert composed[0].cfg is not None, "what has a plan composes"
    return f"{composed[0].cfg.get('experiment_name')} {_shown(shared)}", plans


def _composed(overrides: list[str], given: Arguments) -> Composed:
    """Compose, and check the parts that matter here: data and weights may be elsewhere."""
    from trainkit.runner.check import examine

    request = make_request(overrides, None, given.config_name, given.config_dirs)
    composed, found = examine(request)
    own = [f for f in found if f in composed.findings or _matters(f.key)]
    raise_findings(own, lambda _: composed.origins())
    return composed


def _matters(key: str) -> bool:
    """Whether a mistake at ``key`` is told here; that a step is never reached, the plan tells."""
    head, _, rest = key.partition(".")
    if not rest:
        return key not in ("load_from", "resume", "work_dir")
    return head in _PARTS and rest.rpartition(".")[2] not in _HORIZONS


def _swept(given: Arguments) -> list[list[str]]:
    for text in given.overrides:
        override = parse_override(text)
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(f"{text} is drawn while the sweep runs; give the values: key=1,2.")
    trials = list(grid(given))
    if not trials:
        raise ConfigError("The sweep has no trial: one of its overrides sweeps over no value.")
    return trials


def _shown(overrides: list[str]) -> str:
    return " ".join(map(redact_override, overrides))


def _report(label: str, plan: Plan) -> Iterator[str]:
    """Yield the lines that tell a plan."""
    if label:
        yield f"\n== {label}"
    epochs = f" ({plan.length // plan.epoch_length:,} epochs)" if plan.epoch_length else ""
    yield f"{plan.length:,} {plan.unit}s{epochs}"
    yield from plan.notes
    fine = sys.stdout.isatty() and (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")
    for curve in plan.curves:
        yield ""
        if not curve.marks:
            yield f"{curve.name} stays {curve.values[0]:g}"
            continue
        yield curve.name
        yield from draw(curve, plan.length, plan.unit, fine=fine)
        yield from _table(curve, plan)
    yield ""


def _table(curve: Curve, plan: Plan) -> Iterator[str]:
    """Yield the value at each turning point."""
    turns = _turning_points(curve)
    rows = [(plan.unit, "epoch" if plan.epoch_length else "", curve.name, "")]
    for step, text in turns.items():
        epoch = f"{step / plan.epoch_length:.4g}" if plan.epoch_length else ""
        rows.append((f"{step:,}", epoch, f"{curve.values[curve.steps.index(step)]:.6g}", text))
    if len(rows) > _ROWS + 1:
        left_out = len(rows) - _ROWS
        half = _ROWS // 2
        rows[half + 1 : -half + 1] = [("...", "", "", f"{left_out} more")]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False) if width]
        yield "  ".join([*cells, row[3]]).rstrip()


def _turning_points(curve: Curve) -> dict[int, str]:
    """Return the steps worth a row: first, marks, last, and an extreme value if in between."""
    points = {curve.steps[0]: "first", curve.steps[-1]: "last"} | dict(curve.marks)
    told = [curve.values[curve.steps.index(step)] for step in points]
    for name, extreme in (("highest", max(curve.values)), ("lowest", min(curve.values))):
        if extreme not in told:
            points[curve.steps[curve.values.index(extreme)]] = name
    return dict(sorted(points.items()))
