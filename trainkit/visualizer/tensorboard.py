"""Scalars and pictures as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.errors import ConfigError
from trainkit.visualizer.backend import COUNTERS, Axis, VisBackend, check_axis, on_axis
from trainkit.visualizer.picture import Pixels

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_SUFFIX = ".trainkit"  # tells this backend's event files from others in the directory


class TensorboardVisBackend(VisBackend):
    """Write event files for ``tensorboard --logdir``.

    Args:
        subdir: Their directory inside the run's.
        x_axis: What TensorBoard's step is, of training, validation and test alike: ``iter``,
            ``epoch`` (whole ones), or ``samples`` seen by all ranks. Pictures stand at the
            iteration.
    """

    def __init__(self, subdir: str = "tensorboard", x_axis: Axis = "iter") -> None:
        if Path(subdir).is_absolute() or ".." in Path(subdir).parts:
            raise ConfigError(
                f"TensorboardVisBackend has subdir={subdir!r}; expected a directory inside the "
                "run's."
            )
        self.subdir = subdir
        self.x_axis = check_axis(x_axis, type(self).__name__)
        self._writer: SummaryWriter | None = None
        self._directory = Path()
        self._kept: dict[str, int] | None = (
            None  # bytes of each file that a resumed run goes on from
        )

    def open(self, save_dir: Path, resume_step: int | None) -> None:
        """Start a new event file; of a resumed run, earlier ones lose what came later."""
        from torch.utils.tensorboard import (
            SummaryWriter,
        )  # half a second of imports that --help does not pay for

        self._directory = save_dir / self.subdir
        if resume_step is None:
            _set_aside(self._directory)
        elif self._kept is not None:
            _cut(self._directory, self._kept)
        self._kept = None
        # For a TensorBoard that has read the points already. It knows one unit of steps.
        purge = resume_step + 1 if resume_step is not None and self.x_axis == "iter" else None
        self._writer = SummaryWriter(
            str(self._directory), purge_step=purge, filename_suffix=_SUFFIX
        )

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write each scalar but the counters."""
        assert self._writer is not None, "open() comes first"
        step = on_axis(scalars, step, self.x_axis)
        for key, value in scalars.items():
            if key not in COUNTERS:
                self._writer.add_scalar(key, value, step)

    def add_image(self, name: str, image: Pixels, step: int) -> None:
        """Show a picture in the IMAGES tab."""
        assert self._writer is not None, "open() comes first"
        self._writer.add_image(name, image, step, dataformats="HWC")

    def add_config(self, text: str) -> None:
        """Show the config in the TEXT tab."""
        assert self._writer is not None, "open() comes first"
        self._writer.add_text("config", f"```yaml\n{text}\n```")

    def add_hparams(
        self, hparams: Mapping[str, Any], metrics: Mapping[str, float], step: int
    ) -> None:
        """Show the run in the HPARAMS tab, with its metrics, if there are any."""
        assert self._writer is not None, "open() comes first"
        from torch.utils.tensorboard import summary

        if not hparams:
            return
        numbers = {name: float(value) for name, value in metrics.items()}
        # Into this run's own file: SummaryWriter.add_hparams would make another run of it.
        file: Any = self._writer.file_writer
        make: Any = summary.hparams  # torch leaves both untyped
        for message in make(dict(hparams), numbers):
            file.add_summary(message)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def state_dict(self) -> dict[str, Any]:
        """Return the length of each event file."""
        if self._writer is None:
            return {}
        self._writer.flush()
        files = sorted(self._directory.glob(f"*{_SUFFIX}"))
        return {"files": {file.name: file.stat().st_size for file in files}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Have :meth:`open` keep that much of each file."""
        self._kept = dict(state_dict["files"])

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


def _set_aside(directory: Path) -> None:
    """Hide the files of a start that came to no checkpoint, so that no point stands twice."""
    for file in directory.glob(f"*{_SUFFIX}"):
        # TensorBoard reads whatever has "tfevents" in its name.
        name = file.name.removesuffix(_SUFFIX).replace("tfevents", "superseded")
        file.rename(file.with_name(name))


def _cut(directory: Path, kept: Mapping[str, int]) -> None:
    """Take from the event files what is not ``kept``: points that a resumed run makes again."""
    for file in directory.glob(f"*{_SUFFIX}"):
        size = kept.get(file.name, 0)
        if not size:
            file.unlink()
        elif file.stat().st_size > size:
            with file.open("r+b") as opened:
                opened.truncate(size)
