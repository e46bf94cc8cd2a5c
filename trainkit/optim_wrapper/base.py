"""OptimWrapper: backward, accumulation, clipping and the step, in one place."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Real
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from trainkit.errors import ConfigError, did_you_mean
from trainkit.optim_wrapper.guard import StepGuard
from trainkit.optim_wrapper.regroup import regrouped

logger = logging.getLogger(__name__)

_CLIP: dict[str, Any] = {"norm": clip_grad_norm_, "value": clip_grad_value_}


class OptimWrapper:
    """One optimizer, and how a loss becomes an update.

    Where the optimizer has several groups, one more goes with them in :attr:`param_groups`, without
    parameters: ``base_param_settings``, the optimizer's own values, which schedules move along. So
    the learning rate that no group has multiplied is known, as ``base_lr``.

    Args:
        optimizer: Any ``torch.optim`` optimizer.
        accumulative_counts: Backward passes per update. Each loss is divided by the number of
            passes in its window, so the update is that of the mean loss; the last window of a run
            may be shorter.
        clip_grad: None, or ``{"type": "norm", "max_norm": ...}`` with the arguments of
            ``torch.nn.utils.clip_grad_norm_``, or ``{"type": "value", "clip_value": ...}``.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        accumulative_counts: int = 1,
        clip_grad: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ConfigError(
                f"optimizer is a {type(optimizer).__name__}; expected a torch.optim.Optimizer."
            )
        if type(accumulative_counts) is not int or accumulative_counts < 1:
            raise ConfigError(
                f"accumulative_counts is {accumulative_counts!r}; expected a whole number of at "
                "least 1."
            )
        self.optimizer = optimizer
        self.accumulative_counts = accumulative_counts
        self.clip_type, self.clip_kwargs = _parse_clip(clip_grad)
        self.inner_count = 0  # backward passes
        self.update_count = 0  # windows that ended in a step
        self._in_window = 0  # backward passes since the last step
        self.max_counts = -1  # backward passes of the whole run; -1: not known
        self.guard: StepGuard | None = None  # of a hook
        # Of the last pass, before clipping; None if it ended no window, or nothing measured it.
        self.grad_norm: torch.Tensor | None = None
        self.param_names: list[list[str]] = []  # of each group; empty if no model has told them
        self.rescale = 1.0  # of gradients that were saved under another loss scale
        self._in_order: list[torch.Tensor] = []  # all parameters, in the order of that model
        several = len(optimizer.param_groups) > 1
        self.base_param_settings = _base_settings(optimizer) if several else None
        self.configured = self.hyperparameters()  # as the config gave them

    def update_params(
        self,
        loss: torch.Tensor,
        step_kwargs: Mapping[str, Any] | None = None,
        zero_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Backpropagate; on the last pass of a window also clip, step and clear gradients."""
        self.backward(self.scale_loss(loss))
        if self.should_update():
            self.step(**(step_kwargs or {}))
            self.zero_grad(**(zero_kwargs or {}))

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Divide ``loss`` by the passes in its window, which is shorter at the end of a run."""
        window = self.accumulative_counts
        begun_at = self.inner_count - self._in_window
        if begun_at < self.max_counts:
            window = min(window, self.max_counts - begun_at)
        return loss if window == 1 else loss / window

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        """Backpropagate and count one pass."""
        self.grad_norm = None
        if self.guard is not None:
            self.guard.see_loss(loss)
        self._backpropagate(loss, **kwargs)
        self.inner_count += 1
        self._in_window += 1

    def _backpropagate(self, loss: torch.Tensor, **kwargs: Any) -> None:
        loss.backward(**kwargs)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def should_update(self) -> bool:
        """Whether the pass that was just counted ends a window."""
        return self._in_window >= self.accumulative_counts or self.inner_count == self.max_counts

    def should_sync(self) -> bool:
        """Whether the coming pass ends a window, so that ranks must exchange gradients in it."""
        fills = self._in_window + 1 >= self.accumulative_counts
        return fills or self.inner_count + 1 == self.max_counts

    @property
    def is_accumulating(self) -> bool:
        """Whether passes of a window have been made whose update is still to come."""
        return 0 < self._in_window < self.accumulative_counts

    def step(self, **kwargs: Any) -> None:
        """Clip the gradients, if asked, and step, unless the guard refuses."""
        if self.may_step():
            self.clip_gradients()
            if isinstance(self.optimizer, torch.optim.LBFGS) and "closure" not in kwargs:
                raise ConfigError(
                    "optim_wrapper.optimizer is LBFGS, which evaluates the model several times in "
                    "a step. Choose another, or pass step_kwargs={'closure': ...} to "
                    "update_params() in a train_step of your own."
                )
            self.optimizer.step(**kwargs)
            self.end_window()

    def may_step(self, gradients_count: bool = True) -> bool:
        """Ask the guard, if there is one; where it refuses, the window ends without an update."""
        allowed = self.guard is None or self.guard.allows_step(gradients_count)
        if not allowed:
            self.zero_grad()
            self.end_window(updated=False)
        return allowed

    def end_window(self, updated: bool = True) -> None:
        """Count an update, if one was made; the next pass begins a new window."""
        self.update_count += updated
        self._in_window = 0

    def clip_gradients(self) -> None:
        """Clip as ``clip_grad`` says; by norm, keep the norm before in ``grad_norm``."""
        if self.clip_type is None:
            return
        # In the model's order: the last bit of a norm depends on it, and groups shall not matter.
        params = [p for p in self._parameters() if p.grad is not None]
        if params:
            norm = _CLIP[self.clip_type](params, **self.clip_kwargs)
            self.grad_norm = norm.detach() if isinstance(norm, torch.Tensor) else None

    def _parameters(self) -> list[torch.Tensor]:
        groups = self.optimizer.param_groups
        if len(self._in_order) == sum(len(group["params"]) for group in groups):
            return self._in_order
        return [parameter for group in groups for parameter in group["params"]]

    def scale_lr(self, factor: float) -> None:
        """Multiply every learning rate, as if the config had given it so."""
        for group in self.param_groups:
            for key in {"lr", "initial_lr"} & group.keys():  # the latter where a schedule began
                group[key] *= factor
        self.configured = self.hyperparameters()

    def zero_grad(self, **kwargs: Any) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass: ranks exchange gradients only at a window's end."""
        with self._sync_context(model):
            yield

    def _sync_context(self, model: nn.Module) -> AbstractContextManager[None]:
        no_sync = getattr(model, "no_sync", None)
        return nullcontext() if no_sync is None or self.should_sync() else no_sync()

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Tell the wrapper where the run stands.

        Args:
            model: Checked for batch norm, which sees each pass of a window by itself.
            init_counts: Backward passes made so far.
            max_counts: Backward passes of the whole run; -1 if it is not known.
        """
        if init_counts != self.inner_count:
            self._in_window = init_counts % self.accumulative_counts
        self.inner_count, self.max_counts = init_counts, max_counts
        if self.accumulative_counts == 1:
            return
        if any(isinstance(module, _BatchNorm) for module in model.modules()):
            logger.warning(
                "With accumulative_counts > 1, batch norm still sees one pass at a time."
            )

    def name_parameters(self, model: nn.Module) -> None:
        """Keep the names of the parameters, so that a state finds them in other groups."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.param_names = [
            [names.get(id(parameter), "") for parameter in group["params"]]
            for group in self.optimizer.param_groups
        ]
        own = {id(p): p for group in self.optimizer.param_groups for p in group["params"]}
        first = [own.pop(id(p)) for p in model.parameters() if id(p) in own]
        self._in_order = [*first, *own.values()]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups; after several of them, ``base_param_settings``."""
        if self.base_param_settings is None:
            return self.optimizer.param_groups
        return [*self.optimizer.param_groups, self.base_param_settings]

    @property
    def defaults(self) -> dict[str, Any]:
        """The optimizer's defaults."""
        return self.optimizer.defaults

    def get_lr(self) -> dict[str, list[float]]:
        """Return ``{"lr": [...]}``, of each group; of several groups also ``"base_lr"``."""
        found = {"lr": [group["lr"] for group in self.optimizer.param_groups]}
        if self.base_param_settings is not None:
            found["base_lr"] = [self.base_param_settings["lr"]]
        return found

    def get_momentum(self) -> dict[str, list[float]]:
        """Return ``{"momentum": [...]}``: momentum, else the first beta, else 0, of each group."""
        return {
            "momentum": [
                group.get("momentum", group.get("betas", (0.0,))[0])
                for group in self.optimizer.param_groups
            ]
        }

    @property
    def grad_norm_names(self) -> list[str]:
        """The names under which :meth:`get_grad_norm` returns norms, whenever there is a step."""
        return ["grad_norm"] if self.clip_type == "norm" else []

    def get_grad_norm(self) -> dict[str, torch.Tensor]:
        """Return ``{"grad_norm": ...}`` if the last pass ended in a step that clipped by norm."""
        return {} if self.grad_norm is None else {"grad_norm": self.grad_norm}

    def hyperparameters(self) -> list[dict[str, Any]]:
        """Return what each group holds, without parameters and ``initial_`` values."""
        return [
            {
                key: value
                for key, value in group.items()
                if key != "params" and not key.startswith("initial_")
            }
            for group in self.param_groups
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, the counters, and what the config gave."""
        base = self.base_param_settings
        settings = {} if base is None else {key: base[key] for key in base if key != "params"}
        return {
            **self.optimizer.state_dict(),
            "base_param_settings": settings,
            "param_names": self.param_names,
            "counts": {
                "inner": self.inner_count,
                "update": self.update_count,
                "in_window": self._in_window,
            },
            "class": type(self.optimizer).__name__,
            "configured": self.configured,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load :meth:`state_dict`; a hyperparameter that the config has changed is kept."""
        own_class = type(self.optimizer).__name__
        if state_dict.get("class", own_class) != own_class:
            raise ValueError(f"it is that of {state_dict['class']}, the config has {own_class}")
        state_dict = regrouped(state_dict, self.param_names)
        own = [dict(group) for group in self.param_groups]
        changed = self._changed_since(state_dict.get("configured", []))
        self.optimizer.load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})
        if self.base_param_settings is not None:
            self.base_param_settings.update(state_dict.get("base_param_settings", {}))
        for group, mine, keys in zip(self.param_groups, own, changed, strict=True):
            # A value that a schedule has left, or that one starts from, is the config's.
            bases = {key for key in group.keys() | mine.keys() if key.startswith("initial_")}
            left = {key.removeprefix("initial_") for key in bases if key not in mine}
            for base in bases:
                group.pop(base, None)
            group.update({key: mine[key] for key in mine if key in keys | bases | left})
        counts = state_dict.get("counts", {})
        self.inner_count, self.update_count = counts.get("inner", 0), counts.get("update", 0)
        self._in_window = counts.get("in_window", 0)

    def _changed_since(self, before: list[dict[str, Any]]) -> list[set[str]]:
        changed: list[set[str]] = [set() for _ in self.param_groups]
        last = len(self.optimizer.param_groups)
        for index, (old, new) in enumerate(zip(before, self.configured, strict=False)):
            for key in sorted(old.keys() & new.keys()):
                if _plain(old[key]) != _plain(new[key]):
                    changed[index].add(key)
                    logger.info(
                        "%s of %s: the config's %s, not the checkpoint's %s.",
                        *(key, f"group {index}" if index < last else "the optimizer"),
                        *(new[key], old[key]),
                    )
        return changed


