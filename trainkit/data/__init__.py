"""Datasets: the digits that ship with trainkit, and what datasets of one's own are made of."""

from trainkit.data.dataset import BaseDataset
from trainkit.data.digits import Digits
from trainkit.data.transform import Compose
from trainkit.data.wrappers import ClassBalancedDataset, ConcatDataset, RepeatDataset

__all__ = [
    "BaseDataset",
    "ClassBalancedDataset",
    "Compose",
    "ConcatDataset",
    "Digits",
    "RepeatDataset",
]
