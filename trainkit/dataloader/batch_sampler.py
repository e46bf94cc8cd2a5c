"""Batches whose samples go together."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, cast

from torch.utils.data import Sampler

from trainkit.errors import ConfigError


class AspectRatioBatchSampler(Sampler[list[int]]):
    """Batches of images that are all at least as wide as high, or all higher than wide.

    So little is padded. Samples keep the sampler's order within each kind. What is left of both at
    the end of an epoch makes the last batches together, so that each sample comes as often as the
    sampler has it, and ranks with as many samples have as many batches.
    ``dataset.get_data_info(idx)`` must give ``width`` and ``height``.

    Args:
        sampler: Gives the order; its ``dataset`` is asked for the sizes.
        batch_size: Samples of a batch.
        drop_last: Leave the last batch out if it is not full.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, drop_last: bool = False) -> None:
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size!r}; expected at least 1.")
        # torch's samplers have it under another name.
        dataset = getattr(sampler, "dataset", getattr(sampler, "data_source", None))
        if not hasattr(dataset, "get_data_info"):
            raise ConfigError(
                f"AspectRatioBatchSampler asks the dataset for the sizes of its images, but "
                f"{type(dataset).__name__} has no get_data_info(idx). Derive the dataset from "
                "trainkit.data.BaseDataset, or leave the batch_sampler out."
            )
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self._dataset: Any = dataset

    def __iter__(self) -> Iterator[list[int]]:
        high: list[int] = []
        wide: list[int] = []
        for index in self.sampler:
            bucket = wide if self._is_wide(index) else high
            bucket.append(index)
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()
        left = high + wide  # fewer than two batches
        for batch in (left[: self.batch_size], left[self.batch_size :]):
            if len(batch) == self.batch_size or (batch and not self.drop_last):
                yield batch

    def _is_wide(self, index: int) -> bool:
        info = self._dataset.get_data_info(index)
        missing = [key for key in ("width", "height") if key not in info]
        if missing:
            raise ConfigError(
                f"AspectRatioBatchSampler: sample {index} has no {' and no '.join(missing)}. "
                f"It has: {', '.join(map(str, info))}."
            )
        return bool(info["width"] >= info["height"])

    def __len__(self) -> int:
        """Return the number of batches of an epoch.

        Raises:
            TypeError: The sampler has no length.
        """
        samples = len(cast(Sized, self.sampler))
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)
