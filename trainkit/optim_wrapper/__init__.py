"""Optimizer wrappers: from a loss to an update of the weights."""

from trainkit.optim_wrapper.adopt import adopt
from trainkit.optim_wrapper.amp import AmpOptimWrapper
from trainkit.optim_wrapper.base import OptimWrapper
from trainkit.optim_wrapper.build import (
    CONSTRUCTOR_KEYS,
    bare,
    construct,
    constructor_of,
    is_several,
    with_amp,
)
from trainkit.optim_wrapper.constructor import DefaultOptimWrapperConstructor
from trainkit.optim_wrapper.gradients import load_gradients, open_gradients
from trainkit.optim_wrapper.layer_decay import (
    LayerDecay,
    LearningRateDecayOptimWrapperConstructor,
)
from trainkit.optim_wrapper.paramwise import Paramwise
from trainkit.optim_wrapper.several import OptimWrapperDict

__all__ = [
    "CONSTRUCTOR_KEYS",
    "AmpOptimWrapper",
    "DefaultOptimWrapperConstructor",
    "LayerDecay",
    "LearningRateDecayOptimWrapperConstructor",
    "OptimWrapper",
    "OptimWrapperDict",
    "Paramwise",
    "adopt",
    "bare",
    "construct",
    "constructor_of",
    "is_several",
    "load_gradients",
    "open_gradients",
    "with_amp",
]
