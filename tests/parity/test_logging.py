"""The numbers of log lines, and of what the backends get, are MMEngine's."""

from __future__ import annotations

import itertools
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.parity.test_hook_order import TheirSize, their_loader
from tests.parity.test_hooks import their_runner
from tests.toy import make_runner
from trainkit import Hook, Runner
from trainkit.log_processor import LogProcessor
from trainkit.message_hub import MessageHub

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.hooks
    import mmengine.logging
    from mmengine.runner import LogProcessor as TheirProcessor

pytestmark = pytest.mark.filterwarnings("ignore")

LOOPS = {
    "epochs": {"by_epoch": True, "max_epochs": 40},
    "iterations": {"by_epoch": False, "max_iters": 120},
}
# What MMEngine's tag has not: on purpose, see the last tests.
OURS_ALONE = {"memory", "epoch", "iter"}
_hubs = itertools.count()
_number = re.compile(r"(?<![\w.])-?\d[\d.]*(?:e[+-]\d+)?")


class Pair:
    """A runner of each, whose hubs and counters are set alike."""

    def __init__(self, directory: Path, loop: str, **options: Any) -> None:
        self.by_epoch = loop == "epochs"
        self.ours: Runner = make_runner(
            directory / "ours", train_cfg=dict(LOOPS[loop]), log_processor=LogProcessor(**options)
        )
        self.theirs = their_runner(
            directory,
            dict(LOOPS[loop]),
            val_evaluator=[TheirSize()],
            test_dataloader=their_loader(),
            test_cfg={},
            test_evaluator=[TheirSize()],
            log_processor=TheirProcessor(**options, by_epoch=self.by_epoch),
        )
        _ = self.ours.train_loop, self.theirs.train_loop
        self.begin()

    def begin(self) -> None:
        """Forget what was logged."""
        self.ours.message_hub = MessageHub()
        self.theirs.message_hub = mmengine.logging.MessageHub.get_instance(f"hub_{next(_hubs)}")
        self.at(0)

    def at(self, iteration: int) -> None:
        """Go to an iteration, of three in an epoch."""
        epoch = iteration // 3 if self.by_epoch else 0
        self.ours.train_loop.iter, self.ours.train_loop.epoch = iteration, epoch
        self.theirs.train_loop._iter, self.theirs.train_loop._epoch = iteration, epoch
        if iteration % 3 == 0 and self.by_epoch:
            self.ours.message_hub.begin_epoch("train", epoch)

    def publish(self, mode: str, **scalars: float) -> None:
        """Write scalars of ``mode``, and an ETA."""
        for name, value in scalars.items():
            self.ours.message_hub.update_scalar(f"{mode}/{name}", value)
            self.theirs.message_hub.update_scalar(f"{mode}/{name}", value)
        for hub in (self.ours.message_hub, self.theirs.message_hub):
            hub.update_info("eta", scalars.get("time", 1.0) * 1000)

    def after_iter(self, batch_idx: int, mode: str) -> tuple[Any, Any]:
        """Return what both log."""
        return (
            self.ours.log_processor.get_log_after_iter(self.ours, batch_idx, mode),
            self.theirs.log_processor.get_log_after_iter(self.theirs, batch_idx, mode),
        )

    def after_epoch(self, mode: str) -> tuple[Any, Any]:
        """Return what both log."""
        return (
            self.ours.log_processor.get_log_after_epoch(self.ours, 3, mode),
            self.theirs.log_processor.get_log_after_epoch(self.theirs, 3, mode),
        )


def numbers(line: str) -> list[str]:
    return _number.findall(re.sub(r"memory: \d+", "", line))


def assert_equal(ours: tuple[dict[str, Any], str], theirs: tuple[dict[str, Any], str]) -> None:
    (tag, line), (their_tag, their_line) = ours, theirs
    assert numbers(line) == numbers(their_line)
    assert {name: float(value) for name, value in tag.items() if name in their_tag} == (
        pytest.approx({n: float(v) for n, v in their_tag.items()}, rel=1e-12)
    )
    assert tag.keys() - their_tag.keys() <= OURS_ALONE


