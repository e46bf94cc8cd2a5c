"""Measure where the time of some iterations goes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import profiler

from trainkit.errors import ConfigError, did_you_mean
from trainkit.hook import Hook
from trainkit.hooks.place import is_shortened, path_of
from trainkit.log import FILE_ONLY
from trainkit.run_dir import safe_name, unused

if TYPE_CHECKING:
    from trainkit.runner import Runner

_ROWS = 10  # of the table in the log
_DIRECTORY = "profiler"  # in the run's


class ProfilerHook(Hook):
    """Profile the first epoch or iterations of training with ``torch.profiler``.

    It slows what it measures, and a trace grows with its iterations: a ``schedule`` picks a few.

    Args:
        by_epoch: Whether ``profile_times`` counts epochs; None: as the train loop counts.
        profile_times: Epochs or iterations after which the profiler is closed.
        activity_with_cpu: Measure the CPU.
        activity_with_cuda: Measure CUDA; None: where the model is on it.
        schedule: Arguments of ``torch.profiler.schedule``: ``wait``, ``warmup`` and ``active``
            iterations of a cycle, ``repeat``, ``skip_first``. None: all iterations are one trace.
        on_trace_ready: What is done with each trace. ``"tb_trace"``: it is written to the run's
            ``profiler/``, where TensorBoard's profiler plugin and https://ui.perfetto.dev read it.
            ``"log_trace"``: its longest operations are logged. Or something to call with the
            profiler. None: ``"tb_trace"``, unless ``json_trace_path`` is given.
        record_shapes: Keep the shapes of the operations' inputs.
        profile_memory: Measure memory as well.
        with_stack: Keep the source lines of the operations.
        with_flops: Estimate the operations of matrix products and convolutions.
        json_trace_path: Name of a file in the run's directory for each trace, in Chrome's format.
    """

    priority = "VERY_LOW"

    def __init__(  # noqa: PLR0913 - MMEngine's arguments
        self,
        *,
        by_epoch: bool | None = None,
        profile_times: int = 1,
        activity_with_cpu: bool = True,
        activity_with_cuda: bool | None = None,
        schedule: Mapping[str, int] | None = None,
        on_trace_ready: Literal["tb_trace", "log_trace"] | Callable[..., Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        json_trace_path: str | None = None,
    ) -> None:
        if type(profile_times) is not int or profile_times < 1:
            raise ConfigError(
                f"profile_times is {profile_times!r}; expected a whole number of at least 1."
            )
        if not activity_with_cpu and activity_with_cuda is False:
            raise ConfigError(
                "activity_with_cpu and activity_with_cuda are both false, so nothing is measured. "
                "Set one of them to true."
            )
        if json_trace_path is not None and safe_name(json_trace_path) != json_trace_path:
            raise ConfigError(
                f"json_trace_path is {json_trace_path!r}; expected the name of a file, without a "
                "directory: it lies in the run's own."
            )
        self.by_epoch, self.profile_times = by_epoch, profile_times
        self.activity_with_cpu, self.activity_with_cuda = activity_with_cpu, activity_with_cuda
        self.schedule = None if schedule is None else _checked(schedule)
        self.on_trace_ready = _handler(on_trace_ready, json_trace_path)
        self.json_trace_path = json_trace_path
        self._options: dict[str, Any] = {
            "record_shapes": record_shapes,
            "profile_memory": profile_memory,
            "with_stack": with_stack,
            "with_flops": with_flops,
        }
        self._profiler: profiler.profile | None = None
        self._counted = 0  # epochs or iterations that were profiled
        self._traces = 0

    def before_train(self, runner: Runner) -> None:
        """Start."""
        self._check(runner)
        on_cuda = runner.device.type == "cuda"
        with_cuda = on_cuda if self.activity_with_cuda is None else self.activity_with_cuda
        kinds = profiler.ProfilerActivity
        self._counted = self._traces = 0
        self._profiler = profiler.profile(
            activities=[
                *([kinds.CPU] if self.activity_with_cpu else []),
                *([kinds.CUDA] if with_cuda else []),
            ],
            schedule=None if self.schedule is None else profiler.schedule(**self.schedule),
            on_trace_ready=partial(self._take, runner),
            acc_events=True,  # torch warns where a second cycle drops the first
            **self._options,
        )
        self._profiler.start()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Count the iteration; close after the last that is wanted."""
        if self._profiler is not None:
            self._profiler.step()
            if not self._counts_epochs(runner):
                self._count(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Count the epoch; close after the last that is wanted."""
        if self._profiler is not None and self._counts_epochs(runner):
            self._count(runner)

    def after_train(self, runner: Runner) -> None:
        """Close, where training ends before."""
        self._close(runner)

    def _counts_epochs(self, runner: Runner) -> bool:
        return runner.by_epoch if self.by_epoch is None else self.by_epoch

    def _check(self, runner: Runner) -> None:
        """Raise if the run never comes to what is to be profiled."""
        by_epoch, path = self._counts_epochs(runner), path_of(self, runner)
        if by_epoch and not runner.by_epoch:
            raise ConfigError(
                f"{path}.by_epoch is true, but the train loop counts iterations, so the whole run "
                "would be profiled. Set by_epoch: false, and profile_times in iterations."
            )
        end = runner.max_epochs if by_epoch else runner.max_iters
        if self.profile_times > end and not is_shortened(runner):
            raise ConfigError(
                f"{path}.profile_times is {self.profile_times}, but the run ends at {end}. Lower "
                "it."
            )
        waits = [(self.schedule or {}).get(name, 0) for name in ("skip_first", "wait", "warmup")]
        if not by_epoch and self.profile_times <= sum(waits):
            raise ConfigError(
                f"{path}.profile_times is {self.profile_times}, but the schedule waits for "
                f"{sum(waits)} iterations before it records any. Raise profile_times."
            )

    def _count(self, runner: Runner) -> None:
        self._counted += 1
        if self._counted >= self.profile_times:
            self._close(runner)

    def _close(self, runner: Runner) -> None:
        if self._profiler is None:
            return
        running, self._profiler = self._profiler, None
        running.stop()
        if not self._traces:
            runner.logger.warning(
                "%s: training ended before the schedule recorded anything, so there is no trace.",
                path_of(self, runner),
            )

    def _take(self, runner: Runner, trace: profiler.profile) -> None:
        """Do with a trace what is wanted."""
        self._traces += 1
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        to_console = self.on_trace_ready == "log_trace"
        table = trace.key_averages().table(sort_by=by, row_limit=_ROWS)
        runner.logger.info("Profile:\n%s", table, extra=None if to_console else FILE_ONLY)
        if self.on_trace_ready == "tb_trace":
            directory = runner.work_dir / _DIRECTORY
            profiler.tensorboard_trace_handler(str(directory), f"rank_{runner.rank}")(trace)
            runner.logger.info("Wrote a profile to %s", directory)
        elif callable(self.on_trace_ready):
            self.on_trace_ready(trace)
        if self.json_trace_path is not None:
            path = unused(runner.work_dir / self.json_trace_path)
            trace.export_chrome_trace(str(path))
            runner.logger.info("Wrote a profile to %s", path)


def _checked(schedule: Mapping[str, int]) -> dict[str, int]:
    """Return the arguments of a schedule.

    Raises:
        ConfigError: An unknown or a missing name, or no number of iterations.
    """
    known = inspect.signature(profiler.schedule).parameters
    for name, value in schedule.items():
        if name not in known:
            near = did_you_mean(str(name), known, listed="It takes")
            raise ConfigError(f"schedule has {name!r}, which is no part of a schedule. {near}")
        least = 1 if name == "active" else 0
        if type(value) is not int or value < least:
            raise ConfigError(
                f"schedule has {name}={value!r}; expected a number of iterations of at least "
                f"{least}."
            )
    missing = [name for name in ("wait", "warmup", "active") if name not in schedule]
    if missing:
        raise ConfigError(f"schedule has no {', '.join(missing)}. Give the number of iterations.")
    return dict(schedule)


def _handler(given: Any, json_trace_path: str | None) -> Any:
    """Return what is done with a trace: one of the names, something to call, or None."""
    names = ("tb_trace", "log_trace")
    if given is None:
        return None if json_trace_path is not None else "tb_trace"
    if not callable(given) and given not in names:
        raise ConfigError(
            f"on_trace_ready is {given!r}; expected something to call, or a name. "
            f"{did_you_mean(str(given), names)}"
        )
    if given == "tb_trace" and json_trace_path is not None:
        raise ConfigError(
            "json_trace_path is given beside on_trace_ready: tb_trace, and torch writes each trace "
            "once. Drop one of them."
        )
    return given
