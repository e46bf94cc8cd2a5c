"""Keep, evaluate and save an average of the weights."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from typing_extensions import TypedDict, Unpack

from trainkit.errors import CheckpointError, ConfigError, did_you_mean
from trainkit.hook import Hook
from trainkit.hooks.place import is_shortened, path_of
from trainkit.model import (
    ExponentialMovingAverage,
    MomentumAnnealingEMA,
    StochasticWeightAverage,
    trained_weights,
    unwrap,
)

if TYPE_CHECKING:
    from trainkit.runner import Runner

_KINDS: dict[str, type[AveragedModel]] = {
    kind.__name__: kind
    for kind in (ExponentialMovingAverage, MomentumAnnealingEMA, StochasticWeightAverage)
}


class AverageOptions(TypedDict, total=False):
    """Arguments of the averages; None is the default of the one that is chosen."""

    momentum: float | None
    gamma: int | None
    interval: int | None
    device: torch.device | str | None
    update_buffers: bool | None


class EMAHook(Hook):
    """Average the weights after each iteration, and evaluate with the average.

    A checkpoint's ``model.pt`` holds the average, which is what was evaluated; the trained weights
    stand beside it in ``state.pt``, and a resumed run goes on with both.

    Args:
        ema_type: One of :mod:`trainkit.model`'s averages by name, or what makes another one of a
            model: a class, or in a config a mapping with ``_target_`` and ``_partial_: true``.
        strict_load: Refuse to resume an average that does not fit the model, instead of warning.
        begin_iter: The first iteration that counts.
        begin_epoch: The first epoch that counts; only one of both may be given.
        options: Arguments of the average: ``momentum``, the weight of the newest values in (0, 1),
            one minus the decay that others speak of; ``gamma``; ``interval`` in iterations;
            ``device``; ``update_buffers``: average buffers as well, instead of copying them.
    """

    priority = "NORMAL"

    def __init__(
        self,
        ema_type: Literal[
            "ExponentialMovingAverage", "MomentumAnnealingEMA", "StochasticWeightAverage"
        ]
        | Callable[..., AveragedModel] = "ExponentialMovingAverage",
        strict_load: bool = False,
        begin_iter: int = 0,
        begin_epoch: int = 0,
        **options: Unpack[AverageOptions],
    ) -> None:
        if begin_iter < 0 or begin_epoch < 0 or (begin_iter and begin_epoch):
            raise ConfigError(
                f"begin_iter={begin_iter} and begin_epoch={begin_epoch} of an EMAHook: expected "
                "one of them, and neither below 0."
            )
        given = {name: value for name, value in options.items() if value is not None}
        self._make: Callable[[nn.Module], AveragedModel] = functools.partial(
            _kind(ema_type, given), **given
        )
        self.strict_load = strict_load
        self.begin_iter, self.begin_epoch = begin_iter, begin_epoch
        self.ema_model: AveragedModel | None = None
        self._shows_average = False

    def before_run(self, runner: Runner) -> None:
        """Make the average; one from an earlier run of the same runner is kept."""
        averages = [hook for hook in runner.hooks.hooks.values() if isinstance(hook, EMAHook)]
        if len(averages) > 1:
            raise ConfigError(several_averages([path_of(hook, runner) for hook in averages]))
        if self.ema_model is None:
            self.ema_model = self._make(unwrap(runner.model))
            momentum = getattr(self.ema_model, "momentum", 0.0)
            if momentum > 0.5:
                runner.logger.warning(
                    "%s.momentum is %s: the newest values weigh more than all before them. If that "
                    "is a decay, give %.6g.",
                    path_of(self, runner),
                    momentum,
                    1 - momentum,
                )

    def before_train(self, runner: Runner) -> None:
        """Refuse a beginning after the end; take the trained weights after an evaluation failed."""
        self._show(runner, average=False)
        limits = [("begin_iter", self.begin_iter, runner.max_iters)]
        if runner.by_epoch:
            limits.append(("begin_epoch", self.begin_epoch, runner.max_epochs))
        for name, begin, end in limits:
            if begin > end and not is_shortened(runner):
                raise ConfigError(
                    f"{path_of(self, runner)}.{name} is {begin}, but the run ends at {end}; it "
                    "would never begin."
                )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Update the average, once it has begun; its first update copies."""
        if runner.epoch + 1 >= self.begin_epoch and runner.iter + 1 >= self.begin_iter:
            self._average.update_parameters(unwrap(runner.model))

    def before_val_epoch(self, runner: Runner) -> None:
        """Put the average in the model's place."""
        self._show(runner, average=True)

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Put the trained weights back."""
        self._show(runner, average=False)

    def before_test_epoch(self, runner: Runner) -> None:
        """Put the average in the model's place."""
        self._show(runner, average=True)

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Put the trained weights back."""
        self._show(runner, average=False)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the average as the model, and the trained weights beside it."""
        if not self._has_begun:
            return
        model, other = checkpoint["state_dict"], self._average.module.state_dict()
        average, trained = (model, other) if self._shows_average else (other, model)
        if (
            not self._average.use_buffers
        ):  # those that are evaluated, also where a hook changed them
            buffers = dict(self._average.module.named_buffers())
            average.update((name, model[name]) for name in buffers if name in average)
        checkpoint["state_dict"] = average
        checkpoint["ema_state_dict"] = {
            **{f"module.{name}": value for name, value in trained.items()},
            "n_averaged": self._average.n_averaged.clone(),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """When resuming, give the model its trained weights and the average its own.

        Weights that are loaded otherwise begin a new average.
        """
        if self.ema_model is None:
            return
        self._show(runner, average=False)
        if not runner.is_resuming or "ema_state_dict" not in checkpoint:
            self._average.n_averaged.zero_()
            if runner.is_resuming and self._should_have_begun(checkpoint.get("train_loop", {})):
                runner.logger.warning(
                    "%s: the checkpoint holds no average; a new one begins with its weights.",
                    path_of(self, runner),
                )
            return
        saved = checkpoint.pop("ema_state_dict")
        self._average.n_averaged.copy_(saved["n_averaged"])
        self._load(runner, checkpoint["state_dict"])
        checkpoint["state_dict"] = trained_weights(saved)

    def _should_have_begun(self, progress: Mapping[str, Any]) -> bool:
        """Whether a run of this progress had come to the first iteration that counts."""
        iterations, epoch = progress.get("iter", 0), progress.get("epoch", 0)
        begun = epoch + (progress.get("batch", 0) > 0)  # epochs with an iteration in them
        return bool(iterations >= max(self.begin_iter, 1) and begun >= self.begin_epoch)

    def _load(self, runner: Runner, weights: Mapping[str, Any]) -> None:
        """Load what fits of a saved average."""
        own = self._average.module.state_dict()
        fitting = {
            name: value
            for name, value in weights.items()
            if name in own and own[name].shape == value.shape
        }
        wrong = sorted((own.keys() | weights.keys()) - fitting.keys())
        if wrong:
            text = f"{path_of(self, runner)}: the saved average does not fit the model in"
            text = f"{text} {', '.join(wrong[:10])}{' and more' if wrong[10:] else ''}."
            if self.strict_load:
                raise CheckpointError(f"{text} Use load_from without resume, or strict_load=false.")
            runner.logger.warning(text)
        self._average.module.load_state_dict(fitting, strict=False)

    @property
    def _average(self) -> AveragedModel:
        assert self.ema_model is not None, "before_run comes first"
        return self.ema_model

    @property
    def _has_begun(self) -> bool:
        return int(self._average.n_averaged) > 0  # a counter on the CPU

    def _show(self, runner: Runner, *, average: bool) -> None:
        """Have the model show the average or the trained weights; to show them twice is harmless.

        Before the first update both are the model's own.
        """
        if not self._has_begun or average == self._shows_average:
            return
        model, other = unwrap(runner.model), self._average.module
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        pairs += zip(model.parameters(), other.parameters(), strict=True)
        if self._average.use_buffers:
            pairs += zip(model.buffers(), other.buffers(), strict=True)
        for ours, theirs in pairs:
            _swap(ours, theirs)
        self._shows_average = average


def several_averages(paths: Sequence[str]) -> str:
    """Return the message about several averages, which would take each other's weights."""
    return (
        f"{' and '.join(paths)} each average the weights, but a model is evaluated and saved with "
        "one average. Set all but one of them to null."
    )


def _kind(ema_type: Any, options: Mapping[str, Any]) -> Callable[..., AveragedModel]:
    """Return what makes the average, after a trial of the options where it is trainkit's own.

    Raises:
        ConfigError: No such average; or one that does not take these options.
    """
    if isinstance(ema_type, str) and ema_type not in _KINDS:
        raise ConfigError(f"ema_type is {ema_type!r}. {did_you_mean(ema_type, _KINDS)}")
    kind = _KINDS[ema_type] if isinstance(ema_type, str) else ema_type
    if not callable(kind):
        raise ConfigError(
            f"ema_type is {ema_type!r}; expected the name of an average, a class, or a config with "
            "_partial_: true."
        )
    parameters = inspect.signature(kind).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.name != "model"]
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for name in options:
        if name not in known and not takes_all:
            near = did_you_mean(name, known, listed="It takes")
            called = getattr(kind, "__name__", repr(kind))
            raise ConfigError(f"{name}: {called} has no argument {name!r}. {near}")
    if kind in _KINDS.values():
        kind(nn.Module(), **{name: value for name, value in options.items() if name != "device"})
    return cast("Callable[..., AveragedModel]", kind)


def _swap(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Exchange the values of two tensors; their memory, where both are on one device."""
    if ours.device == theirs.device:
        ours.data, theirs.data = theirs.data, ours.data
    else:
        kept = ours.detach().clone()
        ours.data.copy_(theirs.data)
        theirs.data.copy_(kept)
