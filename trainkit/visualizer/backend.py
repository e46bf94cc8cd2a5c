"""VisBackend: one place where scalars and pictures are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from trainkit.errors import ConfigError, did_you_mean
from trainkit.visualizer.picture import Pixels

Axis = Literal["iter", "epoch", "samples"]
COUNTERS = ("step", *get_args(Axis))  # what is no curve by itself


NO_SAMPLES = (
    "A backend has x_axis=samples, but how many samples were seen is not known: the train "
    "dataloader has no batch_size and length that tell. Take x_axis=iter or epoch."
)


class VisBackend(ABC):
    """Base of all backends. Nothing is made on disk before :meth:`open`."""

    # What may go wrong outside while something is written: told once, and training goes on.
    failures: tuple[type[Exception], ...] = (OSError,)
    x_axis: Axis = "iter"  # what curves stand over

    @abstractmethod
    def open(self, save_dir: Path, resume_step: int | None) -> None:
        """Begin to write; what an earlier process wrote after ``resume_step`` is dropped."""

    @abstractmethod
    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write scalars that belong to ``step``.

        Beside them stand, where they are known, the counters ``iter``, ``epoch`` and ``samples``.
        """

    def add_image(self, name: str, image: Pixels, step: int) -> None:  # noqa: B027 - not every one
        """Write a picture, ``(height, width, 3)`` bytes, that belongs to the iteration ``step``."""

    def add_config(self, text: str) -> None:  # noqa: B027 - not every backend shows configs
        """Write the run's config, as YAML."""

    def add_hparams(  # noqa: B027 - not every backend compares runs
        self, hparams: Mapping[str, Any], metrics: Mapping[str, float], step: int
    ) -> None:
        """Write what a run is compared by with others: once, at its end, in iteration ``step``."""

    def state_dict(self) -> dict[str, Any]:
        """Return how much is written, so that a resumed run can take back what came later."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Take what :meth:`state_dict` returned, before :meth:`open`."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still held back, and free the files."""


def check_axis(x_axis: Any, backend: str) -> Axis:
    """Return ``x_axis`` if it is one.

    Raises:
        ConfigError: It is none.
    """
    if x_axis not in get_args(Axis):
        near = did_you_mean(str(x_axis), get_args(Axis))
        raise ConfigError(f"{backend} has x_axis={x_axis!r}. {near}")
    axis: Axis = x_axis
    return axis


def on_axis(scalars: Mapping[str, float], step: int, x_axis: Axis) -> int:
    """Return where scalars stand on the axis; ``step``, where they bring no counters at all.

    Raises:
        ConfigError: They bring others, but not that one.
    """
    if x_axis in scalars:
        return int(scalars[x_axis])
    if x_axis == "samples" and "iter" in scalars:
        raise ConfigError(NO_SAMPLES)
    return step
