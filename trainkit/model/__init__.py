"""Models: the base class, the preprocessor, averaged weights, and a small network to start with."""

from trainkit.model.averaged import (
    BaseAveragedModel,
    ExponentialMovingAverage,
    MomentumAnnealingEMA,
    StochasticWeightAverage,
    trained_weights,
)
from trainkit.model.base import BaseModel
from trainkit.model.convnet import ConvNet
from trainkit.model.preprocessor import BaseDataPreprocessor
from trainkit.model.wrap import checkpoint_activations, revert_sync_batchnorm, unwrap

__all__ = [
    "BaseAveragedModel",
    "BaseDataPreprocessor",
    "BaseModel",
    "ConvNet",
    "ExponentialMovingAverage",
    "MomentumAnnealingEMA",
    "StochasticWeightAverage",
    "checkpoint_activations",
    "revert_sync_batchnorm",
    "trained_weights",
    "unwrap",
]
