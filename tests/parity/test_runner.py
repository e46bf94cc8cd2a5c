"""The runner builds, refuses, loads and reports as MMEngine's does."""

from __future__ import annotations

import inspect
import random
import re
import resource
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trainkit.hook
from tests.parity.test_hook_order import Their, TheirSize, their_loader, theirs
from tests.toy import ToyModel, loader, make_runner
from trainkit import ConfigError, Hook, Runner
from trainkit.checkpoint import read_checkpoint
from trainkit.env import setup_env
from trainkit.hook import POINTS
from trainkit.run_dir import timestamp
from trainkit.runner.from_config import SAME_NAME, arguments
from trainkit.seed import set_random_seed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.hooks
    import mmengine.runner
    from mmengine.dist import is_distributed
    from mmengine.runner import set_random_seed as their_seed
    from mmengine.utils.dl_utils import set_multi_processing

pytestmark = pytest.mark.filterwarnings("ignore")


def their_runner(work_dir: Path, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "model": Their(),
        "work_dir": str(work_dir),
        "experiment_name": f"runner_{work_dir}".replace("/", "_"),
        "log_level": "ERROR",
    }
    return mmengine.runner.Runner(**{**arguments, **changes})


def signature(kind: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind).parameters)


def test_the_runner_has_mmengines_arguments_with_their_defaults() -> None:
    """Left out is default_scope, as there are no registries; what MMEngine hides in ``cfg`` and
    what is new here comes after its own, in whose order the others stand."""
    ours, their = signature(Runner), signature(mmengine.runner.Runner)
    assert [name for name in ours if name in their] == [n for n in their if n in ours]
    assert their.keys() - ours.keys() == {"default_scope"}
    hidden = ["compile", "sync_bn", "find_unused_parameters", "model_wrapper_cfg"]
    hidden += ["activation_checkpointing", "load_cfg", "resume_with", "paths"]
    assert [name for name in ours if name not in their] == hidden
    other = {name for name in ours if name in their and ours[name].default != their[name].default}
    assert other == {"env_cfg", "randomness"}, "None here, for what MMEngine writes out"


def test_a_config_gives_each_argument_its_default(tmp_path: Path) -> None:
    """What a config does not say is as if the argument had not been given."""
    defaults = {name: parameter.default for name, parameter in signature(Runner).items()}
    found = arguments({"model": ToyModel(), "work_dir": str(tmp_path), "experiment_name": "x"})
    same_as_none: dict[str, Any] = {"randomness": {}, "default_hooks": {}}
    for name in found.keys() - {"model", "work_dir", "cfg", "paths", "experiment_name"}:
        assert found[name] in (defaults[name], same_as_none.get(name)), name
    from_cfg = Runner.from_cfg({"model": ToyModel(), "work_dir": str(tmp_path)})
    made = Runner(ToyModel(), tmp_path)
    for name in ("experiment_name", "load_from", "resume_wanted", "load_options", "device"):
        assert getattr(from_cfg, name) == getattr(made, name), name
    assert list(from_cfg.hooks.hooks) == list(made.hooks.hooks)


def test_what_python_alone_can_give_is_known() -> None:
    """The config itself, and where its parts stand in it, cannot stand in a config."""
    assert signature(Runner).keys() - set(SAME_NAME) == {"cfg", "paths"}


SPLITS = {
    "train": ("train_dataloader", "train_cfg", "optim_wrapper"),
    "val": ("val_dataloader", "val_cfg", "val_evaluator"),
    "test": ("test_dataloader", "test_cfg", "test_evaluator"),
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("given", range(8))
def test_the_same_arguments_go_together(tmp_path: Path, split: str, given: int) -> None:
    model = Their()
    parts: dict[str, Any] = {
        "dataloader": their_loader(),
        "cfg": {"by_epoch": True, "max_epochs": 1} if split == "train" else {},
        "wrapper": {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1)},
        "evaluator": [TheirSize()],
    }
    names = [name for bit, name in enumerate(SPLITS[split]) if given >> bit & 1]
    chosen = {name: parts[name.rpartition("_")[2]] for name in names}
    ours = {**chosen, **({f"{split}_evaluator": []} if "val_evaluator" in names else {})}
    if given in (0, 7):
        their_runner(tmp_path, model=model, **chosen)
        Runner(ToyModel(), tmp_path, **ours)
        return
    with pytest.raises(ValueError, match=names[0]):
        their_runner(tmp_path, model=model, **chosen)
    with pytest.raises(ConfigError, match=rf"{names[0]}.*given, but not "):
        Runner(ToyModel(), tmp_path, **ours)


