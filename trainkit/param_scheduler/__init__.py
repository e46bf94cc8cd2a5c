"""Parameter schedulers: a value of the optimizer as a pure function of the step."""

from trainkit.param_scheduler.base import ParamScheduler, chain
from trainkit.param_scheduler.schedules import (
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolyLR,
)

__all__ = [
    "CosineAnnealingLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ParamScheduler",
    "PolyLR",
    "chain",
]
