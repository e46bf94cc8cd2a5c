"""Visualizer: one front for all backends; only rank 0 writes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainkit.dist import is_main_process
from trainkit.errors import ConfigError, TrainkitError
from trainkit.visualizer.backend import NO_SAMPLES, VisBackend
from trainkit.visualizer.picture import to_pixels

logger = logging.getLogger(__name__)


class Visualizer:
    """Hand scalars, pictures and the config to every backend.

    A backend that cannot be opened is an error. One that fails later, on a full disk or without a
    network, is told of once, and training goes on.

    Args:
        vis_backends: A list of backends, or a dict of them by name; an entry that is None is left
            out.
    """

    def __init__(
        self, vis_backends: Sequence[VisBackend] | Mapping[str, VisBackend | None] = ()
    ) -> None:
        named = vis_backends if isinstance(vis_backends, Mapping) else _by_class(vis_backends)
        self._named = {str(key): backend for key, backend in named.items() if backend is not None}
        self.vis_backends = list(self._named.values())
        for backend in self.vis_backends:
            if not isinstance(backend, VisBackend):
                raise ConfigError(
                    f"A visualizer got a {type(backend).__name__} as backend; expected a "
                    "VisBackend."
                )
        self._is_open = False
        self._failed: set[str] = set()  # those that were told of

    @property
    def is_open(self) -> bool:
        """Whether what is added is written."""
        return self._is_open

    def open(self, save_dir: Path, resume_step: int | None = None) -> None:
        """Begin to write under ``save_dir``.

        Args:
            save_dir: The run's directory.
            resume_step: Iterations done before, when an earlier run is continued.

        Raises:
            ConfigError: A backend cannot write there.
        """
        if not is_main_process() or self._is_open:
            return
        with contextlib.ExitStack() as opened:
            for name, backend in self._named.items():
                try:
                    backend.open(save_dir, resume_step)
                except OSError as error:
                    raise ConfigError(
                        f"visualizer.vis_backends.{name} cannot write in {save_dir}: {error}. Mend "
                        f"that, or leave it out: visualizer.vis_backends.{name}=null."
                    ) from error
                opened.callback(backend.close)
            opened.pop_all()
        self._is_open = True

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write one scalar, as :meth:`add_scalars` does."""
        self.add_scalars({name: value}, step)

    def check_axes(self, samples_known: bool) -> None:
        """Raise if curves shall stand over what the run cannot tell.

        Args:
            samples_known: Whether the train dataloader tells how many samples were seen.
        """
        if not samples_known and any(b.x_axis == "samples" for b in self.vis_backends):
            raise ConfigError(NO_SAMPLES)

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write scalars that belong to ``step``; without effect before :meth:`open`."""
        self._tell_all(lambda backend: backend.add_scalars(scalars, step))

    def add_image(self, name: str, image: Any, step: int) -> None:
        """Write a picture that belongs to the iteration ``step``; without effect before open().

        Args:
            name: What it shows, such as ``"val/predictions"``.
            image: A tensor ``(channels, height, width)`` or an array ``(height, width, channels)``.
            step: The iteration.

        Raises:
            ConfigError: It is no image.
        """
        if self._is_open and self.vis_backends:
            pixels = to_pixels(image)
            self._tell_all(lambda backend: backend.add_image(name, pixels, step))

    def add_config(self, text: str) -> None:
        """Write the run's config, as YAML."""
        self._tell_all(lambda backend: backend.add_config(text))

    def add_hparams(
        self, hparams: Mapping[str, Any], metrics: Mapping[str, float], step: int
    ) -> None:
        """Write what a run is compared by with others, at its end.

        Args:
            hparams: Plain values of the config, by their paths.
            metrics: Numbers, by names such as ``best/accuracy``.
            step: The iteration.
        """
        self._tell_all(lambda backend: backend.add_hparams(hparams, metrics, step))

    def state_dict(self) -> dict[str, Any]:
        """Return how much each backend has written, by name."""
        states = {name: self._guarded(name, b.state_dict) for name, b in self._named.items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` returned, before :meth:`open`."""
        for name, backend in self._named.items():
            if name in state_dict:
                backend.load_state_dict(state_dict[name])

    def close(self) -> None:
        """Close every backend."""
        self._tell_all(lambda backend: backend.close())
        self._is_open = False

    def _tell_all(self, call: Callable[[VisBackend], None]) -> None:
        if self._is_open:
            for name, backend in self._named.items():
                self._guarded(name, partial(call, backend))

    def _guarded(self, name: str, write: Callable[[], Any]) -> Any:
        """Return what ``write`` does; of a failure outside, tell once."""
        try:
            return write()
        except TrainkitError:
            raise
        except self._named[name].failures as error:
            if name not in self._failed:
                self._failed.add(name)
                logger.warning(
                    "visualizer.vis_backends.%s cannot write: %s. Training goes on; what cannot be "
                    "written is missing there.",
                    name,
                    " ".join(str(error).split()) or type(error).__name__,
                )
            return None


def _by_class(backends: Sequence[VisBackend]) -> dict[str, VisBackend]:
    """Name the backends of a list by their class, a second one of a class with a number."""
    named: dict[str, VisBackend] = {}
    for backend in backends:
        name = type(backend).__name__
        named[name if name not in named else f"{name}_{len(named)}"] = backend
    return named
