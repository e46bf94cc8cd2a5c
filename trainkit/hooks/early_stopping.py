"""Stop a run whose validation metric no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainkit.errors import ConfigError, did_you_mean
from trainkit.evaluator import infer_rule, is_better
from trainkit.hook import Hook

if TYPE_CHECKING:
    from trainkit.runner import Runner


class EarlyStoppingHook(Hook):
    """Stop training when ``monitor`` has not improved for ``patience`` validations.

    A resumed run goes on counting; it stays stopped unless its options were changed so that it
    would not have stopped.

    Args:
        monitor: Full name of a metric, such as ``"accuracy"``.
        rule: Whether ``"greater"`` or ``"less"`` is better; None: by the metric's name.
        min_delta: Least change that counts as an improvement, in the metric's own unit.
        strict: Raise when validation does not give ``monitor``, instead of warning.
        check_finite: Also stop when the metric is NaN or infinite.
        patience: Validations without improvement after which training stops.
        stopping_threshold: Stop as soon as the metric is better than this.
    """

    priority = "LOWEST"
    monitors = ("monitor",)

    def __init__(
        self,
        monitor: str,
        rule: str | None = None,
        min_delta: float = 0.0,
        strict: bool = True,
        check_finite: bool = True,
        patience: int = 5,
        stopping_threshold: float | None = None,
    ) -> None:
        if rule not in (None, "greater", "less"):
            raise ConfigError(f"hooks.early_stopping.rule is {rule!r}; expected greater or less.")
        for name, value in (("min_delta", min_delta), ("stopping_threshold", stopping_threshold)):
            optional = name == "stopping_threshold" and value is None
            if isinstance(value, bool) or not (optional or isinstance(value, int | float)):
                raise ConfigError(f"hooks.early_stopping.{name} is {value!r}; expected a number.")
        if type(patience) is not int or patience < 1 or not min_delta >= 0:
            raise ConfigError(
                f"hooks.early_stopping has patience={patience} and min_delta={min_delta}; "
                "expected a patience of at least 1 and a min_delta of at least 0."
            )
        self.monitor, self.min_delta, self.patience = monitor, min_delta, patience
        self.rule = rule or infer_rule(monitor, setting="hooks.early_stopping.rule")
        self.strict, self.check_finite, self.stopping_threshold = (
            strict,
            check_finite,
            stopping_threshold,
        )
        self.best: float | None = None
        self.stale = 0  # validations since the best
        self.last: float | None = None  # value of the last validation

    def before_train(self, runner: Runner) -> None:
        """Stay stopped, if an earlier process had come to a stop."""
        if not runner.has_val:
            runner.logger.warning("hooks.early_stopping: there is no validation to stop by.")
        self._stop_if_due(runner)

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Compare with the best so far."""
        if not runner.is_training or not self._has_monitor(runner, metrics or {}):
            return
        self.last = value = self._number((metrics or {})[self.monitor])
        if is_better(self.rule, value, self.best, self.min_delta):
            self.best, self.stale = value, 0
        else:
            self.stale += 1
        self._stop_if_due(runner)

    def rule_of(self, metric: str, metrics: Mapping[str, Any]) -> str | None:
        """Return the rule, if it is the monitored metric."""
        return self.rule if metric == self.monitor else None

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the last, and the validations since the best."""
        return {
            "monitor": self.monitor,
            "rule": self.rule,
            "best": self.best,
            "stale": self.stale,
            "last": self.last,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` returned; of another metric, or direction, nothing."""
        if (state_dict["monitor"], state_dict["rule"]) == (self.monitor, self.rule):
            self.best, self.stale = state_dict["best"], state_dict["stale"]
            self.last = state_dict["last"]

    def _stop_if_due(self, runner: Runner) -> None:
        reason = None if self.last is None else self._reason(self.last)
        if reason is not None:
            runner.request_stop(reason)

    def _number(self, value: Any) -> float:
        if isinstance(value, int | float):
            return float(value)
        raise ConfigError(
            f"hooks.early_stopping.monitor is {self.monitor!r}, whose value is a "
            f"{type(value).__name__}; expected a metric that is a number."
        )

    def _has_monitor(self, runner: Runner, metrics: Mapping[str, Any]) -> bool:
        if self.monitor in metrics:
            return True
        message = (
            f"hooks.early_stopping.monitor is {self.monitor!r}, which validation does not give. "
            f"{did_you_mean(self.monitor, metrics)}"
        )
        if self.strict:
            raise ConfigError(message)
        runner.logger.warning(message)
        return False

    def _reason(self, value: float) -> str | None:
        if self.check_finite and not math.isfinite(value):
            return f"{self.monitor} is {value}"
        if self.stopping_threshold is not None and is_better(
            self.rule, value, self.stopping_threshold
        ):
            return f"{self.monitor} is {value:.4g}, beyond {self.stopping_threshold}"
        if self.stale >= self.patience:
            best = "" if self.best is None else f" its best of {self.best:.4g}"
            return f"{self.monitor} has not beaten{best} in {self.patience} validations"
        return None
