"""Options of the hooks: what MMEngine's do, but for what is said below."""

from __future__ import annotations

import hashlib
import inspect
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import trainkit.hooks
from tests.hooks.test_checkpoint import Scores
from tests.parity.test_hook_order import Their, TheirMetric, their_loader
from tests.toy import make_runner
from trainkit import ConfigError, Hook, Runner
from trainkit.checkpoint import read_checkpoint
from trainkit.evaluator import infer_rule
from trainkit.hook import PRIORITIES, HookList
from trainkit.hooks import EarlyStoppingHook, ProfilerHook

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.hooks
    import mmengine.runner

pytestmark = pytest.mark.filterwarnings("ignore")


class TheirScores(TheirMetric):  # type: ignore[misc]
    """The same as Scores, for MMEngine."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = list(scores)

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"accuracy": self.scores.pop(0)}


def their_runner(tmp_path: Path, loop: dict[str, Any], **changes: Any) -> Any:
    model = Their()
    arguments: dict[str, Any] = {
        "model": model,
        "work_dir": str(tmp_path / "theirs"),
        "train_dataloader": their_loader(),
        "train_cfg": loop,
        "optim_wrapper": {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1)},
        "val_dataloader": their_loader(),
        "val_cfg": {},
        "experiment_name": f"hooks_{tmp_path.name}",
        "log_level": "ERROR",
    }
    return mmengine.runner.Runner(**{**arguments, **changes})


def their_names(
    tmp_path: Path, loop: dict[str, Any], scores: list[float], options: dict[str, Any]
) -> set[str]:
    if "filename_tmpl" in options:
        options = {**options, "filename_tmpl": f"{options['filename_tmpl']}.pth"}
    hook = {"type": "CheckpointHook", "by_epoch": loop["by_epoch"], **options}
    runner = their_runner(
        tmp_path,
        loop,
        val_evaluator=[TheirScores(scores)],
        default_hooks={"checkpoint": hook, "logger": None},
    )
    runner.train()
    return {path.stem for path in (tmp_path / "theirs").glob("*.pth")}


def names(
    tmp_path: Path, loop: dict[str, Any], scores: list[float], options: dict[str, Any]
) -> set[str]:
    runner = make_runner(
        tmp_path / "ours",
        train_cfg=loop,
        val_evaluator=Scores(scores),
        default_hooks={"checkpoint": options},
    )
    runner.train()
    return {path.name for path in runner.checkpoint_dir.iterdir() if path.is_dir()}


EPOCHS = {"by_epoch": True, "max_epochs": 7, "val_interval": 3}
ITERATIONS = {"by_epoch": False, "max_iters": 3, "val_interval": 1}


@pytest.mark.parametrize(
    ("loop", "options"),
    [
        (EPOCHS, {"interval": 1}),
        (EPOCHS, {"interval": 3}),
        (EPOCHS, {"interval": 2, "save_last": False}),
        (EPOCHS, {"interval": 2, "save_begin": 3}),
        (EPOCHS, {"interval": 3, "save_begin": 2, "save_last": False}),
        (EPOCHS, {"interval": -1}),
        (EPOCHS, {"interval": 1, "max_keep_ckpts": 3}),
        (EPOCHS, {"interval": 2, "max_keep_ckpts": 1}),
        (EPOCHS, {"interval": 4, "by_epoch": False, "max_keep_ckpts": 2}),
        (EPOCHS, {"interval": 3, "filename_tmpl": "e{:02d}"}),
        (ITERATIONS, {"interval": 2}),
        (ITERATIONS, {"interval": 1, "save_begin": 2, "max_keep_ckpts": 1}),
        (ITERATIONS, {"interval": -1}),
    ],
    ids=str,
)
def test_periodic_checkpoints_are_the_same(
    tmp_path: Path, loop: dict[str, Any], options: dict[str, Any]
) -> None:
    scores = [0.0] * 9
    assert names(tmp_path, loop, scores, options) == their_names(tmp_path, loop, scores, options)


@pytest.mark.parametrize("rule", ["greater", "less", None])
@pytest.mark.parametrize("scores", [[0.1, 0.5, 0.3, 0.6], [0.4, 0.4, 0.1, 0.2]], ids=str)
def test_the_best_checkpoint_is_the_same(
    tmp_path: Path, scores: list[float], rule: str | None
) -> None:
    loop = {"by_epoch": True, "max_epochs": 4}
    options = {"interval": 9, "save_best": "accuracy", "rule": rule}
    best, of_theirs = (
        {name for name in find(tmp_path, loop, scores, options) if name.startswith("best_")}
        for find in (names, their_names)
    )
    assert best == of_theirs
    assert len(best) == 1


@pytest.mark.parametrize("later", [[0.4, 0.6], [0.4, 0.2]], ids=["better", "worse"])
def test_the_best_of_a_resumed_run_is_the_same(
    tmp_path: Path, later: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    options = {"interval": 1, "save_best": "accuracy"}
    theirs = {"type": "CheckpointHook", **options}
    for end, scores in ((2, [0.5, 0.3]), (4, later)):
        loop, resume = {"by_epoch": True, "max_epochs": end}, end == 4
        their_runner(
            tmp_path,
            loop,
            val_evaluator=[TheirScores(scores)],
            default_hooks={"checkpoint": theirs, "logger": None},
            experiment_name=f"best_{tmp_path.name}_{end}",
            resume=resume,
        ).train()
        # Epoch 2 was saved before it was validated, which a resumed run does first.
        runner = make_runner(
            tmp_path / "ours",
            train_cfg=loop,
            val_evaluator=Scores([0.3, *scores] if resume else scores),
            default_hooks={"checkpoint": options},
            resume=resume,
        )
        runner.train()
    best = {path.name for path in runner.checkpoint_dir.glob("best_*")}
    assert best == {path.stem for path in (tmp_path / "theirs").glob("best_*.pth")}
    assert best == {f"best_accuracy_epoch_{4 if later[1] == 0.6 else 1}"}


def test_a_best_checkpoint_brings_no_other_on_purpose(tmp_path: Path) -> None:
    """MMEngine writes a periodic one outside its interval, to keep its record of the best."""
    loop = {"by_epoch": True, "max_epochs": 5}
    scores, options = [0.1, 0.2, 0.3, 0.2, 0.1], {"interval": 2, "save_best": "accuracy"}
    best = {"best_accuracy_epoch_3"}
    periodic = {"epoch_2", "epoch_4", "epoch_5"}
    assert names(tmp_path, loop, scores, options) == best | periodic
    assert their_names(tmp_path, loop, scores, options) == best | periodic | {"epoch_3"}


def test_the_older_checkpoint_goes_after_the_newer_is_whole_on_purpose(tmp_path: Path) -> None:
    """MMEngine removes it first, so that a crash while saving leaves none."""
    found: list[list[str]] = []

    class Look(Hook):
        def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
            found.append(sorted(path.name for path in runner.checkpoint_dir.glob("epoch_*")))

    class TheirLook(mmengine.hooks.Hook):  # type: ignore[misc]
        def before_save_checkpoint(self, runner: Any, checkpoint: Any) -> None:
            found.append(sorted(path.name for path in Path(runner.work_dir).glob("epoch_*")))

    loop, options = {"by_epoch": True, "max_epochs": 2}, {"interval": 1, "max_keep_ckpts": 1}
    their_runner(
        tmp_path,
        loop,
        val_evaluator=[TheirScores([0.0] * 2)],
        custom_hooks=[TheirLook()],
        default_hooks={"checkpoint": {"type": "CheckpointHook", **options}, "logger": None},
    ).train()
    make_runner(
        tmp_path / "ours",
        train_cfg=loop,
        custom_hooks=[Look()],
        default_hooks={"checkpoint": options},
    ).train()
    assert found == [[], [], [], ["epoch_1"]]


WORDS = st.lists(st.sampled_from(["acc", "loss", "mAP", "Top", "x", "_", "/"]), min_size=1)


@given(
    metric=WORDS.map("".join),
    greater=st.lists(st.sampled_from(["acc", "map", "TOP", "x"])),
    less=st.lists(st.sampled_from(["loss", "acc_", "Top", "x_"])),
)
def test_a_rule_is_inferred_alike(metric: str, greater: list[str], less: list[str]) -> None:
    try:
        expected = mmengine.hooks.CheckpointHook(
            save_best=metric, greater_keys=greater, less_keys=less
        ).rules[0]
    except ValueError:
        with pytest.raises(ConfigError):
            infer_rule(metric, greater, less)
    else:
        assert infer_rule(metric, greater, less) == expected


@pytest.mark.parametrize("keys", ["greater_keys", "less_keys"])
def test_the_usual_keys_are_mmengines_and_more(keys: str) -> None:
    rule = keys.removesuffix("_keys")
    for key in getattr(mmengine.hooks.CheckpointHook, f"_default_{keys}"):
        assert infer_rule(key) == rule


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A runner in the midst of its training."""
    runner = make_runner(tmp_path_factory.mktemp("stopping"))
    runner.is_training = True
    return runner


