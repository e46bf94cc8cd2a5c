"""NanGuardHook: no update of a loss or gradient that is not finite, and a file that tells why."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.ranks import on_ranks
from tests.toy import ToyModel, make_runner
from trainkit import BaseModel, ConfigError, Hook, Runner, compose
from trainkit.checkpoint import read_checkpoint
from trainkit.errors import NonFiniteError, Preempted, TrainkitError
from trainkit.hooks import NanGuardHook
from trainkit.hooks.post_mortem import _Plain
from trainkit.hooks.replay import Buffers
from trainkit.optim_wrapper import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from trainkit.runner.check import find_mistakes

NAN, INF = float("nan"), float("inf")


class Poison(Hook):
    """Put a value into the batches of some iterations, counted from 1."""

    def __init__(self, *iterations: int, value: float = NAN) -> None:
        self.iterations, self.value = iterations, value

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 in self.iterations:
            data_batch["x"][0, 0] = self.value
            self.batch = data_batch


class BadGradient(Hook):
    """Make a gradient infinite in some iterations, while the loss is finite."""

    def __init__(self, *iterations: int) -> None:
        self.iterations = iterations

    def before_train(self, runner: Runner) -> None:
        def poison(gradient: torch.Tensor) -> torch.Tensor:
            return gradient * (INF if runner.iter + 1 in self.iterations else 1.0)

        runner.model.linear.bias.register_hook(poison)


class Refuse(Hook):
    """A guard that refuses the updates of given iterations, and does nothing else."""

    def __init__(self, *iterations: int) -> None:
        self.iterations = iterations

    def before_train(self, runner: Runner) -> None:
        self.runner = runner
        runner.optim_wrapper.guard = self

    def see_loss(self, loss: torch.Tensor) -> None:
        pass

    def allows_step(self, gradients_count: bool) -> bool:
        return self.runner.iter + 1 not in self.iterations


class Watch(Hook):
    """Keep the weights after each iteration."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self.weights.append(runner.model.linear.weight.detach().clone())


class NormedModel(ToyModel):
    """A batch norm and dropout before the linear layer."""

    def __init__(self) -> None:
        super().__init__(dropout=0.3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        return super().forward(self.norm(x), y, mode)


SCHEDULE = {"_target_": "trainkit.param_scheduler.LinearLR", "by_epoch": False, "end": 9}
NO_VALIDATION = dict.fromkeys(("val_dataloader", "val_cfg", "val_evaluator"))


def run_of(work_dir: Path, *hooks: Hook, **changes: Any) -> Runner:
    """A runner for nine iterations; random numbers, batch norm, momentum and a schedule matter."""
    torch.manual_seed(5)
    arguments: dict[str, Any] = {
        "model": NormedModel(),
        "train_cfg": {"by_epoch": True, "max_epochs": 3},
        "param_scheduler": SCHEDULE,
        "custom_hooks": list(hooks),
        "default_hooks": {"logger": {"interval": 1}},
        **NO_VALIDATION,
    }
    return make_runner(work_dir, **{**arguments, **changes})


def trained(work_dir: Path, *hooks: Hook, **changes: Any) -> Runner:
    runner = run_of(work_dir, *hooks, **changes)
    runner.train()
    return runner


def failed(work_dir: Path, *hooks: Hook, **changes: Any) -> str:
    with pytest.raises(NonFiniteError) as raised:
        trained(work_dir, *hooks, **changes)
    return str(raised.value)


def assert_same(one: Runner, other: Runner) -> None:
    for (name, mine), theirs in zip(
        one.model.state_dict().items(), other.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    momenta = [runner.optim_wrapper.optimizer.state_dict()["state"] for runner in (one, other)]
    for index, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][index]["momentum_buffer"])
    assert one.optim_wrapper.get_lr() == other.optim_wrapper.get_lr()


def post_mortem(work_dir: Path, iteration: int) -> dict[str, Any]:
    found = torch.load(work_dir / f"post_mortem_iter_{iteration}.pt", weights_only=True)
    assert isinstance(found, dict)
    return found


# ------------------------------------------------------------------------------------ raise


