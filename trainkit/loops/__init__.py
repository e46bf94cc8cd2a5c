"""The loops: train by epochs or iterations, validate, test."""

from trainkit.loops.base import BaseTrainLoop
from trainkit.loops.evaluate import TestLoop, ValLoop
from trainkit.loops.progress import Progress
from trainkit.loops.sets import LoaderSets
from trainkit.loops.train import EpochBasedTrainLoop, IterBasedTrainLoop

__all__ = [
    "BaseTrainLoop",
    "EpochBasedTrainLoop",
    "IterBasedTrainLoop",
    "LoaderSets",
    "Progress",
    "TestLoop",
    "ValLoop",
]
