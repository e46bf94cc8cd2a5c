"""Configs given in Python: what is given, what is not, and overrides on top."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from trainkit import ConfigError, Runner, TrainConfig, compose, main, train
from trainkit.config import (
    AdamWConfig,
    AmpOptimWrapperConfig,
    CheckpointHookConfig,
    CosineAnnealingLRConfig,
    EarlyStoppingHookConfig,
    EMAHookConfig,
    EpochBasedTrainLoopConfig,
    IterTimerHookConfig,
    LinearLRConfig,
    OptimWrapperConfig,
    SGDConfig,
)
from trainkit.config.given import GIVEN
from trainkit.optim_wrapper import OptimWrapper
from trainkit.runner.check import find_mistakes

SHORT = ["env.num_threads=1", "fast_dev_run=1", "visualizer=none"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def statuses() -> list[dict[str, Any]]:
    found = sorted(Path("outputs").glob("*/*/status.json"))
    return [json.loads(path.read_text()) for path in found]


# ------------------------------------------------------------- given, not given, overridden


def test_a_field_that_is_not_given_is_what_the_command_line_would_have() -> None:
    assert compose(config=TrainConfig()) == compose()


def test_a_given_field_replaces_its_group() -> None:
    cfg = compose(config=TrainConfig(optim_wrapper=OptimWrapperConfig(optimizer=AdamWConfig())))
    assert cfg.optim_wrapper._target_ == "trainkit.optim_wrapper.OptimWrapper"
    assert "momentum" not in cfg.optim_wrapper.optimizer  # nothing of the default option is left
    assert cfg.train_cfg == compose().train_cfg


def test_overrides_apply_after_what_is_given() -> None:
    config = TrainConfig(
        train_cfg=EpochBasedTrainLoopConfig(max_epochs=3),
        optim_wrapper=OptimWrapperConfig(optimizer=SGDConfig(lr=0.5)),
        seed=1,
    )
    cfg = compose(["train_cfg.max_epochs=7", "optim_wrapper=amp", "seed=2"], config=config)
    assert (cfg.train_cfg.max_epochs, cfg.seed) == (7, 2)
    assert cfg.optim_wrapper == compose().optim_wrapper


def test_a_nested_option_replaces_a_part_of_a_given_field() -> None:
    given = AmpOptimWrapperConfig(optimizer=SGDConfig(lr=0.5), accumulative_counts=2)
    cfg = compose(["optim_wrapper/optimizer=adam"], config=TrainConfig(optim_wrapper=given))
    assert cfg.optim_wrapper.accumulative_counts == 2
    assert (
        cfg.optim_wrapper.optimizer
        == compose(["optim_wrapper/optimizer=adam"])["optim_wrapper"]["optimizer"]
    )


def test_none_switches_a_group_off() -> None:
    cfg = compose(config=TrainConfig(val_cfg=None, param_scheduler=None, work_dir=None))
    assert (cfg.val_cfg, cfg.param_scheduler, cfg.work_dir) == (None, None, None)
    assert find_mistakes(cfg) == []


def test_small_nodes_are_merged() -> None:
    cfg = compose(config=TrainConfig(log_processor={"window_size": 3}, tags=["a", "b"]))
    assert cfg.log_processor._target_ == "trainkit.log_processor.LogProcessor"
    assert (cfg.log_processor.window_size, list(cfg.tags)) == (3, ["a", "b"])


def test_hooks_add_to_the_default_ones_by_name() -> None:
    given = {"mine": {"_target_": "trainkit.hooks.EMAHook"}, "logger": None}
    cfg = compose(config=TrainConfig(hooks=given))
    assert cfg.hooks.logger is None
    assert {"mine", "checkpoint", "timer"} <= set(cfg.hooks)


def test_an_override_of_hooks_adds_to_those_that_are_given() -> None:
    given = {"early_stopping": EarlyStoppingHookConfig(monitor="accuracy")}
    for override in ("hooks=[ema]", "hooks=ema", "+hooks=ema"):
        cfg = compose([override], config=TrainConfig(hooks=given))
        assert {"ema", "early_stopping", "checkpoint"} <= set(cfg.hooks)


def test_hooks_in_a_list_take_the_names_of_conf() -> None:
    given = [CheckpointHookConfig(interval=4), IterTimerHookConfig(), EMAHookConfig()]
    cfg = compose(config=TrainConfig(hooks=given))
    assert set(cfg.hooks) == {*compose().hooks, "ema"}
    assert cfg.hooks.checkpoint.interval == 4


def test_schedulers_may_stand_in_a_list_or_alone() -> None:
    both = [LinearLRConfig(end=2), CosineAnnealingLRConfig(begin=2)]
    assert list(compose(config=TrainConfig(param_scheduler=both)).param_scheduler) == [
        "LinearLR",
        "CosineAnnealingLR",
    ]
    alone = compose(config=TrainConfig(param_scheduler=CosineAnnealingLRConfig()))
    assert alone.param_scheduler._target_.endswith("CosineAnnealingLR")
    assert find_mistakes(alone) == []


def test_nothing_stays_behind_in_the_configstore() -> None:
    compose(config=TrainConfig(seed=3, optim_wrapper=OptimWrapperConfig(optimizer=SGDConfig())))
    assert GIVEN not in json.dumps(list(_names(ConfigStore.instance().repo)))
    assert compose().seed == 0


def _names(repo: dict[str, Any]) -> Iterator[str]:
    for name, entry in repo.items():
        yield from _names(entry) if isinstance(entry, dict) else [name]


# ------------------------------------------------------------------------- train, from_cfg


def test_train_does_what_the_command_line_does() -> None:
    config = TrainConfig(train_cfg=EpochBasedTrainLoopConfig(max_epochs=3))
    metric = train(config, overrides=["optim_wrapper=amp", *SHORT])
    assert main(["train_cfg.max_epochs=3", "optim_wrapper=amp", *SHORT]) == 0
    python, command_line = statuses()
    assert python["metrics"] == command_line["metrics"]
    assert metric == python["metrics"]["accuracy"]


def test_a_run_from_python_is_resumed_by_the_same_call(capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(train_cfg=EpochBasedTrainLoopConfig(max_epochs=3))
    train(config, overrides=SHORT)
    train(config, overrides=[*SHORT, "resume=true"])
    assert "is finished already" in capsys.readouterr().out
    train(TrainConfig(train_cfg=EpochBasedTrainLoopConfig(max_epochs=4)), [*SHORT, "resume=true"])
    assert len(statuses()) == 2  # another config is another run


def test_a_runner_takes_a_composed_config_or_the_dataclass(tmp_path: Path) -> None:
    config = TrainConfig(seed=5, fast_dev_run=1)
    for number, cfg in enumerate((config, compose(config=config))):
        runner = Runner.from_cfg(cfg, work_dir=tmp_path / str(number))
        assert runner.seed == 5


def test_a_composed_config_can_be_trained() -> None:
    train(compose(SHORT))
    assert [status["status"] for status in statuses()] == ["finished"]


# ------------------------------------------------------------------ dataclasses of one's own


def make_wrapper(optimizer: Any, note: str = "") -> OptimWrapper:
    """An optim_wrapper of one's own; what it is told is kept, to see that it was used."""
    wrapper = OptimWrapper(optimizer)
    wrapper.note = note  # type: ignore[attr-defined]  # of this test alone
    return wrapper