def _base_settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"params": [], **copy.deepcopy(optimizer.defaults)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _parse_clip(clip_grad: Any) -> tuple[str | None, dict[str, Any]]:
    if clip_grad is None:
        return None, {}
    if not isinstance(clip_grad, Mapping):
        raise ConfigError(
            f"clip_grad is {clip_grad!r}; expected a mapping such as {{max_norm: 1.0}}."
        )
    kwargs = dict(clip_grad)
    kind = kwargs.pop("type", "norm")
    if kind not in _CLIP:
        raise ConfigError(f"clip_grad.type is {kind!r}. {did_you_mean(str(kind), _CLIP)}")
    needed = "max_norm" if kind == "norm" else "clip_value"
    known = set(inspect.signature(_CLIP[kind]).parameters) - {"parameters"}
    unknown = sorted(kwargs.keys() - known)
    if unknown or needed not in kwargs:
        wrong = f"does not know {', '.join(unknown)}" if unknown else f"lacks {needed}"
        raise ConfigError(
            f"clip_grad is {dict(clip_grad)}, which {wrong}. Clipping by {kind} needs {needed}; "
            f"it takes {', '.join(sorted(known))}."
        )
    for name in {needed, "norm_type"} & kwargs.keys():
        _check_limit(f"clip_grad.{name}", kwargs[name], or_inf=name == "norm_type")
    return kind, kwargs


def _check_limit(name: str, value: Any, *, or_inf: bool) -> None:
    """Raise unless a value is a number above 0; with a limit below, gradients change their sign."""
    fits = isinstance(value, Real) and not isinstance(value, bool) and float(value) > 0
    if not fits and not (or_inf and value == "inf"):
        other = ", or inf" if or_inf else ""
        raise ConfigError(f"{name} is {value!r}; expected a number above 0{other}.")
