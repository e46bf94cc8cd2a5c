"""Whether a metric is better when it is greater or when it is less."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainkit.errors import ConfigError

# MMEngine's lists, and common names that it does not know.
GREATER_KEYS = (
    "acc",
    "top",
    "AR@",
    "auc",
    "precision",
    "mAP",
    "mDice",
    "mIoU",
    "mAcc",
    "aAcc",
    "recall",
    "f1",
    "R2",
)
LESS_KEYS = ("loss", "error", "rmse", "mse", "mae", "perplexity")


def infer_rule(
    metric: str,
    greater_keys: Sequence[str] | None = None,
    less_keys: Sequence[str] | None = None,
    setting: str = "rule",
) -> str:
    """Return ``"greater"`` or ``"less"`` for a metric by its name, upper and lower case alike.

    In this order: the same name in ``greater_keys``, in ``less_keys``, part of the name in either.

    Args:
        metric: Its full name.
        greater_keys: None: :data:`GREATER_KEYS`.
        less_keys: None: :data:`LESS_KEYS`.
        setting: What to set when the name tells nothing, for the message.

    Raises:
        ConfigError: The name is in neither list.
    """
    name = metric.lower()
    greater = [key.lower() for key in (GREATER_KEYS if greater_keys is None else greater_keys)]
    less = [key.lower() for key in (LESS_KEYS if less_keys is None else less_keys)]
    for rule, found in (
        ("greater", name in greater),
        ("less", name in less),
        ("greater", any(key in name for key in greater)),
        ("less", any(key in name for key in less)),
    ):
        if found:
            return rule
    raise ConfigError(
        f"Is more or less of {metric!r} better? Its name does not tell. Set {setting}: greater, or "
        "less."
    )


def is_better(rule: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Whether ``value`` beats ``best`` by more than ``min_delta``; NaN beats nothing."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value > best + min_delta if rule == "greater" else value < best - min_delta
