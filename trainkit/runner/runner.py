"""Runner: trains, validates and tests a model with the parts it was given."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainkit.checkpoint import list_checkpoints, locate_checkpoint
from trainkit.checkpoint.fit import Rename
from trainkit.config.schema import TrainConfig
from trainkit.dist import is_main_process, on_main
from trainkit.env import collect_env
from trainkit.errors import ConfigError, Preempted
from trainkit.hook import Hook, HookList
from trainkit.log import FILE_ONLY
from trainkit.model import broadcast_weights, unwrap
from trainkit.run_dir import make_directory, read_status, unused
from trainkit.runner import ending, from_config
from trainkit.runner import resume as state
from trainkit.runner.assembly import Assembly
from trainkit.runner.load import LoadOptions, load_weights
from trainkit.runner.summary import parameter_table
from trainkit.seed import get_rng_state, set_rng_state


class Runner(Assembly):
    """Train, validate and test a model, by MMEngine's lifecycle.

    Every part is an object or a config of one (a mapping, with ``_target_`` where no default fits).
    The three arguments of training, of validation and of testing are given together or not at all.

    Args:
        model: A module with ``train_step`` (and ``val_step``, ``test_step``), such as a
            :class:`BaseModel`.
        work_dir: The run's directory; it is made when the run starts.
        train_dataloader: Training data; a config is a ``torch.utils.data.DataLoader``.
        val_dataloader: Validation data; several sets by name are ``{"easy": ..., "hard": ...}``,
            with metrics ``easy/accuracy`` and ``hard/accuracy``.
        test_dataloader: Test data, in the same forms.
        train_cfg: The train loop: ``{"by_epoch": True, "max_epochs": 3}`` or ``{"_target_": ...,
            ...}``.
        val_cfg: The val loop; ``{}`` is a plain one.
        test_cfg: The test loop; ``{}`` is a plain one.
        auto_scale_lr: ``{"enable": True, "base_batch_size": N}``: scale the learning rate with the
            batch size.
        optim_wrapper: The optimizer and how it is used: ``{"optimizer": ...}``.
        param_scheduler: One scheduler, or a list or dict of them.
        val_evaluator: Metrics of the validation, for all sets or by set.
        test_evaluator: Metrics of the test.
        default_hooks: Changes to the default hooks by name; None removes one.
        custom_hooks: Further hooks, a list or a dict by name.
        data_preprocessor: Goes into a model config that has none.
        load_from: Weights to start from, or with ``resume`` the checkpoint to go on from: a run, a
            checkpoint, a file.
        load_cfg: Arguments of :class:`trainkit.runner.LoadOptions`: how the weights of
            ``load_from`` are taken.
        resume: Go on from ``load_from``, or from the newest checkpoint in ``work_dir``; none there:
            start anew.
        resume_with: Whose learning rates and other values of the optimizer, schedules and end of
            the run hold where the two differ: the ``"config"``'s or the ``"checkpoint"``'s.
        launcher: Who has started several processes: ``"pytorch"`` (torchrun), ``"slurm"`` or
            ``"mpi"``; ``"auto"``: whichever has; ``"none"``: nobody, or the group is there already.
        env_cfg: Arguments of :func:`trainkit.env.setup_env`.
        log_processor: How log lines are made.
        log_level: The least level that is logged.
        visualizer: Where scalars go; None: ``metrics.jsonl``.
        randomness: Arguments of :func:`trainkit.seed.set_random_seed`.
        experiment_name: None: the name of ``work_dir``.
        cfg: The whole config, for the record.
        compile: True, or arguments of ``torch.compile``, to compile the model in place.
        sync_bn: ``"torch"``: batch norm over all ranks; of no effect in one process.
        find_unused_parameters: Of ``DistributedDataParallel``; of no effect in one process.
        model_wrapper_cfg: A config that is called with the model as ``module``; without a
            ``_target_``: :class:`trainkit.model.DistributedDataParallel`, of several ranks only.
        activation_checkpointing: Names of submodules whose activations are computed again in
            backward.
    """

    @classmethod
    def from_cfg(cls, cfg: Any, **given: Any) -> Runner:
        """Make a runner from a config, of the class that it names; what is ``given`` wins over it.

        Args:
            cfg: As ``compose()`` returns it, or a TrainConfig. Without a ``work_dir``, the run gets
                a new directory in ``outputs/<experiment_name>/``.
            given: Arguments of the Runner.

        Raises:
            ConfigError: It tells every mistake in the config, before anything is built.
        """
        # A runner made from objects loads none of it.
        from trainkit.config import compose
        from trainkit.config.findings import raise_findings
        from trainkit.runner.check import find_mistakes

        if isinstance(cfg, TrainConfig):
            cfg = compose(config=cfg)
        raise_findings(find_mistakes(cfg, given))
        return from_config.make(cls, cfg, **given)

    def train(self) -> nn.Module:
        """Train to the end, from the beginning or a checkpoint; return the model.

        In the main thread, SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C end training after the current
        step, with a checkpoint.

        Raises:
            Preempted: Training was asked to end, and is saved.
        """
        with self.interrupts:
            self.build_training()
            with self._working("train"):
                self._train()
        model: nn.Module = self.model
        return model

    def _train(self) -> None:
        loop = self.train_loop
        self.hooks.before_run(self)
        if self.resume_wanted:  # what is gone on from is whole, and needs no initial weights
            self.load_or_resume()
        self._init_weights()
        self.load_or_resume()
        self.visualizer.open(self.work_dir, resume_step=loop.iter if loop.iter else None)
        self.visualizer.add_config(self.config_text)
        wrapper = self.optim_wrapper
        wrapper.initialize_count_status(unwrap(self.model), wrapper.inner_count, loop.max_iters)
        if not self._has_trained:
            set_rng_state(self.resumed_rng or self._rng_state)
        self.is_exact = True
        with ending.saved(self):
            self.end_if_asked()  # while the parts were built
            loop.run()
            self.checkpoint_writer.settle(wait=True)
        self._has_trained = True
        self.hooks.after_run(self)

    def build_training(self) -> None:
        """Build whatever training needs, in MMEngine's order; nothing is written yet."""
        if self._has_failed:
            raise ConfigError(
                "This runner's training was broken off, and its counters stand in between. "
                "Make a new Runner with resume=True."
            )
        on_main(self._refuse_foreign_run)
        self._need_step("train_step", *(["val_step"] if self.has_val else []))
        _ = self.train_loop, self.optim_wrapper, self.param_schedulers
        if self.load_from is not None:
            locate_checkpoint(self.load_from)
        if self.has_val:
            _ = self.val_loop

    def val(self, load: bool = True) -> dict[str, Any]:
        """Validate; return the metrics.

        A runner that has not trained validates ``load_from``, or the newest good checkpoint in
        ``work_dir``.

        Args:
            load: False: validate the weights that the model has now.
        """
        return self._evaluate("val", load)

    def test(self, load: bool = True) -> dict[str, Any]:
        """Test; return the metrics. See :meth:`val`."""
        return self._evaluate("test", load)

    def request_stop(self, reason: str) -> None:
        """Stop training after the current epoch, or iteration, and its validation."""
        self.logger.info("Training will stop: %s.", reason)
        self.train_loop.stop_training = True

    def request_preemption(self, reason: str) -> None:
        """Save and end training after the current iteration, to be resumed; see :meth:`train`."""
        if self.interrupts.reason is None:
            self.logger.info("Training will be saved and ended: %s.", reason)
        self.interrupts.ask(reason)

    def at_boundary(self) -> None:
        """Take note that a resume could go on from here to the bit; end training if asked to.

        A window of accumulated gradients is waited for, so that a checkpoint need not hold them.
        Loops call it between two iterations and two epochs, the counters being risen.
        """
        self.is_exact = True
        self.checkpoint_writer.settle()
        reason = self.interrupts.agreed(self.train_loop.iter)
        if reason is not None and not self.optim_wrapper.is_accumulating:
            raise Preempted(reason)

    def end_if_asked(self) -> None:
        """End training if asked to, in the midst of a validation, which a resume repeats.

        Several ranks may have different numbers of batches there, and can agree only later.
        """
        asked = self.interrupts.reason
        if asked is not None and self.is_exact and not self.interrupts.several:
            raise Preempted(asked)

    def register_hook(
        self, hook: Hook, priority: int | str | None = None, name: str | None = None
    ) -> None:
        """Add a hook; it comes after those of the same priority."""
        key = name or type(hook).__name__
        if key in self.hooks.hooks:
            raise ConfigError(
                f"There is a hook {key!r} already. Register this one under another name=."
            )
        priorities = {**self.hooks.priorities, **({} if priority is None else {key: priority})}
        self.hooks = HookList({**self.hooks.hooks, key: hook}, priorities, self.hooks.first)

    def save_checkpoint(
        self,
        out_dir: str | Path,
        filename: str,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: Mapping[str, Any] | None = None,
        background: bool = False,
        then: Callable[[], None] = lambda: None,
    ) -> Path:
        """Write a checkpoint directory ``out_dir/filename``; every rank calls it, rank 0 writes.

        With ``background`` the state is copied, and written while training goes on. ``then`` is
        called once the checkpoint stands; a write that has failed raises after the current step.
        """
        return state.save(
            self,
            Path(out_dir) / filename,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
            meta=meta,
            background=background,
            then=then,
        )

    def load_checkpoint(
        self,
        filename: str | Path,
        map_location: str | torch.device = "cpu",
        strict: bool = False,
        revise_keys: Sequence[Rename] = (),
    ) -> dict[str, Any]:
        """Load a checkpoint's weights, all that fits or nothing; return the checkpoint.

        Args:
            filename: A run, a checkpoint directory, or a file that ``torch.load`` reads.
            map_location: Device that the tensors are read to.
            strict: Raise if any key does not fit, instead of warning.
            revise_keys: Pairs ``(regular expression, replacement)`` that rename the checkpoint's
                keys, from which what wrappers put before them is gone.
        """
        self.checkpoint_writer.settle(wait=True)
        path, options = locate_checkpoint(filename), LoadOptions(strict, revise_keys)
        checkpoint = load_weights(self, path, map_location=map_location, options=options)
        self._loaded_for.update(("train", "val", "test"))
        self._has_weights = True
        return checkpoint

    def load_or_resume(self, purpose: str = "train") -> None:
        """Load what ``load_from`` and ``resume`` ask for, once."""
        if purpose in self._loaded_for or self._has_trained:
            return
        path = state.find(self, purpose)
        if path is not None and self.resume_wanted and purpose == "train":
            self.is_resuming = True
            try:
                state.resume(self, path)
            finally:
                self.is_resuming = False
        elif path is not None:
            given = LoadOptions() if self.load_from is None else self.load_options
            strict = purpose != "train" if given.strict is None else given.strict
            load_weights(self, path, options=replace(given, strict=strict))
            self.logger.info("Loaded the weights of %s", path)
        elif self.resume_wanted:
            self.logger.info(
                "resume: no checkpoint in %s; training starts from the beginning.",
                self.checkpoint_dir,
            )
        self._loaded_for.add(purpose)
        self._has_weights = self._has_weights or path is not None

    def record_progress(self, **facts: Any) -> None:
        """Write to ``status.json`` how far the run is, and ``facts``."""
        if self.is_training and is_main_process():
            loop = self.train_loop
            limits = {"max_epochs": self.max_epochs, "max_iters": self.max_iters}
            self.record.update(epoch=loop.epochs_done, iter=loop.iters_done, **limits, **facts)

    # ------------------------------------------------------------------ around all of these

    def _evaluate(self, purpose: str, load: bool) -> dict[str, Any]:
        loop: Any = getattr(self, f"{purpose}_loop")
        self._need_step(f"{purpose}_step")
        with self._working(purpose):
            self.hooks.before_run(self)
            if load:
                self.load_or_resume(purpose)
            if purpose == "test" and self._has_trained:
                self.visualizer.open(self.work_dir, resume_step=self.iter)
            metrics: dict[str, Any] = loop.run()
            self.hooks.after_run(self)
        return metrics

    @contextlib.contextmanager
    def _working(self, purpose: str) -> Iterator[None]:
        """Work in the run's directory: logged, and for training locked and recorded."""
        make_directory(self.work_dir)
        if purpose != "train":
            with self.log.active(self.work_dir):
                try:
                    yield
                finally:
                    if not self.is_training:
                        self.visualizer.close()
            return
        with ending.locked(self), self.log.active(self.work_dir), ending.recorded(self):
            self._report()
            self.is_training = self._has_failed = True  # until it is seen to end
            try:
                yield
                self._has_failed = False
            finally:
                ending.finish_writing(self)
                self.is_training = False
                self.visualizer.close()

    def _refuse_foreign_run(self) -> None:
        """Raise if training would write over what an earlier run left."""
        if self.resume_wanted or self._has_trained:
            return
        found = list_checkpoints(self.checkpoint_dir)
        if found or "started" in read_status(self.work_dir):
            raise ConfigError(
                f"{self.work_dir} holds a run already, with "
                f"{', '.join(path.name for path in found) or 'no good checkpoint'}. "
                "Go on with it by resume=True, or give another work_dir; nothing is ever written "
                "over."
            )

    def _report(self) -> None:
        """Log and keep what the run is made of."""
        trained = sum(p.numel() for p in unwrap(self.model).parameters() if p.requires_grad)
        env = self.redactor.facts(collect_env(self.device))
        self.logger.info(
            "%s: %s on %s, %s trained parameters",
            self.experiment_name,
            self.model_name,
            self.device,
            f"{trained:,}",
        )
        self.logger.info("In %s", self.work_dir)
        self.logger.info("Parameters:\n%s", parameter_table(self.model), extra=FILE_ONLY)
        shown = json.dumps({key: value for key, value in env.items() if key != "git"}, indent=1)
        self.logger.info(
            "Environment: %s\nHooks:\n%s\n%s",
            shown,
            self.hooks.table(),
            self.config_text,
            extra=FILE_ONLY,
        )
        if is_main_process():
            # Numbered, as a resumed run may stand on another machine.
            path = unused(self.work_dir / "env.json")
            path.write_text(json.dumps(env, indent=1) + "\n", encoding="utf-8")
        if is_main_process():
            self._keep_config()

    def _keep_config(self) -> None:
        """Write ``config.yaml``; one that was resumed with other values is kept under a number."""
        path, text = self.work_dir / "config.yaml", self.config_text
        if path.exists() and path.read_text(encoding="utf-8") != text:
            path.rename(unused(path))
        if text:
            path.write_text(text, encoding="utf-8")
        if "overrides" in self.record_facts:
            # What Hydra itself would keep of a run, for tools that look for it.
            make_directory(self.work_dir / ".hydra")
            lines = "".join(f"- {override!r}\n" for override in self.record_facts["overrides"])
            (self.work_dir / ".hydra" / "config.yaml").write_text(text, encoding="utf-8")
            overrides = self.work_dir / ".hydra" / "overrides.yaml"
            overrides.write_text(lines or "[]\n", encoding="utf-8")

    def _init_weights(self) -> None:
        init_weights = getattr(unwrap(self.model), "init_weights", None)
        if callable(init_weights) and not self._has_weights:
            set_rng_state(self._rng_state)
            init_weights()
            broadcast_weights(unwrap(self.model))
            self._rng_state = get_rng_state()
        self._has_weights = True
