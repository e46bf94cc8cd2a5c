"""Several named sets: one validation, metrics by set, known to hooks, to logs and to the check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from tests.toy import MeanSquaredError, Recorder, ToyDataset, ToyModel, loader_config, make_runner
from trainkit import ConfigError, Hook, Runner, TrainConfig, compose
from trainkit.config.schema import DataLoaderConfig, DataLoadersConfig, DigitsConfig
from trainkit.evaluator import BaseMetric, DumpResults, Evaluator
from trainkit.loops import LoaderSets
from trainkit.runner.check import find_mistakes


class Hard(ToyDataset):
    """Eight other samples."""

    def __init__(self) -> None:
        super().__init__(8)
        self.y = self.y + 3
        self.metainfo = {"name": "hard"}


class Meta(BaseMetric):
    """What the metric is told of the set, and how many batches it got."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append((self.set_name, (self.dataset_meta or {})["name"]))

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {"batches": len(results), "told": sorted(set(results))}


def two(**options: Any) -> dict[str, Any]:
    return {"easy": loader_config(**options), "hard": loader_config(dataset=Hard(), **options)}


def mse(dataset: ToyDataset) -> float:
    with torch.no_grad():
        error = ToyModel().linear(dataset.x) - dataset.y
    return error.square().mean().item()


EXPECTED = {"easy/mse": mse(ToyDataset()), "hard/mse": mse(Hard())}


@pytest.mark.parametrize("purpose", ["val", "test"])
@pytest.mark.parametrize(
    "loaders",
    [
        two(),
        two(batch_size=5),
        {name: DataLoader(data, batch_size=4) for name, data in
         (("easy", ToyDataset()), ("hard", Hard()))},
        {**two(), "off": None},
    ],
    ids=["configs", "short batches", "objects", "null"],
)  # fmt: skip
@pytest.mark.parametrize(
    "evaluator",
    [
        {"_target_": MeanSquaredError},
        [MeanSquaredError()],
        MeanSquaredError(),
        Evaluator(MeanSquaredError()),
        {"easy": {"_target_": MeanSquaredError}, "hard": [{"_target_": MeanSquaredError}]},
        {"easy": MeanSquaredError(), "hard": Evaluator(MeanSquaredError()), "off": None},
        {"metrics": {"error": {"_target_": MeanSquaredError}}},
        {"error": {"_target_": MeanSquaredError}},
    ],
    ids=["config", "list", "metric", "evaluator", "by set", "objects by set", "metrics", "named"],
)
def test_each_set_has_its_metrics(
    tmp_path: Path, purpose: str, loaders: Any, evaluator: Any
) -> None:
    changes = {f"{purpose}_dataloader": loaders, f"{purpose}_evaluator": evaluator}
    metrics = getattr(make_runner(tmp_path, **changes), purpose)(load=False)
    assert metrics == pytest.approx(EXPECTED, rel=1e-6)


def test_each_set_may_have_other_metrics(tmp_path: Path) -> None:
    evaluator = {"easy": MeanSquaredError(prefix="toy"), "hard": [MeanSquaredError(), Meta()]}
    runner = make_runner(tmp_path, val_dataloader=two(), val_evaluator=evaluator)
    metrics = runner.val(load=False)
    assert list(metrics) == ["easy/toy/mse", "hard/mse", "hard/batches", "hard/told"]


def test_a_metric_is_told_of_its_set(tmp_path: Path) -> None:
    metrics = make_runner(tmp_path, val_dataloader=two(), val_evaluator=Meta()).val(load=False)
    assert metrics["easy/told"] == [("easy", "toy")]
    assert metrics["hard/told"] == [("hard", "hard")]
    assert (metrics["easy/batches"], metrics["hard/batches"]) == (3, 2)


def test_all_sets_are_one_validation(tmp_path: Path) -> None:
    """One block of hook points, so that a hook sees all metrics at once and counts once."""

    class Watch(Hook):
        def __init__(self) -> None:
            self.seen: list[tuple[str, int, int]] = []
            self.metrics: list[str] = []

        def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
            loader = runner.val_dataloader
            self.seen.append((loader.dataset.metainfo["name"], batch_idx, len(loader)))

        def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
            self.metrics += metrics
            assert runner.val_dataloader.dataset is None

    hook, recorder = Watch(), Recorder()
    runner = make_runner(
        tmp_path, val_dataloader=two(), custom_hooks={"watch": hook, "recorder": recorder}
    )
    runner.val(load=False)
    names = recorder.names()
    iterations = ["before_val_iter", "after_val_iter"] * 5
    expected = ["before_val", "before_val_epoch", *iterations, "after_val_epoch", "after_val"]
    assert names == ["before_run", *expected, "after_run"]
    assert hook.seen == [(name, k, 5) for k, name in enumerate(["toy"] * 3 + ["hard"] * 2)]
    assert hook.metrics == ["easy/mse", "hard/mse"]


