"""``trainkit runs [DIR ...]``: a table of runs, newest first. Nothing is changed in them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainkit.cli.arguments import Parser
from trainkit.cli.run_names import runs_below
from trainkit.cli.table import print_table
from trainkit.errors import ConfigError, did_you_mean
from trainkit.run_dir import OUTPUTS, STATUS, identity, is_locked, read_status

STATUSES = ("running", "finished", "failed", "preempted", "died", "unreadable")
_STYLES = dict(zip(STATUSES, ("cyan", "green", "red", "yellow", "red", "red"), strict=True))
_COLUMNS = ("run", "experiment", "status", "progress", "metrics", "age", "took")
_LIMIT = 20
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True)
class Run:
    """A run as it is listed.

    Attributes:
        path: Its directory.
        name: The directory as seen from where runs were looked for.
        status: What ``status.json`` says, or that its process died, or that it is unreadable.
        record: The rest of ``status.json``.
    """

    path: Path
    name: str
    status: str
    record: Mapping[str, Any]

    @property
    def began(self) -> float:
        """When it began; a run that never did counts from its record."""
        created = number(self.record.get("created"))
        if created is None:
            try:
                return (self.path / STATUS).stat().st_mtime
            except OSError:
                return 0.0
        return created

    @property
    def metrics(self) -> dict[str, float]:
        """The best value of each metric that is watched, else the last of each."""
        best = _mapping(self.record, "best")
        best = {name: entry["value"] for name, entry in best.items() if _mapping(best, name)}
        values = best or _mapping(self.record, "metrics")
        found = {str(name): number(value) for name, value in values.items()}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def overrides(self) -> list[str]:
        """What makes it differ from another run of its experiment."""
        given = self.record.get("overrides")
        return identity("", list(map(str, given)) if isinstance(given, list) else [])[1:]


def run(command: str, argv: list[str]) -> None:
    """Print the runs below the given directories, or below ``outputs/``."""
    given = _parse(argv)
    directories = [Path(text).expanduser() for text in given.directories] or [OUTPUTS]
    if given.directories:
        _check(directories)
    found = list(list_runs(directories))
    chosen = [one for one in found if given.status in (None, one.status)]
    if given.sort is not None:
        chosen = _sorted(chosen, given.sort)
    limit = given.limit if given.limit is not None else 0 if given.json else _LIMIT
    shown = chosen[:limit] if limit else chosen
    if given.json:
        for one in shown:
            print(json.dumps(_facts(one)))
        return
    if not chosen:
        print(_none(directories, found, given.status))
        return
    _print(shown)
    if len(shown) < len(chosen):
        print(f"… and {len(chosen) - len(shown)} more; --limit 0 shows all")


def list_runs(directories: Sequence[Path]) -> Iterator[Run]:
    """Yield the runs below some directories, newest first."""
    runs: dict[Path, Run] = {}
    for directory in directories:
        for path in runs_below(directory):
            inside = path.relative_to(directory)
            named = len(directories) > 1 or inside == Path()
            runs.setdefault(path.resolve(), read_run(path, str(path if named else inside)))
    yield from sorted(runs.values(), key=lambda one: (one.began, one.name), reverse=True)


def read_run(path: Path, name: str) -> Run:
    """Return the run in a directory, as it stands now."""
    record = read_status(path)
    status = record.get("status")
    if not isinstance(status, str) or not status:
        status = "unreadable"
    if status == "running" and not is_locked(path):
        status = "died"  # a killed process could not say so itself
    return Run(path, name, status, record)


def _parse(argv: list[str]) -> Any:
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("directories", nargs="*")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--status", choices=STATUSES)
    parser.add_argument("--sort", metavar="METRIC")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_intermixed_args(argv)
    if given.limit is not None and given.limit < 0:
        raise ConfigError(f"--limit is {given.limit}; expected a number of runs, or 0 for all.")
    return given


def _check(directories: Sequence[Path]) -> None:
    for directory in directories:
        if not directory.is_dir():
            what = "is no directory" if directory.exists() else "does not exist"
            raise ConfigError(
                f"{str(directory)!r} {what}. Expected a directory with runs below it, such as "
                f"{OUTPUTS} or a sweep's."
            )


def _none(directories: Sequence[Path], found: Sequence[Run], status: str | None) -> str:
    places = ", ".join(str(directory.absolute()) for directory in directories)
    among = f" among the {len(found)} runs" if found else ""
    which = f" with status {status}" if found else ""
    return f"No run{which}{among} below {places}."


def _sorted(runs: Sequence[Run], sort: str) -> list[Run]:
    """Return runs by a metric, best first; those without it come last."""
    metric, _, rule = sort.rpartition(":")
    if rule not in ("greater", "less"):
        metric, rule = sort, ""
    known = {name for one in runs for name in one.metrics}
    if runs and metric not in known:
        raise ConfigError(f"--sort is {metric!r}. {did_you_mean(metric, known)}")
    if not rule:
        from trainkit.evaluator import infer_rule  # imports torch

        rule = infer_rule(metric, setting=f"--sort {metric}:less, or --sort {metric}:greater")
    sign = 1 if rule == "less" else -1

    def place(one: Run) -> float:
        value = one.metrics.get(metric, math.nan)
        return math.inf if math.isnan(value) else sign * value

    return sorted(runs, key=place)


def _facts(one: Run) -> dict[str, Any]:
    """Return everything that is known of a run, for a line of JSON."""
    facts = {"path": str(one.path), "name": one.name, **one.record, "status": one.status}
    return {key: as_json(value) for key, value in facts.items()}


def as_json(value: Any) -> Any:
    """Return a value in which numbers that JSON does not know (NaN) are strings."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _print(runs: Sequence[Run]) -> None:
    shared = set(runs[0].overrides).intersection(*(one.overrides for one in runs))
    if len(runs) == 1:
        shared = set()
    rows = [
        [
            *(one.name, str(one.record.get("experiment_name", "")), one.status, progress(one)),
            "  ".join(f"{name} {value:.4g}" for name, value in one.metrics.items()),
            duration(time.time() - one.began),
            _took(one),
            " ".join(text for text in one.overrides if text not in shared),
            " ".join(str(one.record.get("error") or "").split()),
        ]
        for one in runs
    ]
    print_table((*_COLUMNS, "overrides", "error"), rows, _STYLES)
    if shared:
        print(f"All of them: {' '.join(text for text in runs[0].overrides if text in shared)}")


def progress(one: Run) -> str:
    """Return how far a run came: in epochs, or in iterations where it is one epoch."""
    by_epoch = number(one.record.get("max_epochs")) != 1
    unit = "epoch" if by_epoch else "iter"
    done, end = number(one.record.get(unit)), number(one.record.get(f"max_{unit}s"))
    if done is None:
        return ""
    return f"{unit} {done:.0f}" + ("" if end is None else f"/{end:.0f}")


def _took(one: Run) -> str:
    started = number(one.record.get("started"))
    last = "updated" if one.status == "died" else "ended"
    end = time.time() if one.status == "running" else number(one.record.get(last))
    return "" if started is None or end is None else duration(end - started)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: ``12 s``, ``5 min``, ``3.2 h``, ``12 d``."""
    for length, unit in _UNITS:
        if seconds >= length:
            count = seconds / length
            return f"{count:.1f} {unit}" if count < 10 and unit != "min" else f"{count:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def number(value: Any) -> float | None:
    """Return a value of a record as a number; None for anything else."""
    try:
        return float(value) if type(value) in (int, float) else None
    except OverflowError:  # JSON knows whole numbers of any length
        return None


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}
