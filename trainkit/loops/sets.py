"""Several named sets of data, evaluated one after the other as one validation or test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from trainkit.dataloader import num_batches
from trainkit.errors import ConfigError


class LoaderSets:
    """The loaders of several named sets, in the place of one loader.

    Its length is that of all together, so that ``batch_idx``, which counts on from set to set,
    stands for the place in the whole evaluation.

    Args:
        loaders: The loaders by name, in the order in which they are read.
    """

    def __init__(self, loaders: Mapping[str, Any]) -> None:
        self.loaders = dict(loaders)
        self.current: str | None = None  # the set in work

    @property
    def dataset(self) -> Any:
        """The dataset of the set in work; None between evaluations."""
        return None if self.current is None else _dataset(self.loaders[self.current])

    def __len__(self) -> int:
        """Return the batches of all sets."""
        lengths = [num_batches(loader) for loader in self.loaders.values()]
        known = [length for length in lengths if length is not None]
        if len(known) < len(lengths):
            raise TypeError("A set's loader has no length.")  # as such a loader itself says
        return sum(known)

    def __iter__(self) -> NoReturn:
        raise ConfigError(
            f"There are several sets ({', '.join(self.loaders)}), which cannot be read as one. Go "
            "through .loaders; a loop of your own that overrides run() goes through self.sets()."
        )

    def each(self) -> Iterator[tuple[str, Any]]:
        """Yield each set's name and loader, and know meanwhile which is in work."""
        try:
            for name, loader in self.loaders.items():
                self.current = name
                yield name, loader
        finally:
            self.current = None


def _dataset(loader: Any) -> Any:
    return getattr(loader, "dataset", None)
