"""What is wrong with an optim_wrapper's config is said before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainkit import ConfigError, Runner, compose, main
from trainkit.config.schema import OptimWrapperConfig, SGDConfig, TrainConfig
from trainkit.runner.check import find_mistakes
from trainkit.runner.schedule import plan

DECAY = "trainkit.optim_wrapper.LearningRateDecayOptimWrapperConstructor"
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mistakes(optim_wrapper: Any, *overrides: str, **more: Any) -> list[str]:
    cfg = compose(overrides, config=TrainConfig(optim_wrapper=optim_wrapper, **more))
    return [finding.text for finding in find_mistakes(cfg)]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "+optim_wrapper.paramwise_cfg={norm_decay_mul: 0.0}",
            "optim_wrapper.paramwise_cfg.norm_decay_mul: Paramwise has no argument "
            "'norm_decay_mul'. Did you mean 'norm_decay_mult'?",
        ),
        (
            "+optim_wrapper.paramwise_cfg={bias_lr_mult: twice}",
            "optim_wrapper.paramwise_cfg.bias_lr_mult is 'twice'; Paramwise takes a number or "
            "null.",
        ),
        (
            "+optim_wrapper.paramwise_cfg={custom_keys: {head: {lr_mlt: 0.1}}}",
            "optim_wrapper.paramwise_cfg.custom_keys.head.lr_mlt: a group has no option 'lr_mlt'. "
            "Did you mean 'lr_mult'?",
        ),
        (
            f"+optim_wrapper.constructor={{_target_: {DECAY}x}}",
            f"optim_wrapper.constructor._target_: '{DECAY}x' cannot be imported: "
            "trainkit.optim_wrapper has no 'LearningRateDecayOptimWrapperConstructorx'. Did you "
            "mean 'LearningRateDecayOptimWrapperConstructor'?",
        ),
    ],
)
def test_a_mistake_on_the_command_line(
    override: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", override]) == 2
    assert (
        capsys.readouterr().err == f"ConfigError: {expected}\n   Set by the override {override}.\n"
    )
    assert not list(Path.cwd().iterdir())


def test_the_options_of_another_constructor_are_checked() -> None:
    node = {
        "optimizer": SGD,
        "constructor": {"_target_": DECAY},
        "paramwise_cfg": {"decay_rate": 0.9, "decay_type": "by_layer", "norm_decay_mult": 0.0},
    }
    assert mistakes(node) == [
        "optim_wrapper.paramwise_cfg.decay_type is 'by_layer'; LayerDecay takes 'layer_wise' or "
        "'stage_wise'.",
        "optim_wrapper.paramwise_cfg.norm_decay_mult: LayerDecay has no argument "
        "'norm_decay_mult'. It takes: decay_rate, decay_type, num_layers.",
        "optim_wrapper.paramwise_cfg: LayerDecay needs 'num_layers'. Give it: "
        "+optim_wrapper.paramwise_cfg.num_layers=... It takes a whole number.",
    ]


def test_each_of_several_optimizers_is_checked() -> None:
    node = {
        "a": {"optimizer": {**SGD, "momentun": 0.9}, "accumulative_count": 2},
        "b": {
            "optimizer": SGD,
            "paramwise_cfg": {"bias_lr_mul": 1.0},
            "clip_grad": {"max_nrom": 1},
        },
    }
    assert mistakes(node) == [
        "optim_wrapper.a.accumulative_count: OptimWrapper has no argument 'accumulative_count'. "
        "Did you mean 'accumulative_counts'?",
        "optim_wrapper.a.optimizer.momentun: SGD has no argument 'momentun'. Did you mean "
        "'momentum'?",
        "optim_wrapper.b.paramwise_cfg.bias_lr_mul: Paramwise has no argument 'bias_lr_mul'. Did "
        "you mean 'bias_lr_mult'?",
    ]
    del node["a"]["accumulative_count"], node["a"]["optimizer"]
    node["a"]["optimizer"], node["b"]["paramwise_cfg"] = SGD, None
    assert mistakes(node) == [
        "optim_wrapper.b.clip_grad is {'max_nrom': 1}, which does not know max_nrom. Clipping by "
        "norm needs max_norm; it takes error_if_nonfinite, foreach, max_norm, norm_type."
    ]


def test_schedules_of_several_optimizers_are_checked() -> None:
    node = {"a": {"optimizer": SGD}, "b": {"optimizer": SGD}}
    step = {"_target_": "trainkit.param_scheduler.StepLR", "step_sise": 2}
    found = mistakes(node, param_scheduler={"a": step, "b": {"x": step}})
    assert [text.partition(":")[0] for text in found if "no argument" in text] == [
        "param_scheduler.a.step_sise",
        "param_scheduler.b.x.step_sise",
    ]


class Constructor:
    """Makes what it likes of the rest of the config."""

    def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None, extra: int = 0) -> None:
        self.cfg = optim_wrapper_cfg


def test_what_only_a_constructor_knows_is_left_to_it() -> None:
    node = {
        "constructor": {"_target_": f"{__name__}.Constructor", "extra": "two"},
        "anything": {"optimizer": SGD, "more": 1},
    }
    assert mistakes(node) == [
        "optim_wrapper.constructor.extra is 'two'; Constructor takes a whole number."
    ]


def test_a_dataclass_takes_the_options(tmp_path: Path) -> None:
    config = TrainConfig(
        optim_wrapper=OptimWrapperConfig(
            optimizer=SGDConfig(lr=0.1, weight_decay=0.01),
            paramwise_cfg={"norm_decay_mult": 0.0},
            modules=["backbone"],
        )
    )
    runner = Runner.from_cfg(config, work_dir=tmp_path / "run")
    groups = runner.optim_wrapper.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]


@pytest.mark.parametrize(
    "optim_wrapper",
    [
        {"optimizer": SGD, "modules": "head", "paramwise_cfg": {"bias_lr_mult": 2.0}},
        {
            "optimizer": SGD,
            "constructor": {"_target_": DECAY},
            "paramwise_cfg": {"decay_rate": 0.9, "num_layers": 2},
        },
        {"a": {"optimizer": SGD}, "b": {"optimizer": SGD, "modules": "head"}},
    ],
)
def test_schedules_can_be_seen_without_the_model(optim_wrapper: Any) -> None:
    names = {
        curve.name
        for curve in plan(compose(config=TrainConfig(optim_wrapper=optim_wrapper))).curves
    }
    assert names == ({"a.lr", "b.lr"} if "a" in optim_wrapper else {"lr"})


def test_amp_for_a_run_from_python_is_refused_before_it_is_built(tmp_path: Path) -> None:
    own = f"optim_wrapper._target_={__name__}.Own"
    with pytest.raises(ConfigError, match="amp is true, but optim_wrapper is of class"):
        Runner.from_cfg(
            compose(["optim_wrapper=default", "amp=true", own.replace("Own", "Constructor")]),
            work_dir=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()