def steps_to_stop(hook: Any, runner: Any, scores: list[float]) -> int | None:
    runner.train_loop.stop_training = False
    for step, score in enumerate(scores):
        hook.after_val_epoch(runner, metrics={"m": score})
        if runner.train_loop.stop_training:
            return step
    return None


def of_both(training: Runner, scores: list[float], **options: Any) -> tuple[int | None, int | None]:
    """When trainkit's hook stops, and when MMEngine's does."""
    options = {"monitor": "m", "rule": "greater", "min_delta": 0.0, **options}
    stand_in = SimpleNamespace(train_loop=SimpleNamespace(), logger=training.logger)
    return (
        steps_to_stop(EarlyStoppingHook(**options), training, scores),
        steps_to_stop(mmengine.hooks.EarlyStoppingHook(**options), stand_in, scores),
    )


@given(
    scores=st.lists(st.floats(-10, 10), min_size=1, max_size=12, unique=True),
    rule=st.sampled_from(["greater", "less"]),
    min_delta=st.sampled_from([0.0, 0.37, 2.0]),
    patience=st.integers(1, 4),
    threshold=st.none() | st.floats(-10, 10),
)
@settings(max_examples=300)
def test_early_stopping_stops_at_the_same_validation(
    training: Runner,
    scores: list[float],
    rule: str,
    min_delta: float,
    patience: int,
    threshold: float | None,
) -> None:
    gains = {abs(a - b) for a in scores for b in scores if a != b}
    assume(all(abs(gain - min_delta) > 1e-9 for gain in gains))
    ours, theirs = of_both(
        training,
        scores,
        rule=rule,
        min_delta=min_delta,
        patience=patience,
        stopping_threshold=threshold,
    )
    assert ours == theirs


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_early_stopping_at_a_value_that_is_not_finite(training: Runner, value: float) -> None:
    assert of_both(training, [0.1, value, 0.2]) == (1, 1)


