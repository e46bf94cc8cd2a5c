"""Log lines, and scalars for the visualizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainkit.dataloader import num_batches
from trainkit.dist import is_main_process
from trainkit.errors import ConfigError
from trainkit.hook import Hook
from trainkit.log import LIVE
from trainkit.run_dir import unused

if TYPE_CHECKING:
    from trainkit.runner import Runner


class LoggerHook(Hook):
    """Log every ``interval`` iterations, and the metrics of each validation and test.

    Args:
        interval: Iterations between lines.
        ignore_last: Leave out the rest of an epoch that is shorter than ``interval``.
        interval_exp_name: Iterations between repeats of the experiment's name.
        log_metric_by_epoch: Give metrics of a validation to the backends by epoch instead of by
            iteration.
    """

    priority = "BELOW_NORMAL"

    def __init__(
        self,
        interval: int = 10,
        ignore_last: bool = True,
        interval_exp_name: int = 1000,
        log_metric_by_epoch: bool = True,
    ) -> None:
        for name, value in (("interval", interval), ("interval_exp_name", interval_exp_name)):
            if type(value) is not int or value < 1:
                raise ConfigError(
                    f"hooks.logger.{name} is {value!r}; expected a whole number of at least 1."
                )
        self.interval, self.ignore_last = interval, ignore_last
        self.interval_exp_name, self.log_metric_by_epoch = interval_exp_name, log_metric_by_epoch
        self._evaluated = 1  # batches of the evaluation so far

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Log the iteration, if it is time."""
        if self.every_n_train_iters(runner, self.interval_exp_name):
            runner.logger.info("Exp name: %s", runner.experiment_name)
        if not self.every_n_inner_iters(batch_idx, self.interval) and not self._log_last(
            runner, batch_idx
        ):
            return
        tag, line = runner.log_processor.get_log_after_iter(runner, batch_idx, "train")
        runner.logger.info(line, extra=None if self._stays(runner, batch_idx) else LIVE)
        runner.visualizer.add_scalars(tag, step=runner.iter + 1)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the iteration as text, if it is time."""
        self._log_evaluation(runner, batch_idx, "val")

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the iteration as text, if it is time."""
        self._log_evaluation(runner, batch_idx, "test")

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Log the metrics."""
        tag, line = runner.log_processor.get_log_after_epoch(
            runner, self._evaluated, "val", metrics
        )
        runner.logger.info(line)
        by_epoch = self.log_metric_by_epoch and runner.by_epoch
        runner.visualizer.add_scalars(tag, step=runner.epoch if by_epoch else runner.iter)

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Log the metrics, and write them to ``test_<time>.json`` in the run's directory."""
        tag, line = runner.log_processor.get_log_after_epoch(
            runner, self._evaluated, "test", metrics
        )
        runner.logger.info(line)
        runner.visualizer.add_scalars(tag, step=runner.iter)
        if is_main_process():
            text = json.dumps(dict(metrics or {}), indent=1, default=str)
            path = unused(runner.work_dir / f"test_{runner.timestamp}.json")
            path.write_text(f"{text}\n", encoding="utf-8")

    def _log_evaluation(self, runner: Runner, batch_idx: int, mode: str) -> None:
        self._evaluated = batch_idx + 1
        if self.every_n_inner_iters(batch_idx, self.interval):
            _, line = runner.log_processor.get_log_after_iter(runner, batch_idx, mode)
            runner.logger.info(line, extra=LIVE)

    def _log_last(self, runner: Runner, batch_idx: int) -> bool:
        last = num_batches(runner.train_dataloader) if runner.by_epoch else runner.max_iters
        return batch_idx + 1 == last and (not self.ignore_last or last <= self.interval)

    def _stays(self, runner: Runner, batch_idx: int) -> bool:
        """Whether a terminal keeps the line: the last of an epoch, or every tenth."""
        batches = num_batches(runner.train_dataloader)
        if runner.by_epoch and batches is not None:
            return batch_idx + self.interval >= batches
        tenth = self.every_n_train_iters(runner, 10 * self.interval)
        return tenth or runner.iter + self.interval >= runner.max_iters
