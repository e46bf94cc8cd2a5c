"""AmpOptimWrapper: forward in autocast, and a scaled loss where half precision needs it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from trainkit.errors import ConfigError, did_you_mean
from trainkit.optim_wrapper.base import OptimWrapper

logger = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class AmpOptimWrapper(OptimWrapper):
    """An OptimWrapper with automatic mixed precision, on any device that torch can autocast.

    Only float16 has gradients that underflow, so only float16 scales the loss.

    Args:
        optimizer: See :class:`OptimWrapper`.
        loss_scale: Of float16: ``"dynamic"``, a fixed scale, or the arguments of
            ``torch.amp.GradScaler``.
        dtype: ``"float16"`` or ``"bfloat16"``; None takes autocast's own choice: float16 on CUDA,
            bfloat16 on CPU.
        accumulative_counts: See :class:`OptimWrapper`.
        clip_grad: See :class:`OptimWrapper`; gradients are unscaled before they are clipped.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        loss_scale: str | float | Mapping[str, Any] = "dynamic",
        dtype: str | torch.dtype | None = None,
        accumulative_counts: int = 1,
        clip_grad: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(optimizer, accumulative_counts, clip_grad)
        first = next(p for group in self.param_groups for p in group["params"])
        self.device_type = first.device.type
        self.dtype = _parse_dtype(dtype, self.device_type)
        self.fixed_scale = float(loss_scale) if isinstance(loss_scale, int | float) else None
        self._loss_scale = dict(loss_scale) if isinstance(loss_scale, Mapping) else loss_scale
        options = _scaler_options(loss_scale)
        try:
            self.loss_scaler = torch.amp.GradScaler(
                self.device_type, enabled=self.dtype is torch.float16, **options
            )
        except (TypeError, AssertionError) as error:
            raise ConfigError(
                f"optim_wrapper.loss_scale is {loss_scale!r}, which GradScaler refuses: {error}."
            ) from None
        if loss_scale != "dynamic" and not self.loss_scaler.is_enabled():
            logger.warning(
                "loss_scale is %s, but %s needs no scale and gets none; only float16 does.",
                *(loss_scale, str(self.dtype).removeprefix("torch.")),
            )

    def _backpropagate(self, loss: torch.Tensor, **kwargs: Any) -> None:
        super()._backpropagate(self.loss_scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Unscale and clip, if asked; step unless a gradient is not finite; adapt the scale."""
        # Before unscale_(), after which the scaler would wait for its update().
        if not self.may_step(gradients_count=not self.loss_scaler.is_enabled()):
            return
        if self.clip_type is not None:
            self.loss_scaler.unscale_(self.optimizer)
        self.clip_gradients()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self.fixed_scale)
        self.end_window()

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass: autocast, and that of :class:`OptimWrapper`."""
        with super().optim_context(model), torch.autocast(self.device_type, dtype=self.dtype):
            yield

    def state_dict(self) -> dict[str, Any]:
        """Return the wrapper's state with that of the loss scaler."""
        scaler = {"loss_scaler": self.loss_scaler.state_dict(), "loss_scale": self._loss_scale}
        return {**super().state_dict(), **scaler}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load :meth:`state_dict`, or that of a wrapper without a scaler.

        A ``loss_scale`` that the config has changed since is kept, and logged.
        """
        super().load_state_dict(state_dict)
        saved = state_dict.get("loss_scaler")
        if not self.loss_scaler.is_enabled() or not saved:
            return
        before = state_dict.get("loss_scale")
        if before == self._loss_scale:
            self.loss_scaler.load_state_dict(saved)
        else:
            self.rescale = self.loss_scaler.get_scale() / saved["scale"]
            logger.info(
                "loss_scale: the config's %s, not the checkpoint's %s.", self._loss_scale, before
            )


def _parse_dtype(dtype: str | torch.dtype | None, device_type: str) -> torch.dtype:
    if dtype is None:
        return torch.get_autocast_dtype(device_type)
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    if dtype not in _DTYPES:
        raise ConfigError(f"optim_wrapper.dtype is {dtype!r}. {did_you_mean(str(dtype), _DTYPES)}")
    return _DTYPES[str(dtype)]


def _scaler_options(loss_scale: str | float | Mapping[str, Any]) -> dict[str, Any]:
    if loss_scale == "dynamic":
        return {}
    if isinstance(loss_scale, int | float) and not isinstance(loss_scale, bool):
        if 0 < loss_scale < math.inf:
            return {"init_scale": float(loss_scale)}
    elif isinstance(loss_scale, Mapping):
        return dict(loss_scale)
    raise ConfigError(
        f"optim_wrapper.loss_scale is {loss_scale!r}; expected 'dynamic', a number, or the "
        "arguments of GradScaler."
    )