def test_a_metric_that_stands_still_stops_on_purpose(training: Runner) -> None:
    """In MMEngine a value as good as the best begins the count anew."""
    assert of_both(training, [0.5] * 6, patience=3) == (3, None)


def test_nan_is_no_best_on_purpose(training: Runner) -> None:
    """MMEngine takes NaN for the best, than which nothing is worse: it never stops."""
    scores = [0.5, math.nan, 0.4, 0.3, 0.2]
    assert of_both(training, scores, check_finite=False, patience=3) == (3, None)


def test_an_improvement_may_be_small_on_purpose(training: Runner) -> None:
    """MMEngine's min_delta is 0.1, so that an accuracy that rises by less stops a run."""
    assert EarlyStoppingHook("acc").min_delta == 0.0
    assert mmengine.hooks.EarlyStoppingHook("acc").min_delta == 0.1


def test_a_monitor_that_is_not_there_raises_on_purpose() -> None:
    """In MMEngine it is a warning by default."""
    assert EarlyStoppingHook("acc").strict
    assert not mmengine.hooks.EarlyStoppingHook("acc").strict


PRIORITY = st.integers(0, 100) | st.sampled_from([*PRIORITIES, "very_low"])


@pytest.fixture(scope="module")
def their_runner_for_hooks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return their_runner(
        tmp_path_factory.mktemp("hooks"),
        {"by_epoch": True, "max_epochs": 1},
        val_evaluator=[TheirScores([0.0])],
    )


@given(priorities=st.lists(st.none() | PRIORITY, max_size=8))
def test_hooks_stand_in_the_same_order(
    their_runner_for_hooks: Any, priorities: list[int | str | None]
) -> None:
    their_runner_for_hooks._hooks = []
    for number, priority in enumerate(priorities):
        hook = mmengine.hooks.Hook()
        hook.name = str(number)
        their_runner_for_hooks.register_hook(hook, priority)
    hooks = {str(number): Hook() for number in range(len(priorities))}
    named = {str(n): priority for n, priority in enumerate(priorities) if priority is not None}
    assert list(HookList(hooks, named).hooks) == [x.name for x in their_runner_for_hooks._hooks]


def parameters(kind: Any) -> dict[str, Any]:
    """The options of a hook with their defaults."""
    found = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in found if p.kind is not p.VAR_KEYWORD}


