"""Where scalars, pictures and the config are written."""

from trainkit.visualizer.backend import VisBackend
from trainkit.visualizer.local import IMAGES, LocalVisBackend
from trainkit.visualizer.picture import Pixels, draw_grid, to_pixels, write_png
from trainkit.visualizer.tensorboard import TensorboardVisBackend
from trainkit.visualizer.visualizer import Visualizer

__all__ = [
    "IMAGES",
    "LocalVisBackend",
    "Pixels",
    "TensorboardVisBackend",
    "VisBackend",
    "Visualizer",
    "draw_grid",
    "to_pixels",
    "write_png",
]
