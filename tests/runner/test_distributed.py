"""A run on two ranks computes what one process computes, and counts nothing twice."""

from __future__ import annotations

import json
import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as torch_dist
from torch import nn
from torch.utils.data import DataLoader

from tests.ranks import on_ranks
from tests.toy import MeanSquaredError, ToyDataset, ToyModel, loader_config, make_runner
from trainkit import Hook, Runner
from trainkit.dist import all_gather_object
from trainkit.model import DistributedDataParallel, unwrap

pytestmark = pytest.mark.slow

SAMPLES, BATCH = 96, 32
TOLERANCE = 1e-6  # relative: sums of gradients are of other parts, and round differently


class OwnStep(ToyModel):
    """A train step of its own, which does what BaseModel's does."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        with optim_wrapper.optim_context(self):
            losses = self(**self.data_preprocessor(data, True), mode="loss")
        optim_wrapper.update_params(losses["loss"])
        return {"loss": losses["loss"].detach()}


class Around(OwnStep):
    """One that computes its loss without the model's forward, so that no rank hears of it."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        loss = (self.linear(data["x"]) - data["y"]).square().mean()
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}


class Spare(ToyModel):
    """One with parameters that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Drawn(ToyModel):
    """One whose weights each rank draws by itself."""

    def init_weights(self) -> None:
        nn.init.normal_(self.linear.weight)


class Normed(ToyModel):
    """One with running statistics, which are each rank's own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        return super().forward(self.norm(x), y, mode)


class Gradients(Hook):
    """Whether the ranks have the same gradients after each pass that ends no window."""

    def __init__(self) -> None:
        self.same: list[bool] = []

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        grad = unwrap(runner.model).get_parameter("linear.weight").grad
        if grad is not None:
            first, second = all_gather_object(grad.tolist())
            self.same.append(first == second)


class Samples(MeanSquaredError):
    """How many samples were seen."""

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"counted": sum(size for _, size in results)}


def runner_of(work_dir: Path, ranks: int = 2, accumulated: int = 1, **changes: Any) -> Runner:
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
    arguments: dict[str, Any] = {
        "train_dataloader": loader_config(
            dataset=ToyDataset(SAMPLES), batch_size=BATCH // ranks // accumulated
        ),
        "optim_wrapper": {"optimizer": sgd, "accumulative_counts": accumulated},
        "val_dataloader": loader_config(dataset=ToyDataset(7)),
        "val_evaluator": [MeanSquaredError(), Samples()],
        **changes,
    }
    return make_runner(work_dir, **arguments)


def weights(runner: Runner) -> list[float]:
    return [value for p in unwrap(runner.model).parameters() for value in p.flatten().tolist()]


def refusal(runner: Runner) -> str:
    try:
        runner.train()
    except RuntimeError as error:
        return str(error)
    return ""


def work(rank: int, directory: str) -> dict[str, Any]:
    """Train whatever the tests ask about, in one pair of processes."""
    home, found = Path(directory), {}
    plain = runner_of(home / "plain")
    plain.train()
    found["plain"] = weights(plain)
    found["wrapped"] = isinstance(plain.model, DistributedDataParallel)
    found["metrics"] = plain.val()
    found["loss"] = plain.message_hub.log_scalars["train/loss"].mean(10)
    calls: list[int] = []
    own = runner_of(home / "own", model=OwnStep())
    own.model.module.register_forward_hook(lambda *_: calls.append(1))
    own.train()
    found["own"] = weights(own)
    steps = 2 * SAMPLES // BATCH
    found["calls"] = [len(calls), steps + 2 * 1]  # each step, and one batch in two validations
    windows = Gradients()
    gathered = runner_of(home / "accumulated", accumulated=2, custom_hooks=[windows])
    gathered.train()
    found["accumulated"], found["same"] = weights(gathered), windows.same
    drawn = runner_of(home / "drawn", model=Drawn(), randomness={"seed": 1, "diff_rank_seed": True})
    drawn.train()
    found["drawn"] = weights(drawn)
    found |= resumed(rank, home)
    found |= refused(home)
    copies = DataLoader(ToyDataset(), batch_size=4)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("trainkit").addHandler(handler)
    runner_of(home / "copies", train_dataloader=copies).train()
    return {**found, "told": [line for line in lines if "deals nothing out" in line]}


def resumed(rank: int, home: Path) -> dict[str, Any]:
    whole = runner_of(home / "whole", model=Normed())
    whole.train()
    part = home / "part"
    if rank == 0:
        shutil.copytree(home / "whole" / "checkpoints" / "epoch_1", part / "checkpoints/epoch_1")
    torch_dist.barrier()
    again = runner_of(part, model=Normed(), resume=True)
    again.train()
    return {
        "whole": [weights(whole), buffers(whole)],
        "again": [weights(again), buffers(again)],
    }


def buffers(runner: Runner) -> list[Any]:
    return [buffer.tolist() for buffer in unwrap(runner.model).buffers()]


