"""Learning rates that fall from the last layer of a backbone to its first."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from trainkit.errors import ConfigError, did_you_mean
from trainkit.optim_wrapper.constructor import DefaultOptimWrapperConstructor

logger = logging.getLogger(__name__)

_TYPES = ("layer_wise", "stage_wise")
_EMBEDDINGS = ("patch_embed", "pos_embed", "cls_token", "mask_token")
_BLOCK = re.compile(r"(?:blocks|layers)\.(\d+)\.")
_STAGE = re.compile(r"stages\.(\d+)\.(\d+)\.")
_DOWNSAMPLE = re.compile(r"downsample_layers\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class LayerDecay:
    """Options of ``paramwise_cfg`` for :class:`LearningRateDecayOptimWrapperConstructor`.

    Args:
        decay_rate: What the learning rate is multiplied by from each layer to the one before it.
        num_layers: Layers (or stages) of the backbone, without embedding and head.
        decay_type: ``"layer_wise"``, or ``"stage_wise"``: all blocks of a stage alike.
    """

    decay_rate: float
    num_layers: int
    decay_type: Literal["layer_wise", "stage_wise"] = "layer_wise"


class LearningRateDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    r"""Layer-wise learning-rate decay: a parameter in layer ``i`` of ``n`` gets

    .. math:: lr_i = lr \cdot decay\_rate^{\,n + 1 - i}

    where 0 is the embedding and ``n + 1`` what follows the backbone (Bao et al., BEiT,
    arXiv:2106.08254, and Liu et al., ConvNeXt, arXiv:2201.03545, use it for fine-tuning). Weight
    decay is 0 for parameters of one dimension, biases, position embeddings and class tokens.

    Layers are told from names inside ``backbone`` (the whole model, if it has none):

    =====================================  ======================================  ==============
    names                                  ``layer_wise``                          ``stage_wise``
    =====================================  ======================================  ==============
    ``patch_embed, pos_embed,              0                                       0
    cls_token, mask_token``
    ``blocks.k, layers.k``                 k + 1                                   not known
    ``downsample_layers.s`` (ConvNeXt)     0, 2, 3, n for s = 0, 1, 2, 3           0
    ``stages.s.b`` (ConvNeXt)              1, 2, 3 + b // 3, n for s = 0, 1, 2, 3  s + 1
    everything else                        n + 1                                   n + 1
    =====================================  ======================================  ==============

    For other names, derive and override :meth:`layer_of`.

    Args:
        optim_wrapper_cfg: See :class:`DefaultOptimWrapperConstructor`.
        paramwise_cfg: The fields of :class:`LayerDecay`.
        modules: See :class:`DefaultOptimWrapperConstructor`.
        path: See :class:`DefaultOptimWrapperConstructor`.
    """

    paramwise = LayerDecay

    def __init__(
        self,
        optim_wrapper_cfg: Mapping[str, Any],
        paramwise_cfg: Mapping[str, Any] | None = None,
        modules: str | Sequence[str] | None = None,
        path: str = "optim_wrapper",
    ) -> None:
        if not paramwise_cfg:
            raise ConfigError(
                f"{path}.paramwise_cfg is {paramwise_cfg!r}; {type(self).__name__} needs "
                "decay_rate and num_layers there."
            )
        super().__init__(optim_wrapper_cfg, paramwise_cfg, modules, path)

    def add_params(self, params: list[dict[str, Any]], module: nn.Module) -> None:
        """Append a group to ``params`` for each parameter of the model that is trained."""
        last = self.options.num_layers + 1
        names = [name for name, _ in module.named_parameters()]
        has_backbone = any(".backbone." in f".{name}" for name in names)
        layers = {name: self._checked_layer(name, has_backbone) for name in names}
        if set(layers.values()) == {last}:
            raise ConfigError(
                f"{self.path}.constructor: no parameter of {type(module).__name__} is in a layer "
                f"that {type(self).__name__} knows by its name, so no learning rate would decay. "
                "Derive from it, and override layer_of(name)."
            )
        self._warn_of_depth(set(layers.values()) - {last})
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and self.selects(name):
                scale = self.options.decay_rate ** (last - layers[name])
                group = {"params": [parameter], **self.multiplied("lr", scale)}
                if self.base_wd is not None:
                    flat = parameter.ndim == 1 or name.endswith(".bias")
                    undecayed = flat or name.rpartition(".")[2] in _EMBEDDINGS
                    group["weight_decay"] = 0.0 if undecayed else self.base_wd
                params.append(group)

    def _warn_of_depth(self, layers: Set[int]) -> None:
        """Say that ``num_layers`` is more than there are, so that all rates are too low."""
        deepest = max(layers, default=self.options.num_layers)
        if deepest < self.options.num_layers:
            logger.warning(
                "%s.paramwise_cfg.num_layers is %d, but no parameter is in a layer beyond %d, so "
                "the learning rate of the backbone's last layer decays as well. Count again.",
                self.path,
                self.options.num_layers,
                deepest,
            )

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter: 0 is the embedding, ``num_layers + 1`` the head.

        Args:
            name: The parameter's name, from the backbone on: ``"blocks.3.attn.weight"``.
        """
        last, stage_wise = self.options.num_layers + 1, self.options.decay_type == "stage_wise"
        if any(part in _EMBEDDINGS for part in name.split(".")):
            return 0
        downsample, stage, block = (
            pattern.match(name) for pattern in (_DOWNSAMPLE, _STAGE, _BLOCK)
        )
        if downsample:
            return 0 if stage_wise else self._of_four((0, 2, 3), int(downsample[1]))
        if stage:
            number, position = int(stage[1]), int(stage[2])
            return number + 1 if stage_wise else self._of_four((1, 2, 3 + position // 3), number)
        if block and stage_wise:
            raise ConfigError(
                f"{self.path}.paramwise_cfg.decay_type is 'stage_wise', but {name} is in no stage. "
                "Use 'layer_wise'."
            )
        return int(block[1]) + 1 if block else last

    def _of_four(self, layers: Sequence[int], stage: int) -> int:
        return layers[stage] if stage < len(layers) else int(self.options.num_layers)

    def _checked_layer(self, name: str, has_backbone: bool) -> int:
        """Return the layer of a parameter of the whole model."""
        _, backbone, inside = f".{name}".rpartition(".backbone.")
        last = int(self.options.num_layers) + 1
        if has_backbone and not backbone:
            return last
        layer = self.layer_of(inside if backbone else name)
        if not 0 <= layer <= last:
            raise ConfigError(
                f"{self.path}.paramwise_cfg.num_layers is {self.options.num_layers}, but {name} is "
                f"in layer {layer}. Count again."
            )
        return layer

    def _check_options(self) -> None:
        options, root = self.options, f"{self.path}.paramwise_cfg"
        if options.decay_type not in _TYPES:
            near = did_you_mean(str(options.decay_type), _TYPES)
            raise ConfigError(f"{root}.decay_type is {options.decay_type!r}. {near}")
        if type(options.num_layers) is not int or options.num_layers < 1:
            raise ConfigError(
                f"{root}.num_layers is {options.num_layers!r}; expected a whole number of at least "
                "1."
            )
        self._check_factor(f"{root}.decay_rate", options.decay_rate, "lr")
