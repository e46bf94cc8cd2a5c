"""Every schedule beside MMEngine's: alone, in disjoint windows, in a run; and where they differ."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.parity.test_hook_order import Their, TheirSize, their_loader
from tests.toy import MeanSquaredError, ToyDataset, ToyModel, loader_config, make_runner
from trainkit import Hook, Runner
from trainkit import param_scheduler as ours
from trainkit.hooks import ParamSchedulerHook
from trainkit.optim_wrapper import OptimWrapper
from trainkit.runner.optim import build_param_schedulers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.hooks
    import mmengine.optim  # which registers the schedules
    import mmengine.runner
    from mmengine.registry import PARAM_SCHEDULERS

pytestmark = pytest.mark.filterwarnings("ignore")
several = settings(max_examples=40, deadline=None, derandomize=True)

SHARES = st.floats(0.01, 1.0)
LENGTHS = st.integers(1, 24)
MINIMA = st.one_of(
    st.fixed_dictionaries({"eta_min": st.floats(0.0, 1.0)}),
    st.fixed_dictionaries({"eta_min_ratio": st.floats(0.0, 1.0)}),
)
PERIODS = st.lists(st.tuples(st.integers(1, 9), SHARES), min_size=1, max_size=4)


def schedules(length: int, least_T_max: int = 1) -> dict[str, st.SearchStrategy[dict[str, Any]]]:
    """Return what each schedule may be given in a window of ``length`` steps."""
    restarts = st.builds(
        lambda periods, minimum: {
            "periods": [period for period, _ in periods],
            "restart_weights": [weight for _, weight in periods],
            **minimum,
        },
        PERIODS,
        MINIMA,
    )
    return {
        "Constant": st.fixed_dictionaries({}, optional={"factor": SHARES}),
        "Linear": st.fixed_dictionaries(
            {}, optional={"start_factor": SHARES, "end_factor": st.just(0.0) | SHARES}
        ),
        "Exponential": st.fixed_dictionaries({"gamma": st.floats(0.3, 1.2)}),
        "Step": st.fixed_dictionaries(
            {"step_size": st.integers(1, 12)}, optional={"gamma": st.floats(0.05, 1.5)}
        ),
        "MultiStep": st.fixed_dictionaries(
            {"milestones": st.lists(st.integers(0, 30), max_size=5)},
            optional={"gamma": st.floats(0.05, 1.5)},
        ),
        "Poly": st.fixed_dictionaries(
            {}, optional={"power": st.floats(0.0, 3.0), "eta_min": st.floats(0.0, 1.0)}
        ),
        "CosineAnnealing": st.builds(
            lambda T_max, minimum: {"T_max": T_max, **minimum},
            st.none() | st.integers(least_T_max, 40),
            st.just({}) | MINIMA,
        ),
        "CosineRestart": restarts,
        "OneCycle": st.fixed_dictionaries(
            {"eta_max": SHARES},
            optional={
                "total_steps": st.integers(length, length + 9),
                "pct_start": st.floats(0.0, 1.0),
                "anneal_strategy": st.sampled_from(["cos", "linear"]),
                "div_factor": st.floats(1.0, 100.0),
                "final_div_factor": st.floats(1.0, 1e4),
                "three_phase": st.booleans(),
            },
        ).filter(
            # MMEngine divides by the step of the peak; see the test below.
            lambda given: given.get("pct_start", 0.3) * given.get("total_steps", length) != 1.0
        ),
    }


NAMES = list(schedules(1))
CHAINABLE = [name for name in NAMES if name != "OneCycle"]


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(()))


def sgd(lr: float = 0.4, momentum: float = 0.9) -> torch.optim.Optimizer:
    """Two groups, of which the second has a tenth."""
    groups = [
        {"params": [parameter()]},
        {"params": [parameter()], "lr": lr / 10, "momentum": momentum / 10, "weight_decay": 0.01},
    ]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=0.1)


def adamw() -> torch.optim.Optimizer:
    return torch.optim.AdamW([parameter()], lr=0.4, betas=(0.9, 0.99))


def held(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return all that a schedule may move, of each group."""
    return [
        value
        for group in optimizer.param_groups
        for value in (
            group["lr"],
            group["weight_decay"],
            group.get("momentum", 0.0) if "betas" not in group else group["betas"][0],
            group.get("betas", (0.0, 0.0))[1],
        )
    ]


