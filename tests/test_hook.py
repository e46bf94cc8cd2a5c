"""Hooks: each point calls those that override it, in order, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from trainkit.errors import ConfigError
from trainkit.hook import POINTS, PRIORITIES, Hook, HookList, get_priority, points_of

RUNNER: Any = SimpleNamespace(epoch=0, iter=0, max_epochs=3, max_iters=9)

MMENGINE_POINTS = {
    *(f"{when}_{what}" for when in ("before", "after") for what in ("run", "train", "val", "test")),
    *(
        f"{when}_{mode}_{what}"
        for when in ("before", "after")
        for mode in ("train", "val", "test")
        for what in ("epoch", "iter")
    ),
    "before_save_checkpoint",
    "after_load_checkpoint",
}


class Silent(Hook):
    pass


class Named(Hook):
    """Write its name into a shared list at ``before_run``."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def before_run(self, runner: Any) -> None:
        self.log.append(self.name)


class Urgent(Named):
    priority = "HIGH"


class Generic(Hook):
    """Override the generics only."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def _before_epoch(self, runner: Any, mode: str = "train") -> None:
        self.calls.append(("before_epoch", mode))

    def _before_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, mode: str = "train"
    ) -> None:
        self.calls.append(("before_iter", batch_idx, data_batch, mode))

    def _after_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> None:
        self.calls.append(("after_iter", batch_idx, data_batch, outputs, mode))


class Counter(Hook):
    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count} if self.count else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.count = state_dict["count"]


def test_the_points_are_mmengines_twenty_two() -> None:
    assert len(POINTS) == 22
    assert set(POINTS) == MMENGINE_POINTS


def test_lower_numbers_run_first() -> None:
    log: list[str] = []
    hooks = {"low": Named("low", log), "high": Named("high", log), "class": Urgent("class", log)}
    HookList(hooks, {"low": 90, "high": "VERY_HIGH"}).before_run(RUNNER)
    assert log == ["high", "class", "low"]


def test_equal_priorities_keep_the_order_given() -> None:
    log: list[str] = []
    names = ["c", "a", "d", "b"]
    hooks = {name: Named(name, log) for name in names}
    HookList(hooks, {"c": "NORMAL", "d": 50}).before_run(RUNNER)
    assert log == names


def test_priority_names_are_taken_in_any_case() -> None:
    assert get_priority("very_low") == get_priority("VERY_LOW") == 90
    assert [get_priority(name) for name in PRIORITIES] == [0, 10, 30, 40, 50, 60, 70, 90, 100]
    assert (get_priority(0), get_priority(100)) == (0, 100)


@pytest.mark.parametrize("priority", [-1, 101, True, 1.5, None, "HIHG"])
def test_an_unknown_priority_is_refused(priority: Any) -> None:
    with pytest.raises(ConfigError, match="expected 0 to 100, or a level"):
        get_priority(priority)


def test_a_misspelt_priority_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'HIGHEST'"):
        get_priority("highst")


def test_a_misspelt_point_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"Bad\.after_trian_iter .*Did you mean 'after_train_iter'"):

        class Bad(Hook):
            def after_trian_iter(self, runner: Any) -> None: ...


def test_helpers_with_an_underscore_and_other_names_are_free() -> None:
    class Fine(Hook):
        def _after_all(self) -> None: ...
        def afterwards(self) -> None: ...

    assert points_of(Fine()) == []


def test_a_point_that_nobody_overrides_calls_into_no_hook() -> None:
    hooks = HookList({"a": Silent(), "b": Counter(), "c": Named("c", [])})
    called: list[Any] = []

    def record(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            called.append(frame.f_locals.get("self"))

    sys.setprofile(record)
    try:
        hooks.before_train_iter(RUNNER, 0, None)
        hooks.after_train_iter(RUNNER, 0, None, None)
    finally:
        sys.setprofile(None)
    assert not [owner for owner in called if isinstance(owner, Hook)]
    assert len(called) <= 2


def test_a_point_that_one_overrides_is_that_hooks_own_method() -> None:
    hook = Named("a", [])
    assert HookList({"a": hook, "b": Silent()}).before_run == hook.before_run


def test_a_generic_stands_for_the_points_of_all_three_modes() -> None:
    hook = Generic()
    hooks = HookList({"generic": hook, "silent": Silent()})
    assert len(points_of(hook)) == 9
    for mode in ("train", "val", "test"):
        getattr(hooks, f"before_{mode}_epoch")(RUNNER)
        getattr(hooks, f"before_{mode}_iter")(RUNNER, 4, "batch")
        getattr(hooks, f"after_{mode}_iter")(RUNNER, 4, "batch", "outputs")
    assert hook.calls == [
        call
        for mode in ("train", "val", "test")
        for call in (
            ("before_epoch", mode),
            ("before_iter", 4, "batch", mode),
            ("after_iter", 4, "batch", "outputs", mode),
        )
    ]


def test_a_point_of_its_own_replaces_the_generic() -> None:
    class Both(Generic):
        def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            self.calls.append(("own", batch_idx))

    hook = Both()
    hooks = HookList({"both": hook})
    hooks.before_val_iter(RUNNER, 1)
    hooks.before_test_iter(RUNNER, 2)
    assert hook.calls == [("own", 1), ("before_iter", 2, None, "test")]


def test_an_inherited_point_counts() -> None:
    class Child(Named):
        pass

    assert points_of(Child("a", [])) == ["before_run"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_points_take_their_arguments_by_name_too(number: int) -> None:
    class Val(Hook):
        def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
            seen.append(metrics)

    seen: list[Any] = []
    HookList({str(n): Val() for n in range(number)}).after_val_epoch(RUNNER, metrics={"acc": 1})
    assert seen == [{"acc": 1}] * number


def test_an_error_in_a_hook_keeps_its_traceback_and_stops_the_others() -> None:
    class Bad(Hook):
        def before_run(self, runner: Any) -> None:
            raise TypeError("mine")

    log: list[str] = []
    with pytest.raises(TypeError, match="mine") as caught:
        HookList({"bad": Bad(), "next": Named("next", log)}).before_run(RUNNER)
    assert caught.traceback[-1].name == "before_run"
    assert log == []


def test_states_are_kept_by_name_and_empty_ones_are_left_out() -> None:
    hooks = HookList({"a": Counter(), "b": Counter(), "c": Silent()})
    hooks.hooks["b"].load_state_dict({"count": 3})
    assert hooks.state_dict() == {"b": {"count": 3}}
    other = HookList({"b": Counter(), "a": Counter()})
    other.load_state_dict({**hooks.state_dict(), "gone": {"count": 9}})
    assert other.state_dict() == {"b": {"count": 3}}


def test_the_table_shows_points_with_their_hooks_in_order() -> None:
    log: list[str] = []
    table = HookList({"a": Named("a", log), "b": Urgent("b", log), "c": Generic()}).table()
    lines = [line.split(None, 1) for line in table.splitlines()]
    assert lines[0] == ["before_run", "b (30), a (50)"]
    assert ["after_val_iter", "c (50)"] in lines
    assert len(lines) == 10


@pytest.mark.filterwarnings("ignore")
def test_every_n_agrees_with_mmengine() -> None:
    from mmengine.hooks import Hook as Reference

    ours, theirs = Hook(), Reference()
    for count in range(12):
        runner: Any = SimpleNamespace(epoch=count, iter=count, max_epochs=10, max_iters=10)
        for n in (-1, 0, 1, 2, 3):
            for start in (0, 1, 4):
                assert ours.every_n_epochs(runner, n, start) == theirs.every_n_epochs(
                    runner, n, start
                )
                assert ours.every_n_train_iters(runner, n, start) == theirs.every_n_train_iters(
                    runner, n, start
                )
            assert ours.every_n_inner_iters(count, n) == theirs.every_n_inner_iters(count, n)
        assert ours.end_of_epoch(range(4), count) == theirs.end_of_epoch(range(4), count)
        if count < 10:
            assert ours.is_last_train_iter(runner) == theirs.is_last_train_iter(runner)
            assert ours.is_last_train_epoch(runner) == theirs.is_last_train_epoch(runner)
