"""The Runner: what it takes, what it refuses, and that it trains as a bare loop does."""

from __future__ import annotations

import copy
import json
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.toy import (
    MeanSquaredError,
    Recorder,
    ToyDataset,
    ToyModel,
    loader,
    loader_config,
    make_runner,
)
from trainkit import CheckpointError, ConfigError, Hook, Runner
from trainkit.evaluator import Evaluator
from trainkit.hooks import CheckpointHook
from trainkit.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from trainkit.optim_wrapper import AmpOptimWrapper, OptimWrapper
from trainkit.param_scheduler import LinearLR, MultiStepLR


def weights(runner: Runner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def train_bare(epochs: int) -> nn.Module:
    model = ToyModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for batch in DataLoader(ToyDataset(), batch_size=4):
            model(**batch, mode="loss")["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    return model


def test_training_is_the_bare_loop_to_the_bit(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, train_dataloader=loader())
    assert_same(runner.train().state_dict(), train_bare(2).state_dict())


def test_objects_and_configs_give_the_same_run(tmp_path: Path) -> None:
    configs = make_runner(
        tmp_path / "configs",
        train_dataloader=loader_config(sampler={"shuffle": False}),
        param_scheduler={
            "_target_": "trainkit.param_scheduler.MultiStepLR",
            "milestones": [1],
        },
    )
    model = ToyModel()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    objects = make_runner(
        tmp_path / "objects",
        model=model,
        train_dataloader=loader(),
        optim_wrapper=wrapper,
        param_scheduler=MultiStepLR(wrapper, [1]),
        val_evaluator=Evaluator([MeanSquaredError()]),
        custom_hooks=[Recorder()],
    )
    configs.train()
    objects.train()
    assert_same(weights(configs), weights(objects))
    assert objects.optim_wrapper.param_groups[0]["lr"] == pytest.approx(0.01)


def test_the_configs_given_are_not_changed(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "train_cfg": {"by_epoch": True, "max_epochs": 1},
        "optim_wrapper": {
            "_target_": "trainkit.optim_wrapper.OptimWrapper",
            "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
            "clip_grad": {"type": "norm", "max_norm": 1.0},
        },
        "param_scheduler": [{"_target_": "trainkit.param_scheduler.LinearLR", "end": 1}],
        "default_hooks": {"checkpoint": {"interval": 1, "priority": "LOWEST"}},
    }
    before = copy.deepcopy(given)
    make_runner(tmp_path, **given).train()
    assert given == before


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("optim_wrapper", "train_dataloader, train_cfg given, but not optim_wrapper"),
        ("val_evaluator", "val_dataloader, val_cfg given, but not val_evaluator"),
        ("test_dataloader", "test_cfg, test_evaluator given, but not test_dataloader"),
    ],
)
def test_the_three_arguments_of_a_split_come_together(
    tmp_path: Path, missing: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_runner(tmp_path, **{missing: None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"launcher": "slurm"}, "launcher is 'slurm'"),
        ({"sync_bn": "mmcv"}, "sync_bn is 'mmcv'"),
        ({"log_level": "LOUD"}, "log_level is 'LOUD'"),
        ({"model": 3}, "model is a int; expected a torch.nn.Module"),
        ({"model": {"lr": 1}}, "model has no _target_"),
        ({"randomness": {"sed": 1}}, "randomness.sed"),
        ({"env_cfg": {"device": "warp:1"}}, "env.device is 'warp:1'"),
        ({"visualizer": {"backend": 1}}, "visualizer.backend: Visualizer has no argument"),
        ({"custom_hooks": [3]}, r"custom_hooks.0 is a int; expected a Hook"),
        ({"default_hooks": {"loger": None}}, "Did you mean 'logger'"),
        ({"default_hooks": {"logger": {"intervall": 5}}}, "Did you mean 'interval'"),
        ({"activation_checkpointing": "liner"}, "Did you mean 'linear'"),
        ({"randomness": 3}, r"randomness is 3; expected dict\(seed"),
        ({"resume": "here", "load_from": "there"}, "resume is 'here' and load_from is 'there'"),
        ({"resume": 3}, "resume is 3"),
        ({"work_dir": None}, "work_dir is None"),
        ({"log_level": None}, "log_level is None"),
        ({"custom_hooks": Recorder()}, "custom_hooks is a Recorder; expected a list"),
        ({"default_hooks": [Recorder()]}, "default_hooks is a list; expected a mapping"),
        ({"default_hooks": {"mine": None}}, "there is no hook 'mine' to remove"),
        ({"default_hooks": {"checkpoint": {"interval": "abc"}}}, "interval is 'abc'"),
        ({"default_hooks": {"checkpoint": {"filename_tmpl": "ckpt"}}}, "filename_tmpl is 'ckpt'"),
        ({"log_processor": {"window_size": 0}}, "window_size is 0"),
    ],
)
def test_a_wrong_argument_is_refused_at_construction(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_runner(**{"work_dir": tmp_path, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_cfg": {"max_epochs": 2}}, "by_epoch=None and no _target_"),
        (
            {"train_cfg": {"_target_": EpochBasedTrainLoop, "by_epoch": True, "max_epochs": 1}},
            "both _target_ and by_epoch",
        ),
        ({"train_cfg": {"by_epoch": True}}, "missing a required argument: 'max_epochs'"),
        ({"train_cfg": {"by_epoch": True, "max_epochs": 2.5}}, "max_epochs is 2.5"),
        ({"train_cfg": {"by_epoch": True, "max_epoch": 2}}, "Did you mean 'max_epochs'"),
        ({"optim_wrapper": {}}, "optim_wrapper has no optimizer"),
        ({"optim_wrapper": {"optimizer": {"_target_": "torch.optim.SDG"}}}, "Did you mean 'SGD'"),
        ({"optim_wrapper": {"optimizer": {"_target_": "torch.optim.SGD", "lrr": 1}}}, "'lr'"),
        ({"param_scheduler": 3}, "param_scheduler is a int; expected a ParamScheduler"),
        (
            {"param_scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1}},
            "param_scheduler is a config of StepLR; expected a parameter scheduler",
        ),
        ({"auto_scale_lr": {"enable": True}}, "auto_scale_lr.base_batch_size is None"),
        ({"train_dataloader": {"batch_size": 4}}, "train_dataloader has no dataset"),
        ({"train_dataloader": loader_config(batch_sise=1)}, "Did you mean 'batch_size'"),
        (
            {"train_dataloader": loader_config(batch_size=20, drop_last=True)},
            "gives no batch: 12 samples, batch_size=20, drop_last=True",
        ),
        ({"model": nn.Linear(3, 1)}, r"Linear has no train_step\(\)"),
        ({"train_cfg": 3}, "train_cfg is an int; expected a loop"),
        ({"train_cfg": {"type": "EpochBasedTrainLoop"}}, "MMEngine's 'type: EpochBasedTrainLoop'"),
        ({"auto_scale_lr": True}, "auto_scale_lr is True"),
        ({"auto_scale_lr": {"enabel": True}}, "auto_scale_lr is {'enabel': True}"),
        (
            {"optim_wrapper": {"optimizer": torch.optim.SGD(ToyModel().parameters(), lr=0.1)}},
            "has no parameter of ToyModel",
        ),
        ({"load_from": "nowhere"}, "There is no checkpoint 'nowhere'"),
    ],
)
def test_a_wrong_part_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    work_dir = tmp_path / "run"
    with pytest.raises((ConfigError, CheckpointError), match=message):
        make_runner(work_dir, **changes).train()
    assert not work_dir.exists()


def test_a_scheduler_needs_an_optimizer(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("train_dataloader", "train_cfg", "optim_wrapper"))
    with pytest.raises(ConfigError, match="no optim_wrapper to schedule"):
        make_runner(tmp_path, **nothing, param_scheduler=[])


def test_each_loop_is_chosen_by_the_unit(tmp_path: Path) -> None:
    by_iter = make_runner(tmp_path, train_cfg={"by_epoch": False, "max_iters": 5})
    assert isinstance(by_iter.train_loop, IterBasedTrainLoop)
    assert isinstance(make_runner(tmp_path).train_loop, EpochBasedTrainLoop)


class Untouchable(ToyDataset):
    """A dataset that must not be made."""

    def __init__(self) -> None:
        raise AssertionError("training data was built for an evaluation")


def test_evaluating_builds_no_training_part(tmp_path: Path) -> None:
    make_runner(tmp_path).train()
    config = {**loader_config(), "dataset": {"_target_": Untouchable}}
    runner = make_runner(tmp_path, train_dataloader=config, custom_hooks=[Recorder()])
    assert runner.val() == runner.test()
    assert "train_loop" not in vars(runner)
    assert "optim_wrapper" not in vars(runner)
    assert (runner.epoch, runner.iter, runner.max_epochs, runner.max_iters) == (0, 0, 0, 0)


def test_a_runner_without_a_split_says_what_it_lacks(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("test_dataloader", "test_cfg", "test_evaluator"))
    with pytest.raises(ConfigError, match="cannot test: it got no test_dataloader, test_cfg"):
        make_runner(tmp_path, **nothing).test()


def test_the_users_error_keeps_its_traceback_and_ends_the_run_as_failed(tmp_path: Path) -> None:
    class Faulty(Hook):
        def after_train_iter(self, runner: Runner, *args: Any) -> None:
            if runner.iter == 4:
                raise LookupError("lost")

    runner = make_runner(tmp_path, custom_hooks=[Faulty()])
    with pytest.raises(LookupError, match="lost") as caught:
        runner.train()
    assert traceback.extract_tb(caught.tb)[-1].name == "after_train_iter"
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["error"]) == ("failed", "LookupError: lost")
    assert "LookupError: lost" in (tmp_path / "train.log").read_text()


def test_a_finished_run_says_so(runner: Runner) -> None:
    runner.train()
    status = json.loads((runner.work_dir / "status.json").read_text())
    assert status["status"] == "finished"
    assert (status["epoch"], status["iter"]) == (2, 6)
    assert status["metrics"].keys() == {"mse"}


def test_a_run_is_never_written_over(runner: Runner) -> None:
    runner.train()
    before = (runner.work_dir / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match="holds a run already, with epoch_1, epoch_2"):
        make_runner(runner.work_dir).train()
    assert (runner.work_dir / "metrics.jsonl").read_text() == before


def test_two_runners_share_nothing(tmp_path: Path) -> None:
    one, other = make_runner(tmp_path / "one"), make_runner(tmp_path / "other")
    one.train()
    assert other.message_hub.log_scalars == {}
    assert one.logger is not other.logger
    assert not other.work_dir.exists()


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "other"):
        shuffled = loader_config(sampler={"shuffle": True})
        model = ToyModel(dropout=0.5)
        runs.append(make_runner(tmp_path / name, model=model, train_dataloader=shuffled))
        runs[-1].train()
    assert_same(weights(runs[0]), weights(runs[1]))


