"""LogProcessor: from the message hub to a line of text and a dict of scalars."""

from __future__ import annotations

import datetime
import re
import resource
import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from trainkit.dataloader import num_batches
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from trainkit.runner import Runner


class LogProcessor:
    """Choose, smooth and format what is logged.

    Args:
        window_size: Values of which a smoothed scalar is the mean.
        by_epoch: Count in epochs (``Epoch(train) [3][20/196]``) or iterations (``Iter(train)
            [420/5000]``); None: as the train loop counts.
        num_digits: Digits after the point.
        log_with_hierarchy: Keep ``train/`` and ``val/`` in the names that the backends get.
        mean_pattern: Scalars whose name matches are smoothed; of the others the newest value is
            shown.
    """

    def __init__(
        self,
        window_size: int = 10,
        by_epoch: bool | None = None,
        num_digits: int = 4,
        log_with_hierarchy: bool = False,
        mean_pattern: str = r".*(loss|time|data_time|grad_norm).*",
    ) -> None:
        for name, value in (("window_size", window_size), ("num_digits", num_digits)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"log_processor.{name} is {value!r}; expected at least 1.")
        self.window_size, self.by_epoch, self.num_digits = window_size, by_epoch, num_digits
        self.log_with_hierarchy = log_with_hierarchy
        self.mean_pattern = re.compile(mean_pattern)

    def get_log_after_iter(
        self, runner: Runner, batch_idx: int, mode: str
    ) -> tuple[dict[str, Any], str]:
        """Return the scalars and the line of one iteration.

        Args:
            runner: Its hub and counters are read.
            batch_idx: Place in the epoch, from 0.
            mode: ``"train"``, ``"val"`` or ``"test"``.
        """
        scalars = self._collect(runner, mode, self.window_size)
        line = self._header(runner, batch_idx, mode) + self._learning_rates(scalars, mode)
        eta = runner.message_hub.get_info("eta")
        parts = [f"eta: {datetime.timedelta(seconds=int(eta))}"] if eta is not None else []
        parts += [
            self._show(name, scalars[f"{mode}/{name}"])
            for name in ("time", "data_time")
            if f"{mode}/{name}" in scalars
        ]
        memory = max_memory(runner.device)
        parts.append(f"memory: {memory}")
        shown = {
            f"{mode}/time",
            f"{mode}/data_time",
            *(key for key in scalars if key.endswith("lr")),
        }
        if mode == "train":
            parts += [
                self._show(key.removeprefix("train/"), scalars[key])
                for key in scalars
                if key not in shown
            ]
        tag = self._tag(runner, scalars, ahead=int(mode == "train"))
        tag["memory"] = memory
        return tag, line + "  ".join(parts)

    def get_log_after_epoch(
        self, runner: Runner, batches: int, mode: str, metrics: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], str]:
        """Return the scalars and the line at the end of a validation or test.

        Args:
            runner: Its hub and counters are read.
            batches: Batches that were evaluated.
            mode: ``"val"`` or ``"test"``.
            metrics: What was measured; None: the newest value of every scalar of ``mode``.
        """
        times = (f"{mode}/data_time", f"{mode}/time")
        scalars = self._collect(runner, mode, batches, smoothed=times)
        if metrics is not None:
            current = {f"{mode}/{name}" for name in metrics}
            scalars = {key: v for key, v in scalars.items() if key in current or key in times}
        ordered = [key for key in scalars if key not in times] + [
            key for key in times if key in scalars
        ]
        line = self._header(runner, batches - 1, mode)
        line += "  ".join(self._show(key.removeprefix(f"{mode}/"), scalars[key]) for key in ordered)
        return self._tag(runner, scalars), line

    def counts_epochs(self, runner: Runner) -> bool:
        """Whether lines count in epochs."""
        return runner.by_epoch if self.by_epoch is None else self.by_epoch

    def _collect(
        self, runner: Runner, mode: str, window: int, smoothed: Collection[str] | None = None
    ) -> dict[str, float]:
        """Return the value of each scalar of ``mode``, as a mean of those that are ``smoothed``."""
        collected = {}
        for key, buffer in runner.message_hub.log_scalars.items():
            name = key.removeprefix(f"{mode}/")
            if name != key:
                mean = self.mean_pattern.match(name) if smoothed is None else key in smoothed
                collected[key] = buffer.mean(window) if mean else buffer.current()
        return collected

    def _tag(self, runner: Runner, scalars: dict[str, float], ahead: int = 0) -> dict[str, Any]:
        """Return what the backends get; ``ahead`` is 1 before the counters have risen."""
        tag: dict[str, Any] = dict(scalars)
        if not self.log_with_hierarchy:
            tag = {key.partition("/")[2]: value for key, value in scalars.items()}
        if self.counts_epochs(runner):
            tag["epoch"] = runner.epoch + ahead
        tag["iter"] = runner.iter + ahead
        return tag

    def _header(self, runner: Runner, batch_idx: int, mode: str) -> str:
        total = num_batches(runner.dataloader(mode)) or batch_idx + 1
        if mode == "train" and not self.counts_epochs(runner):
            end = runner.max_iters
            return f"Iter(train)  [{runner.iter + 1:>{len(str(end))}}/{end}]  "
        place = f"[{batch_idx + 1:>{len(str(total))}}/{total}]  "
        if mode == "test":
            return f"Epoch(test)  {place}" if self.counts_epochs(runner) else f"Iter(test)  {place}"
        if not self.counts_epochs(runner):
            return f"Iter({mode})  {place}"
        epoch = runner.epoch + 1 if mode == "train" else runner.epoch
        return f"Epoch({mode})  [{epoch:>{len(str(runner.max_epochs))}}]{place}"

    def _learning_rates(self, scalars: dict[str, float], mode: str) -> str:
        rates = [key for key in scalars if key.endswith("lr")]
        return "".join(
            f"{key.removeprefix(f'{mode}/')}: {scalars[key]:.{self.num_digits}e}  " for key in rates
        )

    def _show(self, name: str, value: Any) -> str:
        return (
            f"{name}: {value:.{self.num_digits}f}"
            if isinstance(value, float)
            else f"{name}: {value}"
        )


def max_memory(device: torch.device) -> int:
    """Return the peak memory in MiB: of the device since the last call, else of the process."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return int(peak // 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    return int(peak // (2**20 if sys.platform == "darwin" else 2**10))
