"""TorchMetric: torchmetrics' numbers, reset for each evaluation, each under a name."""

from __future__ import annotations

import builtins
import importlib.util
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import make_runner
from trainkit import ConfigError, Runner, compose
from trainkit.errors import MissingExtra
from trainkit.evaluator import BaseMetric, Evaluator, TorchMetric
from trainkit.runner.check import find_mistakes

SCORES = torch.randn(40, 4, generator=torch.Generator().manual_seed(2))
LABELS = torch.randint(0, 4, (40,), generator=torch.Generator().manual_seed(3))

needed = pytest.mark.skipif(
    importlib.util.find_spec("torchmetrics") is None, reason="torchmetrics is not installed"
)


def evaluated(metric: BaseMetric, classes: Any = None) -> dict[str, Any]:
    evaluator = Evaluator(metric)
    evaluator.begin(None if classes is None else {"classes": classes}, None, None)
    for start in range(0, 40, 16):
        part = slice(start, start + 16)
        evaluator.process(SCORES[part], {"labels": LABELS[part]})
    return evaluator.evaluate(40)


@needed
def test_numbers_are_those_of_torchmetrics_and_each_evaluation_starts_anew() -> None:
    from torchmetrics.classification import MulticlassF1Score

    metric = TorchMetric(MulticlassF1Score(num_classes=4))
    expected = MulticlassF1Score(num_classes=4)(SCORES, LABELS).item()
    assert evaluated(metric) == evaluated(metric) == {"MulticlassF1Score": expected}


@needed
def test_what_an_interrupted_evaluation_had_seen_is_dropped() -> None:
    from torchmetrics.classification import MulticlassAccuracy

    metric = TorchMetric(MulticlassAccuracy(num_classes=4), name="acc")
    metric.process({"labels": LABELS}, SCORES.flip(0))
    again = TorchMetric(MulticlassAccuracy(num_classes=4), name="acc")
    assert evaluated(metric) == evaluated(again)


@needed
def test_names_and_prefixes_can_be_given() -> None:
    from torchmetrics.classification import MulticlassAccuracy

    metric = TorchMetric(MulticlassAccuracy(num_classes=4), name="acc", prefix="mean")
    assert list(evaluated(metric)) == ["mean/acc"]


@needed
@pytest.mark.parametrize("as_mapping", [False, True])
def test_a_collection_has_the_names_of_its_metrics(as_mapping: bool) -> None:
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassAccuracy, MulticlassRecall

    metrics = {
        "acc": MulticlassAccuracy(num_classes=4, average="micro"),
        "recall": MulticlassRecall(num_classes=4),
    }
    found = evaluated(TorchMetric(metrics if as_mapping else MetricCollection(metrics)))
    assert list(found) == ["acc", "recall"]
    assert found["acc"] == pytest.approx((SCORES.argmax(1) == LABELS).float().mean().item())


@needed
def test_a_number_for_each_class_has_the_classs_name() -> None:
    from torchmetrics.classification import MulticlassAccuracy

    def metric() -> TorchMetric:
        return TorchMetric(MulticlassAccuracy(num_classes=4, average=None), name="acc")

    assert list(evaluated(metric())) == ["acc_0", "acc_1", "acc_2", "acc_3"]
    named = evaluated(metric(), classes=["cat", "dog", "cow", "pig"])
    assert list(named) == ["acc_cat", "acc_dog", "acc_cow", "acc_pig"]
    assert all(isinstance(value, float) for value in named.values())


@needed
def test_a_table_stays_in_one_piece() -> None:
    from torchmetrics.classification import MulticlassConfusionMatrix

    table = evaluated(TorchMetric(MulticlassConfusionMatrix(num_classes=4), name="table"))
    assert sum(map(sum, table["table"])) == 40


@needed
def test_other_inputs_can_be_made_of_a_batch() -> None:
    from torchmetrics.regression import MeanSquaredError

    metric = TorchMetric(
        MeanSquaredError(), name="mse", inputs=lambda batch, scores: (scores[:, 0], batch["labels"])
    )
    expected = (SCORES[:, 0] - LABELS).square().mean().item()
    assert evaluated(metric) == pytest.approx({"mse": expected})


@needed
@pytest.mark.parametrize("metric", [None, "f1", {}, {"a": 1}, object()])
def test_what_is_no_metric_of_torchmetrics_is_refused(metric: Any) -> None:
    with pytest.raises(ConfigError, match="expected one of torchmetrics"):
        TorchMetric(metric)


@needed
def test_no_batch_warns(caplog: pytest.LogCaptureFixture) -> None:
    from torchmetrics.classification import MulticlassAccuracy

    with caplog.at_level(logging.WARNING, logger="trainkit"):
        TorchMetric(MulticlassAccuracy(num_classes=4)).evaluate(7)
    (message,) = caplog.messages
    assert message.startswith("TorchMetric has no results of 7 samples")


def test_without_torchmetrics_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    own = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "torchmetrics":
            raise ImportError(name)
        return own(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] == "torchmetrics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'trainkit\[metrics\]'"):
        TorchMetric(None)


@needed
def test_a_config_names_it(tmp_path: Path) -> None:
    runner = Runner.from_cfg(
        compose(["evaluator=f1", "fast_dev_run=1", "dataloader=digits_two_sets"]),
        work_dir=tmp_path,
    )
    metrics = runner.val(load=False)
    names = ["new/accuracy", "new/f1", "seen/accuracy", "seen/f1"]
    assert list(metrics) == names
    # A metric whose names are not known leaves monitors to the run.
    assert find_mistakes(compose(["evaluator=f1", "hooks.checkpoint.save_best=f1"])) == []


@needed
def test_the_check_looks_into_the_metric() -> None:
    cfg = compose(["evaluator=f1", "+evaluator.metrics.f1.metric.avrage=macro"])
    keys = [finding.key for finding in find_mistakes(cfg)]
    assert keys in ([], ["evaluator.metrics.f1.metric.avrage"])  # it takes **kwargs
    cfg = compose(["evaluator=f1", "+evaluator.metrics.f1.nam=f"])
    assert [finding.key for finding in find_mistakes(cfg)] == ["evaluator.metrics.f1.nam"]


@needed
def test_best_and_early_stopping_take_its_numbers(tmp_path: Path) -> None:
    from torchmetrics.regression import MeanAbsoluteError

    metric = TorchMetric(MeanAbsoluteError(), name="mae", label_key="y")
    runner = make_runner(
        tmp_path,
        val_evaluator=metric,
        default_hooks={"checkpoint": {"save_best": "mae"}},
    )
    runner.train()
    assert [path.name for path in runner.checkpoint_dir.glob("best_mae*")]
