"""Pictures: pixels of what models take, grids of them, and PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainkit.errors import ConfigError, MissingExtra

Pixels = npt.NDArray[np.uint8]  # (height, width, 3)

_LEAST, _MOST = 64, 256  # pixels of the shorter and of the longer side of an image in a grid
_LINE = 14  # pixels of a caption
_GAP = 4


def to_pixels(image: Any) -> Pixels:
    """Return an image as bytes, ``(height, width, 3)``.

    Floating-point values in [0, 1] are brightness; others are stretched to it.

    Args:
        image: A tensor ``(channels, height, width)`` or an array ``(height, width, channels)``, of
            1, 3 or 4 channels, or either of one channel as ``(height, width)``.

    Raises:
        ConfigError: It is no such image.
    """
    values = image
    if isinstance(image, torch.Tensor):
        values = image.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
        values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    if not isinstance(values, np.ndarray) or values.ndim not in (2, 3):
        raise ConfigError(
            f"A picture is a {type(image).__name__} of shape {getattr(image, 'shape', None)}; "
            "expected a tensor (channels, height, width), or an array (height, width, channels)."
        )
    values = values[..., None] if values.ndim == 2 else values
    if values.shape[-1] not in (1, 3, 4) or not values.size:
        raise ConfigError(
            f"A picture has the shape {tuple(image.shape)}; expected 1, 3 or 4 channels, and some "
            "pixels."
        )
    values = values[..., :3] if values.dtype == np.uint8 else _stretched(values[..., :3])
    pixels: Pixels = np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
    return pixels


def _stretched(values: npt.NDArray[Any]) -> Pixels:
    """Return numbers as bytes: of [0, 1] as they are, of another range stretched."""
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    shares = (np.nan_to_num(numbers, nan=low, posinf=high, neginf=low) - low) / (high - low or 1.0)
    pixels: Pixels = np.rint(shares * 255).astype(np.uint8)
    return pixels


def draw_grid(
    pictures: Sequence[Pixels],
    captions: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> Pixels:
    """Return the pictures as one, in a grid about as wide as high, each with its caption below.

    Args:
        pictures: At least one; small ones are enlarged.
        captions: A short text for each; where all are empty there is no room for them.
        colours: Of each caption, red, green and blue.
    """
    pil = _pillow()
    images = [_sized(pil.Image.fromarray(pixels)) for pixels in pictures]
    line = _LINE if any(captions) else 0
    width = max(image.width for image in images) + _GAP
    height = max(image.height for image in images) + line + _GAP
    columns = math.ceil(math.sqrt(len(images)))
    size = (columns * width + _GAP, -(-len(images) // columns) * height + _GAP)
    grid = pil.Image.new("RGB", size, (255, 255, 255))
    pen = pil.ImageDraw.Draw(grid)
    for index, image in enumerate(images):
        x, y = _GAP + index % columns * width, _GAP + index // columns * height
        grid.paste(image, (x, y))
        # The built-in font has no other letters.
        text = captions[index].encode("latin-1", "replace").decode("latin-1")
        pen.text((x, y + height - line - _GAP), text, fill=colours[index])
    return np.asarray(grid).copy()


def _sized(image: Any) -> Any:
    """Return an image of PIL enlarged by a whole number, or reduced, to what can be seen."""
    short, long = sorted(image.size)
    if short < _LEAST and long * 2 <= _MOST:
        times = min(-(-_LEAST // short), _MOST // long)
        return image.resize((image.width * times, image.height * times), 0)  # nearest pixel
    if long > _MOST:
        image.thumbnail((_MOST, _MOST))
    return image


def write_png(path: Path, pixels: Pixels) -> None:
    """Write a picture; it stands whole under its name when this returns."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    _pillow().Image.fromarray(pixels).save(temporary, format="PNG")
    temporary.replace(path)


def _pillow() -> ModuleType:
    try:
        import PIL.Image
        import PIL.ImageDraw
    except ImportError:
        raise MissingExtra("pillow", "vision", "The drawing of pictures") from None
    return PIL