def test_auto_scale_lr_counts_accumulation(tmp_path: Path) -> None:
    wrapper = {
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
        "accumulative_counts": 2,
    }
    scaling = {"enable": True, "base_batch_size": 16}
    runner = make_runner(tmp_path, optim_wrapper=wrapper, auto_scale_lr=scaling)
    assert runner.optim_wrapper.get_lr()["lr"] == [pytest.approx(0.1 * 4 * 2 / 16)]


def test_compiling_keeps_the_results_and_the_names(tmp_path: Path) -> None:
    plain = make_runner(tmp_path / "plain")
    compiled = make_runner(tmp_path / "compiled", compile={"backend": "eager"})
    plain.train()
    compiled.train()
    assert_same(weights(plain), weights(compiled))


def test_checkpointed_activations_give_the_same_weights(tmp_path: Path) -> None:
    plain = make_runner(tmp_path / "plain")
    sparing = make_runner(tmp_path / "sparing", activation_checkpointing=["linear"])
    plain.train()
    sparing.train()
    assert_same(weights(plain), weights(sparing))


def test_amp_trains_in_bfloat16(tmp_path: Path) -> None:
    wrapper = {
        "_target_": "trainkit.optim_wrapper.AmpOptimWrapper",
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
        "dtype": "bfloat16",
    }
    runner = make_runner(tmp_path, optim_wrapper=wrapper)
    runner.train()
    assert isinstance(runner.optim_wrapper, AmpOptimWrapper)
    assert runner.model.linear.weight.dtype is torch.float32