def test_a_bad_loss_ends_training_before_the_update(tmp_path: Path) -> None:
    watch = Watch()
    text = failed(tmp_path, Poison(5), NanGuardHook(), watch, model=ToyModel())
    assert "Iteration 5 (epoch 2): the loss is nan, so no update was made." in text
    assert "The batch itself has NaN or infinity in data_batch['x']" in text
    assert "a lower learning rate (it is 0.06" in text
    assert str(tmp_path / "post_mortem_iter_5.pt") in text
    assert len(watch.weights) == 4
    kept = read_checkpoint(tmp_path / "checkpoints" / "failed_iter_4")["state_dict"]
    assert torch.equal(kept["linear.weight"], watch.weights[-1])
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "failed"


def test_it_is_an_error_of_the_users_own() -> None:
    assert issubclass(NonFiniteError, TrainkitError)
    assert NonFiniteError.exit_code == 1


def test_a_bad_gradient_ends_training_although_the_loss_is_finite(tmp_path: Path) -> None:
    text = failed(tmp_path, BadGradient(2), NanGuardHook())
    assert "the gradient norm is inf (the loss is " in text
    assert "Made once more, the forward pass is finite in every module." in text
    assert "Not finite are the gradients of linear.bias." in text


def test_gradients_are_named_although_clipping_would_spread_a_nan(tmp_path: Path) -> None:
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1}
    clipped = {"optimizer": sgd, "clip_grad": {"max_norm": 1.0}}
    text = failed(tmp_path, BadGradient(2), NanGuardHook(), optim_wrapper=clipped)
    assert "Not finite are the gradients of linear.bias." in text


def test_weights_that_are_bad_already_are_named(tmp_path: Path) -> None:
    class Spoil(Hook):
        def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            runner.model.linear.weight.data[0, 0] = INF

    text = failed(tmp_path, Spoil(), NanGuardHook())
    assert text.startswith("Iteration 2 (epoch 1): the loss is inf")
    assert "Weights are not finite: linear.weight. " in text
    assert "output is not finite is linear (Linear), whose input is." in text


def test_without_the_hook_nothing_is_looked_at(tmp_path: Path) -> None:
    runner = trained(tmp_path, Poison(5))
    assert runner.optim_wrapper.guard is None
    assert not runner.model.linear.weight.isfinite().all()


# ------------------------------------------------------------------------------------- skip


@pytest.mark.parametrize("bad", [Poison(5), Poison(5, value=INF), BadGradient(5)])
def test_a_skipped_update_leaves_the_run_as_if_it_had_not_been_made(
    tmp_path: Path, bad: Hook
) -> None:
    """Batch norm's statistics too, and random numbers although the forward pass is repeated."""
    guarded = trained(tmp_path / "a", bad, NanGuardHook("skip"))
    kept: list[Buffers] = []

    class PutBack(Hook):
        """What a refusal in the reference does not do: buffers as before the iteration."""

        def before_train_iter(self, runner: Runner, *args: Any) -> None:
            kept[:] = [Buffers(runner.model)]

        def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            if runner.iter + 1 == 5:
                kept[0].put_back()

    reference = trained(tmp_path / "b", Refuse(5), PutBack())
    assert_same(guarded, reference)
    assert guarded.optim_wrapper.update_count == 8
    assert guarded.iter == 9
    assert guarded.optim_wrapper.guard is None


def test_a_skipped_update_is_told_and_counted(tmp_path: Path) -> None:
    trained(tmp_path, Poison(3, 5), NanGuardHook("skip"))
    log = (tmp_path / "train.log").read_text()
    assert "the loss is nan, so no update was made." in log
    assert "It is skipped (2 so far)." in log
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("skipped_updates") for line in lines] == [None, None, 1, 1, 2, 2, 2, 2, 2]


def test_too_many_in_a_row_end_training(tmp_path: Path) -> None:
    text = failed(tmp_path, Poison(2, 4, 5, 6), NanGuardHook("skip", patience=3))
    assert text.startswith("Iteration 6 (epoch 2): the loss is nan")
    assert "It is the last of 3 in a row." in text


