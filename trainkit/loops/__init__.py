"""The loops: train by epochs or iterations, validate, test."""

from trainkit.loops.evaluate import TestLoop, ValLoop
from trainkit.loops.sets import LoaderSets
from trainkit.loops.train import BaseTrainLoop, EpochBasedTrainLoop, IterBasedTrainLoop

__all__ = [
    "BaseTrainLoop",
    "EpochBasedTrainLoop",
    "IterBasedTrainLoop",
    "LoaderSets",
    "TestLoop",
    "ValLoop",
]
