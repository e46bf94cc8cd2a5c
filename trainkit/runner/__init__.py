"""The Runner: one object that holds the parts of a run and starts it."""

from trainkit.runner.load import LoadOptions
from trainkit.runner.runner import Runner
from trainkit.runner.summary import count_flops, parameter_table

__all__ = ["LoadOptions", "Runner", "count_flops", "parameter_table"]
