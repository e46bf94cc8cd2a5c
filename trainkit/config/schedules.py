"""Configs of the parameter schedulers as dataclasses; :mod:`trainkit.config.schema` says how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class ParamSchedulerConfig:
    """What every scheduler takes, and ``convert_to_iter_based``, which the Runner reads."""

    param_name: str = "lr"
    begin: int = 0
    end: int | None = None
    by_epoch: bool | None = None
    by_update: bool = False
    convert_to_iter_based: bool = False


@dataclass(kw_only=True)
class LinearLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.LinearLR`."""

    start_factor: float = 1 / 3
    end_factor: float = 1.0
    _target_: str = "trainkit.param_scheduler.LinearLR"


@dataclass(kw_only=True)
class MultiStepLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.MultiStepLR`."""

    milestones: list[int]
    gamma: float = 0.1
    _target_: str = "trainkit.param_scheduler.MultiStepLR"


@dataclass(kw_only=True)
class CosineAnnealingLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.CosineAnnealingLR`."""

    T_max: int | None = None
    eta_min: float | None = None
    eta_min_ratio: float | None = None
    _target_: str = "trainkit.param_scheduler.CosineAnnealingLR"


@dataclass(kw_only=True)
class PolyLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.PolyLR`."""

    power: float = 1.0
    eta_min: float = 0.0
    _target_: str = "trainkit.param_scheduler.PolyLR"


@dataclass(kw_only=True)
class OneCycleLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.OneCycleLR`."""

    eta_max: Any = 0.0
    total_steps: int | None = None
    pct_start: float = 0.3
    anneal_strategy: str = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False
    _target_: str = "trainkit.param_scheduler.OneCycleLR"


@dataclass(kw_only=True)
class ConstantLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.ConstantLR`."""

    factor: float = 1 / 3
    _target_: str = "trainkit.param_scheduler.ConstantLR"


@dataclass(kw_only=True)
class ExponentialLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.ExponentialLR`."""

    gamma: float
    _target_: str = "trainkit.param_scheduler.ExponentialLR"


@dataclass(kw_only=True)
class StepLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.StepLR`."""

    step_size: int
    gamma: float = 0.1
    _target_: str = "trainkit.param_scheduler.StepLR"


@dataclass(kw_only=True)
class CosineRestartLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.CosineRestartLR`."""

    periods: list[int]
    restart_weights: tuple[float, ...] = (1,)
    eta_min: float | None = None
    eta_min_ratio: float | None = None
    _target_: str = "trainkit.param_scheduler.CosineRestartLR"


@dataclass(kw_only=True)
class ReduceOnPlateauLRConfig(ParamSchedulerConfig):
    """:class:`trainkit.param_scheduler.ReduceOnPlateauLR`."""

    monitor: str = "loss"
    rule: Any = None
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_rule: str = "rel"
    cooldown: int = 0
    min_value: Any = 0.0
    eps: float = 1e-8
    interval: int = 1
    _target_: str = "trainkit.param_scheduler.ReduceOnPlateauLR"
