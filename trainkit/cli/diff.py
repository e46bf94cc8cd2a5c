"""``trainkit diff A B``: what two runs differ in: config, metrics, environment."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainkit.cli.arguments import Parser
from trainkit.cli.run_names import find_named_run
from trainkit.cli.runs import Run, as_json, number, read_run
from trainkit.cli.table import print_table, printable
from trainkit.errors import ConfigError

# What is compared, and what is said of a run whose file for it cannot be read.
_PARTS = {
    "config": "has no config.yaml, as its runner was made from objects",
    "metrics": "has no status.json that can be read, so its metrics are not known",
    "environment": "has no env.json that can be read, so its environment is not known",
}
_NONE = "—"  # of a key that only the other run has
Keys = tuple[str | int, ...]
# By key what A and B have, under "a" and "b"; one is left out where that run lacks the key.
Differences = dict[str, dict[str, Any]]


def run(command: str, argv: list[str]) -> None:
    """Print in what two runs differ; none of their code is imported."""
    given = _parse(argv)
    found = [read_run(path, str(path)) for path in map(find_named_run, given.runs)]
    configs, environments = [_config(one.path) for one in found], [_env(one.path) for one in found]
    differences = {
        "config": differing(*configs),
        "metrics": _metrics(*(one.record for one in found)),
        "environment": differing(*map(_environment, found, environments)),
    }
    known = list(zip(configs, (one.record for one in found), environments, strict=True))
    unknown = [
        [part for part, facts in zip(_PARTS, side, strict=True) if not facts] for side in known
    ]
    if given.json:
        named = {side: one.name for side, one in zip("ab", found, strict=True)}
        facts = {**named, **differences, "unknown": dict(zip("ab", unknown, strict=True))}
        print(json.dumps(as_json(facts)))
        return
    for side, one in zip("AB", found, strict=True):
        print(f"{side}: {printable(one.name)} ({one.status})")
    for one, parts in zip(found, unknown, strict=True):
        for part in parts:
            print(f"{printable(one.name)} {_PARTS[part]}.")
    _print(differences, {*unknown[0], *unknown[1]})


def _parse(argv: list[str]) -> Any:
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_intermixed_args(argv)
    if len(given.runs) != 2:
        raise ConfigError(
            f"trainkit diff got {len(given.runs)} run{'' if len(given.runs) == 1 else 's'}; "
            "expected two: trainkit diff A B. trainkit runs lists them."
        )
    return given


def _config(run: Path) -> dict[Keys, Any]:
    """Return a run's config with flat keys, as it was written; empty where none is stored.

    Raises:
        ConfigError: One is stored that cannot be read.
    """
    if not os.path.lexists(run / "config.yaml"):
        return {}
    from omegaconf import OmegaConf

    from trainkit.config.stored import read_stored

    return dict(flat(OmegaConf.to_container(read_stored(run / "config.yaml"), resolve=False)))


def _env(run: Path) -> dict[str, Any]:
    """Return the newest record of where and from what a run was made; empty without one."""
    try:
        newest = max(run.glob("env*.json"), key=_number)
        record = json.loads(newest.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # ValueError: there is none, too
        return {}
    return record if isinstance(record, dict) else {}


def _environment(run: Run, env: Mapping[str, Any]) -> dict[Keys, Any]:
    """Return where and from what a run was made, with flat keys."""
    facts = {key: run.record[key] for key in ("experiment_name", "seed") if key in run.record}
    facts.update(env)
    git = facts.get("git")
    if isinstance(git, dict) and isinstance(git.get("diff"), str):
        text = git.pop("diff")  # too long to be shown
        git["uncommitted"] = (
            f"{len(text.splitlines())} lines, {zlib.crc32(text.encode(errors='replace')):08x}"
        )
    return dict(flat(facts))


def _number(file: Path) -> int:
    """Return the number of env_2.json; 0 for env.json."""
    return int("0" + re.sub(r"\D", "", file.stem))


def flat(node: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield what stands in containers, with its keys; a list of plain values is one value."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flat(value, (*keys, str(key)))
    elif isinstance(node, list) and any(isinstance(value, Mapping | list) for value in node):
        for index, value in enumerate(node):
            yield from flat(value, (*keys, index))
    else:
        yield keys, node


def differing(a: Mapping[Keys, Any], b: Mapping[Keys, Any]) -> Differences:
    """Return the keys at which two configs differ, in their order; ``_target_`` before others."""

    def order(keys: Keys) -> list[tuple[bool, int, str]]:
        return [(k != "_target_", k if isinstance(k, int) else -1, str(k)) for k in keys]

    found: Differences = {}
    for keys in sorted({*a, *b}, key=order):
        sides = {side: facts[keys] for side, facts in (("a", a), ("b", b)) if keys in facts}
        if len(sides) == 1 or not _same(sides["a"], sides["b"]):
            dotted = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in keys)
            found[dotted.removeprefix(".")] = sides
    return found


def _same(a: Any, b: Any) -> bool:
    """Whether two values are the same, of the same kind: 1 and true are not, nor 1 and 1.0."""
    return repr(a) == repr(b)


def _metrics(a: Mapping[str, Any], b: Mapping[str, Any]) -> Differences:
    """Return last and best value of each metric, with the differences, where there are any."""
    found: Differences = {}
    sides = {"a": _values(a), "b": _values(b)}
    for key in dict.fromkeys([*sides["a"], *sides["b"]]):
        values = {side: known[key] for side, known in sides.items() if key in known}
        if len(values) == 2 and _same(*values.values()):
            continue
        found[key] = values
        if len(values) == 2:
            difference = values["b"] - values["a"]
            found[key] = {**values, "difference": difference}
            if values["a"]:
                found[key]["percent"] = 100 * difference / abs(values["a"])
    return found


def _values(status: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a run: ``accuracy (last)``, ``accuracy (best)``."""
    last, best = status.get("metrics"), status.get("best")
    values = {f"{name} (last)": number(value) for name, value in _items(last)}
    for name, entry in _items(best):
        values[f"{name} (best)"] = number(entry.get("value")) if _items(entry) else None
    return {key: value for key, value in values.items() if value is not None}


