"""Metrics, and the evaluator that feeds them."""

from trainkit.evaluator.accuracy import Accuracy
from trainkit.evaluator.evaluator import Evaluator
from trainkit.evaluator.metric import BaseMetric
from trainkit.evaluator.rule import GREATER_KEYS, LESS_KEYS, infer_rule, is_better

__all__ = [
    "GREATER_KEYS",
    "LESS_KEYS",
    "Accuracy",
    "BaseMetric",
    "Evaluator",
    "infer_rule",
    "is_better",
]
