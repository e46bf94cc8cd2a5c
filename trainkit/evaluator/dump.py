"""DumpResults: keep the predictions of an evaluation in a file."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from trainkit.checkpoint import check_plain
from trainkit.errors import CheckpointError, ConfigError
from trainkit.evaluator.metric import BaseMetric

logger = logging.getLogger(__name__)

_PICKLES = (".pkl", ".pickle")


class DumpResults(BaseMetric):
    """Write the predictions of every sample to a file, for ``Evaluator.offline_evaluate``.

    Predictions that are tensors ``(N, ...)`` become one tensor with a row for each sample, lists
    become one list. Each evaluation writes the file anew; of several named sets each has its own,
    ``<name>.<set>.pt``.

    Args:
        out_file_path: ``*.pt``, which ``torch.load`` reads safely (``weights_only=True``); or
            ``*.pkl``, for MMEngine's tools: whoever reads that must trust it. A relative path is
            below the run's directory.
        collect_device: See :class:`BaseMetric`.
        collect_dir: See :class:`BaseMetric`.
    """

    names = ()

    def __init__(
        self,
        *,  # by name alone, as a config of a stored run is held to where it writes by that name
        out_file_path: str,
        collect_device: Literal["cpu", "gpu"] = "cpu",
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device, None, collect_dir)
        if not str(out_file_path).endswith((".pt", ".pth", *_PICKLES)):
            raise ConfigError(
                f"out_file_path is {str(out_file_path)!r}; expected a name that ends with .pt, or "
                "with .pkl for tools that read pickles."
            )
        self.out_file_path = out_file_path

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Keep the predictions of a batch, on the CPU."""
        self.results.append(_kept(data_samples))

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        """Write the file; there are no numbers."""
        path = self._path()
        joined = _joined(results)
        _replace(path, _pickled(joined, path) if path.suffix in _PICKLES else _saved(joined, path))
        logger.info("The predictions of %d samples are in %s", len(joined), path)
        return {}

    def _path(self) -> Path:
        path = (self.work_dir or Path()) / Path(self.out_file_path).expanduser()
        if self.set_name is None:
            return path
        return path.with_name(f"{path.stem}.{self.set_name.replace('/', '_')}{path.suffix}")


def _saved(value: Any, path: Path) -> bytes:
    """Return the bytes of a file that ``torch.load`` reads safely."""
    try:
        check_plain(value)
    except CheckpointError as error:
        what = str(error).partition(", which")[0].removeprefix("The checkpoint's ")
        raise ConfigError(
            f"{path} cannot hold the predictions: {what}, which could not be read back safely. "
            "Predict tensors, numbers, texts, or lists and dicts of these; or name it *.pkl."
        ) from None
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _pickled(value: Any, path: Path) -> bytes:
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path} cannot hold the predictions: {error}.") from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside ``path`` and put it there when it is whole."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"The predictions cannot be written to {path}: {error.strerror or error}. Give "
            "another out_file_path."
        ) from error


def _kept(value: Any) -> Any:
    """Return predictions as copies on the CPU, arrays as tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _kept(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        kept = [_kept(item) for item in value]
        return kept if isinstance(value, list) else tuple(kept)
    return value


def _joined(results: list[Any]) -> Any:
    """Return the predictions of all batches: one tensor if they fit together, else one list."""
    tensors = [entry for entry in results if isinstance(entry, torch.Tensor) and entry.dim()]
    if results and len(tensors) == len(results):
        if len({(tensor.shape[1:], tensor.dtype) for tensor in tensors}) == 1:
            return torch.cat(tensors)
        return [row.clone() for tensor in tensors for row in tensor]
    joined: list[Any] = []
    for entry in results:
        joined.extend(entry if isinstance(entry, list | tuple) else [entry])
    return joined
