"""Scalars and pictures as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.errors import ConfigError
from trainkit.visualizer.backend import VisBackend
from trainkit.visualizer.picture import Pixels

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorboardVisBackend(VisBackend):
    """Write event files for ``tensorboard --logdir``.

    Args:
        subdir: Their directory inside the run's.
    """

    def __init__(self, subdir: str = "tensorboard") -> None:
        if Path(subdir).is_absolute() or ".." in Path(subdir).parts:
            raise ConfigError(
                f"TensorboardVisBackend has subdir={subdir!r}; expected a directory inside the "
                "run's."
            )
        self.subdir = subdir
        self._writer: SummaryWriter | None = None

    def open(self, save_dir: Path, resume_step: int | None) -> None:
        """Start a new event file; points of earlier ones after ``resume_step`` are hidden."""
        from torch.utils.tensorboard import (
            SummaryWriter,
        )  # half a second of imports that --help does not pay for

        purge = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(save_dir / self.subdir), purge_step=purge)

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write each scalar but the counters. The x-axis is the iteration wherever it is known.

        TensorBoard takes back the points of a killed run by their step, so all need one unit.
        """
        assert self._writer is not None, "open() comes first"
        step = int(scalars.get("iter", step))
        for key, value in scalars.items():
            if key not in ("step", "iter", "epoch"):
                self._writer.add_scalar(key, value, step)

    def add_image(self, name: str, image: Pixels, step: int) -> None:
        """Show a picture in the IMAGES tab."""
        assert self._writer is not None, "open() comes first"
        self._writer.add_image(name, image, step, dataformats="HWC")

    def add_config(self, text: str) -> None:
        """Show the config in the TEXT tab."""
        assert self._writer is not None, "open() comes first"
        self._writer.add_text("config", f"```yaml\n{text}\n```")

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
