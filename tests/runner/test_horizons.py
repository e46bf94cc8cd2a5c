"""Rules between schedules and the length of the run."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf, open_dict

from trainkit import compose
from trainkit.config.check import nodes
from trainkit.config.findings import Finding
from trainkit.runner.checked import Config
from trainkit.runner.horizons import Horizon, horizon_of, horizons
from trainkit.runner.places import Places


def config_of(overrides: list[str], **changes: Any) -> Config:
    cfg = compose(overrides)
    with open_dict(cfg):
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True, merge=False)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    found: list[Finding] = []
    return Config(plain, {node.path: node for node in nodes(plain, "", Places(plain), found)})


def told(*overrides: str, **changes: Any) -> list[str]:
    return [finding.key for finding in horizons(config_of([*overrides], **changes))]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], Horizon(True, 15, 300)),
        (["train_cfg=iter"], Horizon(False, 15, 300)),
        (["train_cfg=iter", "train_cfg.max_iters=50"], Horizon(False, 2.5, 50)),
        (["dataloader.train.batch_size=1259"], Horizon(True, 15, 15)),
        (["+dataloader.train.num_batch_per_epoch=2"], Horizon(True, 15, 30)),
        (["train_cfg.max_epochs=ten"], Horizon(True, None, None)),
        (["train_cfg.max_epochs=0"], Horizon(True, None, None)),
        (["train_cfg=iter", "train_cfg.max_iters=-1"], Horizon(False, None, None)),
    ],
)
def test_a_horizon_counts_epochs_and_iterations(overrides: list[str], expected: Horizon) -> None:
    assert horizon_of(config_of(overrides)) == expected


def test_data_of_unknown_length_leaves_iterations_unknown() -> None:
    dataset = {"_target_": "torch.utils.data.TensorDataset"}
    assert horizon_of(config_of([], dataloader__train__dataset=dataset)) == Horizon(True, 15, None)


def test_a_package_that_is_missing_leaves_iterations_unknown() -> None:
    dataset = {"_target_": "no_such_package_at_all.Data"}
    assert horizon_of(config_of([], dataloader__train__dataset=dataset)) == Horizon(True, 15, None)


def test_a_loop_that_does_not_say_has_no_horizon() -> None:
    free = {"_target_": "tests.runner.unusual.FreeLoop", "steps": 3}
    assert horizon_of(config_of([], train_cfg=free)) is None
    assert told(train_cfg=free) == []


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["param_scheduler=multistep"], []),
        (["param_scheduler=multistep", "train_cfg=iter"], []),
        (
            ["param_scheduler=multistep", "train_cfg=iter", "train_cfg.max_iters=100"],
            ["param_scheduler.multistep.milestones"],
        ),
        (
            ["param_scheduler=multistep", "train_cfg.max_epochs=13"],
            ["param_scheduler.multistep.milestones"],
        ),
        (["param_scheduler=multistep", "train_cfg.max_epochs=14"], []),
        (["train_cfg=iter", "param_scheduler.cosine.by_epoch=true"], [
            "param_scheduler.cosine.by_epoch"
        ]),
        (["+param_scheduler.cosine.convert_to_iter_based=true"], [
            "param_scheduler.cosine.convert_to_iter_based"
        ]),
        (["+param_scheduler.cosine.begin=299"], []),
        (["+param_scheduler.cosine.begin=300"], ["param_scheduler.cosine.begin"]),
        (["+param_scheduler.cosine.begin=9", "+param_scheduler.cosine.end=9"], [
            "param_scheduler.cosine.end"
        ]),
        (["train_cfg.val_begin=15"], []),
        (["train_cfg.max_epochs=0"], []),  # the loop tells of that, and of nothing else
        (["train_cfg.val_begin=16"], ["train_cfg.val_begin"]),
        (["+train_cfg.dynamic_intervals=[[10,2],[20,1]]"], ["train_cfg.dynamic_intervals"]),
        (["hooks=ema", "hooks.ema.begin_epoch=15"], []),
        (["hooks=ema", "hooks.ema.begin_epoch=16"], ["hooks.ema.begin_epoch"]),
        (["hooks=ema", "+hooks.ema.begin_iter=301"], ["hooks.ema.begin_iter"]),
    ],
)  # fmt: skip
def test_what_is_never_reached_is_told(overrides: list[str], keys: list[str]) -> None:
    assert told(*overrides) == keys


@pytest.mark.parametrize("short", ["fast_dev_run=1", "overfit_batches=1"])
def test_a_run_that_is_cut_short_reaches_what_it_can(short: str) -> None:
    assert told(short, "param_scheduler=multistep", "train_cfg.max_epochs=3") == []


def test_a_list_of_schedulers_is_looked_at_too() -> None:
    late = {"_target_": "trainkit.param_scheduler.MultiStepLR", "milestones": [40]}
    assert told(param_scheduler=[late]) == ["param_scheduler[0].milestones"]
