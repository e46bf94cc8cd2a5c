"""The check before a run: no complaint about what is right, however unusual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf, open_dict
from torch.multiprocessing import get_all_start_methods

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


SGD_IS = "optim_wrapper.optimizer: SGD("
LOADER_IS = "dataloader.train: DataLoader(batch_size=64, "
REFUSED: dict[str, tuple[str, str]] = {
    "optim_wrapper.optimizer.lr=-1": (
        "optim_wrapper.optimizer.lr",
        f"{SGD_IS}lr=-1, momentum=0.9, weight_decay=0.0005, nesterov=False) is refused: Invalid "
        "learning rate: -1.",
    ),
    "optim_wrapper.optimizer.momentum=-1": (
        "optim_wrapper.optimizer.momentum",
        f"{SGD_IS}lr=0.1, momentum=-1, weight_decay=0.0005, nesterov=False) is refused: Invalid "
        "momentum value: -1.",
    ),
    "optim_wrapper.optimizer.lr=nan": (
        "optim_wrapper.optimizer.lr",
        "optim_wrapper.optimizer.lr is nan; expected a number.",
    ),
    "+optim_wrapper.optimizer.dampening=nan": (
        "optim_wrapper.optimizer.dampening",
        "optim_wrapper.optimizer.dampening is nan; expected a number.",
    ),
    "compile=yes": (
        "compile",
        "compile is 'yes'; expected true, false, or arguments of torch.compile.",
    ),
    "env.mp_start_method=frok": (
        "env.mp_start_method",
        f"env.mp_start_method is 'frok'; this system has {', '.join(get_all_start_methods())}.",
    ),
    "+env.mp_cfg={mp_start_metod: fork}": (
        "env.mp_cfg",
        "env.mp_cfg has no 'mp_start_metod'. Did you mean 'mp_start_method'?",
    ),
    "env.num_threads=0": (
        "env.num_threads",
        "env.num_threads is 0; expected at least 1, or null for torch's choice.",
    ),
    "dataloader.train.num_workers=-1": (
        "dataloader.train.num_workers",
        f"{LOADER_IS}num_workers=-1) is refused: num_workers option should be non-negative; use "
        "num_workers=0 to disable multiprocessing.",
    ),
    "+dataloader.train.persistent_workers=true": (
        "dataloader.train.persistent_workers",
        f"{LOADER_IS}num_workers=0, persistent_workers=True) is refused: persistent_workers option "
        "needs num_workers > 0.",
    ),
    "dataloader.train.batch_size=0": (
        "dataloader.train.batch_size",
        "dataloader.train.batch_size is 0; expected a whole number of at least 1.",
    ),
    "dataloader.train.dataset.split=trian": (
        "dataloader.train.dataset.split",
        "dataloader.train.dataset.split is 'trian'; Digits takes 'train', 'val' or 'test'.",
    ),
    "seed=-1": ("seed", "seed is -1; expected a whole number of at least 0."),
    "seed=18446744073709551616": (
        "seed",
        "seed is 18446744073709551616; expected a whole number of at most 18446744073709551615.",
    ),
    "train_cfg.max_epochs=0": (
        "train_cfg.max_epochs",
        "train_cfg.max_epochs is 0; expected a whole number of at least 1.",
    ),
    "train_cfg.max_epochs=-1": (
        "train_cfg.max_epochs",
        "train_cfg.max_epochs is -1; expected a whole number of at least 1.",
    ),
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_the_run_would_refuse_is_one_finding_about_its_key(override: str) -> None:
    found = [(finding.key, finding.text) for finding in find_mistakes(compose([override]))]
    assert found == [REFUSED[override]]


# Where torch's own words may change from version to version.
TORCHS: dict[str, tuple[list[str], str, str]] = {
    "betas": (
        ["optim_wrapper/optimizer=adamw", "optim_wrapper.optimizer.betas=[1.5,0.9]"],
        "optim_wrapper.optimizer.betas",
        "optim_wrapper.optimizer: AdamW(lr=0.002, betas=[1.5, 0.9], weight_decay=0.01) is refused: "
        "Invalid beta",
    ),
    "a name that is no device": (
        ["env.device=gpu"],
        "env.device",
        "env.device is 'gpu', which torch cannot use: Expected one of cpu, cuda, ",
    ),
    "prefetch_factor without workers": (
        ["+dataloader.val.prefetch_factor=2"],
        "dataloader.val.prefetch_factor",
        "dataloader.val: DataLoader(batch_size=256, num_workers=0, prefetch_factor=2) is refused: "
        "prefetch_factor",
    ),
    "a backend": (
        ["compile={backend: foo}"],
        "compile",
        "compile is {'backend': 'foo'}: Invalid backend: 'foo'",
    ),
}


@pytest.mark.parametrize(("overrides", "key", "beginning"), TORCHS.values(), ids=TORCHS)
def test_what_torch_would_refuse_is_one_finding(
    overrides: list[str], key: str, beginning: str
) -> None:
    (found,) = find_mistakes(compose(overrides))
    assert (found.key, found.text[: len(beginning)]) == (key, beginning)


@pytest.mark.parametrize(
    "overrides",
    [
        ["env.device=cuda:99"],  # a config may be checked where it does not run
        ["dataloader.train.num_workers=64", "+dataloader.train.prefetch_factor=2"],
        ["seed=18446744073709551615"],
        ["test_cfg=none", "dataloader.test.num_workers=-1"],
        ["optim_wrapper.optimizer.momentum=inf"],
        ["compile={backend: eager}"],
    ],
)
def test_what_the_run_may_take_is_right(overrides: list[str]) -> None:
    assert mistakes(overrides, {}) == []


def test_an_optimizer_that_nothing_trains_with_is_let_be() -> None:
    assert mistakes(["optim_wrapper.optimizer.lr=-1"], {"train_cfg": None}) == []


def test_a_batch_sampler_has_the_batch_size_to_itself() -> None:
    sampler = torchs("utils.data.BatchSampler")
    assert mistakes([], {"dataloader.train.batch_sampler": sampler}) == []


def test_the_settings_of_a_loader_are_told_beside_its_data() -> None:
    told = mistakes(
        ["dataloader.train.num_workers=-1"],
        {"dataloader.train.dataset": {"_target_": "no_such_package_at_all.Data"}},
    )
    assert [text.partition(":")[0] for text in told] == [
        "dataloader.train.dataset._target_",
        "dataloader.train",
    ]


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mistakes([], {})
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_config_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        find_mistakes([1])
    assert str(caught.value) == "from_cfg got a list; expected a config, as compose() returns."