def refused(home: Path) -> dict[str, Any]:
    options = {"find_unused_parameters": True, "detect_anomalous_params": True}
    spare = runner_of(home / "searched", model=Spare(), model_wrapper_cfg=options)
    wrapped = runner_of(home / "wrapped", find_unused_parameters=True).model
    return {
        "spare": refusal(runner_of(home / "spare", model=Spare())),
        "searched": refusal(spare),
        "searching": [wrapped.find_unused_parameters, wrapped.forward_sync_buffers],
        "around": refusal(runner_of(home / "around", model=Around())),
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def ranks(home: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(partial(work, directory=str(home)), tmp_path_factory.mktemp("found"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    runner = runner_of(tmp_path_factory.mktemp("alone") / "run", ranks=1)
    runner.train()
    assert type(runner.model) is ToyModel
    return weights(runner)


def test_two_ranks_learn_what_one_process_with_the_whole_batch_learns(
    ranks: list[dict[str, Any]], alone: list[float]
) -> None:
    first, second = ranks
    assert first["wrapped"]
    assert first["plain"] == second["plain"]
    assert first["plain"] == pytest.approx(alone, rel=TOLERANCE)


def test_a_train_step_of_ones_own_is_run_and_its_gradients_are_averaged(
    ranks: list[dict[str, Any]],
) -> None:
    for found in ranks:
        assert found["own"] == found["plain"]


def test_forward_hooks_run_once_in_each_step(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["calls"][0] == found["calls"][1]


def test_accumulating_ranks_exchange_gradients_once_for_each_update(
    ranks: list[dict[str, Any]], alone: list[float]
) -> None:
    for found in ranks:
        assert found["same"] == [False] * (2 * SAMPLES // BATCH)
        assert found["accumulated"] == pytest.approx(alone, rel=TOLERANCE)
    assert ranks[0]["accumulated"] == ranks[1]["accumulated"]


def test_ranks_begin_with_rank_zeros_weights(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["drawn"] == ranks[1]["drawn"]


def test_a_run_of_two_ranks_goes_on_on_two_to_the_bit(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["again"] == found["whole"]
    own = [found["whole"][1] for found in ranks]
    assert own[0] != own[1]  # each rank has its own statistics


def test_a_run_of_two_ranks_goes_on_on_one(
    home: Path, ranks: list[dict[str, Any]], tmp_path: Path
) -> None:
    shutil.copytree(home / "plain/checkpoints/epoch_1", tmp_path / "run/checkpoints/epoch_1")
    runner = runner_of(tmp_path / "run", ranks=1, resume=True)
    runner.train()
    assert weights(runner) == pytest.approx(ranks[0]["plain"], rel=TOLERANCE)


def test_checkpoints_of_ranks_are_those_of_one_process(
    home: Path, ranks: list[dict[str, Any]]
) -> None:
    checkpoint = home / "plain" / "checkpoints" / "epoch_2"
    saved = torch.load(checkpoint / "model.pt", weights_only=True)
    assert list(saved) == ["linear.weight", "linear.bias"]
    assert (checkpoint / "rank_1.pt").exists()
    assert not (home / "plain" / "rank_0.log").exists()
    assert (home / "plain" / "rank_1.log").exists()


def test_the_logged_loss_is_the_mean_over_the_ranks(
    home: Path, ranks: list[dict[str, Any]]
) -> None:
    lines = (home / "plain" / "metrics.jsonl").read_text().splitlines()
    found = [line.get("train/loss", line.get("loss")) for line in map(json.loads, lines)]
    logged = [loss for loss in found if loss is not None]
    own = [of_rank["loss"] for of_rank in ranks]
    assert own[0] != own[1]
    assert logged[-1] == pytest.approx(sum(own) / 2)


def test_a_validation_of_ranks_counts_each_sample_once(ranks: list[dict[str, Any]]) -> None:
    assert [found["metrics"]["counted"] for found in ranks] == [7, 7]


def test_parameters_without_a_gradient_are_named_on_every_rank(
    ranks: list[dict[str, Any]],
) -> None:
    for found in ranks:
        assert "on rank 1 spare.weight, spare.bias" in found["spare"]
        assert "Set find_unused_parameters=true, or freeze them" in found["spare"]
        assert found["searched"] == ""
        assert found["searching"] == [True, False]


def test_parameters_without_a_gradient_are_logged_where_that_is_asked(
    home: Path, ranks: list[dict[str, Any]]
) -> None:
    for log in ("train.log", "rank_1.log"):
        text = (home / "searched" / log).read_text()
        assert text.count("No gradient in this step for: spare.weight, spare.bias.") == 1


def test_gradients_that_bypass_the_model_are_refused(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert "weights differ after step 1 (linear.weight" in found["around"]
        assert "by self(...), the model's forward" in found["around"]


def test_a_loader_that_deals_nothing_out_is_told_of_once(ranks: list[dict[str, Any]]) -> None:
    (line,) = ranks[0]["told"]
    assert "train_dataloader deals nothing out: each of the 2 ranks reads all" in line
    assert ranks[1]["told"] == []
