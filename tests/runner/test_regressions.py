"""Faults that were found by experiment, each held by the shortest run that showed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from tests.hooks.test_checkpoint import Scores
from tests.loops.test_train import Stream
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
from trainkit.evaluator import BaseMetric
from trainkit.hooks import EarlyStoppingHook, EMAHook
from trainkit.optim_wrapper import OptimWrapper
from trainkit.param_scheduler import MultiStepLR

FOUR_EPOCHS = {"by_epoch": True, "max_epochs": 4}


class Initialised(ToyModel):
    """A model that counts its initialisations."""

    initialised = 0

    def init_weights(self) -> None:
        self.initialised += 1
        torch.nn.init.zeros_(self.linear.weight)


class Once(Hook):
    """Raise in a test, once."""

    raised = False

    def before_test_iter(self, runner: Runner, *args: Any) -> None:
        if not self.raised:
            self.raised = True
            raise LookupError("once")


def test_validating_first_does_not_cancel_a_resume(runner: Runner) -> None:
    runner.train()
    again = make_runner(runner.work_dir, resume=True, train_cfg=FOUR_EPOCHS)
    again.val()
    again.train()
    assert "iteration 6" in (runner.work_dir / "train.log").read_text()
    assert again.iter == 12


def test_weights_that_were_loaded_are_not_initialised(tmp_path: Path) -> None:
    make_runner(tmp_path / "first", model=Initialised()).train()
    model = Initialised()
    runner = make_runner(tmp_path / "second", model=model)
    runner.load_checkpoint(tmp_path / "first")
    runner.train()
    assert model.initialised == 0
    fresh = Initialised()
    runner = make_runner(tmp_path / "third", model=fresh)
    runner.train()
    runner.train()
    assert fresh.initialised == 1


def test_a_runner_whose_training_failed_is_not_trained_on(tmp_path: Path) -> None:
    class Bomb(Hook):
        def after_train_iter(self, runner: Runner, *args: Any) -> None:
            raise LookupError

    runner = make_runner(tmp_path, custom_hooks=[Bomb()])
    with pytest.raises(LookupError):
        runner.train()
    with pytest.raises(ConfigError, match="training was broken off"):
        runner.train()


def test_a_raised_end_begins_with_a_whole_window(tmp_path: Path) -> None:
    def run(work_dir: Path, epochs: int, resume: bool = False) -> Runner:
        runner = make_runner(
            work_dir,
            train_dataloader=loader(),
            train_cfg={"by_epoch": True, "max_epochs": epochs},
            optim_wrapper={
                "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
                "accumulative_counts": 2,
            },
            resume=resume,
        )
        runner.train()
        return runner

    assert run(tmp_path, 1).optim_wrapper.update_count == 2  # windows of 2 and 1
    assert run(tmp_path, 2, resume=True).optim_wrapper.update_count == 2 + 2


def test_a_validation_loss_is_no_mean_over_validations(tmp_path: Path) -> None:
    class ValLoss(BaseMetric):
        values = iter((4.0, 2.0))

        def process(self, data_batch: Any, data_samples: Any) -> None:
            self.results.append(1)

        def compute_metrics(self, results: list[Any]) -> dict[str, float]:
            return {"val_loss": next(self.values)}

    make_runner(tmp_path, val_evaluator=ValLoss()).train()
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["val_loss"] for line in lines if "val_loss" in line] == [4.0, 2.0]


def test_weights_loaded_after_training_are_those_evaluated(tmp_path: Path) -> None:
    runner = make_runner(tmp_path / "run", custom_hooks=[EMAHook(momentum=0.3)])
    runner.train()
    path = runner.checkpoint_dir / "epoch_1"
    runner.load_checkpoint(path)
    assert runner.val() == make_runner(tmp_path / "other", load_from=path).val()


def test_an_error_in_an_evaluation_does_not_mix_up_the_average(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, custom_hooks=[EMAHook(momentum=0.3)])
    runner.train()
    expected = runner.test()
    runner.register_hook(Once())
    with pytest.raises(LookupError):
        runner.test()
    assert runner.test() == expected


def test_resuming_without_the_average_goes_on_from_the_trained_weights(tmp_path: Path) -> None:
    make_runner(tmp_path / "plain", train_dataloader=loader(), train_cfg=FOUR_EPOCHS).train()
    averaged = make_runner(
        tmp_path / "run", train_dataloader=loader(), custom_hooks=[EMAHook(momentum=0.3)]
    )
    averaged.train()
    resumed = make_runner(
        tmp_path / "run", train_dataloader=loader(), train_cfg=FOUR_EPOCHS, resume=True
    )
    resumed.train()
    plain = make_runner(tmp_path / "plain")
    plain.val()
    assert torch.equal(resumed.model.linear.weight, plain.model.linear.weight)


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    class Constant(MeanSquaredError):
        def compute_metrics(self, results: list[Any]) -> dict[str, float]:
            return {"mse": 1.0}

    epochs = []
    for resume in (False, True, True):
        runner = make_runner(
            tmp_path,
            train_cfg={"by_epoch": True, "max_epochs": 9},
            val_evaluator=Constant(),
            custom_hooks=[EarlyStoppingHook("mse", patience=2)],
            default_hooks={"checkpoint": {"interval": -1}},
            resume=resume,
        )
        runner.train()
        epochs.append(runner.epoch)
    assert epochs == [3, 3, 3]


def test_a_run_that_came_to_its_threshold_stays_stopped(tmp_path: Path) -> None:
    epochs = []
    for resume in (False, True):
        runner = make_runner(
            tmp_path,
            train_cfg=FOUR_EPOCHS,
            custom_hooks=[EarlyStoppingHook("mse", stopping_threshold=1e9)],
            resume=resume,
        )
        runner.train()
        epochs.append(runner.epoch)
    assert epochs == [1, 1]


def test_a_metric_of_an_earlier_validation_is_not_logged_again(tmp_path: Path) -> None:
    class Sometimes(MeanSquaredError):
        rounds = 0

        def compute_metrics(self, results: list[Any]) -> dict[str, float]:
            self.rounds += 1
            return {"mse": 1.0, **({"odd": 1.0} if self.rounds == 1 else {})}

    make_runner(tmp_path, val_evaluator=Sometimes()).train()
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["odd" in line for line in lines if "mse" in line] == [True, False]


@pytest.mark.parametrize("template", ["best_{}", ".{}", "a/{}", "{foo}", "same"])
def test_a_template_that_no_resume_would_find_is_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(ConfigError, match="filename_tmpl is"):
        make_runner(tmp_path, default_hooks={"checkpoint": {"filename_tmpl": template}})


def test_going_back_leaves_the_abandoned_checkpoints_aside(tmp_path: Path) -> None:
    make_runner(tmp_path, train_cfg=FOUR_EPOCHS).train()
    back = make_runner(tmp_path, load_from=tmp_path / "epoch_1.pth", resume=True)
    back.train()
    names = {path.name for path in back.checkpoint_dir.iterdir() if path.is_dir()}
    assert {name for name in names if name[0] != "."} == {"epoch_1", "epoch_2"}
    aside = [name.split("-")[1] for name in names if name.startswith(".superseded-")]
    assert sorted(aside) == ["epoch_2", "epoch_3", "epoch_4"]


def test_a_hook_that_validates_leaves_training_as_it_was(tmp_path: Path) -> None:
    class Validate(Hook):
        modes: list[bool] = []  # noqa: RUF012 - of this test alone

        def after_train_iter(self, runner: Runner, *args: Any) -> None:
            runner.val(load=False)
            self.modes.append(runner.model.training)

    make_runner(tmp_path, custom_hooks=[Validate()]).train()
    assert Validate.modes == [True] * 6
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert sum("Epoch(train)" in line for line in lines) == 2


def test_auto_scale_lr_reaches_a_schedule_that_is_an_object(tmp_path: Path) -> None:
    model = ToyModel()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    runner = make_runner(
        tmp_path,
        model=model,
        optim_wrapper=wrapper,
        param_scheduler=MultiStepLR(wrapper, [5]),
        auto_scale_lr={"enable": True, "base_batch_size": 2},
    )
    runner.train()
    assert wrapper.get_lr()["lr"] == [pytest.approx(0.2)]


@pytest.mark.parametrize("enable", [True, False])
def test_auto_scale_lr_is_refused_where_a_schedule_has_values_of_its_own(
    tmp_path: Path, enable: bool
) -> None:
    """MMEngine logs that it scales, and the cycle goes up to the same eta_max."""
    runner = make_runner(
        tmp_path,
        param_scheduler={"_target_": "trainkit.param_scheduler.OneCycleLR", "eta_max": 0.1},
        auto_scale_lr={"enable": enable, "base_batch_size": 2},
    )
    if not enable:
        assert len(runner.param_schedulers) == 1
        return
    with pytest.raises(ConfigError) as raised:
        runner.train()
    assert str(raised.value) == (
        "auto_scale_lr.enable is true, but OneCycleLR goes by its own values, so there is nothing "
        "to scale. Set it to false, and give the schedule values for this batch size."
    )


def test_a_preprocessor_goes_into_a_config_without_one(tmp_path: Path) -> None:
    given = torch.nn.Identity()
    for own in ({}, {"data_preprocessor": None}):
        node = {"_target_": "trainkit.model.ConvNet", **own}
        runner = make_runner(tmp_path, model=node, data_preprocessor=given)
        assert runner.model.data_preprocessor is given
    with pytest.raises(ConfigError, match="this one is an object"):
        make_runner(tmp_path, data_preprocessor=given)


def test_a_batch_sampler_learns_the_epoch(tmp_path: Path) -> None:
    class Batches(BatchSampler):
        epochs: list[int] = []  # noqa: RUF012 - of this test alone

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    batches = Batches(SequentialSampler(range(12)), 4, drop_last=False)
    make_runner(tmp_path, train_dataloader=DataLoader(ToyDataset(), batch_sampler=batches)).train()
    assert Batches.epochs == [0, 1]


def test_a_batch_sampler_from_a_config_gets_its_sampler(tmp_path: Path) -> None:
    config = loader_config(
        batch_size=5, batch_sampler={"_target_": "torch.utils.data.BatchSampler"}, drop_last=True
    )
    runner = make_runner(tmp_path, train_dataloader=config)
    assert [len(batch["x"]) for batch in runner.train_dataloader] == [5, 5]


def test_another_optimizer_is_refused_by_name(runner: Runner) -> None:
    runner.train()
    optimizer = {"_target_": "torch.optim.Adam", "lr": 0.1}
    again = make_runner(runner.work_dir, optim_wrapper={"optimizer": optimizer}, resume=True)
    with pytest.raises(CheckpointError, match="it is that of SGD, the config has Adam"):
        again.train()


def test_a_stream_is_loaded_from_a_config(tmp_path: Path) -> None:
    config = {**loader_config(), "dataset": Stream(8)}
    train_cfg = {"by_epoch": False, "max_iters": 5}
    runner = make_runner(tmp_path, train_dataloader=config, train_cfg=train_cfg)
    runner.train()
    assert runner.iter == 5
    with pytest.raises(ConfigError, match="has no length, so its epochs cannot be counted"):
        make_runner(tmp_path / "epochs", train_dataloader=config).train()


def test_an_endless_sampler_has_epochs(tmp_path: Path) -> None:
    config = loader_config(sampler={"_target_": "trainkit.dataloader.InfiniteSampler"})
    runner = make_runner(tmp_path, train_dataloader=config)
    runner.train()
    assert runner.iter == 6


@pytest.mark.parametrize("value", ["text", None, {"a": 1}, torch.ones(2)])
def test_what_cannot_be_logged_is_named(tmp_path: Path, value: Any) -> None:
    class Odd(ToyModel):
        def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Any]:
            return {**super().train_step(data, optim_wrapper), "odd": value}

    with pytest.raises(TypeError, match="train/odd is a "):
        make_runner(tmp_path, model=Odd()).train()


def test_data_of_the_user_arrives_as_it_was_given(tmp_path: Path) -> None:
    class Named(ToyDataset):
        def __init__(self, names: Any) -> None:
            super().__init__()
            self.names = names

    names = {0: "a", 1: ("x", "y")}
    config = {**loader_config(), "dataset": {"_target_": Named, "names": names}}
    runner = make_runner(tmp_path, train_dataloader=config)
    assert runner.train_dataloader.dataset.names == names


def test_an_error_in_collating_is_the_users(tmp_path: Path) -> None:
    collate = {"_target_": "trainkit.dataloader.default_collate"}
    ragged = [(torch.ones(2), [1]), (torch.ones(2), [1, 2])]
    config = {"batch_size": 2, "dataset": ragged, "collate_fn": collate}
    runner = make_runner(tmp_path, train_dataloader=config)
    with pytest.raises(ValueError, match="lengths") as caught:
        runner.train()
    assert not isinstance(caught.value, ConfigError)


def test_drawing_between_making_and_training_changes_nothing(tmp_path: Path) -> None:
    weights = []
    for name in ("quiet", "noisy"):
        runner = make_runner(tmp_path / name, model=ToyModel(dropout=0.5))
        if name == "noisy":
            make_runner(tmp_path / "another", model=ToyModel(), randomness={"seed": 99})
        runner.train()
        weights.append(runner.model.linear.weight)
    assert torch.equal(weights[0], weights[1])


def test_workers_read_what_one_process_reads(tmp_path: Path) -> None:
    weights = []
    for workers in (0, 2):
        config = loader_config(num_workers=workers)
        runner = make_runner(tmp_path / str(workers), train_dataloader=config)
        runner.train()
        weights.append(runner.model.linear.weight)
    assert torch.equal(weights[0], weights[1])


def test_the_same_command_again_goes_on_with_its_own_run(tmp_path: Path) -> None:
    make_runner(tmp_path / "first").train()
    changes = {"load_from": tmp_path / "first", "resume": True}
    make_runner(tmp_path / "second", train_cfg=FOUR_EPOCHS, **changes).train()
    again = make_runner(tmp_path / "second", train_cfg={**FOUR_EPOCHS, "max_epochs": 5}, **changes)
    again.load_or_resume()
    assert again.iter == 12


def test_the_best_checkpoint_is_a_place_to_go_on_from(tmp_path: Path) -> None:
    def run(name: str, scores: list[float], **changes: Any) -> Runner:
        runner = make_runner(
            tmp_path / name,
            model=ToyModel(dropout=0.5),
            train_cfg=FOUR_EPOCHS,
            val_evaluator=Scores(scores),
            default_hooks={"checkpoint": {"save_best": "accuracy"}},
            **changes,
        )
        runner.train()
        return runner

    whole = run("whole", [0.5, 0.9, 0.1, 0.1])
    best = whole.checkpoint_dir / "best_accuracy_epoch_2"
    resumed = run("resumed", [0.9, 0.1, 0.1], resume=best)
    assert torch.equal(resumed.model.linear.weight, whole.model.linear.weight)


def test_an_error_of_the_users_data_is_no_config_error(tmp_path: Path) -> None:
    class Faulty(ToyDataset):
        def __len__(self) -> int:
            raise ValueError("my own bug")

    with pytest.raises(ValueError, match="my own bug") as caught:
        make_runner(tmp_path, train_dataloader={**loader_config(), "dataset": Faulty()}).train()
    assert not isinstance(caught.value, ConfigError)


def test_a_test_after_training_reaches_the_backends(runner: Runner) -> None:
    runner.train()
    metrics = runner.test()
    lines = (runner.work_dir / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["test/mse"] == metrics["mse"]
    assert len(lines) == 2 * 2 + 1


def test_an_iteration_run_saves_with_its_validations(tmp_path: Path) -> None:
    train_cfg = {"by_epoch": False, "max_iters": 7, "val_interval": 3}
    runner = make_runner(tmp_path, train_cfg=train_cfg)
    runner.train()
    names = {path.name for path in runner.checkpoint_dir.glob("iter_*")}
    assert names == {"iter_3", "iter_6", "iter_7"}


def test_an_iteration_run_saves_with_its_validations_when_their_interval_changes(
    tmp_path: Path,
) -> None:
    """Before a milestone too, where the coming interval holds already."""
    train_cfg = {"by_epoch": False, "max_iters": 12, "val_interval": 4}
    train_cfg["dynamic_intervals"] = [[7, 3], [11, 1]]
    watch = Recorder()
    runner = make_runner(tmp_path, train_cfg=train_cfg, custom_hooks=[watch])
    runner.train()
    names = {path.name for path in runner.checkpoint_dir.glob("iter_*")}
    validated = {f"iter_{iteration}" for name, _, iteration in watch.calls if name == "before_val"}
    assert names == validated == {f"iter_{n}" for n in (4, 6, 9, 10, 11, 12)}


def test_determinism_is_taken_back(tmp_path: Path) -> None:
    for wanted in (True, False):
        make_runner(tmp_path, randomness={"seed": 1, "deterministic": wanted})
        assert torch.are_deterministic_algorithms_enabled() is wanted
