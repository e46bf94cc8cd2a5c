"""MessageHub: the scalars and facts of one run, from those who make them to those who show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainkit.history import KEPT, HistoryBuffer

__all__ = ["HistoryBuffer", "MessageHub"]


class MessageHub:
    """Scalars with a history (``train/loss``) and facts without one (``epoch``) of one Runner.

    Args:
        window: The longest window of a log line: so many values of each scalar are kept, and go
            into a checkpoint, so that the first line after a resume is that of a run that went on.
    """

    def __init__(self, window: int = 10) -> None:
        self.window = window
        self.log_scalars: dict[str, HistoryBuffer] = {}
        self.runtime_info: dict[str, Any] = {}
        self._resumed: set[str] = set()
        self._passing: set[str] = set()  # scalars that stay out of checkpoints
        self._epochs: dict[str, int] = {}  # the number of the epoch that has begun, by mode
        # States of a resumed run. A scalar that is no longer made shall not come back with them.
        self._stored: dict[str, Mapping[str, Any]] = {}

    def update_scalar(self, key: str, value: Any, count: float = 1, resumed: bool = True) -> None:
        """Append ``value`` to the history of ``key``, such as ``"train/loss"``.

        Args:
            key: The scalar, with ``train/``, ``val/`` or ``test/`` before its name.
            value: A number, or a tensor of one element.
            count: Samples that it stands for, which weigh it in a mean.
            resumed: Whether the newest values go into checkpoints.
        """
        self.recall(key)
        buffer = self.log_scalars.get(key)
        if buffer is None:
            buffer = self.log_scalars[key] = self._buffer(key)
        buffer.update(value, count)
        if not resumed:
            self._passing.add(key)

    def recall(self, key: str) -> None:
        """Bring back the history that ``key`` had before a resume, if it had one.

        Others come back when they are next updated: one that no longer is shall not.
        """
        if key in self._stored:
            buffer = self.log_scalars[key] = self._buffer(key)
            buffer.load_state_dict(self._stored.pop(key))

    def _buffer(self, key: str) -> HistoryBuffer:
        return HistoryBuffer(max(self.window, KEPT), name=key)

    def update_scalars(self, log_dict: Mapping[str, Any], resumed: bool = True) -> None:
        """Append each value, or ``{"value": ..., "count": ...}``, to the history of its key."""
        for key, value in log_dict.items():
            given = value if isinstance(value, Mapping) else {"value": value}
            self.update_scalar(key, given["value"], given.get("count", 1), resumed)

    def get_scalar(self, key: str) -> HistoryBuffer:
        """Return the history of ``key``.

        Raises:
            KeyError: There is none yet.
        """
        if key not in self.log_scalars:
            raise KeyError(
                f"No scalar {key!r} yet. There are: {', '.join(self.log_scalars) or 'none'}."
            )
        return self.log_scalars[key]

    def begin_epoch(self, mode: str, number: int | None = None) -> None:
        """Begin the window ``"epoch"`` of the scalars of ``mode`` anew.

        Args:
            mode: ``"train"``, ``"val"`` or ``"test"``.
            number: Of the epoch. One that had begun before a resume goes on.
        """
        if number is not None and self._epochs.get(mode) == number:
            return
        if number is not None:
            self._epochs[mode] = number
        for key, buffer in self.log_scalars.items():
            if key.startswith(f"{mode}/"):
                buffer.begin_epoch()
        empty = HistoryBuffer().state_dict(1)["epoch"]
        for key, state in self._stored.items():
            if key.startswith(f"{mode}/"):
                self._stored[key] = {**state, "epoch": empty}

    def update_info(self, key: str, value: Any, resumed: bool = True) -> None:
        """Set a fact; a ``resumed`` one goes into checkpoints and must be plain data."""
        self.runtime_info[key] = value
        (self._resumed.add if resumed else self._resumed.discard)(key)

    def update_info_dict(self, info_dict: Mapping[str, Any], resumed: bool = True) -> None:
        """Set each fact."""
        for key, value in info_dict.items():
            self.update_info(key, value, resumed)

    def get_info(self, key: str, default: Any = None) -> Any:
        """Return a fact."""
        return self.runtime_info.get(key, default)

    def pop_info(self, key: str, default: Any = None) -> Any:
        """Remove a fact and return it."""
        self._resumed.discard(key)
        return self.runtime_info.pop(key, default)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: facts, and the windows of the scalars.

        The rest of the histories stays out, so that a checkpoint does not grow with the run.
        """
        kept = [key for key in self.log_scalars if key not in self._passing]
        return {
            "info": {key: self.runtime_info[key] for key in sorted(self._resumed)},
            "scalars": {
                **{key: dict(state) for key, state in self._stored.items()},
                **{key: self.log_scalars[key].state_dict(self.window) for key in kept},
            },
            "epochs": dict(self._epochs),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""
        self.update_info_dict(state_dict["info"])
        self._stored = dict(state_dict["scalars"])
        self._epochs = dict(state_dict["epochs"])
