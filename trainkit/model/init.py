"""BaseInit: how the weights of a module's layers are set before training.

Its kinds are in initializers.py. They stand in ``init_cfg`` of a
:class:`~trainkit.model.BaseModule`::

    init_cfg:
      - _target_: trainkit.model.KaimingInit
        layer: Conv2d
      - _target_: trainkit.model.ConstantInit
        layer: [_BatchNorm, GroupNorm]
        val: 1

Any other function that takes the module may stand there too.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from trainkit.errors import ConfigError, did_you_mean

logger = logging.getLogger(__name__)

Initializer = Callable[[nn.Module], None]


@dataclass(frozen=True, kw_only=True)
class BaseInit:
    """Set the weights of the chosen layers of a module, and their biases to a constant.

    An initialiser of one's own overrides :meth:`fill`.

    Args:
        layer: Names of classes: chosen is what is of such a class, or of one derived from it. None:
            nothing but what ``override`` names; and as an entry of ``override``, every layer.
        bias: What biases are set to.
        bias_prob: Probability that a sigmoid is to give at first, in (0, 1): biases become
            ``log(p / (1 - p))`` instead of ``bias``.
        override: Submodules in which all layers are set, afterwards: their names, for the same
            values; or a mapping of names to initialisers of their own, of which null is left out.
    """

    layer: str | Sequence[str] | None = None
    bias: float = 0.0
    bias_prob: float | None = None
    override: str | Sequence[str] | Mapping[str, Initializer | None] | None = None

    def __post_init__(self) -> None:
        if self.bias_prob is not None and not 0.0 < self.bias_prob < 1.0:
            raise ConfigError(
                f"bias_prob is {self.bias_prob}; expected a probability in (0, 1), as 0.01."
            )

    def fill(self, weight: torch.Tensor) -> None:
        """Set a weight in place."""
        raise NotImplementedError(f"{type(self).__name__} has no fill().")

    def __call__(self, module: nn.Module) -> None:
        """Set the chosen layers of ``module``, from the innermost to itself.

        Raises:
            ConfigError: A name of a class or of a submodule that there is not; or a weight of a
                shape that the initialiser is not for.
        """
        self.check(module)
        layers = _names(self.layer)
        if layers or self.override is None:
            chosen = [m for m in module.modules() if not layers or layers & _kinds(m)]
            if not chosen:
                logger.warning("%s sets nothing: %s has no such layer.", self, _name(module))
            module.apply(lambda m: self._set(m) if not layers or layers & _kinds(m) else None)
        for name, initializer in self._overrides():
            initializer(_submodule(module, name))

    def check(self, module: nn.Module) -> None:
        """Raise if a name of a class or of a submodule is one that there is not.

        Raises:
            ConfigError: It tells the name, and the nearest that there is.
        """
        present = {name for inner in module.modules() for name in _kinds(inner)}
        for name in sorted(_names(self.layer) - present):
            if name not in _all_modules(nn.Module):  # a class that is just not used here is fine
                raise ConfigError(
                    f"init_cfg of {_name(module)} has {self}, but there is no class of modules "
                    f"called {name!r}. {did_you_mean(name, present, listed='It has')}"
                )
        for name, initializer in self._overrides():
            part = _submodule(module, name)
            if isinstance(initializer, BaseInit):
                initializer.check(part)

    def _overrides(self) -> Iterator[tuple[str, Initializer]]:
        if isinstance(self.override, Mapping):
            yield from ((name, each) for name, each in self.override.items() if each is not None)
            return
        everywhere = dataclasses.replace(self, layer=None, override=None)
        for name in [self.override] if isinstance(self.override, str) else self.override or ():
            yield name, everywhere

    def _set(self, module: nn.Module) -> None:
        weight, bias = _tensor(module, "weight"), _tensor(module, "bias")
        try:
            if weight is not None:
                self.fill(weight)
        except ValueError as error:  # of torch, for shapes without a fan in and out
            raise ConfigError(
                f"{self} is not for the weight of {type(module).__name__}: {error}. Name the "
                "classes of other layers by layer=..."
            ) from None
        if bias is not None:
            p = self.bias_prob
            nn.init.constant_(bias, self.bias if p is None else -math.log((1 - p) / p))

    def __str__(self) -> str:
        given = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(given)})"


def _names(names: str | Sequence[str] | None) -> set[str]:
    return {names} if isinstance(names, str) else set(names or ())


def _kinds(module: nn.Module) -> set[str]:
    """Return the names of a module's class and of those that it is derived from."""
    return {kind.__name__ for kind in type(module).__mro__[:-1]}


def _all_modules(kind: type) -> set[str]:
    """Return the names of a class and of all that are derived from it, as far as imported."""
    found: set[str] = set()
    todo = [kind]
    while todo:
        kind = todo.pop()
        found.add(kind.__name__)
        todo += type.__subclasses__(kind)
    return found


def _name(module: nn.Module) -> str:
    return type(module).__name__


def _submodule(module: nn.Module, name: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(module.named_modules())
    if name not in modules or not name:
        near = did_you_mean(name, filter(None, modules), listed="It has")
        raise ConfigError(
            f"init_cfg of {_name(module)} has an override for {name!r}, which it has not. {near}"
        )
    return modules[name]


def _tensor(module: nn.Module, name: str) -> torch.Tensor | None:
    """Return the weight or the bias of a module, if it has such a tensor."""
    if parametrize.is_parametrized(module, name):
        raise ConfigError(
            f"init_cfg cannot set the {name} of {_name(module)}, which is computed by a "
            "parametrization. Set its originals in init_weights()."
        )
    value = getattr(module, name, None)
    return value if isinstance(value, torch.Tensor) else None