def test_a_default_hook_can_be_changed_or_removed(tmp_path: Path) -> None:
    changes = {"checkpoint": {"max_keep_ckpts": 1}, "timer": None}
    runner = make_runner(tmp_path, default_hooks=changes)
    hook = runner.hooks.hooks["checkpoint"]
    assert isinstance(hook, CheckpointHook)
    assert (hook.interval, hook.max_keep_ckpts) == (None, 1)
    assert "timer" not in runner.hooks.hooks
    runner.train()
    assert [path.name for path in runner.checkpoint_dir.glob("epoch_*")] == ["epoch_2"]


def test_a_hook_is_registered_after_those_of_its_priority(runner: Runner) -> None:
    runner.register_hook(Recorder(), "LOW", name="mine")
    # CheckpointHook, which saves the states of all others, comes after them.
    assert list(runner.hooks.hooks)[-3:] == ["param_scheduler", "mine", "checkpoint"]
    with pytest.raises(ConfigError, match="There is a hook 'mine' already"):
        runner.register_hook(Recorder(), name="mine")


def test_request_stop_ends_after_the_epoch_and_its_validation(tmp_path: Path) -> None:
    class Stopper(Hook):
        def before_train_iter(self, runner: Runner, *args: Any) -> None:
            if runner.iter == 0:
                runner.request_stop("enough")

    recorder = Recorder()
    runner = make_runner(tmp_path, custom_hooks=[Stopper(), recorder])
    runner.train()
    assert runner.epoch == 1
    assert recorder.names()[-4:] == ["after_val_epoch", "after_val", "after_train", "after_run"]


