"""Evaluator: several metrics feed on the same batches and keep their names apart."""

from __future__ import annotations

from typing import Any

import pytest

from trainkit.errors import ConfigError
from trainkit.evaluator import TAKEN_NAMES, Accuracy, BaseMetric, Evaluator


class Seen(BaseMetric):
    """Every batch with its predictions, under a name of its own."""

    def __init__(self, name: str, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.name = name

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append((data_batch, data_samples))

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {self.name: results}


def test_every_metric_gets_every_batch_with_its_predictions() -> None:
    evaluator = Evaluator([Seen("a"), Seen("b")])
    evaluator.process(data_samples="p1", data_batch="b1")
    evaluator.process("p2", "b2")
    expected = [("b1", "p1"), ("b2", "p2")]
    assert evaluator.evaluate(2) == {"a": expected, "b": expected}


def test_a_second_evaluation_starts_anew() -> None:
    evaluator = Evaluator(Seen("a"))
    evaluator.process("p1", "b1")
    evaluator.evaluate(1)
    evaluator.process("p2", "b2")
    assert evaluator.evaluate(1) == {"a": [("b2", "p2")]}


def test_metrics_come_alone_in_a_list_or_by_name() -> None:
    a, b = Seen("a"), Seen("b")
    assert Evaluator(a).metrics == [a]
    assert Evaluator((a, b)).metrics == [a, b]
    assert Evaluator({"x": a, "off": None, "y": b}).metrics == [a, b]


@pytest.mark.parametrize("metrics", [["accuracy"], {"a": {"type": "Accuracy"}}, [Seen]])
def test_what_is_no_metric_is_refused(metrics: Any) -> None:
    with pytest.raises(ConfigError, match=r"An evaluator got a metric of type .*BaseMetric"):
        Evaluator(metrics)


def test_a_name_given_twice_is_refused_and_a_prefix_keeps_them_apart() -> None:
    twice = Evaluator([Seen("a"), Seen("a")])
    twice.process("p", "b")
    with pytest.raises(ConfigError, match=r"Two metrics give 'a'\. Give one of them a prefix"):
        twice.evaluate(1)
    apart = Evaluator([Seen("a"), Seen("a", prefix="second")])
    apart.process("p", "b")
    assert list(apart.evaluate(1)) == ["a", "second/a"]


@pytest.mark.parametrize("name", sorted(TAKEN_NAMES))
def test_a_name_of_something_else_in_the_log_is_refused(name: str) -> None:
    """A counter would overwrite the metric, and a time be blended with it."""
    evaluator = Evaluator(Seen(name))
    evaluator.process("p", "b")
    with pytest.raises(ConfigError, match=f"gives '{name}', which is something else in the log"):
        evaluator.evaluate(1)
    apart = Evaluator(Seen(name, prefix="test"))
    apart.process("p", "b")
    assert list(apart.evaluate(1)) == [f"test/{name}"]


class Step(Accuracy):
    names = ("step",)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"step": 1.0}


class ByTopk(Accuracy):
    """Its names depend on an argument that an instance need not keep."""

    @classmethod
    def declared_names(cls, prefix: str | None = None, **arguments: Any) -> tuple[str, ...] | None:
        return (f"top{arguments['topk']}",)


def test_names_that_are_declared_are_compared_before_anything_is_evaluated() -> None:
    with pytest.raises(ConfigError, match=r"Two metrics give 'accuracy'\. Give one of them"):
        Evaluator([Accuracy(), Accuracy()])
    with pytest.raises(ConfigError, match="A metric gives 'step', which is something else"):
        Evaluator(Step())
    Evaluator([Accuracy(), Accuracy(prefix="second"), Step(prefix="walk"), ByTopk(), ByTopk()])


def test_the_datasets_metainfo_reaches_every_metric() -> None:
    evaluator = Evaluator([Seen("a"), Seen("b")])
    assert evaluator.dataset_meta is None
    evaluator.dataset_meta = {"classes": ["cat"]}
    assert [metric.dataset_meta for metric in evaluator.metrics] == [{"classes": ["cat"]}] * 2
    assert evaluator.dataset_meta == {"classes": ["cat"]}
