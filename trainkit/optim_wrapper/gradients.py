"""Gradients that an update still to come is made of, for a checkpoint in between."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import torch

from trainkit.optim_wrapper.base import OptimWrapper
from trainkit.optim_wrapper.several import OptimWrapperDict


def open_gradients(optim_wrapper: OptimWrapper) -> dict[str, torch.Tensor]:
    """Return the gradients of an open window, by parameter.

    Of several optimizers it is all that there are: a pass for one may have left gradients in the
    parameters of another.
    """
    if not isinstance(optim_wrapper, OptimWrapperDict) and not optim_wrapper.is_accumulating:
        return {}
    named = (pair for wrapper in _each(optim_wrapper) for pair in _named(wrapper))
    return {name: p.grad.detach() for name, p in named if p.grad is not None}


def load_gradients(optim_wrapper: OptimWrapper, gradients: Mapping[str, torch.Tensor]) -> None:
    """Give the parameters what :func:`open_gradients` returned, scaled as the wrapper does."""
    for wrapper in _each(optim_wrapper):
        for name, parameter in _named(wrapper):
            if name in gradients:
                gradient = gradients[name].to(parameter.device, parameter.dtype, copy=True)
                parameter.grad = gradient if wrapper.rescale == 1 else gradient * wrapper.rescale


def _each(optim_wrapper: OptimWrapper) -> Iterator[OptimWrapper]:
    if isinstance(optim_wrapper, OptimWrapperDict):
        yield from optim_wrapper.values()
    else:
        yield optim_wrapper


def _named(wrapper: OptimWrapper) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the optimizer's parameters that have a name in the model."""
    names = itertools.chain.from_iterable(wrapper.param_names)
    parameters = (p for group in wrapper.optimizer.param_groups for p in group["params"])
    for name, parameter in zip(names, parameters, strict=False):
        if name:
            yield name, parameter