def test_a_checkpoint_holds_what_mmengines_does(tmp_path: Path) -> None:
    """Under the same keys; the time is in the manifest."""
    train_cfg = {"by_epoch": True, "max_epochs": 1}
    scheduler = {"by_epoch": True, "gamma": 0.5}
    optimizer: Any = {"optimizer": {"type": "SGD", "lr": 0.1}}
    their_runner(
        tmp_path / "theirs",
        train_dataloader=their_loader(),
        train_cfg=train_cfg,
        optim_wrapper=optimizer,
        param_scheduler={"type": "ExponentialLR", **scheduler},
    ).train()
    file = tmp_path / "theirs" / "epoch_1.pth"
    their: dict[str, Any] = torch.load(file, weights_only=False)
    kind = "trainkit.param_scheduler.ExponentialLR"
    make_runner(
        tmp_path, train_cfg=train_cfg, param_scheduler={"_target_": kind, **scheduler}
    ).train()
    ours = read_checkpoint(tmp_path / "checkpoints" / "epoch_1")
    assert their.keys() <= ours.keys()
    assert their["meta"].keys() - ours["meta"].keys() == {"time", "mmengine_version"}
    for name in ("epoch", "iter", "dataset_meta"):
        assert their["meta"][name] == ours["meta"][name], name
    assert len(their["param_schedulers"]) == len(ours["param_schedulers"])


def stages(table: str) -> dict[str, list[str]]:
    """The hooks of each stage of MMEngine's table, in order."""
    found = {}
    for block in filter(str.strip, table.split(" -------------------- ")):
        head, *rows = block.strip().splitlines()
        found[head.rstrip(":")] = re.findall(r"\) *(\w+)", "\n".join(rows))
    return found


def both_kinds(name: str, *points: str) -> tuple[type[Any], type[Any]]:
    """A hook for each library that overrides the same points."""
    methods = {point: lambda self, *args, **kwargs: None for point in points}
    return type(name, (mmengine.hooks.Hook,), methods), type(name, (Hook,), methods)


def test_the_table_has_the_same_hooks_in_the_same_order(tmp_path: Path) -> None:
    """But for points that only one of the two has overridden in a default hook, and checkpoints.

    Those are saved after all hooks of a point, so that none misses what a checkpoint counts.
    """
    kinds = [
        both_kinds("Early", "before_run", "_before_iter", "after_train_epoch"),
        both_kinds("Late", "before_run", "_after_epoch", "before_save_checkpoint"),
        both_kinds("Middle", "before_run", "_before_iter", "after_val_iter", "after_test"),
    ]
    priorities: list[int | str | None] = ["VERY_HIGH", 95, None]
    their = theirs(tmp_path, {"by_epoch": True, "max_epochs": 1}, [], {"type": "CheckpointHook"})
    their.register_hook(mmengine.hooks.LoggerHook())
    ours = make_runner(tmp_path / "ours")
    for (their_kind, kind), priority in zip(kinds, priorities, strict=True):
        their.register_hook(their_kind(), priority)
        ours.register_hook(kind(), priority)
    table = stages(their.get_hooks_info())
    hooks = ours.hooks.hooks.values()
    for point in POINTS:
        mine = [type(h).__name__ for h in hooks if point in trainkit.hook.points_of(h)]
        common = set(mine) & set(table.get(point, []))
        assert {"Early", "Late", "Middle"} & set(mine) <= common
        in_order = [name for name in table.get(point, []) if name in common]
        in_order.sort(key=lambda name: name == "CheckpointHook")
        assert [name for name in mine if name in common] == in_order, point
    assert [line.split()[0] for line in ours.hooks.table().splitlines()] == [
        point for point in POINTS if any(point in trainkit.hook.points_of(h) for h in hooks)
    ]


def wider(model: nn.Module) -> Any:
    model.more = nn.Linear(2, 2)
    return model


@pytest.mark.parametrize("revise_keys", [[], [("^net\\.", "")], [("^net\\.l", "l"), ("r$", "r")]])
def test_the_same_weights_are_taken(tmp_path: Path, revise_keys: list[tuple[str, str]]) -> None:
    """Missing, unexpected and mismatched entries are passed over in both, if any other fits."""
    state = {name: value + 1 for name, value in Their().state_dict().items()}
    prefix = "module.net." if revise_keys else "module."
    state = {f"{prefix}{name}": value for name, value in state.items()}
    state |= {f"{prefix}more.weight": torch.ones(3, 3), f"{prefix}other": torch.ones(1)}
    torch.save(state, tmp_path / "weights.pth")
    torch.manual_seed(1)
    their_model, model = wider(Their()), wider(ToyModel())
    model.load_state_dict(their_model.state_dict(), strict=False)
    their = their_runner(tmp_path / "theirs", model=their_model)
    their.load_checkpoint(
        str(tmp_path / "weights.pth"), revise_keys=[("^module\\.", ""), *revise_keys]
    )
    Runner(model, tmp_path / "ours").load_checkpoint(
        tmp_path / "weights.pth", revise_keys=revise_keys
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, their_model.state_dict()[name]), name
    assert torch.equal(model.linear.bias, state[f"{prefix}linear.bias"])


