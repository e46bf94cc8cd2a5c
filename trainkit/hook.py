"""Hook: what may run at each point of a run; HookList: calling the points in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from trainkit.runner import Runner

PRIORITIES = {
    "HIGHEST": 0,
    "VERY_HIGH": 10,
    "HIGH": 30,
    "ABOVE_NORMAL": 40,
    "NORMAL": 50,
    "BELOW_NORMAL": 60,
    "LOW": 70,
    "VERY_LOW": 90,
    "LOWEST": 100,
}


def get_priority(priority: int | str, path: str = "A hook's priority") -> int:
    """Return a priority as a number: 0 runs first, 100 last.

    Raises:
        ConfigError: An unknown name, or a number outside 0 to 100.
    """
    if isinstance(priority, str) and priority.upper() in PRIORITIES:
        return PRIORITIES[priority.upper()]
    if type(priority) is int and 0 <= priority <= 100:
        return priority
    hint = did_you_mean(str(priority).upper(), PRIORITIES, listed="Levels")
    raise ConfigError(f"{path} is {priority!r}; expected 0 to 100, or a level. {hint}")


class Hook:
    """Base of all hooks. Override the points you need; the others cost nothing.

    The points, in the order of a run::

        before_run
          [weights are initialised; a checkpoint is loaded: after_load_checkpoint]
          before_train
            before_train_epoch
              before_train_iter, [train_step], after_train_iter     for each batch; then iter rises
            after_train_epoch                                       then epoch rises
            before_val                                              when a validation is due
              before_val_epoch
                before_val_iter, after_val_iter                     for each batch
              after_val_epoch                                       gets the metrics
            after_val
          after_train
        after_run

    In an iteration loop the epoch points frame the whole training and validations come between
    iterations. ``runner.test()`` has ``before_test`` … ``after_test`` in the same shape.
    ``before_save_checkpoint`` comes inside whatever point saves, before the state is written, and
    may add to it.

    ``_before_epoch``, ``_after_epoch``, ``_before_iter`` and ``_after_iter`` stand for the points
    of all modes.
    """

    priority: ClassVar[int | str] = "NORMAL"
    # Comes after all others, whatever the priorities: what saves their states has to see them all.
    runs_last: ClassVar[bool] = False
    # Arguments that name metrics of the validation, so that a wrong name is found early.
    monitors: ClassVar[tuple[str, ...]] = ()

    def rule_of(self, metric: str, metrics: Mapping[str, Any]) -> str | None:
        """Return whether ``"greater"`` or ``"less"`` of a metric is better, if this hook was told.

        Args:
            metric: Its full name.
            metrics: All of a validation.
        """
        return None

    def before_run(self, runner: Runner) -> None:
        """Before anything is loaded."""

    def after_run(self, runner: Runner) -> None:
        """At the very end."""

    def before_train(self, runner: Runner) -> None:
        """Before the first epoch."""

    def after_train(self, runner: Runner) -> None:
        """After the last epoch and its validation."""

    def before_val(self, runner: Runner) -> None:
        """Before a validation."""

    def after_val(self, runner: Runner) -> None:
        """After a validation."""

    def before_test(self, runner: Runner) -> None:
        """Before a test."""

    def after_test(self, runner: Runner) -> None:
        """After a test."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Before a checkpoint is written; what is added must be plain data and tensors."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """After a checkpoint is read, before any of it is used."""

    def before_train_epoch(self, runner: Runner) -> None:
        """Before the first batch of an epoch."""
        self._before_epoch(runner, mode="train")

    def before_val_epoch(self, runner: Runner) -> None:
        """Before the first batch of a validation."""
        self._before_epoch(runner, mode="val")

    def before_test_epoch(self, runner: Runner) -> None:
        """Before the first batch of a test."""
        self._before_epoch(runner, mode="test")

    def after_train_epoch(self, runner: Runner) -> None:
        """After the last batch of an epoch."""
        self._after_epoch(runner, mode="train")

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """After a validation's metrics are computed."""
        self._after_epoch(runner, mode="val")

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """After a test's metrics are computed."""
        self._after_epoch(runner, mode="test")

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Before a train step; ``batch_idx`` counts in the epoch, or is the iteration."""
        self._before_iter(runner, batch_idx, data_batch, mode="train")

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Before a val step."""
        self._before_iter(runner, batch_idx, data_batch, mode="val")

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Before a test step."""
        self._before_iter(runner, batch_idx, data_batch, mode="test")

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """After a train step; ``outputs`` is what it returned."""
        self._after_iter(runner, batch_idx, data_batch, outputs, mode="train")

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """After a val step; ``outputs`` are the predictions."""
        self._after_iter(runner, batch_idx, data_batch, outputs, mode="val")

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """After a test step; ``outputs`` are the predictions."""
        self._after_iter(runner, batch_idx, data_batch, outputs, mode="test")

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None: ...
    def _after_epoch(self, runner: Runner, mode: str = "train") -> None: ...
    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = "train"
    ) -> None: ...
    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """Return what the hook needs to go on after a resume: plain data and tensors."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` returned."""

    def every_n_epochs(self, runner: Runner, n: int, start: int = 0) -> bool:
        """Whether the current epoch is the ``n``-th, counted from epoch number ``start``."""
        return _every(runner.epoch + 1, n, start)

    def every_n_train_iters(self, runner: Runner, n: int, start: int = 0) -> bool:
        """Whether the current iteration is the ``n``-th, counted from number ``start``."""
        return _every(runner.iter + 1, n, start)

    def every_n_inner_iters(self, batch_idx: int, n: int) -> bool:
        """Whether the batch is the ``n``-th of its epoch."""
        return _every(batch_idx + 1, n, 0)

    def is_last_train_epoch(self, runner: Runner) -> bool:
        """Whether the current epoch is the last."""
        return runner.epoch + 1 >= runner.max_epochs

    def is_last_train_iter(self, runner: Runner) -> bool:
        """Whether the current iteration is the last."""
        return runner.iter + 1 >= runner.max_iters

    def end_of_epoch(self, dataloader: Any, batch_idx: int) -> bool:
        """Whether the batch is the last of the loader."""
        return batch_idx + 1 == len(dataloader)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith(("before_", "after_")) and name not in POINTS:
                raise TypeError(
                    f"{cls.__name__}.{name} is not a point of a run, so it would never be called. "
                    f"{did_you_mean(name, POINTS)} Start the names of helper methods with an "
                    "underscore."
                )