@dataclass
class MyWrapper:
    note: str = "mine"
    optimizer: Any = field(default_factory=lambda: SGDConfig(lr=0.01))
    _target_: str = f"{__name__}.make_wrapper"


@dataclass
class MySchedule:
    power: float = 2.0
    _target_: str = "trainkit.param_scheduler.PolyLR"


@dataclass
class MyLoop:
    max_epochs: int = 4
    _target_: str = "trainkit.loops.EpochBasedTrainLoop"


@dataclass
class MyLoader:
    batch_size: int = 16
    dataset: Any = field(default_factory=lambda: {"_target_": "trainkit.data.Digits"})
    collate_fn: Any = field(
        default_factory=lambda: {"_target_": "trainkit.dataloader.default_collate"}
    )
    _target_: str = "torch.utils.data.DataLoader"


@dataclass
class MyLoaders:
    train: MyLoader = field(default_factory=MyLoader)
    val: Any = field(default_factory=MyLoader)
    test: Any = None


@dataclass
class MyHook:
    interval: int = 2
    _target_: str = "trainkit.hooks.LoggerHook"


@dataclass
class MyHooks:
    mine: MyHook = field(default_factory=MyHook)


OWN = {
    "optim_wrapper": MyWrapper,
    "param_scheduler": MySchedule,
    "train_cfg": MyLoop,
    "dataloader": MyLoaders,
    "hooks": MyHooks,
}
EXPECTED: dict[str, Any] = {
    "optim_wrapper.note": "mine",
    "param_scheduler.power": 2.0,
    "train_cfg.max_epochs": 4,
    "dataloader.train.batch_size": 16,
    "hooks.mine.interval": 2,
}


