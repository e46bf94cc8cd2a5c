"""Models: base classes, initial weights, preprocessors, averages, and a network to start with."""

from trainkit.model.averaged import (
    BaseAveragedModel,
    ExponentialMovingAverage,
    MomentumAnnealingEMA,
    StochasticWeightAverage,
    trained_weights,
)
from trainkit.model.base import BaseModel
from trainkit.model.convnet import ConvNet
from trainkit.model.distributed import DistributedDataParallel, broadcast_weights
from trainkit.model.image_preprocessor import ImgDataPreprocessor
from trainkit.model.init import BaseInit
from trainkit.model.initializers import (
    Caffe2XavierInit,
    ConstantInit,
    KaimingInit,
    NormalInit,
    TruncNormalInit,
    UniformInit,
    XavierInit,
)
from trainkit.model.module import (
    BaseModule,
    ModuleDict,
    ModuleList,
    Sequential,
    check_init_cfg,
)
from trainkit.model.preprocessor import BaseDataPreprocessor
from trainkit.model.pretrained import PretrainedInit
from trainkit.model.wrap import (
    checkpoint_activations,
    convert_sync_batchnorm,
    has_checkpointed,
    mark_wrapper,
    revert_sync_batchnorm,
    unwrap,
)

__all__ = [
    "BaseAveragedModel",
    "BaseDataPreprocessor",
    "BaseInit",
    "BaseModel",
    "BaseModule",
    "Caffe2XavierInit",
    "ConstantInit",
    "ConvNet",
    "DistributedDataParallel",
    "ExponentialMovingAverage",
    "ImgDataPreprocessor",
    "KaimingInit",
    "ModuleDict",
    "ModuleList",
    "MomentumAnnealingEMA",
    "NormalInit",
    "PretrainedInit",
    "Sequential",
    "StochasticWeightAverage",
    "TruncNormalInit",
    "UniformInit",
    "XavierInit",
    "broadcast_weights",
    "check_init_cfg",
    "checkpoint_activations",
    "convert_sync_batchnorm",
    "has_checkpointed",
    "mark_wrapper",
    "revert_sync_batchnorm",
    "trained_weights",
    "unwrap",
]