_value = st.floats(1e-3, 50)
_steps = st.lists(st.tuples(_value, _value, _value), min_size=1, max_size=30)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"window_size": 3, "num_digits": 6},
    {"log_with_hierarchy": True},
    {"mean_pattern": r"(acc|loss)"},
    {
        "custom_cfg": [
            {"data_src": "loss", "method_name": "mean", "window_size": 100, "log_name": "loss_100"},
            {"data_src": "loss", "method_name": "max", "window_size": 4, "log_name": "loss_max"},
            {"data_src": "acc", "method_name": "min", "window_size": "global"},
            {"data_src": "time", "method_name": "mean", "window_size": "global"},
            {"data_src": "nowhere", "method_name": "mean", "log_name": "no", "window_size": 2},
        ],
        "log_with_hierarchy": True,
    },
    {
        "custom_cfg": [
            {"data_src": "loss", "method_name": "mean", "window_size": "global"},
            {"data_src": "loss", "method_name": "min", "log_name": "least", "window_size": 5},
        ]
    },
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    return {loop: Pair(tmp_path_factory.mktemp(loop), loop) for loop in LOOPS}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
def test_training_lines_are_the_same(
    pairs: dict[str, Pair], options: dict[str, Any], loop: str, steps: list[tuple[float, ...]]
) -> None:
    pair = pairs[loop]
    pair.begin()
    pair.ours.log_processor = LogProcessor(**options)
    pair.theirs.log_processor = TheirProcessor(**options, by_epoch=pair.by_epoch)
    for step, (loss, acc, seconds) in enumerate(steps):
        pair.at(step)
        pair.publish("train", lr=0.1 / (step + 1), data_time=seconds / 9, time=seconds)
        pair.publish("train", loss=loss, acc=acc, grad_norm=loss * acc)
        batch_idx = step % 3 if pair.by_epoch else step
        assert_equal(*pair.after_iter(batch_idx, "train"))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
def test_a_window_of_the_epoch_is_the_same(
    pairs: dict[str, Pair], steps: list[tuple[float, ...]]
) -> None:
    options: dict[str, Any] = {
        "custom_cfg": [
            {"data_src": "acc", "method_name": "current", "log_name": "shown_lr"},
            {"data_src": "loss", "method_name": "mean", "window_size": "epoch"},
            {"data_src": "acc", "method_name": "max", "window_size": "epoch", "log_name": "best"},
        ]
    }
    pair = pairs["epochs"]
    pair.begin()
    pair.ours.log_processor = LogProcessor(**options)
    pair.theirs.log_processor = TheirProcessor(**options)
    for step, (loss, acc, seconds) in enumerate(steps):
        pair.at(step)
        pair.publish("train", data_time=seconds / 9, time=seconds, loss=loss, acc=acc)
        assert_equal(*pair.after_iter(step % 3, "train"))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("mode", ["val", "test"])
@pytest.mark.parametrize("options", [*OPTIONS[:3], OPTIONS[4]], ids=range(4))
def test_evaluation_lines_are_the_same(
    pairs: dict[str, Pair], options: dict[str, Any], mode: str, loop: str
) -> None:
    pair = pairs[loop]
    pair.begin()
    pair.ours.log_processor = LogProcessor(**options)
    pair.theirs.log_processor = TheirProcessor(**options, by_epoch=pair.by_epoch)
    pair.at(6)
    for batch_idx, seconds in enumerate((0.5, 0.25, 1.5)):
        pair.publish(mode, data_time=seconds / 7, time=seconds)
        (_, line), (_, their_line) = pair.after_iter(batch_idx, mode)
        assert numbers(line) == numbers(their_line)
    pair.publish(mode, acc=0.75, miou=1 / 3)
    assert_equal(*pair.after_epoch(mode))


def test_what_is_no_number_is_shown_too(pairs: dict[str, Pair]) -> None:
    pair = pairs["epochs"]
    pair.begin()
    for hub in (pair.ours.message_hub, pair.theirs.message_hub):
        hub.update_info("test/classes", "seven")
        hub.update_scalar("test/acc", 0.5)
    (tag, line), (_, their_line) = pair.after_epoch("test")
    assert "classes: seven" in line
    assert "classes: seven" in their_line
    assert "classes" not in tag


@pytest.mark.parametrize("options", [{"interval": 1}, {"interval": 2}, {"interval": 5}], ids=str)
@pytest.mark.parametrize("ignore_last", [True, False])
def test_the_same_iterations_are_logged(
    tmp_path: Path, options: dict[str, Any], ignore_last: bool
) -> None:
    loop = {"by_epoch": True, "max_epochs": 2}
    given = {**options, "ignore_last": ignore_last, "interval_exp_name": 1000}
    ours = make_runner(tmp_path / "ours", train_cfg=loop, default_hooks={"logger": given})
    theirs = their_runner(
        tmp_path,
        loop,
        val_evaluator=[TheirSize()],
        default_hooks={"logger": {"type": "LoggerHook", **given}, "checkpoint": None},
        log_level="INFO",
    )
    ours.train()
    theirs.train()
    texts = (
        (tmp_path / "ours" / "train.log").read_text(),
        next((tmp_path / "theirs").rglob("*.log")).read_text(),
    )
    places, their_places = (re.findall(r"Epoch\(\w+\) +\[\d+\]\[\d/3\]", text) for text in texts)
    assert [re.sub(" +", "", place) for place in places] == [
        re.sub(" +", "", place) for place in their_places
    ]