def _items(node: Any) -> list[tuple[str, Any]]:
    return list(node.items()) if isinstance(node, Mapping) else []


def _print(differences: Mapping[str, Differences], unknown: Collection[str]) -> None:
    known = [part for part in differences if part not in unknown]
    if not any(differences.values()):
        same = " or ".join(part for part in (", ".join(known[:-1]), *known[-1:]) if part)
        print(f"They do not differ in {same}." if known else "So nothing of them can be compared.")
        return
    for part, found in differences.items():
        if not found:
            print(f"\nThe same {part}." if part in known else f"\nNo {part} to compare.")
            continue
        print()
        if part == "metrics":
            print_table(
                (part, "A", "B", "B - A", "%"), [_metric_row(*item) for item in found.items()]
            )
        else:
            rows = [[key, *(_shown(sides, side) for side in "ab")] for key, sides in found.items()]
            print_table((part, "A", "B"), rows)


def _metric_row(name: str, facts: Mapping[str, float]) -> list[str]:
    values = [f"{facts[side]:.6g}" if side in facts else _NONE for side in "ab"]
    changes = [f"{facts[key]:+.4g}" if key in facts else "" for key in ("difference", "percent")]
    return [name, *values, *changes]


def _shown(sides: Mapping[str, Any], side: str) -> str:
    """Return a value as YAML would write it."""
    if side not in sides:
        return _NONE
    value = sides[side]
    is_plain = isinstance(value, str) and _reads_as_itself(value)
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _reads_as_itself(text: str) -> bool:
    """Whether YAML needs no quotes to read a text as that text, and not as a number."""
    import yaml

    try:
        return bool(yaml.safe_load(text) == text)
    except (yaml.YAMLError, ValueError):  # ValueError: a date that there is not
        return False
