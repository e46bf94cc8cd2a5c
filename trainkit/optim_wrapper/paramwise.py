"""What ``paramwise_cfg`` says, and what it can say it of: the kinds of parameters in a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
# By name, as in mmcv and torchvision, neither of which need be there.
_DEFORMABLE = ("DeformConv2d", "ModulatedDeformConv2d")


@dataclass(frozen=True, kw_only=True)
class Paramwise:
    """Options of ``paramwise_cfg``: what parameters of some kinds get instead of the base values.

    The first rule that fits decides, for the learning rate and for the weight decay apart:
    ``custom_keys`` (which rules out all others); for the learning rate ``dcn_offset_lr_mult``, then
    ``bias_lr_mult``; for the weight decay ``norm_decay_mult``, ``bias_decay_mult``,
    ``dwconv_decay_mult``, ``flat_decay_mult``.

    Args:
        custom_keys: By a part of the parameter's name: ``lr_mult``, ``decay_mult``, and any option
            of the optimizer. The longest part that is in the name counts, of two equally long ones
            the first in the alphabet.
        bias_lr_mult: Of biases, but not those of norms and of deformable convolutions' offsets.
        bias_decay_mult: Of biases, but not those of deformable convolutions' offsets.
        norm_decay_mult: Of weights and biases of batch, instance, group, layer and RMS norms.
        flat_decay_mult: Of all parameters of one dimension.
        dwconv_decay_mult: Of depthwise ``Conv2d``: as many groups as input channels, and several.
        dcn_offset_lr_mult: Of ``conv_offset`` layers in deformable convolutions.
        bypass_duplicate: Take a parameter that two modules share once, where it comes first;
            otherwise it is an error.
    """

    custom_keys: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bias_lr_mult: float | None = None
    bias_decay_mult: float | None = None
    norm_decay_mult: float | None = None
    flat_decay_mult: float | None = None
    dwconv_decay_mult: float | None = None
    dcn_offset_lr_mult: float | None = None
    bypass_duplicate: bool = False


@dataclass(frozen=True)
class Leaf:
    """A parameter, the module that owns it, and whether that is inside a deformable convolution."""

    name: str
    parameter: nn.Parameter
    module: nn.Module
    in_deformable: bool

    @property
    def is_norm(self) -> bool:
        """Whether it belongs to a norm."""
        return isinstance(self.module, _NORMS)

    @property
    def is_bias(self) -> bool:
        """Whether it is a bias, but not of an offset."""
        own = self.name.rpartition(".")[2]
        return own == "bias" and not self.in_deformable

    @property
    def is_flat(self) -> bool:
        """Whether it has one dimension, but is not of an offset."""
        return self.parameter.ndim == 1 and not self.in_deformable

    @property
    def is_depthwise(self) -> bool:
        """Whether it belongs to a depthwise Conv2d."""
        module = self.module
        return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1

    @property
    def is_offset(self) -> bool:
        """Whether it makes the offsets of a deformable convolution."""
        prefix = self.name.rpartition(".")[0]
        inside = self.in_deformable and "conv_offset" in prefix
        return inside and isinstance(self.module, nn.Conv2d)


def leaves(module: nn.Module, prefix: str = "", in_deformable: bool = False) -> Iterator[Leaf]:
    """Yield every parameter, a module's own first; one that modules share comes with each."""
    for name, parameter in module.named_parameters(recurse=False):
        yield Leaf(f"{prefix}{name}", parameter, module, in_deformable)
    deformable = any(kind.__name__ in _DEFORMABLE for kind in type(module).__mro__)
    for name, child in module.named_children():
        yield from leaves(child, f"{prefix}{name}.", deformable)


def merged(params: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return groups in which parameters of equal options are together, by first appearance.

    An optimizer updates each group by itself: one for each parameter would cost far more time.
    """
    groups: dict[str, dict[str, Any]] = {}
    for group in params:
        options = {key: value for key, value in group.items() if key != "params"}
        same = groups.setdefault(repr(sorted(options.items())), {"params": [], **options})
        same["params"] += group["params"]
    return list(groups.values())
