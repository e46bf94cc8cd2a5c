"""Where scalars and the config are written."""

from trainkit.visualizer.backend import VisBackend
from trainkit.visualizer.local import LocalVisBackend
from trainkit.visualizer.tensorboard import TensorboardVisBackend
from trainkit.visualizer.visualizer import Visualizer

__all__ = ["LocalVisBackend", "TensorboardVisBackend", "VisBackend", "Visualizer"]
