"""Tell of a compiled model whose steps go past what was compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from trainkit.hook import Hook, HookList

if TYPE_CHECKING:
    from trainkit.runner.runner import Runner


class CountedCalls:
    """What a call of a compiled model does, and how often it was done."""

    def __init__(self, compiled: Callable[..., Any]) -> None:
        self.compiled, self.count = compiled, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Count, and call."""
        self.count += 1
        return self.compiled(*args, **kwargs)


class CompileWatch(Hook):
    """Warn after the first step of each kind that has not called the compiled model.

    ``nn.Module.compile()`` compiles a call of the model, ``self(...)``. A step that computes with
    submodules alone is as slow as before.
    """

    def __init__(self, calls: CountedCalls) -> None:
        self.calls = calls
        self._before = 0
        self._seen: set[str] = set()  # "train", "val" or "test"

    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = "train"
    ) -> None:
        self._before = self.calls.count

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> None:
        if mode not in self._seen and self.calls.count == self._before:
            runner.logger.warning(
                "compile does nothing in %s.%s_step: it never calls the model, self(...), which is "
                "what is compiled. Call it there, or compile the parts that it calls: "
                "part.compile().",
                runner.model_name,
                mode,
            )
        self._seen.add(mode)


def watch_compiled(model: nn.Module, hooks: HookList) -> HookList:
    """Return the hooks, with a :class:`CompileWatch` where the model is compiled."""
    if model._compiled_call_impl is None:  # what nn.Module.compile() sets
        return hooks
    calls = CountedCalls(model._compiled_call_impl)
    model._compiled_call_impl = calls
    watched = {**hooks.hooks, "compile_watch": CompileWatch(calls)}
    return HookList(watched, hooks.priorities, hooks.first)
