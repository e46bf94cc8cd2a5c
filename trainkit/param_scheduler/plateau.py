"""ReduceOnPlateauLR: less, each time that a watched value has stopped improving."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from typing_extensions import Unpack  # typing has it from Python 3.11 on

from trainkit.dist import all_gather_object, get_rank, get_world_size
from trainkit.errors import ConfigError, did_you_mean
from trainkit.evaluator import infer_rule
from trainkit.param_scheduler.base import (
    HasParamGroups,
    ParamScheduler,
    SchedulerOptions,
    is_step,
    per_group,
)

logger = logging.getLogger(__name__)

TRAIN = "train/"  # begins the name of what a train step returns, as in the log


class ReduceOnPlateauLR(ParamScheduler):
    """``max(v * factor, min_value)``, once more each time that ``monitor`` stops improving.

    It looks at ``monitor`` after each validation within its window. The value is reduced when more
    than ``patience`` looks in a row have brought no improvement.

    Args:
        optimizer: See :class:`ParamScheduler`.
        monitor: Full name of a metric of the validation, such as ``"accuracy"``; or, as
            ``"train/loss"``, of what a train step returns: looked at is its mean, over all ranks,
            since the last look.
        rule: Whether ``"greater"`` or ``"less"`` is better; None: by the name of ``monitor``.
        factor: What the value is multiplied by, at least 0 and below 1.
        patience: Looks without improvement that are waited for.
        threshold: Least improvement that counts.
        threshold_rule: Whether ``threshold`` is a share of the best (``"rel"``) or an amount
            (``"abs"``).
        cooldown: Looks after a reduction that do not count against it.
        min_value: What the value never falls below; a list has one for each parameter group.
        eps: A reduction by no more than this is left out.
        interval: Steps between two looks at a value of training.
        options: ``param_name, begin, end, by_epoch, by_update`` of :class:`ParamScheduler`.

    Source: the rule of ``torch.optim.lr_scheduler.ReduceLROnPlateau``.
    """

    step_arguments: ClassVar[tuple[str, ...]] = ()  # patience counts looks: nothing is converted
    monitors: ClassVar[tuple[str, ...]] = ("monitor",)

    def __init__(  # noqa: PLR0913 - MMEngine's arguments
        self,
        optimizer: HasParamGroups,
        monitor: str = "loss",
        rule: Literal["less", "greater"] | None = None,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_rule: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_value: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
        interval: int = 1,
        **options: Unpack[SchedulerOptions],
    ) -> None:
        self._require(isinstance(monitor, str) and monitor != "", "monitor", monitor, "a name")
        self._require(rule in (None, "less", "greater"), "rule", rule, "'less' or 'greater'")
        known = threshold_rule in ("rel", "abs")
        self._require(known, "threshold_rule", threshold_rule, "'rel' or 'abs'")
        self._require(0.0 <= factor < 1.0, "factor", factor, "at least 0 and below 1")
        self._require(threshold >= 0, "threshold", threshold, "0 or more")
        for name, looks in (("patience", patience), ("cooldown", cooldown)):
            self._require(is_step(looks), name, looks, "a whole number of at least 0")
        fits = is_step(interval) and interval >= 1
        self._require(fits, "interval", interval, "a whole number of steps of at least 1")
        self._train_key = monitor.removeprefix(TRAIN) if monitor.startswith(TRAIN) else None
        if self._train_key is None and interval != 1:
            raise ConfigError(
                f"ReduceOnPlateauLR has interval={interval} and monitor={monitor!r}, which is "
                "looked at after each validation. Drop interval, or name a value of training: "
                "train/loss."
            )
        self.monitor, self.interval = monitor, int(interval)
        self.rule = rule or infer_rule(monitor, setting="rule of ReduceOnPlateauLR")
        self.factor, self.patience, self.cooldown, self.eps = factor, patience, cooldown, eps
        self.threshold, self.threshold_rule = threshold, threshold_rule
        self.min_values = per_group(self, optimizer, "min_value", min_value)
        self.reductions = 0
        self.best: float | None = None
        self.bad = 0  # looks without improvement
        self.cooling = 0  # looks that are still to be waited for after a reduction
        self._sum: Any = 0.0  # of the value of training since the last look; on its device
        self._count = 0
        super().__init__(optimizer, **options)

    @property
    def needs_validation(self) -> bool:
        """Whether it looks at what a validation gives."""
        return self._train_key is None

    def transform(self, value: float, base: float, s: int) -> float:
        """Return the value of the first group after all reductions."""
        return self.transform_group(0, value, base, s)

    def transform_group(self, group: int, value: float, base: float, s: int) -> float:
        """Return the value of a group after all reductions."""
        for _ in range(self.reductions):
            lower = max(value * self.factor, self.min_values[group])
            if value - lower <= self.eps:
                break
            value = lower
        return value

    def step(self, metrics: Mapping[str, Any] | None = None) -> None:
        """Go to the next step; with ``metrics``, stay and look at them, as MMEngine spells it."""
        if metrics is not None:
            self.observe_metrics(metrics)
            return
        self.last_step += 1
        if self._train_key is not None and self.last_step % self.interval == 0:
            self._look(self._mean())
        self.apply()

    def observe_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Look at the metrics of a validation."""
        if not self.needs_validation:
            return
        value = metrics.get(self.monitor)
        if self.monitor not in metrics:
            hint = did_you_mean(self.monitor, metrics, listed="It gives")
            raise ConfigError(
                f"ReduceOnPlateauLR has monitor={self.monitor!r}, which validation does not give. "
                f"{hint}"
            )
        self._look(self._number(value))
        self.apply()

    def observe_outputs(self, outputs: Mapping[str, Any]) -> None:
        """Take what a train step has returned, without waiting for the device."""
        if self._train_key is None:
            return
        if self._train_key not in outputs:
            hint = did_you_mean(self._train_key, outputs, listed="It returns")
            raise ConfigError(
                f"ReduceOnPlateauLR has monitor={self.monitor!r}, which the train step does not "
                f"return. {hint}"
            )
        value = outputs[self._train_key]
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.detach().reshape(())
            value = value if value.device.type == "mps" else value.double()  # MPS has no float64
        else:
            value = self._number(value)
        self._sum, self._count = self._sum + value, self._count + 1

    def turns(self) -> Iterator[tuple[int, str]]:
        """Yield nothing: where it turns, time does not tell."""
        yield from ()

    def state_dict(self) -> dict[str, Any]:
        """Return the step, the reductions, and what was seen, by all ranks: all must call."""
        return {
            **super().state_dict(),
            "reductions": self.reductions,
            "watched": {"monitor": self.monitor, "rule": self.rule},
            "best": self.best,
            "bad": self.bad,
            "cooling": self.cooling,
            "totals": self._totals(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` returned; a best of another ``monitor`` is left."""
        self.reductions = int(state_dict.get("reductions", 0))
        self.best, self.bad, self.cooling, self._sum, self._count = None, 0, 0, 0.0, 0
        watched = {"monitor": self.monitor, "rule": self.rule}
        before = state_dict.get("watched")
        if before == watched:
            self.best, self.bad = state_dict["best"], int(state_dict["bad"])
            self.cooling = int(state_dict["cooling"])
            self._sum, self._count = _own_total(state_dict["totals"])
        elif before is not None:
            logger.info(
                "ReduceOnPlateauLR watches %s now, not %s: it begins to look anew.", watched, before
            )
        super().load_state_dict(state_dict)

    def _look(self, value: float) -> None:
        """Judge a value, and reduce if it is time."""
        if not self.begin <= self.last_step < self.end:
            return
        if self._improves(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.cooling > 0:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad <= self.patience:
            return
        self.reductions, self.cooling, self.bad = self.reductions + 1, self.cooldown, 0
        logger.info(
            "ReduceOnPlateauLR: %s, at best %s, has not improved for more than %d looks: "
            "reduction %d of %s.",
            self.monitor,
            "never finite" if self.best is None else f"{self.best:.6g}",
            self.patience,
            self.reductions,
            self.param_name,
        )

    def _improves(self, value: float) -> bool:
        """Whether a value beats the best by the threshold; one that is not finite never does."""
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        away = -1.0 if self.rule == "less" else 1.0
        if self.threshold_rule == "abs":
            bar = self.best + away * self.threshold
        else:  # of a best below 0, less is further away from 0
            bar = self.best * (1.0 + away * math.copysign(self.threshold, self.best))
        return value < bar if self.rule == "less" else value > bar

    def _mean(self) -> float:
        """Return the mean of training since the last look, over all ranks, and begin anew."""
        totals = self._totals()
        self._sum, self._count = 0.0, 0
        count = sum(count for _, count in totals)
        if count == 0:
            raise ConfigError(
                f"ReduceOnPlateauLR has monitor={self.monitor!r}, but no train step was seen since "
                "its last look. Give it what each returns: scheduler.observe_outputs(outputs)."
            )
        return float(sum(total for total, _ in totals) / count)

    def _totals(self) -> list[tuple[float, int]]:
        """Return the sum and the count of each rank since the last look."""
        if self._train_key is None:
            return []
        return all_gather_object((float(self._sum), self._count))

    def _number(self, value: Any) -> float:
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # of lists, large tensors
            if not isinstance(value, bool | str):
                return float(value)
        raise ConfigError(
            f"ReduceOnPlateauLR has monitor={self.monitor!r}, whose value is a "
            f"{type(value).__name__}; expected a number."
        )


def _own_total(totals: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return this rank's part; of other ranks than there are now, rank 0 takes all."""
    if len(totals) == get_world_size():
        mine = totals[get_rank()]
    elif get_rank() > 0 or not totals:
        mine = (0.0, 0)
    else:
        mine = (sum(total for total, _ in totals), sum(count for _, count in totals))
    return float(mine[0]), int(mine[1])