def stepped(optimizer: torch.optim.Optimizer, schedulers: list[Any], steps: int) -> list[float]:
    optimizer.step()  # MMEngine warns if there was none
    found = held(optimizer)
    for _ in range(steps):
        for scheduler in schedulers:
            scheduler.step()
        found += held(optimizer)
    return found


def assert_close(found: list[float], expected: list[float]) -> None:
    # The recursion leaves 1e-17 where the closed form has 0.
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


@several
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), begin=st.integers(0, 6), length=LENGTHS, lr=SHARES)
def test_alone_each_learning_rate_is_mmengines(
    name: str, data: st.DataObject, begin: int, length: int, lr: float
) -> None:
    arguments = data.draw(schedules(length)[name])
    window = {"begin": begin, "end": begin + length}
    mine, theirs = sgd(lr), sgd(lr)
    scheduler = getattr(ours, f"{name}LR")(mine, **arguments, **window)
    expected = PARAM_SCHEDULERS.get(f"{name}LR")(theirs, **arguments, **window)
    steps = begin + length + 3
    assert_close(stepped(mine, [scheduler], steps), stepped(theirs, [expected], steps))


@several
@pytest.mark.parametrize("name", CHAINABLE)
@pytest.mark.parametrize("make", [sgd, adamw])
@given(data=st.data(), begin=st.integers(0, 4), length=LENGTHS)
def test_momentum_by_name_is_mmengines_momentum_class(
    name: str, make: Any, data: st.DataObject, begin: int, length: int
) -> None:
    arguments = data.draw(schedules(length)[name])
    window = {"begin": begin, "end": begin + length}
    mine, theirs = make(), make()
    scheduler = getattr(ours, f"{name}LR")(mine, param_name="momentum", **arguments, **window)
    expected = PARAM_SCHEDULERS.get(f"{name}Momentum")(theirs, **arguments, **window)
    steps = begin + length + 2
    assert_close(stepped(mine, [scheduler], steps), stepped(theirs, [expected], steps))


@several
@pytest.mark.parametrize("name", CHAINABLE)
@given(data=st.data(), length=LENGTHS)
def test_any_group_key_by_name_is_mmengines_param_scheduler(
    name: str, data: st.DataObject, length: int
) -> None:
    arguments = {**data.draw(schedules(length)[name]), "end": length, "param_name": "weight_decay"}
    mine, theirs = sgd(), sgd()
    scheduler = getattr(ours, f"{name}LR")(mine, **arguments)
    expected = PARAM_SCHEDULERS.get(f"{name}ParamScheduler")(theirs, **arguments)
    assert_close(stepped(mine, [scheduler], length + 2), stepped(theirs, [expected], length + 2))


def test_a_peak_for_each_group_is_mmengines() -> None:
    mine, theirs = sgd(), sgd()
    scheduler = ours.OneCycleLR(mine, eta_max=[0.5, 0.2], end=20)
    expected = mmengine.optim.OneCycleLR(theirs, eta_max=[0.5, 0.2], end=20)
    assert_close(stepped(mine, [scheduler], 20), stepped(theirs, [expected], 20))


# ------------------------------------------------------------ several, and units


@dataclass
class Run:
    """How long a run is, and a train loop's part in building schedules."""

    epochs: int
    epoch_length: int
    by_epoch: bool = True
    dataloader: list[None] = field(init=False)

    def __post_init__(self) -> None:
        self.dataloader = [None] * self.epoch_length

    @property
    def max_epochs(self) -> int:
        return self.epochs if self.by_epoch else 1

    @property
    def max_iters(self) -> int:
        return self.epochs * self.epoch_length


