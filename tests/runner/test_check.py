"""The check before a run: no complaint about what is right, however unusual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf, open_dict

from trainkit import ConfigError, compose
from trainkit.runner.check import find_mistakes


def own(_name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"tests.runner.unusual.{_name}", **arguments}


def torchs(_name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"torch.{_name}", **arguments}


def trainkits(_name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"trainkit.{_name}", **arguments}


def mistakes(overrides: list[str], changes: dict[str, Any]) -> list[str]:
    cfg = compose(overrides)
    with open_dict(cfg):
        for key, value in changes.items():
            OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    return [finding.text for finding in find_mistakes(cfg)]


ACCURACY = trainkits("evaluator.Accuracy")
DIGITS = trainkits("data.Digits")
LINEAR = torchs("nn.Linear", in_features=1, out_features=2)
RELU = torchs("nn.ReLU", _partial_=True)
SGD = torchs("optim.SGD", lr=0.1)
SCHEDULES = [
    trainkits("param_scheduler.LinearLR", by_epoch=False, end=20),
    trainkits("param_scheduler.PolyLR", by_epoch=False, begin=20),
]

MODELS: dict[str, dict[str, Any]] = {
    "kwargs": own("Model", a=1, b=[1]),
    "args": own("Star", _args_=[1, 2], depth=3),
    "default None, annotated int": own("Implicit", size=None, thing="x", ratio=2, act=RELU),
    "PEP 604 in strings": own("Quoted", size=None, kind="b", path="x", device="cuda"),
    "null for a Literal or None": own("Quoted", kind=None),
    "TypedDict unpacked": own("Unpacked", depth=3),
    "ParamSpec, wrapped": own("decorated", depth=3, name="y"),
    "ParamSpec, bare": own("passed_on", depth=3),
    "an object to call": own("factory", depth=4),
    "classmethod": own("Sized.small", layers=4),
    "enum, NewType, Annotated": own("Typed", colour="red", size=3, count=3),
    "metaclass": own("WithMetaclass", a=3),
    "_partial_": own("Model", _partial_=True),
    "_convert_": own("Model", _convert_="all"),
    "a node for a dataclass": own("FromDataclass", settings=own("Settings", depth=3)),
    "a mapping for a dataclass": own("FromDataclass", settings={"depth": 3}),
    "lists and mappings of nodes": own(
        "Nested",
        blocks=[own("Block", width=3), own("Block", width=3, act=RELU)],
        heads={"a": own("Block", width=2)},
        loss=torchs("nn.CrossEntropyLoss", label_smoothing=0.1, weight=None),
        extra=[1, 2.5],
    ),
    "_recursive_": own("Nested", blocks=[LINEAR], heads={}, loss=LINEAR, _recursive_=False),
    "a class as argument": own(
        "Block", width=1, act={"_target_": "hydra.utils.get_class", "path": "torch.nn.ReLU"}
    ),
    "builtins without signature": own(
        "Model",
        a={"_target_": "builtins.dict", "x": 1},
        b={"_target_": "builtins.slice", "_args_": [1, 2]},
        c=torchs("tensor", data=[1.0]),
        d={"_target_": "numpy.array", "object": [1]},
        e=torchs("nn.Sequential", _args_=[LINEAR, torchs("nn.ReLU")]),
        f=torchs("nn.Conv2d", in_channels=1, out_channels=2, kernel_size=[3, 3], padding="same"),
        g={"_target_": "datetime.timedelta", "days": 1},
    ),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_an_unusual_model_is_right(model: dict[str, Any]) -> None:
    assert mistakes([], {"model": model}) == []


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "LBFGS": {"lr": 1, "max_iter": 20, "line_search_fn": "strong_wolfe"},
    "Muon": {"lr": 0.02, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"},
    "Adafactor": {"lr": 0.01, "eps": [None, 1e-3], "beta2_decay": -0.8},
    "AdamW": {"betas": [0.9, 0.99], "foreach": None, "fused": True},
    "Rprop": {"etas": [0.5, 1.2]},
    "SparseAdam": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torchs_optimizers_are_right(name: str) -> None:
    optimizer = torchs(f"optim.{name}", **OPTIMIZERS[name])
    assert mistakes([], {"optim_wrapper.optimizer": optimizer}) == []


PARTS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "an iterable dataset": (
        ["train_cfg=iter"],
        {"dataloader.train": {"dataset": own("Stream", shards="a"), "batch_size": 4}},
    ),
    "batches made by the dataset": (
        ["train_cfg=iter"],
        {"dataloader.train": {"dataset": own("Stream", shards=["a"]), "batch_size": None}},
    ),
    "a loader of one's own": (
        [],
        {"dataloader.train": own("Loader", dataset=DIGITS, mine=3, collate_fn=own("collate"))},
    ),
    "a function that makes the loader": ([], {"dataloader.train": own("passed_on", x=4)}),
    "collate_fn with arguments": ([], {"dataloader.train.collate_fn": own("collate", pad=1)}),
    "collate_fn with _partial_": (
        [],
        {"dataloader.train.collate_fn": own("collate", pad=1, _partial_=True)},
    ),
    "a loop of one's own": ([], {"train_cfg": own("Loop", max_epochs=3, warm=2, val_interval=1)}),
    "a loop without a base": ([], {"train_cfg": own("FreeLoop", steps=3)}),
    "MMEngine's by_epoch": ([], {"train_cfg": {"by_epoch": False, "max_iters": 1e3}}),
    "metrics as a list": (
        [],
        {"evaluator": trainkits("evaluator.Evaluator", metrics=[own("Odd", topk=[1]), ACCURACY])},
    ),
    "an evaluator as a list": ([], {"evaluator": [own("Odd", topk=1), ACCURACY]}),
    "one metric": ([], {"evaluator": own("Odd")}),
    "an evaluator for each split": ([], {"evaluator": {"val": own("Odd"), "test": ACCURACY}}),
    "a monitor of a metric that declares none": (
        [
            "hooks=early_stopping",
            "hooks.early_stopping.monitor=odd",
            "+hooks.early_stopping.rule=greater",
        ],
        {"evaluator": own("Odd")},
    ),
    "one scheduler": ([], {"param_scheduler": trainkits("param_scheduler.PolyLR")}),
    "a list of schedulers": ([], {"param_scheduler": SCHEDULES}),
    "a scheduler that is off": ([], {"param_scheduler": {"a": None, "b": SCHEDULES[0]}}),
    "a function as scheduler": ([], {"param_scheduler": {"a": own("schedule", x=1)}}),
    "an optimizer with _partial_": ([], {"optim_wrapper.optimizer": {**SGD, "_partial_": True}}),
    "an optim_wrapper of one's own": (
        [],
        {"optim_wrapper": own("Wrapper", optimizer=SGD, extra=1, accumulative_counts=2)},
    ),
    "an optim_wrapper without target": ([], {"optim_wrapper": {"optimizer": SGD}}),
    "float16": (["optim_wrapper.dtype=float16", "optim_wrapper.loss_scale=1024"], {}),
    "a hook with a priority": (
        [],
        {"hooks.mine": {**own("Every", every="2ep", on=["a"]), "priority": "HIGH"}},
    ),
    "a default hook without target": ([], {"hooks.checkpoint": {"interval": 3}}),
    "custom_hooks as MMEngine has them": (
        [],
        {"custom_hooks": [{**own("Every", every=3), "priority": 60}]},
    ),
    "arguments of torch.compile": ([], {"compile": {"mode": "reduce-overhead", "dynamic": True}}),
    "backends as a list": (
        [],
        {"visualizer": {"vis_backends": [trainkits("visualizer.LocalVisBackend")]}},
    ),
    "no visualizer": ([], {"visualizer": None}),
    "no training": ([], {"train_cfg": None}),
    "a work_dir and no experiment": (["work_dir=x", "experiment_name=null"], {}),
    "no seed": (["seed=null"], {}),
    "a level by number": (["log_level=10"], {}),
    "a key that is read": (["+width=3", "model.num_classes=${width}"], {}),
    "a key that is read in part": (["+my={width:3}", "model.num_classes=${my.width}"], {}),
    "a key that a resolver reads": (["+mine=a", "experiment_name=${oc.select:mine,x}"], {}),
    "milestones of a run that is cut short": (
        ["debug=fast_dev_run", "param_scheduler=multistep"],
        {},
    ),
}


@pytest.mark.parametrize(("overrides", "changes"), PARTS.values(), ids=PARTS)
def test_an_unusual_part_is_right(overrides: list[str], changes: dict[str, Any]) -> None:
    assert mistakes(overrides, changes) == []


@pytest.mark.parametrize(
    "override", ["experiment=digits_cosine", "debug=overfit", "debug=limit", "debug=fast_dev_run"]
)
def test_what_is_shipped_is_right(override: str) -> None:
    assert mistakes([override], {}) == []


def test_one_mistake_gets_one_finding() -> None:
    changes = {"optim_wrapper": trainkits("optim_wrapper.OptimWrapper", optimiser=SGD)}
    (told,) = mistakes([], changes)
    assert told == (
        "optim_wrapper.optimiser: OptimWrapper has no argument 'optimiser'. Did you mean "
        "'optimizer'?"
    )


def test_a_package_that_is_not_there_hides_no_other_mistake() -> None:
    told = mistakes(
        ["model.num_classes=x"],
        {"dataloader.train.dataset": {"_target_": "no_such_package_at_all.Data"}},
    )
    assert [text.partition(":")[0].partition(" ")[0] for text in told] == [
        "dataloader.train.dataset._target_",
        "model.num_classes",
    ]


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mistakes([], {})
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_config_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        find_mistakes([1])
    assert str(caught.value) == "from_cfg got a list; expected a config, as compose() returns."
