"""Scalars as JSON lines, and pictures as PNG files, which any tool reads."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from trainkit.errors import ConfigError
from trainkit.run_dir import safe_name, unused
from trainkit.visualizer.backend import VisBackend
from trainkit.visualizer.picture import Pixels, write_png

IMAGES = "vis_image"  # the directory of the pictures in the run's
_STEP = re.compile(r"_(\d{8,})\.png$", re.ASCII)


class LocalVisBackend(VisBackend):
    """Append an object ``{"step": ..., name: value, ...}`` for each call to a file of JSON lines.

    Pictures are ``vis_image/<name>_<step>.png``.

    Args:
        filename: The file's name in the run's directory.
    """

    def __init__(self, filename: str = "metrics.jsonl") -> None:
        if safe_name(filename) != filename:
            raise ConfigError(
                f"LocalVisBackend has filename={filename!r}; expected the name of a file, without "
                "a directory: it lies in the run's own."
            )
        self.filename = filename
        self._file: TextIO | None = None
        self._images: Path | None = None
        self._lines = 0  # in the file
        self._kept: int | None = None  # of them, those that a resumed run goes on from

    def open(self, save_dir: Path, resume_step: int | None) -> None:
        """Open the file; of a resumed run, without lines after ``resume_step`` or torn ones."""
        path = save_dir / self.filename
        if resume_step is None:
            if path.exists():  # of a run that left no checkpoint: new lines stand alone
                path.rename(unused(path))
        elif path.exists():
            lines = path.read_text().splitlines()
            kept = [line for line in lines[: self._kept] if _iteration(line) <= resume_step]
            self._lines = len(kept)
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(f"{line}\n" for line in kept))
            temporary.replace(path)
        self._kept = None
        self._images = _pictures(save_dir / IMAGES, resume_step)
        self._file = path.open("a", buffering=1)  # a line at a time: a killed run loses none

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write one line. Values that JSON does not know (NaN, infinity) are written as strings."""
        assert self._file is not None, "open() comes first"
        values = {key: _as_json(value) for key, value in scalars.items() if key != "step"}
        self._lines += 1  # a line that a full disk refuses now is held, and comes with a later one
        self._file.write(json.dumps({"step": step, **values}) + "\n")

    def add_image(self, name: str, image: Pixels, step: int) -> None:
        """Write a PNG file."""
        assert self._images is not None, "open() comes first"
        write_png(self._images / f"{safe_name(name)}_{step:08d}.png", image)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of lines."""
        return {"lines": self._lines}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Have :meth:`open` keep that many lines."""
        self._kept = int(state_dict["lines"])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


def _pictures(directory: Path, resume_step: int | None) -> Path:
    """Return the directory of the pictures; of a resumed run, without those after the step."""
    if resume_step is None and directory.exists():  # of a run that left no checkpoint
        directory.rename(unused(directory))
    for path in directory.glob("*.png"):
        match = _STEP.search(path.name)
        if match and resume_step is not None and int(match[1]) > resume_step:
            path.unlink()
    return directory


def _as_json(value: Any) -> Any:
    number = value.item() if hasattr(value, "item") else value  # tensors and NumPy's numbers
    return str(number) if isinstance(number, float) and not math.isfinite(number) else number


def _iteration(line: str) -> float:
    """Return the iteration a line belongs to; infinity for one that cannot be read."""
    try:
        record = json.loads(line)
        return float(record.get("iter", record["step"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return math.inf