def test_an_update_in_between_begins_the_row_anew(tmp_path: Path) -> None:
    assert trained(tmp_path, Poison(2, 3, 5, 6), NanGuardHook("skip", patience=3)).iter == 9


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    options: dict[str, Any] = {"default_hooks": {"checkpoint": {"by_epoch": False, "interval": 1}}}
    guard = NanGuardHook("skip")
    whole = trained(tmp_path / "a", Poison(3, 5, 8), guard, **options)
    part = run_of(tmp_path / "b", Poison(3, 5, 8), NanGuardHook("skip", patience=2), **options)
    part.train_loop.end_at(2)
    part.train()
    again = NanGuardHook("skip")
    resumed = trained(tmp_path / "b", Poison(3, 5, 8), again, resume=True, **options)
    assert_same(resumed, whole)
    assert again.state_dict() == guard.state_dict()
    assert again.refused == 3


# ----------------------------------------------------------------------------- accumulation


def accumulating(passes: int) -> dict[str, Any]:
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    return {"optimizer": sgd, "accumulative_counts": passes}


def test_one_bad_pass_refuses_the_update_of_its_window(tmp_path: Path) -> None:
    watch = Watch()
    runner = trained(
        tmp_path, Poison(4), NanGuardHook("skip"), watch, optim_wrapper=accumulating(3)
    )
    assert runner.optim_wrapper.update_count == 2
    assert torch.equal(watch.weights[5], watch.weights[2])
    assert not torch.equal(watch.weights[8], watch.weights[5])
    assert runner.model.norm.running_mean.isfinite().all()


def test_the_post_mortem_is_about_the_bad_pass(tmp_path: Path) -> None:
    text = failed(tmp_path, Poison(5), NanGuardHook(), optim_wrapper=accumulating(3))
    assert "Iteration 5 (epoch 2): the loss is nan, in pass 2 of 3 of its window" in text
    found = post_mortem(tmp_path, 5)
    assert found["is_the_bad_batch"]
    assert found["batch"]["x"][0, 0].isnan()
    assert [loss == loss for loss in found["losses"]] == [True, False, True]


def test_a_resume_inside_a_window_knows_of_its_bad_pass(tmp_path: Path) -> None:
    """The loss is infinite, but no gradient shows it."""

    class Steep(ToyModel):
        def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
            found = super().forward(x, y, mode)
            return {"loss": found["loss"] + torch.where(x[0, 0] > 9, INF, 0.0)}

    class Kill(Hook):
        def before_train_iter(self, runner: Runner, *args: Any) -> None:
            if runner.iter == 2:
                raise KeyboardInterrupt

    def options() -> dict[str, Any]:
        saved = {"checkpoint": {"by_epoch": False, "interval": 1}}
        wrapper = accumulating(3)
        return {"model": Steep(), "optim_wrapper": wrapper, "default_hooks": saved}

    bad, guards = Poison(2, value=10.0), [NanGuardHook("skip") for _ in range(3)]
    whole = trained(tmp_path / "a", bad, guards[0], **options())
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", bad, guards[1], Kill(), **options())
    assert guards[1].refused == 0
    resumed = trained(tmp_path / "b", bad, guards[2], resume=True, **options())
    assert guards[2].state_dict() == guards[0].state_dict()
    assert resumed.optim_wrapper.update_count == 2
    assert_same(resumed, whole)
    found = torch.load(next((tmp_path / "b").glob("post_mortem*")), weights_only=True)
    assert not found["is_the_bad_batch"]  # the earlier process had it
    assert "The batch of that pass is no longer held" in found["found"]


# ------------------------------------------------------------------- other optimizer wrappers


def amp(**options: Any) -> dict[str, Any]:
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1}
    return {"_target_": AmpOptimWrapper, "optimizer": sgd, **options}


def scale_of(runner: Runner) -> float:
    wrapper = runner.optim_wrapper
    assert isinstance(wrapper, AmpOptimWrapper)
    return wrapper.loss_scaler.get_scale()


def test_gradients_that_a_loss_scaler_skips_are_its_own_affair(tmp_path: Path) -> None:
    wrapper = amp(dtype="float16", loss_scale={"init_scale": 4.0})
    runner = trained(tmp_path, BadGradient(5), NanGuardHook(), optim_wrapper=wrapper)
    assert scale_of(runner) == 2.0


