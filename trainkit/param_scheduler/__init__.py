"""Parameter schedulers: a value of the optimizer as a pure function of the step."""

from trainkit.param_scheduler.base import ParamScheduler, chain
from trainkit.param_scheduler.cosine import CosineAnnealingLR, CosineRestartLR
from trainkit.param_scheduler.one_cycle import OneCycleLR
from trainkit.param_scheduler.plateau import ReduceOnPlateauLR
from trainkit.param_scheduler.schedules import (
    ConstantLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolyLR,
    StepLR,
)

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineRestartLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ParamScheduler",
    "PolyLR",
    "ReduceOnPlateauLR",
    "StepLR",
    "chain",
]
