"""Where scalars, pictures and the config are written."""

from trainkit.visualizer.backend import COUNTERS, Axis, VisBackend
from trainkit.visualizer.local import IMAGES, LocalVisBackend
from trainkit.visualizer.picture import Pixels, draw_grid, to_pixels, write_png
from trainkit.visualizer.tensorboard import TensorboardVisBackend
from trainkit.visualizer.visualizer import Visualizer
from trainkit.visualizer.wandb import WandbVisBackend

__all__ = [
    "COUNTERS",
    "IMAGES",
    "Axis",
    "LocalVisBackend",
    "Pixels",
    "TensorboardVisBackend",
    "VisBackend",
    "Visualizer",
    "WandbVisBackend",
    "draw_grid",
    "to_pixels",
    "write_png",
]