def test_schedulers_take_unit_and_end_from_the_loop(tmp_path: Path) -> None:
    linear = {"_target_": "trainkit.param_scheduler.LinearLR"}
    by_epoch = make_runner(tmp_path, param_scheduler=linear).param_schedulers[0]
    assert (by_epoch.by_epoch, by_epoch.end) == (True, 2)
    loop = {"by_epoch": False, "max_iters": 5}
    by_iter = make_runner(tmp_path, train_cfg=loop, param_scheduler=linear).param_schedulers[0]
    assert (by_iter.by_epoch, by_iter.end) == (False, 5)
    in_iters = {**linear, "by_epoch": False}
    mixed = make_runner(tmp_path, param_scheduler=in_iters).param_schedulers[0]
    assert (mixed.by_epoch, mixed.end) == (False, 6)


def test_epochs_are_converted_to_iterations(tmp_path: Path) -> None:
    steps = {
        "_target_": "trainkit.param_scheduler.MultiStepLR",
        "milestones": [1, 2],
        "begin": 1,
        "by_epoch": True,
        "convert_to_iter_based": True,
    }
    scheduler = make_runner(tmp_path, param_scheduler=[steps]).param_schedulers[0]
    assert isinstance(scheduler, MultiStepLR)
    assert (scheduler.by_epoch, scheduler.begin, scheduler.end) == (False, 3, 6)
    assert dict(scheduler.milestones) == {3: 1, 6: 1}


def test_an_epoch_scheduler_in_an_iteration_loop_is_refused(tmp_path: Path) -> None:
    scheduler = {"_target_": LinearLR, "by_epoch": True, "end": 2}
    loop = {"by_epoch": False, "max_iters": 5}
    runner = make_runner(tmp_path, train_cfg=loop, param_scheduler=scheduler)
    with pytest.raises(ConfigError, match="by_epoch is true, but the train loop"):
        runner.train()


def test_a_dict_of_schedulers_may_switch_one_off(tmp_path: Path) -> None:
    schedulers = {"warmup": {"_target_": LinearLR, "end": 1}, "main": None}
    assert len(make_runner(tmp_path, param_scheduler=schedulers).param_schedulers) == 1


def test_validation_data_is_not_padded_or_shuffled(tmp_path: Path) -> None:
    config = loader_config(sampler={"_target_": "trainkit.dataloader.DefaultSampler"})
    runner = make_runner(tmp_path, val_dataloader=config, test_dataloader=loader_config())
    assert runner.val_dataloader.sampler.round_up is False
    assert list(runner.test_dataloader.sampler) == list(range(12))
    assert list(runner.train_dataloader.sampler) != list(range(12))