def test_losses_are_averaged_set_by_set(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, val_dataloader=two(batch_size=5), val_cfg={"loss": True})
    metrics = runner.val(load=False)
    assert list(metrics) == ["easy/mse", "easy/loss", "hard/mse", "hard/loss"]
    for name in ("easy", "hard"):
        assert metrics[f"{name}/loss"] == pytest.approx(metrics[f"{name}/mse"], rel=1e-6)


def test_logs_and_monitors_take_the_names(tmp_path: Path) -> None:
    stopping = {"_target_": "trainkit.hooks.EarlyStoppingHook", "monitor": "easy/mse"}
    plateau = {
        "_target_": "trainkit.param_scheduler.ReduceOnPlateauLR",
        "monitor": "hard/mse",
        "rule": "less",
        "patience": 0,
    }
    runner = make_runner(
        tmp_path,
        val_dataloader=two(),
        default_hooks={"checkpoint": {"save_best": ["easy/mse", "hard/mse"]}},
        custom_hooks={"stop": stopping},
        param_scheduler=plateau,
        log_processor={"log_with_hierarchy": True},
    )
    runner.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"val/easy/mse", "val/hard/mse"} <= set(lines[-1])
    log = (tmp_path / "train.log").read_text()
    assert "Epoch(val)  [2][5/5]  easy/mse: " in log
    assert "  hard/mse: " in log
    best = sorted(path.name for path in runner.checkpoint_dir.glob("best_*"))
    assert [name.rpartition("_epoch")[0] for name in best] == ["best_easy_mse", "best_hard_mse"]


def test_a_wrong_monitor_is_told_the_names(tmp_path: Path) -> None:
    hooks = {"checkpoint": {"save_best": "mse", "rule": "less"}}
    runner = make_runner(tmp_path, val_dataloader=two(), default_hooks=hooks)
    with pytest.raises(ConfigError, match=r"save_best is 'mse'.*Choose from: easy/mse, hard/mse"):
        runner.train()


def test_each_set_has_its_file_of_predictions(tmp_path: Path) -> None:
    dump = DumpResults(out_file_path="kept/p.pt")
    make_runner(tmp_path, val_dataloader=two(), val_evaluator=dump).val(load=False)
    for name, samples in (("easy", 12), ("hard", 8)):
        kept = torch.load(tmp_path / "kept" / f"p.{name}.pt", weights_only=True)
        assert kept.shape == (samples, 1)


def test_sets_cannot_be_read_as_one(tmp_path: Path) -> None:
    """A loop of one's own that knows nothing of sets fails, and gives no wrong numbers."""
    sets = make_runner(tmp_path, val_dataloader=two()).val_dataloader
    assert isinstance(sets, LoaderSets)
    assert (list(sets.loaders), len(sets)) == (["easy", "hard"], 5)
    with pytest.raises(ConfigError, match=r"several sets \(easy, hard\), which cannot be read as"):
        list(sets)


def test_a_stream_among_the_sets_has_no_length(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([ToyDataset()[0]] * 3)

    loaders = {"easy": loader_config(), "stream": DataLoader(Stream(), batch_size=2)}
    runner = make_runner(tmp_path, val_dataloader=loaders)
    with pytest.raises(TypeError):
        len(runner.val_dataloader)
    assert list(runner.val(load=False)) == ["easy/mse", "stream/mse"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_dataloader": {**two(), "more": 3}}, r"val_dataloader\.more is 3; expected the data"),
        (
            {"val_evaluator": {"easy": MeanSquaredError()}},
            r"val_evaluator has evaluators by set, but none for 'hard'\. Give one to each",
        ),
        (
            {"val_evaluator": {"easy": [], "hard": [], "herd": MeanSquaredError()}},
            r"val_evaluator\.herd: there is no set 'herd'\. Did you mean 'hard'",
        ),
    ],
)
def test_names_that_do_not_match_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    runner = make_runner(tmp_path, **{"val_dataloader": two(), **changes})
    with pytest.raises(ConfigError, match=message):
        runner.val(load=False)


# ---------------------------------------------------------------- from a config

SETS = "dataloader=digits_two_sets"


def found(*overrides: str, **changes: Any) -> dict[str, str]:
    """Return what the check finds, by its place."""
    from omegaconf import OmegaConf

    cfg = compose([SETS, *overrides])
    for name, value in changes.items():
        OmegaConf.update(cfg, name, value, merge=False, force_add=True)
    return {finding.key: finding.text for finding in find_mistakes(cfg)}