@pytest.fixture
def store() -> Iterator[None]:
    """The dataclasses in Hydra's ConfigStore, as an own script would put them there."""
    repo = ConfigStore.instance()
    for group, node in OWN.items():
        repo.store(group=group, name="mine", node=node)
    yield
    for group in OWN:
        del repo.repo[group]["mine.yaml"]


def selected(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


@pytest.mark.parametrize(("group", "key"), list(zip(OWN, EXPECTED, strict=True)))
def test_a_dataclass_of_ones_own_is_passed_directly(group: str, key: str) -> None:
    for given in (OWN[group], OWN[group]()):
        cfg = compose(config=TrainConfig(**{group: given, "test_cfg": None}))
        assert selected(cfg, key) == EXPECTED[key]
        assert find_mistakes(cfg) == []


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("group", "key"), list(zip(OWN, EXPECTED, strict=True)))
def test_a_dataclass_of_ones_own_is_an_option(group: str, key: str) -> None:
    cfg = compose([f"{group}=mine", "test_cfg=none"])
    assert selected(cfg, key) == EXPECTED[key]
    assert find_mistakes(cfg) == []


@pytest.mark.usefixtures("store")
def test_all_of_them_train_from_the_command_line() -> None:
    chosen = [f"{group}=mine" for group in OWN]
    assert main([*chosen, "optim_wrapper.note=changed", "test_cfg=none", *SHORT]) == 0
    (run,) = Path("outputs").glob("*/*/config.yaml")
    assert "note: changed" in run.read_text()


@pytest.mark.usefixtures("store")
def test_a_mistake_in_a_field_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train_cfg=mine", "train_cfg.max_epochs=two"]) == 2
    expected = "ConfigError: train_cfg.max_epochs is 'two'; MyLoop takes a whole number.\n"
    assert capsys.readouterr().err == expected
    assert main(["train_cfg=mine", "train_cfg.max_epoch=2"]) == 2
    assert "Did you mean 'train_cfg.max_epochs'?" in capsys.readouterr().err
    assert main(["train_cfg=min"]) == 2
    assert "Did you mean 'mine'?" in capsys.readouterr().err