@pytest.mark.parametrize(
    ("name", "left_out", "more"),
    [
        ("CheckpointHook", {"file_client_args", "backend_args"}, {"async_save"}),
        ("EMAHook", set(), set()),
        ("EarlyStoppingHook", set(), set()),
        ("EmptyCacheHook", set(), set()),
        ("SyncBuffersHook", set(), set()),
        ("ProfilerHook", set(), set()),
    ],
)
def test_hooks_have_mmengines_options(name: str, left_out: set[str], more: set[str]) -> None:
    """Left out are file clients, of which trainkit has none: paths are paths."""
    ours, theirs = (parameters(getattr(p, name)) for p in (trainkit.hooks, mmengine.hooks))
    assert theirs.keys() - ours.keys() == left_out
    assert ours.keys() - theirs.keys() == more


def test_other_defaults_are_other_on_purpose() -> None:
    """Units come from the train loop; what goes wrong in silence is an error."""
    changed = {}
    for name in (
        "CheckpointHook",
        "EMAHook",
        "EarlyStoppingHook",
        "EmptyCacheHook",
        "ProfilerHook",
    ):
        ours, theirs = (parameters(getattr(p, name)) for p in (trainkit.hooks, mmengine.hooks))
        for option in ours.keys() & theirs.keys():
            if ours[option] != theirs[option]:
                changed[f"{name}.{option}"] = (ours[option], theirs[option])
    assert changed == {
        "CheckpointHook.by_epoch": (None, True),
        "EarlyStoppingHook.min_delta": (0.0, 0.1),
        "EarlyStoppingHook.strict": (True, False),
        "ProfilerHook.by_epoch": (None, True),
        "ProfilerHook.activity_with_cuda": (None, False),
    }


def test_what_a_profiler_writes_is_chosen_by_name_on_purpose() -> None:
    """MMEngine has mappings with a directory and needs a package for it; here it is the run's."""
    assert ProfilerHook().on_trace_ready == "tb_trace"
    with pytest.raises(ConfigError, match=r"on_trace_ready is .* Choose from: log_trace, tb_trace"):
        ProfilerHook(on_trace_ready={"type": "tb_trace"})  # type: ignore[arg-type]


def test_several_epochs_can_be_profiled_on_purpose() -> None:
    """MMEngine refuses more than one."""
    assert ProfilerHook(by_epoch=True, profile_times=2).profile_times == 2
    with pytest.raises(ValueError, match="recommended to train 1 epoch"):
        mmengine.hooks.ProfilerHook(by_epoch=True, profile_times=2)


def test_a_best_checkpoint_can_be_resumed_on_purpose(tmp_path: Path) -> None:
    """MMEngine's holds no optimizer and no schedulers."""
    loop, options = {"by_epoch": True, "max_epochs": 1}, {"interval": 1, "save_best": "accuracy"}
    names(tmp_path, loop, [0.1], options)
    their_names(tmp_path, loop, [0.1], options)
    best = read_checkpoint(tmp_path / "ours" / "checkpoints" / "best_accuracy_epoch_1")
    path = tmp_path / "theirs" / "best_accuracy_epoch_1.pth"
    assert "optimizer" not in torch.load(path, weights_only=False)
    assert "optimizer" in best


def test_a_published_file_has_the_digest_of_its_bytes_on_purpose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MMEngine's name has that of a pickle which is not the file, so nobody can check it."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # for its own reading
    loop = {"by_epoch": True, "max_epochs": 1}
    options = {"interval": 1, "published_keys": ["state_dict"]}
    names(tmp_path, loop, [0.1], options)
    their_names(tmp_path, loop, [0.1], options)
    (ours,) = (tmp_path / "ours" / "checkpoints").glob("epoch_1-*.pth")
    (theirs,) = (tmp_path / "theirs").glob("epoch_1-*.pth")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:8] for path in (ours, theirs)]
    assert ours.stem == f"epoch_1-{digests[0]}"
    assert theirs.stem != f"epoch_1-{digests[1]}"
    published = [torch.load(path, weights_only=False) for path in (ours, theirs)]
    assert published[0].keys() == published[1].keys() == {"state_dict"}


def test_checkpoints_kept_elsewhere_are_found_in_the_run_on_purpose(tmp_path: Path) -> None:
    """Both write below out_dir, in a directory of the run's name; trainkit's run links to it."""
    loop = {"by_epoch": True, "max_epochs": 1}
    options = {"interval": 1, "out_dir": str(tmp_path / "big")}
    found = names(tmp_path, loop, [0.1], options)
    their_names(tmp_path, loop, [0.1], options)
    assert (tmp_path / "big" / "theirs" / "epoch_1.pth").is_file()
    assert (tmp_path / "big" / "ours" / "epoch_1").is_dir()
    assert found == {"epoch_1"}
