"""Every dataclass is its target's signature: names, defaults, and types that agree."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from typing import Any

import pytest
from omegaconf import OmegaConf

from trainkit import TrainConfig, compose, conf_dir
from trainkit.config import build, hook_schemas, schedules, schema
from trainkit.config.build import locate
from trainkit.config.signature import REQUIRED, fits, schema_of
from trainkit.runner.check import find_mistakes
from trainkit.runner.from_config import OWN_KEYS, SAME_NAME

# What a run passes, and what it reads itself, by the package of the target.
PASSED = {
    "trainkit.optim_wrapper": set(),
    "torch.optim": {"params"},
    "trainkit.param_scheduler": {"optimizer"},
    "trainkit.loops": {"runner", "dataloader"},
    "trainkit.dataloader": {"dataset", "seed", "round_up", "in_blocks"},
    "torch.utils.data": set(),
    "trainkit.data": set(),
    "trainkit.hooks": set(),
}
READ = {
    "trainkit.optim_wrapper": {"constructor", "paramwise_cfg", "modules"},
    "trainkit.param_scheduler": {"convert_to_iter_based"},
    "torch.utils.data": {"num_batch_per_epoch"},
    "trainkit.hooks": {"priority"},
}
CLASSES = [
    kind
    for module in (schema, schedules, hook_schemas)
    for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
    if "_target_" in {field.name for field in dataclasses.fields(kind)}
]


def target_of(kind: type) -> tuple[Any, str]:
    name = kind._target_
    return locate(name, "_target_"), name.rpartition(".")[0]


def fields_of(kind: type) -> dict[str, dataclasses.Field[Any]]:
    package = target_of(kind)[1]
    left_out = {"_target_", *READ.get(package, ())}
    return {f.name: f for f in dataclasses.fields(kind) if f.name not in left_out}


@pytest.mark.parametrize("kind", CLASSES)
def test_a_dataclass_has_the_names_of_its_target(kind: type) -> None:
    target, package = target_of(kind)
    found = schema_of(target)
    assert found is not None
    assert set(fields_of(kind)) == set(found.parameters) - PASSED[package]
    assert kind.__name__ == f"{target.__name__}Config"


@pytest.mark.parametrize("kind", CLASSES)
def test_a_dataclass_has_the_defaults_of_its_target(kind: type) -> None:
    target, _ = target_of(kind)
    found = schema_of(target)
    assert found is not None
    inherited = inspect.signature(target.__mro__[1]).parameters  # of options that are passed on
    for name, field in fields_of(kind).items():
        default = found.parameters[name].default
        if name in inherited and name not in inspect.signature(target).parameters:
            default = inherited[name].default
        ours = REQUIRED if field.default is dataclasses.MISSING else field.default
        assert ours == default, name


@pytest.mark.parametrize("kind", CLASSES)
def test_a_dataclass_takes_nothing_that_its_target_refuses(kind: type) -> None:
    target, _ = target_of(kind)
    found = schema_of(target)
    assert found is not None
    samples = {int: 1, float: 0.5, str: "a", bool: True, type(None): None, list: ["a"]}
    hints = typing.get_type_hints(kind)
    for name in fields_of(kind):
        is_union = typing.get_origin(hints[name]) in (typing.Union, types.UnionType)
        for part in typing.get_args(hints[name]) if is_union else (hints[name],):
            hint = found.parameters[name].hint
            if part in samples and typing.get_origin(hint) is not typing.Literal:
                assert fits(samples[part], hint), f"{name}: {part}"


def test_every_target_of_the_five_groups_has_a_dataclass() -> None:
    targets = {kind._target_ for kind in CLASSES}
    groups = ("optim_wrapper", "param_scheduler", "train_cfg", "dataloader", "hooks")
    named = set()
    for group in groups:
        for file in (conf_dir() / group).rglob("*.yaml"):
            named |= set(_targets(OmegaConf.to_container(OmegaConf.load(file))))
    named |= set(_targets(OmegaConf.to_container(compose().hooks, resolve=False)))
    assert named - targets <= {"trainkit.dataloader.default_collate"}


def _targets(node: Any) -> Any:
    if isinstance(node, dict):
        yield from ([node["_target_"]] if "_target_" in node else [])
        for value in node.values():
            yield from _targets(value)


def test_the_root_has_the_keys_of_the_primary_config() -> None:
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert fields == set(compose())
    assert fields <= {*SAME_NAME, *OWN_KEYS}


def test_no_name_in_the_configstore_is_that_of_a_file() -> None:
    from trainkit.config.given import GIVEN

    assert not list(conf_dir().rglob(f"{GIVEN}.yaml"))


def test_every_dataclass_can_be_held_by_omegaconf() -> None:
    for kind in [*CLASSES, TrainConfig]:
        assert OmegaConf.is_dict(OmegaConf.structured(kind))


def test_dataclasses_build_what_they_name() -> None:
    loop = schema.EpochBasedTrainLoopConfig(max_epochs=3)
    built = build(dataclasses.asdict(loop), "train_cfg", args=(None, [1, 2]))
    assert (type(built).__name__, built.max_iters) == ("EpochBasedTrainLoop", 6)


def test_a_config_from_dataclasses_alone_has_no_mistake() -> None:
    config = TrainConfig(
        train_cfg=schema.IterBasedTrainLoopConfig(max_iters=20, val_interval=10),
        optim_wrapper=schema.AmpOptimWrapperConfig(
            optimizer=schema.AdamWConfig(lr=0.002), dtype="bfloat16", clip_grad={"max_norm": 1.0}
        ),
        param_scheduler=[
            schedules.LinearLRConfig(end=5),
            schedules.CosineAnnealingLRConfig(begin=5),
        ],
        dataloader=schema.DataLoadersConfig(
            train=schema.DataLoaderConfig(
                dataset=schema.DigitsConfig(),
                batch_size=32,
                sampler=schema.InfiniteSamplerConfig(),
                collate_fn={"_target_": "trainkit.dataloader.default_collate"},
            ),
            val=schema.DataLoaderConfig(
                dataset=schema.DigitsConfig(split="val"),
                batch_size=64,
                sampler=schema.DefaultSamplerConfig(shuffle=False),
                collate_fn={"_target_": "trainkit.dataloader.default_collate"},
            ),
        ),
        hooks=[
            hook_schemas.EMAHookConfig(),
            hook_schemas.EarlyStoppingHookConfig(monitor="accuracy"),
        ],
        test_cfg=None,
    )
    assert find_mistakes(compose(config=config)) == []
