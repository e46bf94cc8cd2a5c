"""BaseModel: one forward with three modes, and what a train, val and test step do with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn

from trainkit.config.build import build
from trainkit.errors import ConfigError
from trainkit.model.module import BaseModule, InitCfg
from trainkit.model.preprocessor import BaseDataPreprocessor


class Updater(Protocol):
    """What a train step needs of an OptimWrapper."""

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return the context of the forward pass."""

    def update_params(self, loss: torch.Tensor) -> None:
        """Backpropagate, and step when it is time."""


class BaseModel(BaseModule):
    """Base of the models that a Runner trains. Write ``forward``; the three steps are here.

    ``forward(..., mode)`` gets a preprocessed batch: a mapping as keyword arguments, a list or
    tuple as positional ones. By ``mode`` it returns

    - ``"loss"``: a dict of losses; names with "loss" in them are added up, others are only logged;
    - ``"predict"``: what the metrics take;
    - ``"tensor"``: the raw output.

    Args:
        data_preprocessor: What a batch goes through before ``forward``, or a config of it; None
            moves it to the model's device.
        init_cfg: How weights are set before training; see :class:`BaseModule`.
    """

    def __init__(
        self,
        data_preprocessor: nn.Module | Mapping[str, Any] | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(init_cfg)
        given = {} if data_preprocessor is None else data_preprocessor
        built = build(given, "data_preprocessor", default=BaseDataPreprocessor)
        if not isinstance(built, nn.Module):
            raise ConfigError(
                f"data_preprocessor is a {type(built).__name__}; expected a torch.nn.Module, or a "
                "config of one."
            )
        self.data_preprocessor = built

    def train_step(self, data: Any, optim_wrapper: Updater) -> dict[str, torch.Tensor]:
        """Train on one batch; return the total as ``loss``, and each entry of the loss dict."""
        with optim_wrapper.optim_context(self):
            data = self.data_preprocessor(data, True)
            losses = self._run_forward(data, mode="loss")
        total, log_vars = self.parse_losses(losses)
        optim_wrapper.update_params(total)
        return log_vars

    def val_step(self, data: Any) -> Any:
        """Return the predictions for one batch."""
        return self._run_forward(self.data_preprocessor(data, False), mode="predict")

    def test_step(self, data: Any) -> Any:
        """Return the predictions for one batch."""
        return self.val_step(data)

    def loss_step(self, data: Any) -> dict[str, torch.Tensor]:
        """Return the losses of one batch, without training on it; ``loss`` is the total.

        The val and test loops ask for it where ``loss`` is true.
        """
        losses = self._run_forward(self.data_preprocessor(data, False), mode="loss")
        return self.parse_losses(losses)[1]

    def parse_losses(
        self, losses: Mapping[str, Any]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Reduce a dict of losses to the total and the values that are logged.

        A tensor counts with its mean, a list of tensors with the sum of their means. The total is
        the sum of the entries whose name contains "loss", and is logged as ``loss``; an entry of
        that very name beside other losses is logged as ``loss_term``, so that the log shows what
        was backpropagated.

        Raises:
            TypeError: ``losses`` is no mapping, or a value is neither a tensor nor a list of
                tensors.
            ValueError: No name contains "loss".
        """
        if not isinstance(losses, Mapping):
            name = type(self).__name__
            raise TypeError(
                f"{name}.forward(mode='loss') gave a {type(losses).__name__}; expected a dict of "
                "losses."
            )
        values = {name: _reduce(name, value) for name, value in losses.items()}
        terms = [value for name, value in values.items() if "loss" in name]
        if not terms:
            given = ", ".join(values) or "nothing"
            raise ValueError(
                f"No loss to backpropagate: no name contains 'loss'. The model gave: {given}."
            )
        total = terms[0] if len(terms) == 1 else _sum(terms)
        logged = {"loss": total.detach()}
        for name, value in values.items():
            if name != "loss":
                logged[name] = value.detach()
            elif len(terms) > 1:
                logged[_free("loss_term", values)] = value.detach()
        return total, logged

    def _run_forward(self, data: Any, mode: str) -> Any:
        if isinstance(data, Mapping):
            return self(**data, mode=mode)
        if isinstance(data, list | tuple):
            return self(*data, mode=mode)
        raise TypeError(
            f"The data preprocessor gave a {type(data).__name__}; expected a mapping, a list or a "
            "tuple."
        )


def _reduce(name: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        # A parameter, or a view of one, is copied: the log shows it as it was before the step.
        computed = value.dim() == 0 and value.grad_fn is not None and not value._is_view()
        return value if computed else value.mean()
    if (
        isinstance(value, list | tuple)
        and value
        and all(isinstance(item, torch.Tensor) for item in value)
    ):
        return _sum([item.mean() for item in value])
    raise TypeError(
        f"The loss {name!r} is a {type(value).__name__}; expected a tensor or a list of tensors."
    )


def _sum(values: list[torch.Tensor]) -> torch.Tensor:
    return sum(values[1:], values[0])


def _free(name: str, taken: Mapping[str, Any]) -> str:
    while name in taken:
        name += "_"
    return name
