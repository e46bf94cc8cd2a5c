"""BaseModule: a module that sets its weights by ``init_cfg``; and containers of that kind."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from trainkit.errors import ConfigError
from trainkit.log import FILE_ONLY
from trainkit.model.init import BaseInit, Initializer
from trainkit.model.wrap import unwrap

logger = logging.getLogger(__name__)

InitCfg = Initializer | Sequence[Initializer] | Mapping[str, Initializer | None] | None


class BaseModule(nn.Module):
    """A module whose weights are set by ``init_cfg`` before training.

    The Runner calls :meth:`init_weights` of its model once, before it loads a checkpoint. What it
    does, in order: the initialisers of ``init_cfg``; then the children's own initialisation, so
    that the inner wins; at last ``PretrainedInit``, which wins over both. The log file tells of
    each parameter what has set it.

    A child takes part that has ``init_weights()`` itself, and every BaseModule further inside.
    ``is_init = True`` on a module leaves it out, for one whose weights were loaded already.

    Args:
        init_cfg: An initialiser, a list of them, or a dict of them by name.
    """

    def __init__(self, init_cfg: InitCfg = None) -> None:
        super().__init__()
        self._take(init_cfg)

    def _take(self, init_cfg: InitCfg) -> None:
        self.init_cfg = init_cfg
        self.is_init = False
        list(_initializers(self))  # which refuses what is none

    def init_weights(self) -> None:
        """Set the weights, once; parameters are changed in place and never replaced."""
        if self.is_init:
            logger.warning(
                "%s.init_weights() was called again; the weights stay as they are.",
                type(self).__name__,
            )
            return
        initializers = list(_initializers(self))
        first = [each for each in initializers if not getattr(each, "comes_last", False)]
        last = [each for each in initializers if getattr(each, "comes_last", False)]
        with _record_of(self) as record:
            for initializer in first:
                initializer(self)
                record.note(self, str(initializer))
            _init_children(self, record)
            for initializer in last:
                initializer(self)
                record.note(self, str(initializer))
        self.is_init = True


class Sequential(BaseModule, nn.Sequential):
    """``torch.nn.Sequential`` with an ``init_cfg`` of its own.

    Args:
        args: The modules, or an ordered dict of them.
        init_cfg: See :class:`BaseModule`.
    """

    def __init__(self, *args: Any, init_cfg: InitCfg = None) -> None:
        nn.Sequential.__init__(self, *args)
        self._take(init_cfg)


class ModuleList(BaseModule, nn.ModuleList):
    """``torch.nn.ModuleList`` with an ``init_cfg`` of its own.

    Args:
        modules: The modules.
        init_cfg: See :class:`BaseModule`.
    """

    def __init__(
        self, modules: Iterable[nn.Module] | None = None, init_cfg: InitCfg = None
    ) -> None:
        nn.ModuleList.__init__(self, modules)
        self._take(init_cfg)


class ModuleDict(BaseModule, nn.ModuleDict):
    """``torch.nn.ModuleDict`` with an ``init_cfg`` of its own.

    Args:
        modules: The modules by name.
        init_cfg: See :class:`BaseModule`.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module] | None = None, init_cfg: InitCfg = None
    ) -> None:
        nn.ModuleDict.__init__(self, modules)
        self._take(init_cfg)


def check_init_cfg(model: nn.Module) -> None:
    """Raise if ``init_cfg`` of a model, or of a module inside, names what is not there.

    Raises:
        ConfigError: A class of a layer, or a submodule.
    """
    for module in model.modules():
        for initializer in _initializers(module) if isinstance(module, BaseModule) else ():
            if isinstance(initializer, BaseInit):
                initializer.check(module)


def _initializers(module: BaseModule) -> Iterator[Initializer]:
    """Yield the initialisers of ``init_cfg``.

    Raises:
        ConfigError: One is none, or names nothing that it is for.
    """
    given: Any = module.init_cfg
    name = type(module).__name__
    if isinstance(given, Mapping) and "type" in given:
        raise ConfigError(_as_here(name, given))
    if isinstance(given, Mapping):
        given = [initializer for initializer in given.values() if initializer is not None]
    for initializer in given if isinstance(given, list | tuple) else [given]:
        if isinstance(initializer, Mapping) and "type" in initializer:
            raise ConfigError(_as_here(name, initializer))
        if initializer is not None and not callable(initializer):
            raise ConfigError(
                f"{name} got {initializer!r} in init_cfg; expected an initialiser, as "
                "trainkit.model.KaimingInit(layer='Conv2d'), or a list of them."
            )
        if isinstance(initializer, BaseInit) and initializer.layer is initializer.override is None:
            raise ConfigError(
                f"{initializer} in init_cfg of {name} says not what it is for. Name classes, as "
                "layer=['Conv2d', 'Linear'], or submodules by override=..."
            )
        if initializer is not None:
            yield initializer


