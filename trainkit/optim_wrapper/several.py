"""OptimWrapperDict: several optimizers, each with a name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import nn

from trainkit.errors import ConfigError, did_you_mean
from trainkit.optim_wrapper.base import OptimWrapper

logger = logging.getLogger(__name__)


class OptimWrapperDict(OptimWrapper):
    """Several OptimWrappers by name, for a model that trains its parts apart.

    The model's own ``train_step(data, optim_wrapper)`` says which of them works when::

        with optim_wrapper["critic"].optim_context(self.critic):
            loss = ...
        optim_wrapper["critic"].update_params(loss)

    Each counts its own passes and updates. What is asked of all of them is done for each; what only
    one can do (``update_params``, ``backward``, ``step``, ``optim_context``) is an error here.

    Args:
        optim_wrappers: The wrappers, by name.
    """

    def __init__(self, **optim_wrappers: OptimWrapper) -> None:
        for name, wrapper in optim_wrappers.items():
            if not isinstance(wrapper, OptimWrapper) or isinstance(wrapper, OptimWrapperDict):
                raise ConfigError(
                    f"optim_wrapper.{name} is a {type(wrapper).__name__}; expected an OptimWrapper."
                )
        if not optim_wrappers:
            raise ConfigError("OptimWrapperDict got no optim_wrapper; expected some, by name.")
        self.optim_wrappers = dict(optim_wrappers)

    # ------------------------------------------------------------- as a mapping

    def __getitem__(self, name: str) -> OptimWrapper:
        if name not in self.optim_wrappers:
            near = did_you_mean(name, self.optim_wrappers)
            raise ConfigError(f"There is no optimizer {name!r}. {near}")
        return self.optim_wrappers[name]

    def __contains__(self, name: object) -> bool:
        return name in self.optim_wrappers

    def __iter__(self) -> Iterator[str]:
        return iter(self.optim_wrappers)

    def __len__(self) -> int:
        return len(self.optim_wrappers)

    def keys(self) -> Iterator[str]:
        """Yield the names."""
        yield from self.optim_wrappers

    def values(self) -> Iterator[OptimWrapper]:
        """Yield the wrappers."""
        yield from self.optim_wrappers.values()

    def items(self) -> Iterator[tuple[str, OptimWrapper]]:
        """Yield each name with its wrapper."""
        yield from self.optim_wrappers.items()

    # ------------------------------------------------------- what is one's alone

    def update_params(
        self,
        loss: torch.Tensor,
        step_kwargs: Mapping[str, Any] | None = None,
        zero_kwargs: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        """Refuse: nobody knows whose loss it is."""
        self._refuse("update_params(loss)")

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> NoReturn:
        """Refuse: nobody knows whose loss it is."""
        self._refuse("backward(loss)")

    def step(self, **kwargs: Any) -> NoReturn:
        """Refuse: nobody knows whose turn it is."""
        self._refuse("step()")

    def optim_context(self, model: nn.Module) -> NoReturn:
        """Refuse: nobody knows whose turn it is."""
        self._refuse("optim_context(model)")

    def _refuse(self, call: str) -> NoReturn:
        first = next(iter(self.optim_wrappers))
        raise ConfigError(
            f"There are several optimizers ({', '.join(self.optim_wrappers)}), and {call} is for "
            f"one of them. Write a train_step that says which: optim_wrapper[{first!r}].{call}."
        )

    # -------------------------------------------------------- what is for each

    def zero_grad(self, **kwargs: Any) -> None:
        """Clear the gradients of all."""
        for wrapper in self.values():
            wrapper.zero_grad(**kwargs)

    def scale_lr(self, factor: float) -> None:
        """Multiply every learning rate, as if the config had given it so."""
        for wrapper in self.values():
            wrapper.scale_lr(factor)

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Tell each wrapper where it stands: how many passes it will make only the model knows.

        So the last window of a run is not shortened; one that is not full makes no update.
        """
        for wrapper in self.values():
            wrapper.initialize_count_status(model, wrapper.inner_count, -1)

    def name_parameters(self, model: nn.Module) -> None:
        """Keep the names of the parameters, so that a state finds them in other groups."""
        for wrapper in self.values():
            wrapper.name_parameters(model)

    @property
    def is_accumulating(self) -> bool:
        """Whether all are amid a window; of those that never are together, some may be."""
        return all(wrapper.is_accumulating for wrapper in self.values())

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all, in order."""
        return [group for wrapper in self.values() for group in wrapper.param_groups]

    @property
    def defaults(self) -> dict[str, Any]:
        """The optimizers' defaults, by name."""
        return {name: wrapper.defaults for name, wrapper in self.items()}

    @property
    def inner_count(self) -> int:  # type: ignore[override]  # is what the wrappers count
        """Passes of all."""
        return sum(wrapper.inner_count for wrapper in self.values())

    @property
    def update_count(self) -> int:  # type: ignore[override]  # is what the wrappers count
        """Updates of the one that has made the most."""
        return max(wrapper.update_count for wrapper in self.values())

    def get_lr(self) -> dict[str, list[float]]:
        """Return ``{"<name>.lr": [...]}`` and ``{"<name>.base_lr": [...]}`` of each."""
        return {
            f"{name}.{key}": values
            for name, wrapper in self.items()
            for key, values in wrapper.get_lr().items()
        }

    def get_momentum(self) -> dict[str, list[float]]:
        """Return ``{"<name>.momentum": [...]}`` of each."""
        return {
            f"{name}.{key}": values
            for name, wrapper in self.items()
            for key, values in wrapper.get_momentum().items()
        }

    @property
    def grad_norm_names(self) -> list[str]:
        """The names of all, as ``<name>.grad_norm``."""
        return [f"{name}.{norm}" for name, each in self.items() for norm in each.grad_norm_names]

    def get_grad_norm(self) -> dict[str, torch.Tensor]:
        """Return ``{"<name>.grad_norm": ...}`` of those that have one."""
        return {
            f"{name}.{key}": norm
            for name, wrapper in self.items()
            for key, norm in wrapper.get_grad_norm().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each, by name."""
        return {name: wrapper.state_dict() for name, wrapper in self.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load :meth:`state_dict`.

        Raises:
            ValueError: The names are others.
        """
        if set(state_dict) != set(self.optim_wrappers):
            theirs, own = ", ".join(map(str, state_dict)), ", ".join(self.optim_wrappers)
            raise ValueError(f"it has {theirs}, the config has the optimizers {own}")
        for name, wrapper in self.items():
            wrapper.load_state_dict(state_dict[name])
