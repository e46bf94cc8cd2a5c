"""Samplers, collate functions and what keeps a loader's place in the data."""

from trainkit.dataloader.collate import default_collate, pseudo_collate
from trainkit.dataloader.position import batches_from, data_sampler, num_batches, set_epoch
from trainkit.dataloader.sampler import DefaultSampler, InfiniteSampler
from trainkit.dataloader.subset import FirstSamples

__all__ = [
    "DefaultSampler",
    "FirstSamples",
    "InfiniteSampler",
    "batches_from",
    "data_sampler",
    "default_collate",
    "num_batches",
    "pseudo_collate",
    "set_epoch",
]
