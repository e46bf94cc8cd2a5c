"""Scalars and pictures as a run of Weights & Biases."""

from __future__ import annotations

import importlib.util
import logging
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainkit.errors import ConfigError, MissingExtra, did_you_mean
from trainkit.visualizer.backend import COUNTERS, Axis, VisBackend, check_axis, on_axis
from trainkit.visualizer.picture import Pixels

logger = logging.getLogger(__name__)

# What a config may say of the run. Where it goes to is for the environment (WANDB_BASE_URL, and
# what `wandb login` has kept): a config that comes from elsewhere shall not send keys there.
_INIT_KEYS = ("entity", "group", "id", "job_type", "mode", "name", "notes", "project", "tags")
_MODES = ("online", "offline", "disabled")
_INIT_TIMEOUT = 30.0  # seconds to wait for the server, before the run is kept offline


class WandbVisBackend(VisBackend):
    """Log to a run of Weights & Biases; without a network it is kept in the run's ``wandb/``.

    A resumed run goes on in the same run of W&B. Rows have numbers of their own, and the server
    passes over those that it has already: the points that a killed process had logged after its
    last checkpoint, which the resumed one makes again. Sent are scalars, pictures and the config,
    secrets left out; neither code nor the command line nor what is printed.

    Args:
        init_kwargs: Of ``wandb.init``: ``project``, ``entity``, ``name``, ``id``, ``group``,
            ``job_type``, ``tags``, ``notes``, and ``mode``: ``online``, ``offline`` or
            ``disabled``. Without ``mode``, the environment's ``WANDB_MODE`` decides.
        define_metric_cfg: What W&B sums a curve up by, ``{"accuracy": "max"}``; or a list of
            arguments of ``define_metric``.
        x_axis: What curves are drawn over: ``iter``, ``epoch``, or ``samples`` seen by all ranks;
            W&B can draw them over the others as well.
    """

    # The package's errors have no base in common.
    failures = (Exception,)

    def __init__(
        self,
        init_kwargs: Mapping[str, Any] | None = None,
        define_metric_cfg: Mapping[str, str] | Sequence[Mapping[str, Any]] | None = None,
        x_axis: Axis = "iter",
    ) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise MissingExtra("wandb", "wandb", type(self).__name__)
        self.init_kwargs = _checked(init_kwargs)
        self.metrics = _metrics(define_metric_cfg)
        self.x_axis = check_axis(x_axis, type(self).__name__)
        self._id: str | None = self.init_kwargs.get("id")
        self._rows = 0  # of the whole run, those of earlier processes included
        self._known = 0  # rows that the server has
        self._run: Any = None

    def open(self, save_dir: Path, resume_step: int | None) -> None:
        """Begin a run, or go on with that of the checkpoint."""
        import wandb

        if resume_step is None or self._id is None:
            self._id, self._rows = self.init_kwargs.get("id") or secrets.token_hex(4), 0
        given = {"name": save_dir.name, **self.init_kwargs, "id": self._id, "dir": str(save_dir)}
        try:
            self._run = _begin(given)
        except wandb.errors.UsageError as error:
            told = str(error).splitlines()[0].rstrip(".")
            hint = " Or set init_kwargs.mode: offline." if "API key" in told else ""
            raise ConfigError(f"WandbVisBackend cannot begin a run: {told}.{hint}") from error
        except wandb.errors.CommError as error:
            # Under another id: W&B holds that of a run that did not begin.
            self._id = secrets.token_hex(4)
            logger.warning(
                "W&B cannot be reached: %s. The run is kept offline in %s, as %s.",
                str(error).splitlines()[0].rstrip("."),
                save_dir / "wandb",
                self._id,
            )
            self._run = _begin({**given, "id": self._id, "mode": "offline"})
        self._known = self._run.step
        for counter in COUNTERS[1:]:
            self._run.define_metric(counter, hidden=True)
        self._run.define_metric("*", step_metric=self.x_axis)
        for metric in self.metrics:
            self._run.define_metric(**{"step_metric": self.x_axis, **metric})
        kept = f"kept in {Path(self._run.dir).parent}, to send with wandb sync"
        logger.info("W&B run %s: %s", self._id, kept if self._run.offline else self._run.url)

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Log one row, with all counters."""
        on_axis(scalars, step, self.x_axis)
        self._log({"iter": step, **{k: v for k, v in scalars.items() if k != "step"}})

    def add_image(self, name: str, image: Pixels, step: int) -> None:
        """Log a picture."""
        import wandb

        self._log({"iter": step, name: wandb.Image(image)})

    def add_config(self, text: str) -> None:
        """Set the run's config; of a resumed run, to that of now."""
        config = yaml.safe_load(text) if text else None
        if isinstance(config, Mapping):
            self._opened().config.update(dict(config), allow_val_change=True)

    def add_hparams(
        self, hparams: Mapping[str, Any], metrics: Mapping[str, float], step: int
    ) -> None:
        """Put the metrics into the run's summary; its config is known."""
        self._opened().summary.update(dict(metrics))

    def state_dict(self) -> dict[str, Any]:
        """Return the run's id, and the number of rows."""
        return {} if self._id is None else {"id": self._id, "rows": self._rows}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Have :meth:`open` go on with that run."""
        self._id, self._rows = str(state_dict["id"]), int(state_dict["rows"])

    def close(self) -> None:
        """Send what is left, and end the run: as failed if an error is on its way out."""
        if self._run is not None:
            run, self._run = self._run, None
            run.finish(exit_code=int(sys.exc_info()[0] is not None))

    def _log(self, row: Mapping[str, Any]) -> None:
        number, self._rows = self._rows, self._rows + 1
        if number >= self._known:
            self._opened().log(dict(row), step=number)

    def _opened(self) -> Any:
        assert self._run is not None, "open() comes first"
        return self._run


def _begin(given: Mapping[str, Any]) -> Any:
    """Begin a run of W&B, or go on with the one of that id."""
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,  # it has the command line, with whatever secrets were typed
        silent=True,
        init_timeout=_INIT_TIMEOUT,
    )
    return wandb.init(**given, resume="allow", settings=settings, reinit="create_new")


def _checked(init_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``init_kwargs``, if a config may give them.

    Raises:
        ConfigError: Another argument, or a mode that there is not.
    """
    given = dict(init_kwargs or {})
    for key in given:
        if key not in _INIT_KEYS:
            near = did_you_mean(str(key), _INIT_KEYS)
            raise ConfigError(
                f"WandbVisBackend has init_kwargs.{key}, which is not for a config. {near} "
                "Settings of W&B are given by environment variables (WANDB_...)."
            )
    mode = given.get("mode")
    if mode is not None and mode not in _MODES:
        raise ConfigError(
            f"WandbVisBackend has init_kwargs.mode={mode!r}. {did_you_mean(str(mode), _MODES)}"
        )
    return {key: value for key, value in given.items() if value is not None}


def _metrics(
    given: Mapping[str, str] | Sequence[Mapping[str, Any]] | None,
) -> list[dict[str, Any]]:
    """Return the arguments of each ``define_metric``.

    Raises:
        ConfigError: Neither a mapping nor a list of mappings with a name.
    """
    if isinstance(given, Mapping):
        return [{"name": name, "summary": summary} for name, summary in given.items()]
    found = [] if given is None else list(given)
    for metric in found:
        if not isinstance(metric, Mapping) or "name" not in metric:
            raise ConfigError(
                f"WandbVisBackend has {metric!r} in define_metric_cfg; expected a mapping with "
                "name, such as {name: accuracy, summary: max}."
            )
    return [dict(metric) for metric in found]
