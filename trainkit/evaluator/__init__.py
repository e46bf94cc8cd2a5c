"""Metrics, and the evaluator that feeds them."""

from trainkit.evaluator.accuracy import Accuracy
from trainkit.evaluator.dump import DumpResults
from trainkit.evaluator.evaluator import TAKEN_NAMES, Evaluator, name_problem
from trainkit.evaluator.losses import LossAverage, batch_size, split_losses
from trainkit.evaluator.metric import BaseMetric
from trainkit.evaluator.rule import GREATER_KEYS, LESS_KEYS, infer_rule, is_better
from trainkit.evaluator.torchmetrics import TorchMetric

__all__ = [
    "GREATER_KEYS",
    "LESS_KEYS",
    "TAKEN_NAMES",
    "Accuracy",
    "BaseMetric",
    "DumpResults",
    "Evaluator",
    "LossAverage",
    "TorchMetric",
    "batch_size",
    "infer_rule",
    "is_better",
    "name_problem",
    "split_losses",
]