def own_node(type: str, **arguments: Any) -> dict[str, Any]:
    """Return the config of MMEngine's ``XLR`` or ``XMomentum`` as it is here."""
    name, momentum, _ = type.partition("Momentum")
    moved = {"param_name": "momentum"} if momentum else {}
    name = name if name.endswith("LR") else f"{name}LR"
    return {"_target_": f"trainkit.param_scheduler.{name}", **moved, **arguments}


def built_and_run(run: Run, nodes: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Return what both have in each iteration: built from configs, stepped by their own hooks."""
    mine, theirs = sgd(), sgd()
    configs = [own_node(**node) for node in nodes]
    own = SimpleNamespace(
        param_schedulers=build_param_schedulers(configs, "param_scheduler", OptimWrapper(mine), run)
    )
    stand_in = SimpleNamespace(
        _train_loop=object.__new__(mmengine.runner.EpochBasedTrainLoop),  # there is one
        max_epochs=run.max_epochs,
        max_iters=run.max_iters,
        train_dataloader=run.dataloader,
        logger=logging.getLogger("theirs"),
    )
    other = SimpleNamespace(
        param_schedulers=mmengine.runner.Runner._build_param_scheduler(stand_in, nodes, theirs)
    )
    theirs.step()
    hooks = [(ParamSchedulerHook(), own), (mmengine.hooks.ParamSchedulerHook(), other)]
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(run.epochs):
        for idx in range(run.epoch_length):
            for (hook, runner), optimizer, values in zip(hooks, (mine, theirs), found, strict=True):
                values += held(optimizer)
                hook.after_train_iter(runner, idx)
        for hook, runner in hooks if run.by_epoch else []:
            hook.after_train_epoch(runner)
    return found


@st.composite
def disjoint(draw: st.DrawFn) -> tuple[Run, list[dict[str, Any]]]:
    """Return a run, and schedules with windows that do not meet, in any order and unit."""
    epoch_length = draw(st.integers(1, 5))
    nodes, now = [], 0  # in iterations
    for _ in range(draw(st.integers(2, 4))):
        now += draw(st.integers(0, 3))
        unit = draw(st.sampled_from(["epoch", "iteration", "converted"]))
        per_step = 1 if unit == "iteration" else epoch_length
        begin = -(-now // per_step)
        length = draw(st.integers(1, 8))
        # Beyond T_max, MMEngine's cosine turns to the optimizer's own value: see the test below.
        inside = schedules(length if unit == "epoch" else length * per_step, least_T_max=length)
        has_cycle = any(node["type"] == "OneCycleLR" for node in nodes)
        name = draw(st.sampled_from(CHAINABLE if has_cycle else NAMES))
        arguments = draw(inside[name])
        if name == "OneCycle" and unit == "converted":
            arguments.pop("total_steps", None)
            assume(arguments.get("pct_start", 0.3) * length * per_step != 1.0)
        moved = "LR" if name == "OneCycle" else draw(st.sampled_from(["LR", "Momentum"]))
        node = {"type": f"{name}{moved}", "begin": begin, "end": begin + length, **arguments}
        by_epoch = {"by_epoch": unit != "iteration"}
        converts = {"convert_to_iter_based": True} if unit == "converted" else {}
        nodes.append({**node, **by_epoch, **converts})
        now = (begin + length) * per_step
    nodes = draw(st.permutations(nodes))
    # MMEngine's OneCycleLR changes the base of those that are made after it: see the test below.
    nodes = sorted(nodes, key=lambda node: node["type"] == "OneCycleLR")
    return Run(-(-now // epoch_length) + 1, epoch_length), nodes


@settings(max_examples=150, deadline=None, derandomize=True)
@given(disjoint())
def test_in_disjoint_windows_of_any_units_and_order_the_values_are_mmengines(
    drawn: tuple[Run, list[dict[str, Any]]],
) -> None:
    assert_close(*built_and_run(*drawn))


@several
@given(
    run=st.builds(Run, st.integers(2, 6), st.integers(1, 5), st.booleans()),
    start_factor=SHARES,
    warm_up=st.integers(1, 12),
    milestones=st.lists(st.integers(0, 12), max_size=3),
    unit=st.sampled_from(["epoch", "iteration", "converted"]),
)
def test_factors_multiply_as_in_mmengine_where_their_windows_overlap(
    run: Run, start_factor: float, warm_up: int, milestones: list[int], unit: str
) -> None:
    assume(run.by_epoch or unit == "iteration")
    by_epoch = {"by_epoch": unit != "iteration"}
    converts = {"convert_to_iter_based": True} if unit == "converted" else {}
    nodes = [
        {"type": "LinearLR", "start_factor": start_factor, "end": warm_up, "by_epoch": False},
        {"type": "MultiStepLR", "milestones": milestones, **by_epoch, **converts},
    ]
    assert_close(*built_and_run(run, nodes))


@several
@given(
    data=st.data(),
    name=st.sampled_from(NAMES),
    epochs=st.integers(2, 6),
    epoch_length=st.integers(2, 5),
    unit=st.sampled_from(["epoch", "iteration", "converted"]),
)
def test_an_end_that_is_left_open_is_the_loops_as_in_mmengine(
    data: st.DataObject, name: str, epochs: int, epoch_length: int, unit: str
) -> None:
    length = epochs if unit == "epoch" else epochs * epoch_length
    arguments = data.draw(schedules(length)[name])
    if unit == "converted":
        arguments.pop("total_steps", None)
        assume(name != "OneCycle" or arguments.get("pct_start", 0.3) * length != 1.0)
    node = {"type": f"{name}LR", "by_epoch": unit != "iteration", **arguments}
    converts = {"convert_to_iter_based": True} if unit == "converted" else {}
    assert_close(*built_and_run(Run(epochs, epoch_length), [{**node, **converts}]))


# ---------------------------------------------------------------------- plateau

METRICS = st.lists(st.floats(0.001, 5.0) | st.sampled_from([0.5, 0.5001, 1.0]), max_size=30)


@st.composite
def plateau(draw: st.DrawFn) -> dict[str, Any]:
    begin = draw(st.integers(0, 4))
    optional = {
        "factor": st.floats(0.0, 0.99),
        "patience": st.integers(0, 4),
        "threshold": st.floats(0.0, 0.3),
        "threshold_rule": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 4),
        "min_value": st.floats(0.0, 0.5) | st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
        "eps": st.floats(0.0, 0.2),
        "end": st.integers(begin + 1, 40),
    }
    rule = {"rule": draw(st.sampled_from(["less", "greater"]))}
    return {**rule, **draw(st.fixed_dictionaries({"begin": st.just(begin)}, optional=optional))}


def validated(make: Any, build: Any, metrics: list[float], **given: Any) -> list[float]:
    """Return the values after each epoch that is followed by a validation."""
    optimizer = make()
    scheduler = build(optimizer, **given)
    found = held(optimizer)
    for metric in metrics:
        scheduler.step()
        scheduler.step({"loss": metric})
        found += held(optimizer)
    return found


@several
@given(METRICS, plateau())
def test_a_plateau_reduces_as_in_mmengine(metrics: list[float], given: dict[str, Any]) -> None:
    assert_close(
        validated(sgd, ours.ReduceOnPlateauLR, metrics, **given),
        validated(sgd, PARAM_SCHEDULERS.get("ReduceOnPlateauLR"), metrics, **given),
    )


@several
@pytest.mark.parametrize("make", [sgd, adamw])
@given(METRICS, plateau())
def test_a_plateau_of_momentum_is_mmengines(
    make: Any, metrics: list[float], given: dict[str, Any]
) -> None:
    assume(make is sgd or not isinstance(given.get("min_value"), tuple))
    assert_close(
        validated(make, ours.ReduceOnPlateauLR, metrics, param_name="momentum", **given),
        validated(make, PARAM_SCHEDULERS.get("ReduceOnPlateauMomentum"), metrics, **given),
    )


# ----------------------------------------------------------------------- in a run


class Seen(Hook):
    """Keep what the optimizer has in each iteration."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.values += held(runner.optim_wrapper.optimizer)


class TheirSeen(mmengine.hooks.Hook):  # type: ignore[misc]
    """The same, for MMEngine."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.values += held(runner.optim_wrapper.optimizer)


class Falling(MeanSquaredError):
    """As ``TheirSize``: a metric that falls with each validation."""

    rounds = 0

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        self.rounds += 1
        return {"mse": 1.0 / self.rounds}


WARM_UP = {"type": "LinearLR", "start_factor": 0.1, "end": 4, "by_epoch": False}
COSINE = {"type": "CosineAnnealingLR", "by_epoch": False, "begin": 4, "eta_min": 0.01}
POLY = {"type": "PolyLR", "by_epoch": False}
CONSTANT = {"type": "ConstantLR", "by_epoch": False, "end": 5}
PLATEAU = {"type": "ReduceOnPlateauLR", "monitor": "mse", "rule": "greater", "patience": 1}


@pytest.mark.parametrize(
    ("train_cfg", "nodes"),
    [
        ({"by_epoch": True, "max_epochs": 5}, [WARM_UP, COSINE]),
        ({"by_epoch": True, "max_epochs": 5}, [{"type": "StepLR", "step_size": 2}, WARM_UP]),
        ({"by_epoch": True, "max_epochs": 5}, [{**POLY, "param_name": "lr"}]),
        ({"by_epoch": True, "max_epochs": 7}, [PLATEAU]),
        ({"by_epoch": True, "max_epochs": 7}, [WARM_UP, {**PLATEAU, "cooldown": 1, "begin": 2}]),
        ({"by_epoch": False, "max_iters": 8, "val_interval": 2}, [CONSTANT, POLY]),
        ({"by_epoch": False, "max_iters": 9, "val_interval": 1}, [PLATEAU]),
    ],
)
def test_a_whole_run_has_the_values_of_mmengine(
    tmp_path: Path, train_cfg: dict[str, Any], nodes: list[dict[str, Any]]
) -> None:
    own = [
        {"_target_": f"trainkit.param_scheduler.{node['type']}", **node, "type": ""}
        for node in nodes
    ]
    theirs_nodes = [{k: v for k, v in node.items() if k != "param_name"} for node in nodes]
    for node in own:
        del node["type"]
    model, their_model = ToyModel(), Their()
    # MMEngine sleeps whenever an iteration run begins its data again: 10 batches last.
    data = ToyDataset(12 if train_cfg["by_epoch"] else 40)
    seen, their_seen = Seen(), TheirSeen()

    def optimizer(model: torch.nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    make_runner(
        tmp_path / "ours",
        model=model,
        train_dataloader=loader_config(dataset=data),
        train_cfg=train_cfg,
        optim_wrapper={"optimizer": optimizer(model)},
        val_evaluator=[Falling()],
        param_scheduler=own,
        custom_hooks=[seen],
        default_hooks={"checkpoint": None, "logger": None},
    ).train()
    mmengine.runner.Runner(
        model=their_model,
        work_dir=str(tmp_path / "theirs"),
        train_dataloader=DataLoader(data, batch_size=4),
        train_cfg=train_cfg,
        optim_wrapper={"optimizer": optimizer(their_model)},
        param_scheduler=theirs_nodes,
        val_dataloader=their_loader(),
        val_cfg={},
        val_evaluator=[TheirSize()],
        custom_hooks=[their_seen],
        default_hooks={"checkpoint": None, "logger": None},
        experiment_name=f"schedules_{tmp_path.name}",
        log_level="ERROR",
    ).train()
    assert len(set(seen.values)) > 3
    assert_close(seen.values, their_seen.values)