@pytest.mark.parametrize("clip", [None, {"max_norm": 1.0}])
def test_a_bad_loss_counts_under_a_loss_scaler_and_leaves_its_scale(
    tmp_path: Path, clip: Any
) -> None:
    wrapper = amp(dtype="float16", loss_scale={"init_scale": 4.0}, clip_grad=clip)
    guard = NanGuardHook("skip")
    runner = trained(tmp_path, Poison(5), guard, optim_wrapper=wrapper)
    assert guard.refused == 1
    assert scale_of(runner) == 4.0
    assert runner.optim_wrapper.update_count == 8
    assert post_mortem(tmp_path, 5)["grad_norm"] is None


def test_bfloat16_has_no_scaler_so_its_gradients_count(tmp_path: Path) -> None:
    text = failed(tmp_path, BadGradient(5), NanGuardHook(), optim_wrapper=amp(dtype="bfloat16"))
    assert "Iteration 5 (epoch 2): the gradient norm is inf" in text


class TwoParts(BaseModel):
    """Two layers, each with an optimizer; the second one's loss goes wrong with the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 1), nn.Linear(3, 1)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        losses = {}
        for name, layer in (("first", self.first), ("second", self.second)):
            x = data["x"].nan_to_num() if name == "first" else data["x"]
            with optim_wrapper[name].optim_context(layer):
                losses[f"{name}_loss"] = (layer(x) - data["y"]).square().mean()
            optim_wrapper[name].update_params(losses[f"{name}_loss"])
        return losses


def test_of_several_optimizers_the_one_that_is_wrong_is_stopped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TwoParts()
    wrappers = OptimWrapperDict(
        first=OptimWrapper(torch.optim.SGD(model.first.parameters(), lr=0.1)),
        second=OptimWrapper(torch.optim.SGD(model.second.parameters(), lr=0.1)),
    )
    options = {"model": model, "optim_wrapper": wrappers, "param_scheduler": None}
    runner = trained(tmp_path, Poison(5), NanGuardHook("skip"), **options)
    both: Any = runner.optim_wrapper
    assert (both["first"].update_count, both["second"].update_count) == (9, 8)
    found = post_mortem(tmp_path, 5)
    assert found["cause"] == "the loss is nan of the optimizer 'second'"
    assert [module["name"] for module in found["modules"]] == ["second"]


class OwnStep(ToyModel):
    """A train step that calls the parts of update_params by itself."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        loss = self(**data, mode="loss")["loss"]
        optim_wrapper.zero_grad()
        optim_wrapper.backward(loss)
        optim_wrapper.step()
        return {"loss": loss.detach()}


def test_a_train_step_of_ones_own_is_guarded(tmp_path: Path) -> None:
    watch = Watch()
    runner = trained(tmp_path, Poison(5), NanGuardHook("skip"), watch, model=OwnStep())
    assert runner.optim_wrapper.update_count == 8
    assert torch.equal(watch.weights[4], watch.weights[3])


class Unasked(OptimWrapper):
    """A wrapper with a step of its own."""

    def step(self, **kwargs: Any) -> None:
        self.optimizer.step(**kwargs)
        self.end_window()


def test_a_wrapper_that_does_not_ask_is_no_false_safety(tmp_path: Path) -> None:
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1}
    wrapper = {"_target_": Unasked, "optimizer": sgd}
    with pytest.raises(ConfigError, match=r"cannot guard Unasked, .* if not self\.may_step\(\)"):
        trained(tmp_path, NanGuardHook(), optim_wrapper=wrapper)


# --------------------------------------------------------------------------------- rollback


