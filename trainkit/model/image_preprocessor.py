"""ImgDataPreprocessor: images of a batch become one normalised tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from trainkit.errors import ConfigError
from trainkit.model.preprocessor import BaseDataPreprocessor


class ImgDataPreprocessor(BaseDataPreprocessor):
    """Move a batch to the device, and make one float tensor ``(N, C, H, W)`` of its images.

    A batch is a mapping; its ``inputs`` are a tensor ``(N, C, H, W)`` or a list of tensors ``(C, H,
    W)`` of any sizes. In order: channels are reversed, values become float, ``(x - mean) / std``,
    the lower and right edges are padded to the greatest height and width, and images are stacked.
    A batch of ``inputs`` alone gets ``data_samples: None`` beside it.

    Args:
        mean: Of each channel, or one for all, in the order after the reversal; None: values stay.
        std: Likewise, above 0; given together with ``mean``.
        pad_size_divisor: Heights and widths become multiples of it.
        pad_value: What the padding holds, among normalised values.
        bgr_to_rgb: Reverse the three channels.
        rgb_to_bgr: The same, under the other name; only one of them.
        non_blocking: See :class:`BaseDataPreprocessor`.
    """

    mean: torch.Tensor | None
    std: torch.Tensor | None

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pad_size_divisor: int = 1,
        pad_value: float = 0,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        if bgr_to_rgb and rgb_to_bgr:
            raise ConfigError(
                "bgr_to_rgb and rgb_to_bgr are both true; they do the same. Set one of them."
            )
        if type(pad_size_divisor) is not int or pad_size_divisor < 1:
            raise ConfigError(
                f"pad_size_divisor is {pad_size_divisor!r}; expected a whole number of at least 1."
            )
        _check_statistics(mean, std)
        self.register_buffer("mean", _statistic(mean), persistent=False)
        self.register_buffer("std", _statistic(std), persistent=False)
        self.has_three = 3 in (len(mean or ()), len(std or ()))
        self.reverses = bgr_to_rgb or rgb_to_bgr
        self.pad_size_divisor, self.pad_value = pad_size_divisor, pad_value

    def forward(self, data: Any, training: bool = False) -> dict[str, Any]:
        """Return the batch with its images as one tensor.

        Raises:
            TypeError: No mapping with ``inputs``; or these are neither a tensor nor tensors.
            ValueError: Images of a shape that does not fit.
        """
        if not isinstance(data, Mapping) or "inputs" not in data:
            has = f" of {', '.join(map(str, data))}" if isinstance(data, Mapping) else ""
            raise TypeError(
                f"ImgDataPreprocessor got a {type(data).__name__}{has}; expected a mapping with "
                "'inputs'."
            )
        batch: dict[str, Any] = self.cast_data(data)
        images = batch["inputs"]
        if isinstance(images, torch.Tensor):
            if images.dim() != 4:
                raise ValueError(
                    f"inputs are a tensor of shape {tuple(images.shape)}; expected (N, C, H, W)."
                )
            batch["inputs"] = self._pad(self._normalised(images, 1), self._rounded(images.shape))
        else:
            batch["inputs"] = self._stack(images)
        if len(batch) == 1:
            batch["data_samples"] = None
        return batch

    def _stack(self, images: Any) -> torch.Tensor:
        if not isinstance(images, list | tuple) or not all(
            isinstance(image, torch.Tensor) for image in images
        ):
            raise TypeError(
                f"inputs are a {type(images).__name__}; expected a tensor or a list of tensors."
            )
        shapes = {tuple(image.shape) for image in images}
        kinds = {(len(shape), *shape[:1]) for shape in shapes}
        if len(kinds) != 1 or min(len(shape) for shape in shapes) < 3:
            raise ValueError(
                f"inputs have the shapes {sorted(shapes)}; expected at least one image, each "
                "(C, H, W), all with the same C."
            )
        # Of a video (C, T, H, W), T is padded as well.
        largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        size = self._rounded(largest, first=1)
        return torch.stack(
            [self._pad(self._normalised(image, 0), size, first=1) for image in images]
        )

    def _normalised(self, images: torch.Tensor, channel: int) -> torch.Tensor:
        """Return float images; ``channel`` is the dimension of their channels."""
        needs_three = self.reverses or self.has_three
        if needs_three and images.shape[channel] != 3:
            raise ValueError(
                f"inputs have the shape {tuple(images.shape)}, but three channels are to be "
                "reversed, or each to have a mean or std of its own; expected images (3, H, W)."
            )
        if self.reverses:
            images = images.flip(channel)
        images = images.float()
        if self.mean is not None and self.std is not None:
            shape = (-1, *(1,) * (images.dim() - channel - 1))
            images = images.sub(self.mean.view(shape)).div_(self.std.view(shape))
        return images

    def _rounded(self, shape: Sequence[int], first: int = 2) -> list[int]:
        step = self.pad_size_divisor
        return [-(-size // step) * step for size in shape[first:]]

    def _pad(self, images: torch.Tensor, size: Sequence[int], first: int = 2) -> torch.Tensor:
        lacking = [want - has for want, has in zip(size, images.shape[first:], strict=True)]
        if not any(lacking):
            return images
        edges = [edge for lack in reversed(lacking) for edge in (0, lack)]
        return F.pad(images, edges, value=self.pad_value)


def _statistic(values: Sequence[float] | None) -> torch.Tensor | None:
    return None if values is None else torch.tensor(list(values), dtype=torch.float32)


def _check_statistics(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    if (mean is None) != (std is None):
        given, other = ("mean", "std") if std is None else ("std", "mean")
        raise ConfigError(f"{given} is given without {other}; expected both, or neither.")
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) not in (1, 3):
            raise ConfigError(
                f"{name} has {len(values)} values, {list(values)}; expected one for all channels, "
                "or three."
            )
    if std is not None and not all(value > 0 for value in std):
        raise ConfigError(f"std is {list(std)}; expected numbers above 0.")
