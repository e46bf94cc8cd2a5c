"""DefaultOptimWrapperConstructor: from a config and a model to an OptimWrapper, group by group."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
from torch import nn

from trainkit.config.build import Partial, build, check_names, is_config, partial, to_plain
from trainkit.errors import ConfigError, did_you_mean
from trainkit.optim_wrapper.base import OptimWrapper
from trainkit.optim_wrapper.paramwise import Leaf, Paramwise, leaves, merged

logger = logging.getLogger(__name__)

_MULTIPLIERS = {"lr_mult": "lr", "decay_mult": "weight_decay"}
_SHOWN = 3  # names in a line of the log


class DefaultOptimWrapperConstructor:
    """Make the optimizer of a model's parameters, in groups as ``paramwise_cfg`` says.

    Parameters that end up with equal options share a group, in the order of the model. Frozen ones
    are left out. A constructor of one's own derives from this class and overrides
    :meth:`add_params`, with a dataclass of its own options as ``paramwise``; or it is any class
    that takes ``optim_wrapper_cfg`` and ``paramwise_cfg``, and returns the wrapper when called with
    the model.

    Args:
        optim_wrapper_cfg: Config of the wrapper, with that of its ``optimizer``.
        paramwise_cfg: The fields of :class:`Paramwise`; None or empty: one group for all.
        modules: Which modules' parameters are trained: a name such as ``"head"`` or a pattern such
            as ``"blocks.*.norm"``, or several; None: all.
        path: Where the config stands; it begins every message.
    """

    paramwise: ClassVar[Callable[..., Any]] = Paramwise

    def __init__(
        self,
        optim_wrapper_cfg: Mapping[str, Any],
        paramwise_cfg: Mapping[str, Any] | None = None,
        modules: str | Sequence[str] | None = None,
        path: str = "optim_wrapper",
    ) -> None:
        self.path = path
        self.optim_wrapper_cfg: dict[str, Any] = dict(to_plain(optim_wrapper_cfg, path))
        if "optimizer" not in self.optim_wrapper_cfg:
            raise ConfigError(
                f"{path} has no optimizer. It has: {', '.join(self.optim_wrapper_cfg)}. Give it "
                "one, as optimizer: {_target_: …}."
            )
        given = self.optim_wrapper_cfg.pop("optimizer")
        self.optimizer = partial(given, f"{path}.optimizer") if is_config(given) else given
        self.modules = [modules] if isinstance(modules, str) else modules
        self.paramwise_cfg: dict[str, Any] = _as_mapping(paramwise_cfg, f"{path}.paramwise_cfg")
        check_names(self.paramwise, self.paramwise_cfg, f"{path}.paramwise_cfg")
        self.options: Any = None
        if self.paramwise_cfg:
            self.options = Partial(self.paramwise, self.paramwise_cfg, f"{path}.paramwise_cfg")()
            self._check_options()

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Return the wrapper of an optimizer of ``model``."""
        optimizer = self.optimizer
        if isinstance(optimizer, Partial):
            optimizer = optimizer(self._groups(model))
        elif self.paramwise_cfg or self.modules is not None:
            key = "paramwise_cfg" if self.paramwise_cfg else "modules"
            raise ConfigError(
                f"{self.path}.{key} is for an optimizer that is a config; this one is an object, "
                "with its parameters. Give the object groups of parameters, or a config here."
            )
        wrapper = build(
            self.optim_wrapper_cfg, self.path, default=OptimWrapper, optimizer=optimizer
        )
        if not isinstance(wrapper, OptimWrapper):
            raise ConfigError(
                f"{self.path}._target_ gives a {type(wrapper).__name__}; expected an OptimWrapper."
            )
        return wrapper

    def add_params(self, params: list[dict[str, Any]], module: nn.Module) -> None:
        """Append a group to ``params`` for each parameter of the model that is trained."""
        taken: dict[torch.Tensor, str] = {}
        names: list[str] = []
        for leaf in leaves(module):
            names.append(leaf.name)
            if not self.selects(leaf.name):
                continue
            if leaf.parameter in taken:
                self._duplicate(leaf.name, taken[leaf.parameter])
            elif leaf.parameter.requires_grad:
                taken[leaf.parameter] = leaf.name
                params.append({"params": [leaf.parameter], **self._options_of(leaf)})
        for key in self.options.custom_keys:
            if not any(key in name for name in names):
                logger.warning(
                    "%s.paramwise_cfg.custom_keys.%s: no parameter of %s has this in its name.",
                    *(self.path, key, type(module).__name__),
                )

    def selects(self, name: str) -> bool:
        """Whether ``modules`` names the parameter ``name`` or a module around it."""
        return self.modules is None or any(_is_in(name, pattern) for pattern in self.modules)

    @property
    def base_lr(self) -> Any:
        """The learning rate that multipliers multiply; None if the optimizer has none."""
        return self._base("lr")

    @property
    def base_wd(self) -> Any:
        """The weight decay that multipliers multiply; None if the optimizer has none."""
        return self._base("weight_decay")

    def multiplied(self, key: str, factor: float) -> dict[str, float]:
        """Return ``{key: base * factor}``, for ``"lr"`` or ``"weight_decay"``."""
        return {key: self._base(key) * factor}

    # ------------------------------------------------------------------ groups

    def _groups(self, model: nn.Module) -> list[Any]:
        """Return what the optimizer gets: parameters, or groups of them."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise ConfigError(
                f"{type(model).__name__} has no parameter that requires a gradient; nothing can be "
                "trained."
            )
        for pattern in self.modules or ():
            if not any(_is_in(name, pattern) for name, _ in named):
                self._nothing_in(pattern, model)
        if not self.paramwise_cfg:
            return [parameter for name, parameter in named if self.selects(name)]
        params: list[dict[str, Any]] = []
        self.add_params(params, model)
        groups = merged(params)
        self._log({parameter: name for name, parameter in named}, groups)
        return groups

    def _nothing_in(self, pattern: str, model: nn.Module) -> None:
        known = [
            name
            for name, module in model.named_children()
            if next(module.parameters(), None) is not None
        ]
        raise ConfigError(
            f"{self.path}.modules is {pattern!r}, but {type(model).__name__} has no parameter "
            f"there that requires a gradient. {did_you_mean(pattern, known, listed='It has')}"
        )

    def _duplicate(self, name: str, first: str) -> None:
        if not self.options.bypass_duplicate:
            raise ConfigError(
                f"{self.path}.paramwise_cfg: {first} and {name} are one parameter, which cannot be "
                "in two groups. To take it as the first of them, set bypass_duplicate: true."
            )
        logger.info("%s is %s, whose options it gets.", name, first)

    def _log(self, names: Mapping[torch.Tensor, str], groups: Sequence[Mapping[str, Any]]) -> None:
        for index, group in enumerate(groups):
            inside = [names.get(parameter, "?") for parameter in group["params"]]
            more = f" and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
            values = [f"{key}={value}" for key, value in group.items() if key != "params"]
            logger.info(
                "%s: group %d has %s: %s%s",
                *(self.path, index, ", ".join(values) or "the base values"),
                *(", ".join(inside[:_SHOWN]), more),
            )

    # ------------------------------------------------------------------- rules

    def _options_of(self, leaf: Leaf) -> dict[str, Any]:
        for key in sorted(self.options.custom_keys, key=lambda key: (-len(key), key)):
            if key in leaf.name:
                return self._custom(self.options.custom_keys[key])
        return {**self._lr_of(leaf), **self._decay_of(leaf)}

    def _custom(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for multiplier, key in _MULTIPLIERS.items():
            if multiplier in given:
                found |= self.multiplied(key, given[multiplier])
        return {**found, **given}

    def _lr_of(self, leaf: Leaf) -> dict[str, float]:
        options = self.options
        if leaf.is_offset and options.dcn_offset_lr_mult is not None:
            return self.multiplied("lr", options.dcn_offset_lr_mult)
        if leaf.is_bias and not leaf.is_norm and options.bias_lr_mult is not None:
            return self.multiplied("lr", options.bias_lr_mult)
        return {}

    def _decay_of(self, leaf: Leaf) -> dict[str, float]:
        rules = (
            (leaf.is_norm, self.options.norm_decay_mult),
            (leaf.is_bias, self.options.bias_decay_mult),
            (leaf.is_depthwise, self.options.dwconv_decay_mult),
            (leaf.is_flat, self.options.flat_decay_mult),
        )
        for fits, factor in rules:
            if fits and factor is not None:
                return self.multiplied("weight_decay", factor)
        return {}

    # ------------------------------------------------------------------ checks

    def _base(self, key: str) -> Any:
        if not isinstance(self.optimizer, Partial):
            return None
        if key in self.optimizer.kwargs:
            return self.optimizer.kwargs[key]
        parameter = _arguments(self.optimizer).get(key)
        default = None if parameter is None else parameter.default
        # A default of 0 is none: to multiply it changes nothing.
        return None if default is inspect.Parameter.empty else default or None

    def _check_options(self) -> None:
        """Refuse multipliers that multiply nothing, and options that the optimizer has not.

        Raises:
            ConfigError: It names the first.
        """
        if not isinstance(self.options, Paramwise):
            return  # a subclass has its own
        root = f"{self.path}.paramwise_cfg"
        for name, factor in vars(self.options).items():
            if name.endswith("_mult") and factor is not None:
                key = "weight_decay" if "decay" in name else "lr"
                self._check_factor(f"{root}.{name}", factor, key)
        for name, given in self.options.custom_keys.items():
            self._check_custom(f"{root}.custom_keys.{name}", given)

    def _check_custom(self, path: str, given: Any) -> None:
        if not isinstance(given, Mapping):
            raise ConfigError(f"{path} is {given!r}; expected a mapping, such as {{lr_mult: 0.1}}.")
        known = [*_MULTIPLIERS, *list(_arguments(self.optimizer))[1:]]
        for key, value in given.items():
            if isinstance(self.optimizer, Partial) and key not in known:
                near = did_you_mean(str(key), known, listed="It takes")
                raise ConfigError(f"{path}.{key}: a group has no option {key!r}. {near}")
            if key in _MULTIPLIERS:
                self._check_factor(f"{path}.{key}", value, _MULTIPLIERS[key])
                if _MULTIPLIERS[key] in given:
                    raise ConfigError(
                        f"{path} has both {key} and {_MULTIPLIERS[key]}, which is what it gives. "
                        "Drop one."
                    )

    def _check_factor(self, path: str, factor: Any, key: str) -> None:
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not number or not 0 <= factor < float("inf"):
            raise ConfigError(f"{path} is {factor!r}; expected a number of at least 0.")
        if isinstance(self.optimizer, Partial) and self._base(key) is None:
            raise ConfigError(
                f"{path} multiplies {key}, which {self.path}.optimizer does not give. Give it "
                f"there, or drop the multiplier."
            )


def _is_in(name: str, pattern: str) -> bool:
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def _arguments(optimizer: Any) -> Mapping[str, inspect.Parameter]:
    if not isinstance(optimizer, Partial):
        return {}
    try:
        return inspect.signature(optimizer.target).parameters
    except (TypeError, ValueError):
        return {}


def _as_mapping(given: Any, path: str) -> dict[str, Any]:
    plain = to_plain(given, path)
    if plain is not None and not isinstance(plain, Mapping):
        raise ConfigError(f"{path} is {plain!r}; expected a mapping, or null.")
    return dict(plain or {})
