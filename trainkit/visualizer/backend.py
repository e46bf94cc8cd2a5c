"""VisBackend: one place where scalars and pictures are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainkit.visualizer.picture import Pixels


class VisBackend(ABC):
    """Base of all backends. Nothing is made on disk before :meth:`open`."""

    @abstractmethod
    def open(self, save_dir: Path, resume_step: int | None) -> None:
        """Begin to write; what an earlier process wrote after ``resume_step`` is dropped."""

    @abstractmethod
    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write scalars that belong to ``step``."""

    def add_image(self, name: str, image: Pixels, step: int) -> None:  # noqa: B027 - not every one
        """Write a picture, ``(height, width, 3)`` bytes, that belongs to the iteration ``step``."""

    def add_config(self, text: str) -> None:  # noqa: B027 - not every backend shows configs
        """Write the run's config, as YAML."""

    def state_dict(self) -> dict[str, Any]:
        """Return how much is written, so that a resumed run can take back what came later."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Take what :meth:`state_dict` returned, before :meth:`open`."""

    @abstractmethod
    def close(self) -> None:
        """Write what is still held back, and free the files."""
