"""Samplers, collate functions and what keeps a loader's place in the data."""

from trainkit.dataloader.batch_sampler import AspectRatioBatchSampler
from trainkit.dataloader.collate import default_collate, pseudo_collate
from trainkit.dataloader.loader import SeededLoader, take_over
from trainkit.dataloader.position import (
    batch_sizes,
    batches_from,
    data_sampler,
    go_to,
    num_batches,
    place_of,
    set_epoch,
)
from trainkit.dataloader.sampler import DefaultSampler, InfiniteSampler
from trainkit.dataloader.subset import FirstOfStream, FirstSamples

__all__ = [
    "AspectRatioBatchSampler",
    "DefaultSampler",
    "FirstOfStream",
    "FirstSamples",
    "InfiniteSampler",
    "SeededLoader",
    "batch_sizes",
    "batches_from",
    "data_sampler",
    "default_collate",
    "go_to",
    "num_batches",
    "place_of",
    "pseudo_collate",
    "set_epoch",
    "take_over",
]
