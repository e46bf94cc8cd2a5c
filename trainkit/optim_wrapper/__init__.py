"""Optimizer wrappers: from a loss to an update of the weights."""

from trainkit.optim_wrapper.amp import AmpOptimWrapper
from trainkit.optim_wrapper.base import OptimWrapper

__all__ = ["AmpOptimWrapper", "OptimWrapper"]