def test_a_config_of_several_sets_has_no_mistake() -> None:
    assert found() == {}
    assert found("hooks=early_stopping", "hooks.early_stopping.monitor=seen/accuracy") == {}
    assert found("hooks.checkpoint.save_best=[new/accuracy,seen/accuracy]") == {}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hooks.checkpoint.save_best", "accuracy", "Did you mean 'new/accuracy'?"),
        ("hooks.checkpoint.save_best", "new/acuracy", "Did you mean 'new/accuracy'?"),
        ("dataloader.val.new", 3, "expected the data loader of a set, or null"),
        ("dataloader.val.new.batch_sizes", 3, "Did you mean 'batch_size'?"),
        ("dataloader.val.new.batch_size", "x", "takes a whole number or null"),
        ("dataloader.val.new.dataset.splt", "x", "Did you mean 'split'?"),
        ("dataloader.val.new.sampler.shufle", True, "Did you mean 'shuffle'?"),
        ("train_cfg.val_before_train", 3, "takes true or false"),
    ],
)
def test_the_check_looks_into_each_set(key: str, value: Any, message: str) -> None:
    texts = found(**{key: value})
    assert list(texts) == [key]
    assert message in texts[key]


def test_the_check_knows_which_loader_gives_no_batch() -> None:
    texts = found("dataloader.val.new.batch_size=1000", "+dataloader.val.new.drop_last=true")
    assert list(texts) == ["dataloader.val.new.batch_size"]


ACCURACY = {"a": {"_target_": "trainkit.evaluator.Accuracy"}}


def test_the_check_knows_evaluators_by_set() -> None:
    def checked(**sets: Any) -> dict[str, str]:
        return found(evaluator={"val": sets, "test": ACCURACY})

    assert checked(new=ACCURACY, seen=ACCURACY) == {}
    assert list(checked(new=ACCURACY)) == ["evaluator.val"]
    assert list(checked(new=ACCURACY, seen=ACCURACY, other=ACCURACY)) == ["evaluator.val.other"]
    wrong = {"a": {"_target_": "trainkit.evaluator.Accuracy", "label_ky": "y"}}
    assert list(checked(new=ACCURACY, seen=wrong)) == ["evaluator.val.seen.a.label_ky"]


def test_evaluators_by_set_need_sets() -> None:
    cfg = compose([])
    cfg.evaluator = {"val": {"new": ACCURACY}, "test": ACCURACY}
    (finding,) = find_mistakes(cfg)
    assert finding.key == "evaluator.val.new"
    assert "dataloader.val is one loader, so 'new' is no set either" in finding.text


def test_a_monitor_may_be_a_loss_only_where_there_may_be_one() -> None:
    best = "hooks.checkpoint.save_best=new/loss"
    assert list(found(best)) == ["hooks.checkpoint.save_best"]
    assert found(best, "val_cfg.loss=true") == {}
    own = {"model": {"_target_": "tests.toy.ToyModel"}}
    assert found("hooks.checkpoint.save_best=new/val_loss", **own) == {}


def test_training_is_no_mapping_of_sets() -> None:
    cfg = compose([])
    cfg.dataloader.train = {"a": cfg.dataloader.train}
    keys = {finding.key for finding in find_mistakes(cfg)}
    assert keys == {"dataloader.train._target_", "dataloader.train.a"}


@pytest.mark.parametrize("short", ["fast_dev_run=1", "overfit_batches=1"])
def test_a_run_that_is_cut_short_keeps_its_sets(tmp_path: Path, short: str) -> None:
    monitor = "hooks.early_stopping.monitor=new/accuracy"
    cfg = compose([SETS, short, "hooks=early_stopping", monitor])
    runner = Runner.from_cfg(cfg, work_dir=tmp_path)
    assert list(runner.val_dataloader.loaders) == ["new", "seen"]
    assert len(runner.val_dataloader) == 2
    assert list(runner.val(load=False)) == ["new/accuracy", "seen/accuracy"]


def test_sets_come_from_dataclasses_too() -> None:
    def loader(split: str) -> DataLoaderConfig:
        return DataLoaderConfig(
            dataset=DigitsConfig(split=split),
            batch_size=32,
            collate_fn={"_target_": "trainkit.dataloader.default_collate"},
        )

    loaders = DataLoadersConfig(
        train=loader("train"),
        val={"new": loader("val"), "seen": loader("train")},
        test=loader("test"),
    )
    cfg = compose(
        ["hooks.checkpoint.save_best=seen/accuracy"], config=TrainConfig(dataloader=loaders)
    )
    assert find_mistakes(cfg) == []
