"""Composing: the config that the command line would give, or a message that helps."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from trainkit import ConfigError, compose, conf_dir


def test_the_default_config_composes() -> None:
    cfg = compose()
    assert cfg.optim_wrapper._target_ == "trainkit.optim_wrapper.AmpOptimWrapper"
    assert list(cfg.hooks) == [
        "runtime_info",
        "timer",
        "sampler_seed",
        "logger",
        "param_scheduler",
        "checkpoint",
    ]


def test_hooks_are_added_changed_and_removed() -> None:
    cfg = compose(["hooks=[ema,early_stopping]", "hooks.checkpoint.interval=5", "hooks.timer=null"])
    assert {"ema", "early_stopping", "checkpoint"} <= set(cfg.hooks)
    assert cfg.hooks.checkpoint.interval == 5
    assert cfg.hooks.timer is None
    assert "ema" in compose(["hooks=ema"]).hooks


def test_none_switches_a_group_off() -> None:
    cfg = compose(["val_cfg=none", "test_cfg=none", "param_scheduler=none"])
    assert (cfg.val_cfg, cfg.test_cfg, cfg.param_scheduler) == (None, None, None)


def test_an_experiment_changes_options_and_values() -> None:
    cfg = compose(["experiment=digits_cosine", "hooks.ema.momentum=0.5"])
    assert cfg.optim_wrapper.optimizer._target_ == "torch.optim.AdamW"
    assert list(cfg.param_scheduler) == ["warmup", "cosine"]
    assert (cfg.experiment_name, cfg.hooks.ema.momentum) == ("digits_cosine", 0.5)


def test_a_directory_of_ones_own_adds_options(tmp_path: Path) -> None:
    (tmp_path / "train_cfg").mkdir()
    (tmp_path / "train_cfg" / "short.yaml").write_text(
        "_target_: trainkit.loops.EpochBasedTrainLoop\nmax_epochs: 1\n"
    )
    assert compose(["train_cfg=short"], config_dirs=[tmp_path]).train_cfg.max_epochs == 1


def test_hydra_is_left_as_it_was() -> None:
    compose()
    with pytest.raises(ConfigError):
        compose(["nonsense=1"])
    assert not GlobalHydra.instance().is_initialized()


def test_conf_stands_beside_the_package_in_a_checkout() -> None:
    assert (conf_dir() / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim_wraper=amp", "The config has no 'optim_wraper'. Did you mean 'optim_wrapper'?"),
        (
            "optim_wrapper=ampp",
            "optim_wrapper=ampp: there is no option 'ampp'. Did you mean 'amp'?",
        ),
        (
            "optim_wrapper=sgd",
            "optim_wrapper=sgd: there is no option 'sgd'. It is one of optim_wrapper/optimizer: "
            "optim_wrapper/optimizer=sgd.",
        ),
        ("lr=0.1", "The config has no 'lr' at its top. It stands at optim_wrapper.optimizer.lr."),
        (
            "optim_wrapper.optimizer.lrr=1",
            "The config has no 'optim_wrapper.optimizer.lrr'. Did you mean "
            "'optim_wrapper.optimizer.lr'?",
        ),
        (
            "optim_wrapper/optimiser=sgd",
            "There is no config group 'optim_wrapper/optimiser'. Did you mean "
            "'optim_wrapper/optimizer'?",
        ),
        ("val_cfg=null", "val_cfg=null is not an option. val_cfg=none switches it off."),
        ("model=null", "model=null is not an option. Leave it out by ~model."),
        ("hooks=[ema,emu]", "hooks=emu: there is no option 'emu'. Did you mean 'ema'?"),
        (
            "dataloader.train.drop_last=true",
            "The config has no 'dataloader.train.drop_last'. Its target takes it, but the config "
            "does not list it: +dataloader.train.drop_last=true",
        ),
        (
            "hooks.early_stopping.patience=3",
            "The config has no 'hooks.early_stopping.patience'. It is an option that is not "
            "chosen: add hooks=early_stopping.",
        ),
        ("hooks=none", "hooks=none: there is no option 'none'. Choose from: early_stopping, ema"),
        ("seed=[1", "The override 'seed=[1' cannot be read. Expected key=value, with brackets"),
    ],
)
def test_a_wrong_override_is_answered(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert str(caught.value).startswith(message)


def test_all_wrong_overrides_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["sede=1", "train_cfg=epochs", "lr=3"])
    assert str(caught.value).splitlines() == [
        "The config has 3 mistakes.",
        "1. The config has no 'sede'. Did you mean 'seed'?",
        "2. train_cfg=epochs: there is no option 'epochs'. Did you mean 'epoch'?",
        "3. The config has no 'lr' at its top. It stands at optim_wrapper.optimizer.lr.",
    ]


def test_a_config_dir_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="--config-dir 'nowhere' is no directory"):
        compose(config_dirs=["nowhere"])


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an own option of model, as hydra.searchpath would name it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sp" / "model").mkdir(parents=True)
    (tmp_path / "sp" / "model" / "mine.yaml").write_text("_target_: trainkit.model.ConvNet\n")
    return tmp_path


PATH = "hydra.searchpath=[file://sp]"


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([PATH, "model=mine", "sede=1"], "The config has no 'sede'. Did you mean 'seed'?"),
        ([PATH, "model=min"], "model=min: there is no option 'min'. Did you mean 'mine'?"),
        (
            ["hydra.searchpath=[file://nowhere]"],
            "hydra.searchpath names 'nowhere', which is no directory. Mend the path.",
        ),
        (["=3"], "The override '=3' has no key; expected key=value."),
        (["hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN has no effect here. Write -m for a sweep."),
        (
            ["optim_wrapper/optimizer@model.x=adam"],
            "optim_wrapper/optimizer@model.x=adam: no defaults list chooses "
            "optim_wrapper/optimizer for the package 'model.x'. Write "
            "optim_wrapper/optimizer=adam; to put a second one there: "
            "+optim_wrapper/optimizer@model.x=adam",
        ),
    ],
)
def test_what_hydra_would_take_or_misname_is_answered(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert str(caught.value) == message


@pytest.mark.usefixtures("elsewhere")
def test_a_searchpath_adds_options() -> None:
    assert compose([PATH, "model=mine"]).model == {"_target_": "trainkit.model.ConvNet"}


def test_an_override_before_other_defaults_is_answered(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "order.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /optim_wrapper: default\n  - /hooks: [ema]\n"
    )
    with pytest.raises(ConfigError, match="'override /group: option' stands after all other"):
        compose(["experiment=order"], config_dirs=[tmp_path])
