"""Save checkpoints: periodic ones, the last, and the best by a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.checkpoint import drop_outdated, flush_directory, remove_checkpoint, superfluous
from trainkit.dist import barrier, broadcast_object, is_main_process, on_main
from trainkit.errors import CheckpointError, ConfigError, did_you_mean
from trainkit.evaluator import infer_rule, is_better
from trainkit.hook import Hook
from trainkit.hooks.checkpoint_options import (
    check_distinct,
    check_template,
    counts_no_epochs,
    file_name,
    published,
)
from trainkit.hooks.place import path_of
from trainkit.hooks.publishing import publish
from trainkit.hooks.savable import check_savable
from trainkit.run_dir import make_unique, read_status

if TYPE_CHECKING:
    from trainkit.runner import Runner


# What a checkpoint holds; hooks may add to it.
_KEYS = (
    *("state_dict", "meta", "optimizer", "param_schedulers", "message_hub", "train_loop", "hooks"),
    *("visualizer", "rank", "ema_state_dict"),
)


class CheckpointHook(Hook):
    """Save ``checkpoints/epoch_N`` (or ``iter_N``) and ``checkpoints/best_<metric>_epoch_N``.

    Args:
        interval: Epochs or iterations between checkpoints; -1: only the last; None: every epoch, or
            in iteration runs every ``val_interval`` iterations, as ``dynamic_intervals`` has it.
        by_epoch: Count epochs, or iterations; None: what the train loop counts. In an iteration
            run no epochs can be counted.
        save_optimizer: Save what resuming needs of the optimizer.
        save_param_scheduler: Save what resuming needs of the schedulers.
        max_keep_ckpts: Periodic checkpoints that are kept; -1: all. An old one goes once a newer
            one is complete; the newest whose weights are finite stays beside them, and one where
            the run was asked to end, until a newer one stands.
        save_last: Save at the end, also when training is stopped early.
        save_best: A metric, several, ``"auto"`` for the first one of the evaluator, or None. A
            former best stays until the newest periodic checkpoint knows of the new one, since a
            resume from it goes on with the former.
        rule: ``"greater"`` or ``"less"`` for all metrics, or a list for each; None: by the metric's
            name.
        greater_keys: Parts of metric names that are better when greater; None: the usual ones.
        less_keys: Parts of metric names that are better when less; None: the usual ones.
        filename_tmpl: Name of a periodic checkpoint, with ``{}`` for the number.
        save_begin: The first epoch or iteration that is saved; the interval counts from there.
        out_dir: Where checkpoints are kept instead: in ``out_dir/<name of the run's directory>``,
            to which the run's ``checkpoints`` is then a link.
        published_keys: Entries of a checkpoint, such as ``state_dict`` and ``meta``, that are
            written to one file ``<checkpoint>-<hash>.pth`` at the end, of the last and the best.
        async_save: Copy what is to be saved, and write it while training goes on. The copy stays in
            memory, for the next one.

    It comes after all other hooks, whatever the priorities, so that a checkpoint holds what they
    made of the point at which it is written.
    """

    priority = "VERY_LOW"
    runs_last = True
    monitors = ("save_best",)

    def __init__(  # noqa: PLR0913 - MMEngine's arguments
        self,
        interval: int | None = -1,
        by_epoch: bool | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        max_keep_ckpts: int = -1,
        save_last: bool = True,
        save_best: str | Sequence[str] | None = None,
        rule: str | Sequence[str] | None = None,
        greater_keys: Sequence[str] | None = None,
        less_keys: Sequence[str] | None = None,
        filename_tmpl: str | None = None,
        save_begin: int = 0,
        out_dir: str | Path | None = None,
        published_keys: str | Sequence[str] | None = None,
        async_save: bool = False,
    ) -> None:
        if save_begin < 0:
            raise ConfigError(f"hooks.checkpoint.save_begin is {save_begin}; expected 0 or more.")
        for name, value in (("interval", interval), ("max_keep_ckpts", max_keep_ckpts)):
            if value is not None and (type(value) is not int or (value < 1 and value != -1)):
                raise ConfigError(
                    f"hooks.checkpoint.{name} is {value!r}; expected at least 1, or -1 for "
                    f"{'only the last' if name == 'interval' else 'all'}."
                )
        check_template(filename_tmpl)
        self.interval, self.by_epoch, self.save_begin, self.save_last = (
            interval,
            by_epoch,
            save_begin,
            save_last,
        )
        self.save_optimizer, self.save_param_scheduler = save_optimizer, save_param_scheduler
        self.max_keep_ckpts, self.filename_tmpl = max_keep_ckpts, filename_tmpl
        self.save_best = [save_best] if isinstance(save_best, str) else list(save_best or [])
        check_distinct(self.save_best)
        self.rules = self._rules(rule)
        self.greater_keys, self.less_keys = greater_keys, less_keys
        self.out_dir = None if out_dir is None else Path(out_dir).expanduser().absolute()
        self.published_keys = published(published_keys)
        self.async_save = async_save
        self.saved: list[str] = []  # periodic checkpoints, oldest first
        self.best: dict[str, dict[str, Any]] = {}  # metric: {"value": ..., "checkpoint": ...}
        self.former: list[str] = []  # best checkpoints that stand no longer for the best
        self._needed: set[str] = set()  # best ones that a resume would go on with
        self._gone: set[str] = set()  # metrics whose best checkpoint someone has removed

    def before_run(self, runner: Runner) -> None:
        """Link the run's directory of checkpoints to where they are kept."""
        if self.out_dir is not None and runner.is_training:
            if is_main_process():
                _link(runner, self.out_dir)
            barrier()

    def before_train(self, runner: Runner) -> None:
        """Remove what a higher limit had kept before a resume."""
        if self.by_epoch and not runner.by_epoch:
            raise ConfigError(counts_no_epochs(path_of(self, runner)))
        for name in self.published_keys:
            if name not in _KEYS:
                runner.logger.warning(
                    "hooks.checkpoint.published_keys has %r, which a checkpoint has only if a hook "
                    "adds it. %s",
                    name,
                    did_you_mean(name, _KEYS, listed="It has"),
                )
        check_savable(runner)
        self._prune(runner)
        self._settle_best(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Save, if epochs are counted and it is time."""
        if self._counts_epochs(runner) and self._due(
            runner, self.every_n_epochs, self.is_last_train_epoch
        ):
            self._save(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Save, if iterations are counted and it is time."""
        if not self._counts_epochs(runner) and self._due(
            runner, self.every_n_train_iters, self.is_last_train_iter
        ):
            self._save(runner)

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Save the best, if training has just become better."""
        if runner.is_training and metrics:
            self._settle_auto(metrics)
            if self.save_best == ["auto"]:
                return  # no number yet
            for metric in self.save_best:
                self._update_best(runner, metric, metrics)

    def after_train(self, runner: Runner) -> None:
        """Save where training stopped before its end; wait for what is being written."""
        name = self._name(runner)
        if self.save_last and not (self._stands(runner, name) and name in self.saved):
            self._save(runner)
        runner.checkpoint_writer.settle(wait=True)
        self._needed = self._best_names()
        self._remove_former(runner)
        if self.published_keys and is_main_process():
            best = [best["checkpoint"] for best in self.best.values()]
            for name in [*([self._name(runner)] if self.save_last else []), *best]:
                self._publish(runner, runner.checkpoint_dir / name)

    def save_here(self, runner: Runner) -> Path:
        """Save where training stands, unless that is done, so that it can go on; return where."""
        name = self._name(runner)
        whole = self.save_optimizer and self.save_param_scheduler
        if not (self._stands(runner, name) and whole):
            self._save(runner, whole=True)
        return runner.checkpoint_dir / name

    def rule_of(self, metric: str, metrics: Mapping[str, Any]) -> str | None:
        """Return the rule of a metric whose best is saved; None for others."""
        self._settle_auto(metrics)
        if metric not in self.save_best:
            return None
        rule = self.rules[self.save_best.index(metric) if len(self.rules) > 1 else 0]
        return rule or infer_rule(
            metric, self.greater_keys, self.less_keys, "hooks.checkpoint.rule"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return which checkpoints there are and which is best."""
        return {
            "saved": list(self.saved),
            "best": {metric: dict(best) for metric, best in self.best.items()},
            "former": list(self.former),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""
        self.saved = list(state_dict["saved"])
        self.best = {metric: dict(best) for metric, best in state_dict["best"].items()}
        self.former = list(state_dict.get("former", []))
        self._needed = self._best_names()

    def _rules(self, rule: str | Sequence[str] | None) -> list[str | None]:
        rules: list[str | None] = [rule] if rule is None or isinstance(rule, str) else list(rule)
        for given in rules:
            if given not in (None, "greater", "less"):
                raise ConfigError(f"hooks.checkpoint.rule is {rule!r}; expected greater or less.")
        if len(rules) not in (1, len(self.save_best)):
            raise ConfigError(
                f"hooks.checkpoint.rule has {len(rules)} entries for {len(self.save_best)} metrics."
            )
        if "auto" in self.save_best and len(self.save_best) > 1:
            raise ConfigError(
                "hooks.checkpoint.save_best has 'auto' beside metrics; name metrics, or give auto "
                "alone."
            )
        return rules

    def _counts_epochs(self, runner: Runner) -> bool:
        return runner.by_epoch if self.by_epoch is None else self.by_epoch

    def _due(self, runner: Runner, every: Any, is_last: Any) -> bool:
        interval = self.interval
        if interval is None:  # the loop's may change on the way
            interval = 1 if self._counts_epochs(runner) else runner.train_loop.val_interval
        return bool(
            every(runner, interval, self.save_begin) or (self.save_last and is_last(runner))
        )

    def _name(self, runner: Runner) -> str:
        loop = runner.train_loop
        whole_epoch = self._counts_epochs(runner) and loop.batches_done == 0
        kind, done = ("epoch", loop.epochs_done) if whole_epoch else ("iter", loop.iters_done)
        return (self.filename_tmpl or f"{kind}_{{}}").format(done)

    def _save(self, runner: Runner, whole: bool = False) -> None:
        name = self._name(runner)
        runner.checkpoint_writer.settle(wait=True)  # which prunes
        best = self._best_names()

        def then() -> None:
            runner.record_progress(checkpoint=name)
            self._prune(runner)
            self._needed = best
            self._remove_former(runner)

        is_extra = whole and name not in self.saved
        self.saved = [*(other for other in self.saved if other != name), name]
        self._write(runner, name, then, whole, {"scheduled": False} if is_extra else {})

    def _write(
        self,
        runner: Runner,
        name: str,
        then: Callable[[], None],
        whole: bool = False,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        runner.save_checkpoint(
            runner.checkpoint_dir,
            name,
            save_optimizer=whole or self.save_optimizer,
            save_param_scheduler=whole or self.save_param_scheduler,
            meta=meta,
            background=self.async_save and not whole,
            then=then,
        )

    def _stands(self, runner: Runner, name: str) -> bool:
        """Whether rank 0 has written that checkpoint; all ranks call."""
        runner.checkpoint_writer.settle(wait=True)
        return bool(broadcast_object((runner.checkpoint_dir / name).exists()))

    def _prune(self, runner: Runner) -> None:
        if self.max_keep_ckpts > 0 and is_main_process():
            there = [runner.checkpoint_dir / name for name in self.saved]
            for path in superfluous(there, self.max_keep_ckpts):
                remove_checkpoint(path)
            self.saved = [path.name for path in there if path.exists()]

    def _best_names(self) -> set[str]:
        return {best["checkpoint"] for best in self.best.values()}

    def _settle_best(self, runner: Runner) -> None:
        """Take note of a best that is gone, and have the record say which this run has."""
        best = {metric: runner.checkpoint_dir / b["checkpoint"] for metric, b in self.best.items()}
        self._gone = on_main(lambda: {metric for metric, path in best.items() if not path.is_dir()})
        for metric in sorted(self._gone):
            runner.logger.info(
                "%s, the best %s so far, is gone; the next validation's is the best.",
                *(best[metric].name, metric),
            )
        self._remove_former(runner)
        there = {metric: b for metric, b in self.best.items() if metric not in self._gone}
        if is_main_process() and (read_status(runner.work_dir).get("best") or {}) != there:
            runner.record_progress(best=there)

    def _remove_former(self, runner: Runner) -> None:
        """Remove best checkpoints that are the best no longer, nor would be after a resume."""
        kept = self._needed | self._best_names()
        for path in (runner.checkpoint_dir / name for name in self.former if name not in kept):
            if is_main_process() and path.exists():
                remove_checkpoint(path)
        self.former = [name for name in self.former if name in kept]

    def _publish(self, runner: Runner, checkpoint: Path) -> None:
        if checkpoint.is_dir():
            path = publish(checkpoint, self.published_keys)
            keys = ", ".join(self.published_keys)
            runner.logger.info("Published %s of %s as %s", keys, checkpoint.name, path.name)

    def _settle_auto(self, metrics: Mapping[str, Any]) -> None:
        """Have ``auto`` mean the first metric that is a number."""
        if self.save_best == ["auto"]:
            numbers = [name for name, value in metrics.items() if isinstance(value, int | float)]
            self.save_best = numbers[:1] or ["auto"]

    def _update_best(self, runner: Runner, metric: str, metrics: Mapping[str, Any]) -> None:
        if metric not in metrics:
            raise ConfigError(
                f"hooks.checkpoint.save_best is {metric!r}, which validation does not give. "
                f"{did_you_mean(metric, metrics)}"
            )
        before = self.best.get(metric)
        value = metrics[metric]
        if not isinstance(value, int | float | None):
            raise ConfigError(
                f"hooks.checkpoint.save_best is {metric!r}, whose value is a "
                f"{type(value).__name__}; expected a metric that is a number."
            )
        rule = self.rule_of(metric, metrics)
        best = None if before is None or metric in self._gone else before["value"]
        if rule is not None and value is not None and is_better(rule, float(value), best):
            self._save_best(runner, metric, float(value))

    def _save_best(self, runner: Runner, metric: str, value: float) -> None:
        name = f"best_{file_name(metric)}_{self._name(runner)}"
        runner.checkpoint_writer.settle(wait=True)  # which removes former ones
        before = self.best.get(metric, {}).get("checkpoint", name)

        def then() -> None:
            self._remove_former(runner)
            if is_main_process():
                drop_outdated(runner.checkpoint_dir / name)
            runner.record_progress(best=self.best)
            runner.logger.info("Best %s so far: %.4f, in %s", metric, value, name)

        self.best[metric] = {"value": value, "checkpoint": name}
        self._gone.discard(metric)
        former = dict.fromkeys([*self.former, before])
        self.former = [other for other in former if other != name]
        self._write(runner, name, then)


def _link(runner: Runner, out_dir: Path) -> None:
    """Make the run's ``checkpoints`` a link to a new directory in ``out_dir``, unless it is one.

    Raises:
        CheckpointError: It is a link to what is not there.
    """
    link = runner.checkpoint_dir
    if link.is_dir():
        if link.resolve().parent != out_dir.resolve():
            runner.logger.warning(
                "hooks.checkpoint.out_dir is %s, but the run's checkpoints stay in %s, where it "
                "began.",
                out_dir,
                link.resolve(),
            )
    elif link.is_symlink():
        raise CheckpointError(
            f"{link} leads to {link.readlink()}, which is not there. Mount it or restore it; to "
            f"go on without its checkpoints, remove {link}."
        )
    else:
        link.symlink_to(make_unique(out_dir, runner.work_dir.name))
        flush_directory(link.parent)
