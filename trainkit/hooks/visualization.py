"""Pictures of predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trainkit.dist import is_main_process
from trainkit.errors import ConfigError
from trainkit.hook import Hook
from trainkit.hooks.place import path_of
from trainkit.run_dir import safe_name, unused
from trainkit.visualizer import IMAGES, draw_grid, to_pixels, write_png

if TYPE_CHECKING:
    from trainkit.runner import Runner

_IMAGE_KEYS = ("inputs", "img", "image", "images", "x")
_LABEL_KEYS = ("labels", "label", "target", "targets", "gt_label", "y")
_PREDICTION_KEYS = ("pred_label", "pred_labels", "prediction", "logits", "scores", "pred")
_BLACK, _GREEN, _RED = (0, 0, 0), (0, 110, 0), (190, 0, 0)


class VisualizationHook(Hook):
    """Draw a grid of images with what the model predicts for them, in validation and test.

    The visualizer's backends get it as ``<val or test>/predictions`` at the present iteration; an
    evaluation of its own, outside training, writes it to the run's ``vis_image/``.

    Without ``render``, the images are found in the batch (``inputs``, ``img``, ..., or its first
    item), the labels beside them, and the predictions in scores ``(N, classes)``, in class indices,
    or in a list with an entry for each image. Right ones are green, wrong ones red. Classes have
    names where the dataset's ``metainfo`` has ``classes``.

    Args:
        draw: False: draw nothing.
        interval: Batches between two pictures in an evaluation; the first one is always drawn.
        draw_gt: Write the label beside the prediction.
        max_images: Images of a picture.
        render: What is called with the batch and the predictions, and returns pairs of an image and
            its caption. In a config, a mapping with ``_target_`` and ``_partial_: true``.
    """

    priority = "NORMAL"

    def __init__(
        self,
        draw: bool = True,
        interval: int = 50,
        draw_gt: bool = True,
        max_images: int = 16,
        render: Callable[..., Iterable[tuple[Any, str]]] | None = None,
    ) -> None:
        for name, value in (("interval", interval), ("max_images", max_images)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} is {value!r}; expected a whole number of at least 1.")
        if render is not None and not callable(render):
            raise ConfigError(f"render is {render!r}; expected something to call.")
        self.draw, self.interval, self.draw_gt = draw, interval, draw_gt
        self.max_images, self.render = max_images, render

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw, if it is time."""
        self._draw_if_due(runner, batch_idx, (data_batch, outputs), "val")

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw, if it is time."""
        self._draw_if_due(runner, batch_idx, (data_batch, outputs), "test")

    def _draw_if_due(
        self, runner: Runner, batch_idx: int, shown: tuple[Any, Any], mode: str
    ) -> None:
        if not self.draw or batch_idx % self.interval or not is_main_process():
            return
        if self.render is None:
            cells = self._cells(runner, *shown, mode)
        else:
            found = list(self.render(*shown))[: self.max_images]
            cells = [(image, str(caption), _BLACK) for image, caption in found]
        if not cells:
            return
        pictures, captions, colours = zip(*cells, strict=True)
        grid = draw_grid([to_pixels(picture) for picture in pictures], captions, colours)
        name = f"{mode}/predictions" + (f"_batch_{batch_idx}" if batch_idx else "")
        if runner.visualizer.is_open:
            runner.visualizer.add_image(name, grid, step=runner.iter)
        else:
            path = runner.work_dir / IMAGES / f"{safe_name(name)}_{runner.timestamp}.png"
            write_png(unused(path), grid)

    def _cells(
        self, runner: Runner, data_batch: Any, outputs: Any, mode: str
    ) -> list[tuple[Any, str, tuple[int, int, int]]]:
        images = _images(data_batch)
        if images is None:
            raise ConfigError(
                f"{path_of(self, runner)} finds no images in a batch of {_shape(data_batch)}. "
                "Give it a render=... that returns images and captions, or remove the hook."
            )
        labels, predictions = _classes(_labels(data_batch)), _classes(_predictions(outputs))
        meta = getattr(getattr(runner.dataloader(mode), "dataset", None), "metainfo", None)
        names = meta.get("classes") if isinstance(meta, Mapping) else None
        cells = []
        for index, image in enumerate(images[: self.max_images]):
            label = labels[index] if index < len(labels) else None
            predicted = predictions[index] if index < len(predictions) else None
            shown = [_name(predicted, names)] if predicted is not None else []
            if self.draw_gt and label is not None:
                shown.append(f"({_name(label, names)})")
            colour = _BLACK
            if label is not None and predicted is not None:
                colour = _GREEN if label == predicted else _RED
            cells.append((image, " ".join(shown), colour))
        return cells


def _images(batch: Any) -> Sequence[Any] | None:
    """Return the images of a batch, if it has any that can be told."""
    if isinstance(batch, Mapping):
        named = (batch[key] for key in _IMAGE_KEYS if key in batch)
        return next((images for images in map(_images, named) if images is not None), None)
    if isinstance(batch, torch.Tensor):
        return list(batch) if batch.ndim == 4 and batch.shape[1] in (1, 3, 4) else None
    if not isinstance(batch, list | tuple) or not batch:
        return None
    if all(isinstance(item, torch.Tensor) and item.ndim == 3 for item in batch):
        return batch
    return _images(batch[0])  # of a pair of images and labels


def _labels(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return next((batch[key] for key in _LABEL_KEYS if key in batch), None)
    return batch[1] if isinstance(batch, list | tuple) and len(batch) == 2 else None


def _predictions(outputs: Any) -> Any:
    if isinstance(outputs, Mapping):
        return next((outputs[key] for key in _PREDICTION_KEYS if key in outputs), None)
    if isinstance(outputs, list | tuple):
        return [_predictions(item) if isinstance(item, Mapping) else item for item in outputs]
    return outputs


def _classes(values: Any) -> list[int]:
    """Return the class index of each image: given as such, or as scores; else nothing."""
    if isinstance(values, list | tuple):
        found = [_classes(torch.as_tensor(v)[None]) for v in values if _is_numeric(v)]
        return [one[0] for one in found if one] if len(found) == len(values) else []
    if not isinstance(values, torch.Tensor):
        return []
    if values.ndim == 2 and values.shape[1] > 1:
        values = values.argmax(dim=1)
    values = values.flatten() if values.ndim == 2 else values
    whole = values.ndim == 1 and not values.is_floating_point()
    return [int(value) for value in values.tolist()] if whole else []


def _is_numeric(value: Any) -> bool:
    return isinstance(value, torch.Tensor | int | float)


def _name(index: int, names: Any) -> str:
    named = isinstance(names, Sequence) and 0 <= index < len(names)
    return str(names[index]) if named else str(index)


def _shape(batch: Any) -> str:
    """Say what a batch is: of a mapping its keys."""
    kind = type(batch).__name__
    return f"{kind} with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else kind
