"""The Runner: one object that holds the parts of a run and starts it."""

from trainkit.runner.runner import Runner

__all__ = ["Runner"]