def _as_here(name: str, given: Mapping[str, Any]) -> str:
    kind = str(given["type"]).rpartition(".")[2].removesuffix("Init")
    return (
        f"{name} got MMEngine's {dict(given)!r} in init_cfg. Here it is an initialiser: "
        f"_target_: trainkit.model.{kind}Init in a config, {kind}Init(...) in Python."
    )


def _init_children(module: nn.Module, record: _Record, *, inside: bool = False) -> None:
    """Initialise what is below a module: children with ``init_weights``, each BaseModule deeper."""
    for child in module.children():
        if not callable(getattr(child, "init_weights", None)):
            child = unwrap(child)
        initialise = getattr(child, "init_weights", None)
        is_own = isinstance(child, BaseModule)
        if not callable(initialise) or (inside and not is_own):
            _init_children(child, record, inside=True)
        elif not getattr(child, "is_init", False):
            initialise()
            changed = record.note(child, f"{type(child).__name__}.init_weights()")
            if changed and not is_own:
                logger.warning(
                    "%s.init_weights() has set %d parameters. If they were loaded before, set "
                    "is_init = True on that module.",
                    type(child).__name__,
                    changed,
                )


@contextmanager
def _record_of(module: BaseModule) -> Iterator[_Record]:
    """Give the record of the initialisation that goes on; the outermost one logs it."""
    going_on: _Record | None = module.__dict__.get("_init_record")
    if going_on is not None:
        yield going_on
        return
    record = _Record(module)
    inner = [m for m in module.modules() if isinstance(m, BaseModule)]
    for each in inner:
        each.__dict__["_init_record"] = record
    try:
        yield record
    finally:
        for each in inner:
            del each.__dict__["_init_record"]
    record.log()


class _Record:
    """What has set each parameter of a module.

    A parameter counts as set when its version has risen, or its sum has changed: the version misses
    what is written through ``.data``.
    """

    def __init__(self, module: nn.Module) -> None:
        self.owner = type(module).__name__
        self.parameters = dict(module.named_parameters())
        # The parameters are kept, so that no other one can get the id of one of them.
        self.names = {id(parameter): name for name, parameter in self.parameters.items()}
        self.prints = {name: _print(parameter) for name, parameter in self.parameters.items()}
        self.set_by: dict[str, str] = {}

    def note(self, module: nn.Module, by: str) -> int:
        """Note what has changed in ``module`` since it was last looked at, and return how much.

        Raises:
            RuntimeError: A parameter is new; the optimizer holds the one that was there.
        """
        changed = 0
        for inner, parameter in module.named_parameters():
            name = self.names.get(id(parameter))
            if name is None:
                raise RuntimeError(
                    f"{by} has added or replaced the parameter {inner!r} of "
                    f"{type(module).__name__}, which the optimizer would not know. Change it in "
                    f"place, as by torch.nn.init, or make it in __init__."
                )
            now = _print(parameter)
            if now != self.prints[name]:
                self.prints[name], self.set_by[name] = now, by
                changed += 1
        return changed

    def log(self) -> None:
        """Tell of each parameter what has set it, if anything has set any."""
        if self.set_by:
            lines = [
                f"{name} {'' if is_lazy(value) else tuple(value.shape)}: "
                f"{self.set_by.get(name, 'as the module made it')}"
                for name, value in self.parameters.items()
            ]
            told = "\n".join(lines)
            logger.info("Initial weights of %s:\n%s", self.owner, told, extra=FILE_ONLY)


def _print(parameter: nn.Parameter) -> tuple[int, str]:
    """Return what tells that a parameter has changed."""
    if is_lazy(parameter) or parameter.is_meta:
        return parameter._version, ""
    kind = None if parameter.is_complex() else torch.float64
    return parameter._version, repr(parameter.detach().sum(dtype=kind).item())