def test_weights_that_fit_in_nothing_are_refused_on_purpose(tmp_path: Path) -> None:
    """MMEngine warns, and trains from what there was."""
    torch.save({"elsewhere": torch.ones(1)}, tmp_path / "weights.pth")
    their_runner(tmp_path / "theirs").load_checkpoint(str(tmp_path / "weights.pth"))
    with pytest.raises(trainkit.CheckpointError, match="Nothing was loaded"):
        Runner(ToyModel(), tmp_path).load_checkpoint(tmp_path / "weights.pth")


def test_mmengines_own_checkpoint_is_refused_with_what_to_do_on_purpose(tmp_path: Path) -> None:
    """It needs pickle, which can run any code."""
    theirs(tmp_path, {"by_epoch": True, "max_epochs": 1}, [], {"type": "CheckpointHook"}).train()
    file = tmp_path / "theirs" / "epoch_1.pth"
    runner = make_runner(tmp_path / "ours", load_from=file)
    with pytest.raises(trainkit.CheckpointError, match="needs pickle") as caught:
        runner.load_or_resume()
    assert "torch.save(torch.load(path, weights_only=False)['state_dict'], " in str(caught.value)
    torch.save(torch.load(file, weights_only=False)["state_dict"], tmp_path / "weights.pth")
    runner.load_checkpoint(tmp_path / "weights.pth", strict=True)


def test_the_same_seed_draws_the_same_numbers() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    their_seed(7)
    expected = drawn()
    assert set_random_seed(7) == 7
    assert drawn() == expected


def test_the_learning_rate_is_scaled_by_the_same_rule(tmp_path: Path) -> None:
    """Without accumulation, which MMEngine does not count."""
    scale = {"enable": True, "base_batch_size": 16}
    model = Their()
    their = their_runner(
        tmp_path / "theirs",
        model=model,
        train_dataloader=their_loader(),
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper={"optimizer": torch.optim.SGD(model.parameters(), lr=0.1)},
        auto_scale_lr=scale,
    )
    their.optim_wrapper = their.build_optim_wrapper(their.optim_wrapper)
    their.scale_lr(their.optim_wrapper, scale)
    ours = make_runner(tmp_path / "ours", train_dataloader=loader(), auto_scale_lr=scale)
    assert ours.optim_wrapper.get_lr() == their.optim_wrapper.get_lr()


@pytest.fixture
def file_limit() -> Iterator[int]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("limit", [100, 400, 900])
def test_the_limit_of_open_files_is_the_same(
    tmp_path: Path, file_limit: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.multiprocessing.set_start_method", lambda *args, **kwargs: None)
    found = []
    for set_up in ("theirs", "ours"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, file_limit))
        if set_up == "theirs":
            their_runner(tmp_path, env_cfg={"resource_limit": limit, "dist_cfg": {}})
        else:
            setup_env("cpu", resource_limit=limit)
        found.append(resource.getrlimit(resource.RLIMIT_NOFILE))
    assert found[0] == found[1]


def test_pythons_start_method_is_left_on_purpose() -> None:
    """MMEngine forces fork, which does not go with threads and accelerators that are in use."""
    import torch.multiprocessing as mp

    before = mp.get_start_method(allow_none=True)
    try:
        mp.set_start_method("spawn", force=True)
        setup_env("cpu")
        assert mp.get_start_method() == "spawn"
        set_multi_processing(distributed=is_distributed())
        assert mp.get_start_method() == "fork"
    finally:
        mp.set_start_method(before, force=True)


def test_a_run_is_named_without_the_time_on_purpose(tmp_path: Path) -> None:
    """The time is in its directory; so two runs that are the same have one name."""
    their = their_runner(tmp_path / "theirs", experiment_name="mine")
    assert their.experiment_name == f"mine_{their.timestamp}"
    assert Runner(ToyModel(), tmp_path / "run", experiment_name="mine").experiment_name == "mine"
    assert Runner(ToyModel(), tmp_path / "run").experiment_name == "run"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", timestamp())


def test_evaluating_builds_no_training_part_on_purpose(tmp_path: Path) -> None:
    """In MMEngine a hook that asks for the epoch of a pure test builds the training data."""

    class Ask(Hook):
        def before_test_epoch(self, runner: Any) -> None:
            assert (runner.epoch, runner.max_iters) == (0, 0)

    runner = make_runner(tmp_path, custom_hooks=[Ask()])
    runner.test(load=False)
    assert not {"train_loop", "optim_wrapper", "param_schedulers"} & vars(runner).keys()
