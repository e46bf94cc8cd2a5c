"""Options of CheckpointHook: names of checkpoints, and what cannot be taken."""

from __future__ import annotations

from collections.abc import Sequence

from trainkit.errors import ConfigError
from trainkit.run_dir import safe_name

_MAX_NAME = 50  # bytes of a periodic checkpoint's name; a best one's has the metric's beside it


def check_template(template: str | None) -> None:
    """Raise unless a template gives each checkpoint a name of its own that a resume will find."""
    try:
        names = [] if template is None else [template.format(1), template.format(2)]
    except (AttributeError, KeyError, IndexError, ValueError):
        names = ["", ""]
    for name in names:
        is_name = name.isprintable() and "/" not in name and len(name.encode()) <= _MAX_NAME
        if names[0] == names[1] or not is_name or name.startswith(("best_", "failed_", ".")):
            raise ConfigError(
                f"hooks.checkpoint.filename_tmpl is {template!r}; expected one file name of at "
                f"most {_MAX_NAME} bytes with {{}} where the number goes, that begins neither with "
                "'best_' or 'failed_' nor with a dot."
            )


def file_name(metric: str) -> str:
    """Return a metric as a part of a file name: coco/AR@100 is coco_AR@100."""
    name = metric.replace("/", "_")
    is_plain = name.isascii() and name.isprintable() and len(name) <= 2 * _MAX_NAME
    return name if is_plain else safe_name(name)


def check_distinct(metrics: Sequence[str]) -> None:
    """Raise if the best checkpoints of two metrics would have one name."""
    names: dict[str, str] = {}
    for metric in metrics:
        name = file_name(str(metric))
        if name in names:
            same = names[name] == metric
            what = f"{metric!r} twice" if same else f"{names[name]!r} and {metric!r}"
            raise ConfigError(
                f"hooks.checkpoint.save_best names {what}, whose checkpoints would stand under one "
                "name. Drop one of them."
            )
        names[name] = metric


def published(keys: str | Sequence[str] | None) -> list[str]:
    """Return the keys that are published; raise if one is given twice."""
    given = [keys] if isinstance(keys, str) else list(keys or [])
    if len(set(given)) < len(given):
        raise ConfigError(f"hooks.checkpoint.published_keys is {given!r}; expected each key once.")
    return given


def counts_no_epochs(path: str) -> str:
    """Return the message about a hook that would wait for the one epoch of an iteration run."""
    return (
        f"{path}.by_epoch is true, but the train loop counts iterations, so it would save at the "
        "end only. Set by_epoch: false or null, and give interval and save_begin in iterations."
    )
