"""Read a checkpoint, or weights that something else has saved, without running code from it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainkit.checkpoint.files import verify_checkpoint
from trainkit.errors import CheckpointError

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how the files of torch.save begin, the old ones as pickles
# Under which other keys weights stand in files that trainkit and MMEngine have not written.
_USUAL_KEYS = ("model", "model_state_dict", "model_state", "module", "net", "network", "params")


def read_checkpoint(
    path: Path, map_location: str | torch.device = "cpu", rank: int = 0
) -> dict[str, Any]:
    """Return a checkpoint as one dict: ``state_dict`` and whatever else was saved beside it.

    Args:
        path: A checkpoint directory, verified before it is read, or a file that ``torch.load``
            reads: a plain state dict, or a dict with one under ``state_dict`` or, where there is
            no other, under another usual key such as ``model``.
        map_location: Device of the tensors.
        rank: The rank whose own state (``rank``) is read.

    Raises:
        CheckpointError: Damaged, or not loadable without running code from it.
    """
    if path.is_file():
        check_file(path)
        return _as_checkpoint(_load(path, map_location), path)
    files = verify_checkpoint(path)["files"]
    checkpoint = {"state_dict": _load(path / "model.pt", map_location)}
    if "state.pt" in files:
        checkpoint.update(_load(path / "state.pt", map_location))
    if f"rank_{rank}.pt" in files:
        checkpoint["rank"] = _load(path / f"rank_{rank}.pt", "cpu")
    return checkpoint


def check_file(path: Path) -> None:
    """Raise if a file cannot be one that ``torch.load`` reads; little of it is looked at.

    Raises:
        CheckpointError: It is empty, cut short or another kind of file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    if not start:
        what = "it is empty"
    elif start == _ZIP:
        what = _wrong_zip(path)
    else:
        what = "" if start.startswith(_PICKLE) else "it is neither a zip archive nor a pickle"
    if what:
        raise CheckpointError(
            f"{path} is no file that torch.load reads: {what}. Expected a checkpoint of a run, or "
            "weights that torch.save has written."
        )


def _wrong_zip(path: Path) -> str:
    """Say what is wrong with a zip archive; nothing where it may be one of torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # for damaged bytes zipfile raises whatever its parser happens to
        return "its zip archive is cut short or damaged"
    is_torchs = any(name.endswith("/data.pkl") for name in names)
    return "" if is_torchs else "it is a zip archive without a data.pkl"


def _as_checkpoint(loaded: Any, path: Path) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        kind = type(loaded).__name__
        raise CheckpointError(f"{path} holds a {kind}; expected a state dict, or a dict with one.")
    if isinstance(loaded.get("state_dict"), dict):
        return loaded
    weights = _only_weights(loaded)
    return {"state_dict": loaded} if weights is None else {**loaded, "state_dict": weights}


def _only_weights(loaded: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the weights of a dict that has some in one place only, under a usual key."""
    if any(isinstance(value, torch.Tensor) for value in loaded.values()):
        return None  # the dict itself is a state dict
    found = [key for key, value in loaded.items() if _is_state_dict(value)]
    return loaded[found[0]] if len(found) == 1 and found[0] in _USUAL_KEYS else None


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(item, torch.Tensor) for item in value.values()
    )


def _load(path: Path, map_location: str | torch.device) -> Any:
    try:
        # Explicit: the default can be switched off by an environment variable.
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} needs pickle, which can run any code, so it is not loaded "
            f"({str(error).splitlines()[0]}). Where you trust it, write its weights out once, with "
            "the packages that it needs: torch.save(torch.load(path, weights_only=False)"
            "['state_dict'], 'weights.pth'), without ['state_dict'] if it has none. Then load that."
        ) from None
    except Exception as error:  # for damaged bytes torch raises whatever its parsers happen to
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise CheckpointError(
            f"{path} is damaged, or nothing that torch.save has written ({reason})."
        ) from None