# ------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        (
            {"optim_wrapper": "amp"},
            [],
            "TrainConfig.optim_wrapper is 'amp'; expected a dataclass or a mapping. An option is "
            "chosen by overrides=['optim_wrapper=amp'].",
        ),
        (
            {"model": object()},
            [],
            "TrainConfig.model is an object, a live object; a config holds dataclasses, mappings, "
            "lists and plain values. Give it to Runner(...) instead.",
        ),
        (
            {"train_cfg": EpochBasedTrainLoopConfig(max_epochs="x")},  # type: ignore[arg-type]
            [],
            "TrainConfig.train_cfg.max_epochs is 'x'; EpochBasedTrainLoopConfig takes a whole "
            "number.",
        ),
        (
            {"optim_wrapper": OptimWrapperConfig(optimizer=SGDConfig())},
            ["optim_wrapper.optimizer.lr=abc"],
            "optim_wrapper.optimizer.lr is 'abc'; SGDConfig takes a number.",
        ),
        (
            {"optim_wrapper": OptimWrapperConfig(optimizer=SGDConfig())},
            ["optim_wrapper.lr=3"],
            "The config has no 'optim_wrapper.lr'. It stands at optim_wrapper.optimizer.lr.",
        ),
        (
            {"hooks": {"ema": EMAHookConfig(momentum="a")}},  # type: ignore[arg-type]
            [],
            "TrainConfig.hooks.ema.momentum is 'a'; EMAHookConfig takes a number or null.",
        ),
        (
            {"optim_wrapper": OptimWrapperConfig(optimizer=SGDConfig(lr="x"))},  # type: ignore[arg-type]
            [],
            "TrainConfig.optim_wrapper.optimizer.lr is 'x'; SGDConfig takes a number.",
        ),
        (
            {"optim_wrapper": OptimWrapperConfig(optimizer=SGDConfig(lr=None))},  # type: ignore[arg-type]
            [],
            "TrainConfig.optim_wrapper.optimizer.lr is null; SGDConfig takes a number.",
        ),
        (
            {"train_cfg": EpochBasedTrainLoopConfig(max_epochs=2.5)},  # type: ignore[arg-type]
            [],
            "TrainConfig.train_cfg.max_epochs is 2.5; EpochBasedTrainLoopConfig takes a whole "
            "number.",
        ),
        (
            {"dataloader": 3},
            [],
            "TrainConfig.dataloader is 3; expected a dataclass or a mapping.",
        ),
        (
            {"hooks": [3]},
            [],
            "TrainConfig.hooks has the entry 3; expected a dataclass or a mapping with _target_.",
        ),
    ],
)
def test_a_mistake_in_python_is_answered(
    config: dict[str, Any], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides, config=TrainConfig(**config))
    assert str(caught.value) == message


def test_wrong_arguments_are_answered() -> None:
    with pytest.raises(ConfigError, match="overrides is the text 'seed=1'; expected a list"):
        compose("seed=1")
    with pytest.raises(ConfigError, match="overrides has 3; expected texts such as 'seed=1'"):
        compose([3])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="config_dirs is 'x'; expected a list"):
        compose(config_dirs="x")
    for overrides in (None, {"seed": 1}):
        with pytest.raises(ConfigError, match=r"expected a list such as \['seed=1'\]"):
            compose(overrides)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="config_name is None; expected the name of a YAML file"):
        compose(config_name=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="The Runner has no argument 'seed' to give it"):
        Runner.from_cfg(compose(), seed=3)
    with pytest.raises(ConfigError, match="config_name or config_dirs; they are for composing one"):
        train(compose(), config_dirs=["conf"])
    with pytest.raises(ConfigError, match="config is a dict; expected a TrainConfig"):
        compose(config={"seed": 1})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"train\(\) got an int; expected a TrainConfig, or"):
        train(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="give the overrides where it is composed"):
        train(compose(), ["seed=1"])


def test_who_gave_a_value_in_python_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig(hooks={"ema": {"_target_": "trainkit.hooks.EMAHook", "momentun": 0.1}})
    with pytest.raises(ConfigError) as caught:
        train(config)
    assert str(caught.value) == (
        "hooks.ema.momentun: EMAHook has no argument 'momentun'. Did you mean 'momentum'?\n"
        "   Set by what is given in Python."
    )