class Clock:
    """A time that passes in iterations only, and how it is read."""

    def __init__(self) -> None:
        self.now = 0.0
        self.etas: list[float] = []

    def advance(self, runner: Any, seconds: float) -> None:
        self.now += seconds * (runner.iter + 2) ** 0.5

    def read(self) -> float:
        return self.now


def test_times_and_the_eta_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clock(), Clock()

    def passing(kind: Any, clock: Clock) -> Any:
        class Passing(kind):  # type: ignore[misc]
            priority = "HIGHEST"

            def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
                clock.advance(runner, 1.0)

            def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
                clock.advance(runner, 5.0)

        class Reading(kind):  # type: ignore[misc]
            priority = "LOWEST"

            def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
                hub = runner.message_hub
                clock.etas += [hub.get_info("eta"), hub.get_scalar("train/data_time").current()]

        return [Passing(), Reading()]

    loop = {"by_epoch": True, "max_epochs": 3}
    off = {"val_dataloader": None, "val_cfg": None, "val_evaluator": None}
    defaults = {"logger": None, "checkpoint": None}
    ours = make_runner(
        tmp_path / "ours",
        train_cfg=loop,
        custom_hooks=passing(Hook, clocks[0]),
        default_hooks=defaults,
        **off,
    )
    hooks = passing(mmengine.hooks.Hook, clocks[1])
    theirs = their_runner(tmp_path, loop, **off, custom_hooks=hooks, default_hooks=defaults)
    monkeypatch.setattr("trainkit.hooks.iter_timer.time.perf_counter", clocks[0].read)
    ours.train()
    monkeypatch.setattr("mmengine.hooks.iter_timer_hook.time.time", clocks[1].read)
    theirs.train()
    assert len(clocks[0].etas) == 18
    assert clocks[0].etas == pytest.approx(clocks[1].etas)


# ------------------------------------------------------------------ differences


def test_a_metric_is_not_smoothed_over_validations_on_purpose(pairs: dict[str, Pair]) -> None:
    pair = pairs["epochs"]
    pair.begin()
    pair.ours.log_processor, pair.theirs.log_processor = LogProcessor(), TheirProcessor()
    for value in (9.0, 1.0):
        pair.ours.message_hub.begin_epoch("val")
        pair.publish("val", data_time=0.1, time=0.2, val_loss=value)
    (tag, _), (their_tag, _) = pair.after_epoch("val")
    assert (tag["val_loss"], their_tag["val_loss"]) == (1.0, 5.0)


def test_times_of_an_evaluation_are_of_no_other_on_purpose(pairs: dict[str, Pair]) -> None:
    pair = pairs["epochs"]
    pair.begin()
    pair.ours.log_processor, pair.theirs.log_processor = LogProcessor(), TheirProcessor()
    for seconds in (9.0, 1.0):
        pair.ours.message_hub.begin_epoch("val")
        for _ in range(3):
            pair.publish("val", data_time=seconds, time=seconds, acc=1.0)
    (tag, _), (their_tag, _) = pair.after_epoch("val")
    assert (tag["time"], their_tag["time"]) == (1.0, 3.0)  # of four values, one of them the former


def test_lines_show_memory_on_a_cpu_too_and_carry_every_counter_on_purpose(
    pairs: dict[str, Pair],
) -> None:
    for pair in pairs.values():
        pair.begin()
        pair.ours.log_processor = LogProcessor()
        pair.theirs.log_processor = TheirProcessor(by_epoch=pair.by_epoch)
        pair.publish("train", loss=1.0)
        (tag, line), (their_tag, their_line) = pair.after_iter(0, "train")
        assert re.search(r"memory: \d+", line)
        assert "memory" not in their_line
        assert {"epoch", "iter", "memory"} <= tag.keys()
        assert tag.keys() - their_tag.keys() == (
            {"memory"} if pair.by_epoch else {"memory", "epoch"}
        )


def test_a_statistic_needs_no_window_in_an_iteration_run_on_purpose() -> None:
    custom = [{"data_src": "lr", "method_name": "current", "log_name": "shown_lr"}]
    LogProcessor(by_epoch=False, custom_cfg=custom)
    with pytest.raises(KeyError, match="window_size"):
        TheirProcessor(by_epoch=False, custom_cfg=custom)


def test_a_mean_weighs_values_by_their_counts_on_purpose() -> None:
    ours, theirs = MessageHub(), mmengine.logging.MessageHub.get_instance(f"hub_{next(_hubs)}")
    for hub in (ours, theirs):
        hub.update_scalar("train/loss", 1.0, 3)
        hub.update_scalar("train/loss", 5.0, 1)
    assert ours.get_scalar("train/loss").mean() == 2.0
    assert theirs.get_scalar("train/loss").mean() == 1.5  # its values are sums already


def test_the_experiment_is_not_named_at_the_end_of_every_epoch_on_purpose(tmp_path: Path) -> None:
    make_runner(tmp_path).train()
    assert "Exp name" not in (tmp_path / "train.log").read_text()
