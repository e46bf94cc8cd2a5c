"""Several optimizers: from config alone, in a run, resumed, and with schedules of their own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import ToyModel, make_runner
from trainkit import Hook, Runner
from trainkit.errors import CheckpointError, ConfigError
from trainkit.optim_wrapper import AmpOptimWrapper, OptimWrapper, OptimWrapperDict, construct

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1}
ADAM = {"_target_": "torch.optim.Adam", "lr": 0.01}
EXAMPLE = Path(__file__).parents[2] / "examples" / "wgan.py"


def pair() -> nn.ModuleDict:
    return nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})


def build(node: Any, model: nn.Module | None = None) -> OptimWrapperDict:
    wrapper = construct(node, "optim_wrapper", pair() if model is None else model)
    assert isinstance(wrapper, OptimWrapperDict)
    return wrapper


def parameters_of(wrapper: OptimWrapper, model: nn.Module) -> set[str]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p] for group in wrapper.param_groups for p in group["params"]}


@pytest.mark.parametrize(
    "target", [{}, {"_target_": "trainkit.optim_wrapper.OptimWrapperDict"}], ids=str
)
def test_each_optimizer_trains_the_submodule_of_its_name(target: dict[str, Any]) -> None:
    model = pair()
    both = build({**target, "a": {"optimizer": SGD}, "b": {"optimizer": ADAM}, "c": None}, model)
    assert list(both) == ["a", "b"]
    assert parameters_of(both["a"], model) == {"a.weight", "a.bias"}
    assert parameters_of(both["b"], model) == {"b.weight", "b.bias"}
    assert both.get_lr() == {"a.lr": [0.1], "b.lr": [0.01]}


def test_an_optimizer_may_name_its_modules_and_options() -> None:
    model = pair()
    amp = "trainkit.optim_wrapper.AmpOptimWrapper"
    both = build(
        {
            "weights": {"optimizer": SGD, "modules": "*.weight", "accumulative_counts": 2},
            "rest": {
                "_target_": amp,
                "optimizer": SGD,
                "modules": ["a.bias", "b.bias"],
                "paramwise_cfg": {"custom_keys": {"b.": {"lr_mult": 2.0}}},
            },
        },
        model,
    )
    assert parameters_of(both["weights"], model) == {"a.weight", "b.weight"}
    assert both["weights"].accumulative_counts == 2
    assert type(both["rest"]) is AmpOptimWrapper
    assert both.get_lr() == {"weights.lr": [0.1], "rest.lr": [0.1, 0.2], "rest.base_lr": [0.1]}


def test_wrappers_may_be_objects() -> None:
    model = pair()
    made = OptimWrapper(torch.optim.SGD(model["a"].parameters(), lr=0.3))
    both = build({"a": made, "b": {"optimizer": ADAM}}, model)
    assert both["a"] is made


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (
            {"a": {"optimizer": SGD}, "c": {"optimizer": SGD}},
            "optim_wrapper.c.modules is 'c', but ModuleDict has no parameter there that requires a "
            "gradient. It has: a, b.",
        ),
        (
            {"a": {"optimizer": SGD}, "b": {"optimizer": SGD, "modules": ["b", "a.bias"]}},
            "optim_wrapper: a.bias is in the optimizers a and b. Name the modules of each: "
            "optim_wrapper.b.modules=[...]",
        ),
        (
            {"a": {"optimizer": SGD, "paramwise_cfg": {"bias_lr_mul": 1.0}}},
            "optim_wrapper.a.paramwise_cfg.bias_lr_mul: Paramwise has no argument 'bias_lr_mul'. "
            "Did you mean 'bias_lr_mult'?",
        ),
        (
            {"_target_": OptimWrapperDict, "a": 3},
            "optim_wrapper.a is a int; expected an OptimWrapper, or its config.",
        ),
    ],
)
def test_what_cannot_work_is_named(node: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(node)
    assert str(raised.value) == expected


def test_parameters_that_no_optimizer_has_are_told(caplog: pytest.LogCaptureFixture) -> None:
    build({"a": {"optimizer": SGD}})
    assert caplog.messages == [
        "optim_wrapper: no optimizer has b.weight, b.bias, so nothing changes them."
    ]


def test_a_name_that_is_not_there_is_answered() -> None:
    both = build({"a": {"optimizer": SGD}, "b": {"optimizer": SGD}})
    with pytest.raises(ConfigError, match=r"There is no optimizer 'aa'\. Did you mean 'a'\?"):
        both["aa"]


def test_a_model_that_does_not_choose_is_told_how(tmp_path: Path) -> None:
    node = {"linear": {"optimizer": SGD}}
    with pytest.raises(ConfigError) as raised:
        make_runner(tmp_path, model=ToyModel(), optim_wrapper=node).train()
    assert str(raised.value) == (
        "There are several optimizers (linear), and optim_context(model) is for one of them. Write "
        "a train_step that says which: optim_wrapper['linear'].optim_context(model)."
    )


def test_the_learning_rate_is_scaled_by_each_ones_batches(tmp_path: Path) -> None:
    node = {
        "weight": {"optimizer": SGD, "accumulative_counts": 3, "modules": "linear.weight"},
        "bias": {"optimizer": SGD, "modules": "linear.bias"},
    }
    runner = make_runner(
        tmp_path, optim_wrapper=node, auto_scale_lr={"enable": True, "base_batch_size": 2}
    )
    assert runner.optim_wrapper.get_lr() == {
        "weight.lr": [pytest.approx(0.6)],
        "bias.lr": [pytest.approx(0.2)],
    }


# -------------------------------------------------------- alternating updates


class Watch(Hook):
    """Keeps the updates of both optimizers, and the scalars that are logged, of each iteration."""

    def __init__(self) -> None:
        self.updates: list[tuple[int, int]] = []
        self.scalars: set[str] = set()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        both: Any = runner.optim_wrapper
        self.updates.append((both["critic"].update_count, both["generator"].update_count))
        self.scalars |= set(runner.message_hub.log_scalars)


def wgan(work_dir: Path, max_iters: int, **changes: Any) -> Runner:
    specification = importlib.util.spec_from_file_location("wgan", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    torch.manual_seed(5)
    model = example.WGAN(n_critic=3)
    arguments = example.arguments(work_dir, max_iters)
    return Runner(**{**arguments, "model": model, **changes})


def test_the_generator_learns_at_every_nth_update_of_the_critic(tmp_path: Path) -> None:
    watch = Watch()
    wgan(tmp_path, 7, custom_hooks=[watch]).train()
    assert watch.updates == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2)]
    assert watch.scalars >= {
        *("train/critic.lr", "train/generator.lr", "train/generator.grad_norm"),
        *("train/critic_loss", "train/generator_loss"),
    }


def test_each_has_a_schedule_of_its_own(tmp_path: Path) -> None:
    runner = wgan(tmp_path, 4)
    runner.train()
    assert runner.optim_wrapper.get_lr()["critic.lr"] == [0.001]
    assert runner.optim_wrapper.get_lr()["generator.lr"] == [0.0]


def test_the_log_says_which_optimizer_got_which_schedule(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    step = {"_target_": "trainkit.param_scheduler.StepLR", "step_size": 1}
    both = wgan(tmp_path / "all", 2, param_scheduler={"step": step})
    assert len(both.param_schedulers) == 2
    one = wgan(tmp_path / "one", 2, param_scheduler={"critic": {"step": step}, "step": None})
    assert len(one.param_schedulers) == 1
    assert [text for text in caplog.messages if text.startswith("param_scheduler")] == [
        "param_scheduler.step: StepLR of generator.lr",
        "param_scheduler.step: StepLR of critic.lr",
        "param_scheduler.critic.step: StepLR of critic.lr",
    ]


def test_a_schedule_is_not_nearly_named_as_an_optimizer(tmp_path: Path) -> None:
    step = {"_target_": "trainkit.param_scheduler.StepLR", "step_size": 1}
    with pytest.raises(ConfigError) as raised:
        _ = wgan(tmp_path, 2, param_scheduler={"citic": step}).param_schedulers
    assert str(raised.value) == (
        "param_scheduler.citic: there are several optimizers, and none of this name. Did you mean "
        "'critic'? A schedule of all of them has a name that is unlike theirs, or stands in a list."
    )
    runner = wgan(tmp_path, 2, param_scheduler=[step])
    assert len(runner.param_schedulers) == 2


def test_a_resumed_run_is_the_whole_one(tmp_path: Path) -> None:
    """The rhythm too: the checkpoint is between two updates of the generator."""
    constant = {"param_scheduler": None}
    whole = wgan(tmp_path / "a", 8, **constant)
    whole.train()
    watch = Watch()
    for iterations in (4, 8):
        part = wgan(tmp_path / "b", iterations, resume=True, custom_hooks=[watch], **constant)
        part.train()
    assert watch.updates[3:5] == [(4, 1), (5, 1)]
    for mine, other in zip(part.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_other_names_do_not_resume(tmp_path: Path) -> None:
    wgan(tmp_path, 2, param_scheduler=None).train()
    rmsprop = {"_target_": "torch.optim.RMSprop", "lr": 0.001}
    node = {
        "generator": {"optimizer": rmsprop},
        "discriminator": {"optimizer": rmsprop, "modules": "critic"},
    }
    with pytest.raises(CheckpointError, match=r"it has generator, critic, the config has the"):
        wgan(tmp_path, 4, param_scheduler=None, optim_wrapper=node, resume=True).train()