def _every(count: int, n: int, start: int) -> bool:
    past = count - start
    return past >= 0 and n > 0 and past % n == 0


POINTS = tuple(name for name in vars(Hook) if name.startswith(("before_", "after_")))


def points_of(hook: Hook) -> list[str]:
    """Return the points that a hook's class overrides, also by a generic."""
    cls = type(hook)
    return [
        p
        for p in POINTS
        if _overrides(cls, p) or ((generic := _generic(p)) and _overrides(cls, generic))
    ]


def _overrides(cls: type[Hook], name: str) -> bool:
    return getattr(cls, name) is not getattr(Hook, name)


def _generic(point: str) -> str:
    """Return the generic of a point (``_before_iter`` of ``before_val_iter``), or nothing."""
    when, _, what = point.partition("_")
    return f"_{when}_{what.partition('_')[2]}" if what.endswith(("_epoch", "_iter")) else ""


class HookList(Hook):
    """Hooks as one hook: each point calls those that override it, by priority.

    Those that save come last at every point.

    Args:
        hooks: The hooks by name; the names key their states in a checkpoint.
        priorities: Priorities by name that replace a class's own.
        first: Comes before all of them, and is none of them: without a name or a state.
    """

    def __init__(
        self,
        hooks: Mapping[str, Hook],
        priorities: Mapping[str, int | str] | None = None,
        first: Hook | None = None,
    ) -> None:
        given = priorities or {}
        self.first = first or Hook()
        self.priorities = {
            name: get_priority(given.get(name, hook.priority)) for name, hook in hooks.items()
        }
        # Stable: equal priorities keep the order given.
        order = sorted(hooks, key=lambda name: (hooks[name].runs_last, self.priorities[name]))
        self.hooks = {name: hooks[name] for name in order}
        called = [(hook, points_of(hook)) for hook in (self.first, *self.hooks.values())]
        for point in POINTS:
            methods = [getattr(hook, point) for hook, points in called if point in points]
            setattr(self, point, _in_order(methods))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each hook that has one, by name."""
        states = {name: hook.state_dict() for name, hook in self.hooks.items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Hand each hook its state; states of hooks that are gone are left."""
        for name, state in state_dict.items():
            if name in self.hooks:
                self.hooks[name].load_state_dict(state)

    def table(self) -> str:
        """Return a table of the points and, in order, the hooks called there."""
        lines = []
        for point in POINTS:
            names = [
                f"{n} ({self.priorities[n]})"
                for n, hook in self.hooks.items()
                if point in points_of(hook)
            ]
            lines += [f"  {point:<23} {', '.join(names)}"] if names else []
        return "\n".join(lines)


def _in_order(methods: Sequence[Callable[..., None]]) -> Callable[..., None]:
    if len(methods) == 1:
        return methods[0]

    def call(*args: Any, **kwargs: Any) -> None:
        for method in methods:
            method(*args, **kwargs)

    return call
