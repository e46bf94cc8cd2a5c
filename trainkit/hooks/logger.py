"""Log lines, and scalars for the visualizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trainkit.config.build import is_config, to_plain
from trainkit.dataloader import num_batches
from trainkit.dist import is_main_process
from trainkit.errors import ConfigError
from trainkit.evaluator import infer_rule, is_better
from trainkit.hook import Hook
from trainkit.hooks.runtime_info import as_number
from trainkit.log import LIVE
from trainkit.run_dir import read_status, unused

if TYPE_CHECKING:
    from trainkit.runner import Runner

# Keys at the top of a config that do not say how the model is trained.
_NO_HPARAMS = frozenset(
    {"work_dir", "resume", "load_from", "log_level", "log_processor", "visualizer", "env", "trust"}
    | {"experiment_name", "tags", "val_cfg", "test_cfg", "launcher"}
)
_LONGEST_HPARAM = 64  # characters of a text


class LoggerHook(Hook):
    """Log every ``interval`` iterations, and the metrics of each validation and test.

    At the end of training the backends get the config's plain values with the best metrics, once;
    with the last value of a metric of which neither its name nor a hook's ``rule`` tells the best.

    Args:
        interval: Iterations between lines.
        ignore_last: Leave out the rest of an epoch that is shorter than ``interval``.
        interval_exp_name: Iterations between repeats of the experiment's name.
        log_metric_by_epoch: Give metrics of a validation to the backends with the epoch as their
            ``step``, instead of the iteration. Curves have an ``x_axis`` of their own.
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
        self.best: dict[str, float] = {}  # of each metric of the validation that has a rule
        self.last: dict[str, float] = {}  # of each that has none
        self._unlogged = {"train", "val"}  # until each was, nothing is said of unknown sources
        self._evaluated = 1  # batches of the evaluation so far

    def before_run(self, runner: Runner) -> None:
        """Refuse windows that this run cannot have."""
        runner.log_processor.check(runner.by_epoch)

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
        self._tell_unknown(runner, "train")

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
        if runner.is_training:
            self._keep_best(runner, metrics or {})
            self._tell_unknown(runner, "val")

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Log the metrics, and write them to ``test_<time>.json`` in the run's directory.

        The backends of a runner that has trained get them too, always as ``test/<metric>``: they
        are no points of the validation's curve.
        """
        tag, line = runner.log_processor.get_log_after_epoch(
            runner, self._evaluated, "test", metrics
        )
        runner.logger.info(line)
        counters = ("epoch", "iter", "samples")
        named = {
            k if k in counters else f"test/{k.removeprefix('test/')}": v for k, v in tag.items()
        }
        runner.visualizer.add_scalars(named, step=runner.iter)
        if is_main_process():
            text = json.dumps(dict(metrics or {}), indent=1, default=_as_json)
            path = unused(runner.work_dir / f"test_{runner.timestamp}.json")
            path.write_text(f"{text}\n", encoding="utf-8")

    def after_run(self, runner: Runner) -> None:
        """Give the backends the config's values and the best metrics, if this was a training."""
        if runner.is_training and runner.visualizer.is_open:
            kept = read_status(runner.work_dir).get("best") or {}
            best = self.best | {name: float(entry["value"]) for name, entry in kept.items()}
            metrics = {f"best/{name}": value for name, value in best.items()}
            metrics |= {f"last/{k}": value for k, value in self.last.items() if k not in best}
            runner.visualizer.add_hparams(_hparams(runner), metrics, step=runner.iter)

    def state_dict(self) -> dict[str, Any]:
        """Return the best metrics."""
        return {"best": dict(self.best), "last": dict(self.last)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the best metrics."""
        self.best = dict(state_dict.get("best", {}))
        self.last = dict(state_dict.get("last", {}))

    def _keep_best(self, runner: Runner, metrics: Mapping[str, Any]) -> None:
        for name, value in metrics.items():
            number = as_number(value)
            if number is None:
                continue
            rule = _rule(runner, name, metrics)
            if rule is None:
                self.last[name] = float(number)
            elif is_better(rule, number, self.best.get(name)):
                self.best[name] = float(number)

    def _tell_unknown(self, runner: Runner, mode: str) -> None:
        """Tell once of statistics of scalars that neither training nor validation has made."""
        if not self._unlogged:
            return
        self._unlogged -= {mode} if runner.has_val else {"train", "val"}
        if not self._unlogged:
            scalars = [name.partition("/")[2] for name in runner.message_hub.log_scalars]
            known = {*scalars, *runner.optim_wrapper.grad_norm_names}
            for problem in runner.log_processor.unknown_sources(sorted(known)):
                runner.logger.warning("%s", problem)

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


def _rule(runner: Runner, metric: str, metrics: Mapping[str, Any]) -> str | None:
    """Return what is better of a metric: as a hook was told, or as its name tells."""
    for hook in runner.hooks.hooks.values():
        rule = hook.rule_of(metric, metrics)
        if rule is not None:
            return rule
    try:
        return infer_rule(metric)
    except ConfigError:
        return None


def _hparams(runner: Runner) -> dict[str, int | float | bool | str]:
    """Return the plain values of the config that say how the model is trained, by their paths."""
    if not is_config(runner.cfg):
        return {}
    try:
        cfg = to_plain(runner.cfg, "config")
    except ConfigError:  # a record that does not resolve is no reason to fail at the very end
        return {}
    shown = runner.redactor.config({k: v for k, v in cfg.items() if k not in _NO_HPARAMS})
    return dict(_flat(shown, ""))


def _flat(node: Any, path: str) -> Iterator[tuple[str, int | float | bool | str]]:
    """Yield the plain values of a config by their paths."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, str):
        if len(node) <= _LONGEST_HPARAM:
            yield path, node
    elif isinstance(node, int | float):
        yield path, node


def _as_json(value: Any) -> Any:
    """Return a metric that JSON does not know as lists and numbers, else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
