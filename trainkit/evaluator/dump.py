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
from trainkit.evaluator.losses import batch_size
from trainkit.evaluator.metric import BaseMetric

logger = logging.getLogger(__name__)

_PICKLES = (".pkl", ".pickle")


class DumpResults(BaseMetric):
    """Write the predictions of every sample to a file, for ``Evaluator.offline_evaluate``.

    Predictions that are tensors ``(N, ...)`` become one tensor with a row for each sample, lists
    become one list. A dict or tuple of tensors ``(N, ...)`` or lists becomes a dict or tuple for
    each sample, in one list. The order is the dataset's, of several ranks too, if trainkit makes
    the loader's sampler. Each evaluation writes the file anew; of several named sets each has its
    own, ``<name>.<set>.pt``.

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
        """Keep the predictions of a batch, on the CPU.

        Raises:
            ConfigError: They cannot be told apart by sample.
        """
        kept = _kept(data_samples)
        is_tensor = isinstance(kept, torch.Tensor) and kept.dim() > 0
        self.results.append(kept if is_tensor else _samples(kept, batch_size(data_batch)))

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


def _samples(value: Any, size: int | None) -> list[Any]:
    """Return the predictions of a batch as a list with an entry for each sample.

    Args:
        value: The predictions, which are no tensor with rows.
        size: Samples of the batch; None where that is not known.
    """
    if isinstance(value, list | tuple):
        if not _are_columns(value, size):
            return list(value)
        return [tuple(_row(part, i) for part in value) for i in range(_length(value[0]) or 0)]
    length = _length(value) if isinstance(value, Mapping) else None
    if length is None:
        entries = value.items() if isinstance(value, Mapping) else ()
        lengths = ", ".join(f"{key}: {_length(item) or 'none'}" for key, item in entries)
        raise ConfigError(
            f"DumpResults got predictions of type {type(value).__name__}"
            + (f" with entries of the lengths {lengths}" if lengths else "")
            + ", which cannot be told apart by sample. Predict a tensor (N, ...), a list with an "
            "entry for each sample, or a dict or tuple of these that are of one length."
        )
    return [_row(value, index) for index in range(length)]


def _are_columns(value: list[Any] | tuple[Any, ...], size: int | None) -> bool:
    """Whether a sequence has an entry for each output of the model, and not for each sample.

    Args:
        value: The sequence.
        size: Samples of the batch. A list that is as long has one for each; a tuple of which each
            entry is as long has not, nor a tuple of equally long tensors where it is not known.
    """
    lengths = {_length(part) for part in value}
    if len(lengths) != 1 or None in lengths:
        return False
    if size is not None:
        return lengths == {size} and (isinstance(value, tuple) or len(value) != size)
    return isinstance(value, tuple) and all(isinstance(part, torch.Tensor) for part in value)


def _length(value: Any) -> int | None:
    """Return how many samples one output may be of; None where it has no such length."""
    if isinstance(value, torch.Tensor):
        return len(value) if value.dim() else None
    if isinstance(value, Mapping):
        lengths = {_length(item) for item in value.values()}
        return lengths.pop() if len(lengths) == 1 else None
    return len(value) if isinstance(value, list | tuple) else None


def _row(value: Any, index: int) -> Any:
    """Return one sample of an output, as a copy."""
    if isinstance(value, Mapping):
        return {key: _row(item, index) for key, item in value.items()}
    row = value[index]
    return row.clone() if isinstance(value, torch.Tensor) else row


def _joined(results: list[Any]) -> Any:
    """Return the predictions of all batches: one tensor if they fit together, else one list."""
    tensors = [entry for entry in results if isinstance(entry, torch.Tensor)]
    kinds = {(tensor.shape[1:], tensor.dtype) for tensor in tensors}
    if len(kinds) == 1 and len(tensors) == len(results):
        return torch.cat(tensors)
    return [row for entry in results for row in _rows(entry)]


def _rows(entry: Any) -> list[Any]:
    return [row.clone() for row in entry] if isinstance(entry, torch.Tensor) else list(entry)