def test_a_rollback_is_a_run_without_updates_since_the_checkpoint(tmp_path: Path) -> None:
    guard = NanGuardHook("rollback")
    gone_back = trained(tmp_path / "a", Poison(5), guard, model=ToyModel(dropout=0.3))
    reference = trained(tmp_path / "b", Refuse(4, 5), model=ToyModel(dropout=0.3))
    assert_same(gone_back, reference)
    assert guard.rollbacks == 1
    assert (
        "Went back to the weights of epoch_1 (1 of at most 3 times)"
        in (tmp_path / "a" / "train.log").read_text()
    )
    lines = [json.loads(x) for x in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [line["iter"] for line in lines] == list(range(1, 10))


def test_statistics_and_averages_go_back_as_well(tmp_path: Path) -> None:
    recorded: dict[str, dict[str, torch.Tensor]] = {}

    class AfterIteration(Hook):
        priority = "ABOVE_NORMAL"  # after the guard, before the average is updated

        def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            if runner.iter + 1 == 5:
                average = runner.hooks.hooks["EMAHook"].ema_model  # type: ignore[attr-defined]
                recorded["model"] = {k: v.clone() for k, v in runner.model.state_dict().items()}
                recorded["average"] = {k: v.clone() for k, v in average.module.state_dict().items()}

    ema = {"_target_": "trainkit.hooks.EMAHook", "momentum": 0.1}
    hooks = [Poison(5), NanGuardHook("rollback"), ema, AfterIteration()]
    trained(tmp_path, custom_hooks=hooks)
    saved = read_checkpoint(tmp_path / "checkpoints" / "epoch_1")
    assert recorded["model"].keys() == recorded["average"].keys()
    for name, value in recorded["model"].items():
        assert torch.equal(value, saved["ema_state_dict"][f"module.{name}"]), name
        if "norm.running" not in name and "num_batches" not in name:
            assert torch.equal(recorded["average"][name], saved["state_dict"][name]), name


def test_a_resumed_run_has_gone_back_as_the_whole_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": ToyModel(dropout=0.3)}
    whole = trained(tmp_path / "a", Poison(5), NanGuardHook("rollback"), **options)
    for epochs in (2, 3):
        guard = NanGuardHook("rollback")
        options = {"model": ToyModel(dropout=0.3), "resume": True}
        options["train_cfg"] = {"by_epoch": True, "max_epochs": epochs}
        part = trained(tmp_path / "b", Poison(5), guard, **options)
    assert guard.rollbacks == 1
    assert_same(part, whole)


def test_a_rollback_does_not_go_back_to_where_the_run_was_asked_to_end(tmp_path: Path) -> None:
    class Ask(Hook):
        def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
            if runner.iter + 1 == 7:
                runner.request_preemption("a test")

    def options() -> dict[str, Any]:
        checkpoint = {"interval": 1, "max_keep_ckpts": 1}
        return {"model": ToyModel(dropout=0.3), "default_hooks": {"checkpoint": checkpoint}}

    whole = trained(tmp_path / "a", Poison(8), NanGuardHook("rollback"), **options())
    with pytest.raises(Preempted, match=r"saved as .*iter_7"):
        trained(tmp_path / "b", Ask(), NanGuardHook("rollback"), **options())
    guard = NanGuardHook("rollback")
    part = trained(tmp_path / "b", Poison(8), guard, resume=True, **options())
    assert guard.rollbacks == 1
    assert "Went back to the weights of epoch_2" in (tmp_path / "b" / "train.log").read_text()
    assert_same(part, whole)


def test_rollbacks_have_an_end(tmp_path: Path) -> None:
    text = failed(tmp_path, Poison(5, 6, 7), NanGuardHook("rollback", max_rollbacks=2))
    assert text.startswith("Iteration 7 (epoch 3): the loss is nan")
    assert "It went back 2 times before." in text


def test_with_nothing_to_go_back_to_training_ends(tmp_path: Path) -> None:
    text = failed(tmp_path, Poison(2), NanGuardHook("rollback"))
    assert (
        "policy is 'rollback', but there is nothing to go back to. There is no checkpoint" in text
    )


@pytest.mark.parametrize("options", [None, {"interval": -1}, {"save_optimizer": False}])
def test_a_run_that_saves_nothing_to_go_back_to_is_refused(tmp_path: Path, options: Any) -> None:
    hooks = {"checkpoint": options}
    with pytest.raises(ConfigError, match=r"policy is 'rollback'.* Give hooks\.checkpoint an"):
        trained(tmp_path, NanGuardHook("rollback"), default_hooks=hooks)
    changes = ["hooks.checkpoint=null"]
    if options is not None:
        changes = [f"++hooks.checkpoint.{key}={str(v).lower()}" for key, v in options.items()]
    cfg = compose(["hooks=nan_guard", "hooks.nan_guard.policy=rollback", *changes])
    assert [finding.key for finding in find_mistakes(cfg)] == ["hooks.nan_guard.policy"]


def test_the_default_checkpoints_are_enough_to_go_back_to() -> None:
    assert not find_mistakes(compose(["hooks=nan_guard", "hooks.nan_guard.policy=rollback"]))


# ------------------------------------------------------------------------------------ ranks


def on_rank(rank: int, directory: str) -> dict[str, list[Any]]:
    """Return what each policy came to when the sixth batch of rank 1 is bad."""
    found = {}
    policies: tuple[Any, ...] = ("raise", "skip", "rollback")
    for policy in policies:
        guard, watch = NanGuardHook(policy), Watch()
        bad = [Poison(6)] if rank == 1 else []
        work_dir = Path(directory) / f"{policy}_{rank}"
        epochs = {"by_epoch": True, "max_epochs": 4}  # of two batches for each rank
        runner = run_of(work_dir, *bad, guard, watch, model=ToyModel(), train_cfg=epochs)
        text = ""
        try:
            runner.train()
        except NonFiniteError as error:
            text = str(error)
        same = [torch.equal(weights, watch.weights[-3]) for weights in watch.weights]
        files = [path.name for path in work_dir.glob("post_mortem*")]
        counts = [guard.refused, guard.rollbacks, runner.optim_wrapper.update_count]
        found[policy] = [counts, same, text, files]
    return found


@pytest.mark.slow
def test_a_bad_loss_of_one_rank_counts_on_all(tmp_path: Path) -> None:
    first, second = on_ranks(partial(on_rank, directory=str(tmp_path)), tmp_path)
    for policy, (counts, _, text, files) in first.items():
        assert (counts, text) == (second[policy][0], second[policy][2])
        assert (files, second[policy][3]) == ([], ["post_mortem_iter_6.pt"])
    assert [first[policy][0] for policy in ("raise", "skip", "rollback")] == [
        *([1, 0, 5], [1, 0, 7], [1, 1, 7]),
    ]
    assert "Iteration 6 (epoch 3): the loss is nan on rank 1, so no update" in first["raise"][2]
    equal_after = {policy: [i + 1 for i, x in enumerate(first[policy][1]) if x] for policy in first}
    assert equal_after["skip"] == [5, 6]
    assert equal_after["rollback"] == [4, 6]


# ------------------------------------------------------------------------------ post-mortem


class Lottery(nn.Module):
    """Gives NaN where a random number says so."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * NAN if torch.rand(()) > 0.7 else x


class LotteryModel(ToyModel):
    def __init__(self) -> None:
        super().__init__()
        self.lottery = Lottery()

    @staticmethod
    def lost_with(batch: Any) -> bool:
        """Whether a forward pass on a batch is lost under the present random state."""
        state = torch.get_rng_state()
        model = LotteryModel()  # which seeds
        torch.set_rng_state(state)
        return bool(model(**batch, mode="loss")["loss"].isnan())

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        return super().forward(self.lottery(x), y, mode)


def test_the_forward_pass_is_repeated_under_the_same_random_numbers(tmp_path: Path) -> None:
    text = failed(tmp_path, NanGuardHook(), model=LotteryModel())
    assert (
        "The first module whose output is not finite is lottery (Lottery), whose input is." in text
    )
    iteration = int(text.split()[1])
    found = post_mortem(tmp_path, iteration)
    torch.set_rng_state(found["rng_before"]["cpu"])
    assert LotteryModel.lost_with(found["batch"])


def test_a_compiled_model_is_looked_into_as_well(tmp_path: Path) -> None:
    text = failed(tmp_path, Poison(5, value=INF), NanGuardHook(), compile={"backend": "eager"})
    assert [module["name"] for module in post_mortem(tmp_path, 5)["modules"]][:2] == [
        *("data_preprocessor", "norm"),
    ]
    assert "the loss is nan" in text


def test_the_file_tells_what_was_before(tmp_path: Path) -> None:
    bad = Poison(5)
    failed(tmp_path, bad, NanGuardHook())
    found = post_mortem(tmp_path, 5)
    facts = ("iter", "epoch", "batch_idx", "rank", "seed", "policy", "cause")
    assert [found[key] for key in facts] == [5, 2, 1, 0, 3, "raise", "the loss is nan"]
    assert torch.equal(found["batch"]["y"], bad.batch["y"])
    assert len(found["history"]["train/loss"]) == len(found["history"]["train/grad_norm"]) == 4
    assert found["lr"]["lr"][0] == pytest.approx(found["history"]["train/lr"][-1])
    assert found["gradients"] == ["linear.weight", "linear.bias", "norm.weight", "norm.bias"]


def test_the_first_files_of_a_run_stay(tmp_path: Path) -> None:
    trained(tmp_path, Poison(2, 4, 6), NanGuardHook("skip", post_mortems=2))
    names = sorted(path.name for path in tmp_path.glob("post_mortem*"))
    assert names == ["post_mortem_iter_2.pt", "post_mortem_iter_4.pt"]
    assert not list(tmp_path.glob(".post_mortem*"))


def test_a_forward_pass_that_cannot_be_repeated_is_told_of(tmp_path: Path) -> None:
    class Log(ToyModel):
        fails = False

        def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
            if self.fails:
                raise RuntimeError("not twice")
            self.fails = x[0, 0].item() > 99
            return {"loss": super().forward(x, y, "tensor").sum().sub(1e9).log()}

    text = failed(tmp_path, Poison(1, value=100.0), NanGuardHook(), model=Log())
    assert "The forward pass could not be made once more: RuntimeError: not twice." in text


def test_a_full_disk_costs_no_more_than_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainkit.hooks.post_mortem.torch.save", full)
    assert trained(tmp_path, Poison(5), NanGuardHook("skip"), default_hooks={"checkpoint": None})
    assert "No post-mortem could be written: [Errno 28]" in (tmp_path / "train.log").read_text()


@dataclasses.dataclass
class Sample:
    image: Any
    name: str


class Thing:
    __slots__ = ()


def test_batches_of_any_kind_are_kept_as_plain_data(tmp_path: Path) -> None:
    plain = _Plain(room=200)
    batch = {
        "sample": Sample(np.arange(6, dtype=np.uint8).reshape(2, 3), "a.png"),
        "view": torch.arange(1000)[:2],
        "large": torch.zeros(100),
        "pair": (1, None, np.float64(0.5)),
        "thing": Thing(),
        7: "seven",
    }
    kept = plain.of(batch, "data_batch", 0)
    torch.save(kept, tmp_path / "kept.pt")
    assert (tmp_path / "kept.pt").stat().st_size < 4000
    back = torch.load(tmp_path / "kept.pt", weights_only=True)
    assert back["sample"]["image"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert back["sample"]["name"] == "a.png"
    assert back["view"].tolist() == [0, 1]
    assert back["pair"][:2] == [1, None]
    assert back[7] == "seven"
    assert plain.left_out == [
        "data_batch['large']: no room for float32 (100,), 0.0 MiB",
        "data_batch['thing']: tests.hooks.test_nan_guard.Thing",
    ]


# ---------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "skipp"},
        *({"patience": 0}, {"max_rollbacks": 0}, {"post_mortems": -1}, {"patience": 1.5}),
        *({"post_mortem_mib": -1.0}, {"post_mortem_mib": INF}),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"hooks\.nan_guard\.{next(iter(options))} is "):
        NanGuardHook(**options)


def test_a_wrong_policy_is_told_before_anything_is_built() -> None:
    cfg = compose(["hooks=nan_guard", "hooks.nan_guard.policy=skipp"])
    (finding,) = find_mistakes(cfg)
    assert "hooks.nan_guard.policy is 'skipp'" in finding.text
    assert "'raise', 'skip' or 'rollback'" in finding.text
