"""LogProcessor: from the message hub to a line of text and a dict of scalars."""

from __future__ import annotations

import datetime
import re
import resource
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainkit.dataloader import num_batches
from trainkit.dist import all_gather_object, get_world_size
from trainkit.errors import ConfigError, did_you_mean
from trainkit.history import METHODS, Statistic, Window

if TYPE_CHECKING:
    from trainkit.runner import Runner

_TIMES = ("data_time", "time")
# What a line and the backends have under these names in any case.
_BUILT_IN = (*_TIMES, "eta", "memory", "lr", "grad_norm", "step", "epoch", "iter", "samples")
_CUSTOM_KEYS = ("data_src", "method_name", "window_size", "log_name")


class LogProcessor:
    """Choose, smooth and format what is logged.

    Args:
        window_size: Values of which a smoothed scalar is the mean.
        by_epoch: Count in epochs (``Epoch(train) [3][20/196]``) or iterations (``Iter(train)
            [420/5000]``); None: as the train loop counts.
        custom_cfg: Further statistics, or others than the usual: a list of mappings, or mappings by
            the name that is logged. Each may have ``data_src``: the scalar's name; ``method_name``:
            ``mean`` (the default), ``min``, ``max``, ``current``, or a function of the values and
            their counts, in a config a mapping with ``_target_`` and ``_partial_: true``;
            ``window_size``: a number of values, ``epoch``, or ``global`` (the default);
            ``log_name``: without it, the statistic takes the place of the scalar itself.
        num_digits: Digits after the point.
        log_with_hierarchy: Keep ``train/`` and ``val/`` in the names that the backends get. The
            default is MMEngine's; a Runner that is given no class of a log processor has it true.
        mean_pattern: Scalars in whose name it is found are smoothed; of the others the newest value
            is shown.
    """

    def __init__(
        self,
        window_size: int = 10,
        by_epoch: bool | None = None,
        custom_cfg: Sequence[Mapping[str, Any]]
        | Mapping[str, Mapping[str, Any] | None]
        | None = None,
        num_digits: int = 4,
        log_with_hierarchy: bool = False,
        mean_pattern: str = r".*(loss|time|data_time|grad_norm).*",
    ) -> None:
        for name, value in (("window_size", window_size), ("num_digits", num_digits)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"log_processor.{name} is {value!r}; expected at least 1.")
        self.window_size, self.by_epoch, self.num_digits = window_size, by_epoch, num_digits
        self.log_with_hierarchy = log_with_hierarchy
        try:
            self.mean_pattern = re.compile(mean_pattern)
        except (re.error, TypeError) as error:
            raise ConfigError(
                f"log_processor.mean_pattern is {mean_pattern!r}; expected a regular expression "
                f"({error})."
            ) from None
        self._custom = _parse(custom_cfg)
        if by_epoch is not None:
            self.check(by_epoch)

    @property
    def longest_window(self) -> int:
        """The most values that a window of a given size has."""
        sizes = [custom.window for custom in self._custom if isinstance(custom.window, int)]
        return max(self.window_size, *sizes) if sizes else self.window_size

    def check(self, by_epoch: bool) -> None:
        """Raise if there is a window that the run cannot have.

        Args:
            by_epoch: Whether the train loop counts epochs.

        Raises:
            ConfigError: A window is an epoch, and lines count iterations.
        """
        counts_epochs = by_epoch if self.by_epoch is None else self.by_epoch
        for custom in self._custom:
            if custom.window == "epoch" and not counts_epochs:
                raise ConfigError(
                    f"log_processor.custom_cfg: the window_size of {custom.log_name!r} is 'epoch', "
                    "but the run counts iterations. Give a number of values, or 'global'."
                )

    def unknown_sources(self, names: Collection[str]) -> list[str]:
        """Return what is wrong with each statistic of a scalar that is not among ``names``."""
        return [
            f"log_processor.custom_cfg: {custom.log_name!r} is a statistic of {custom.data_src!r}, "
            f"but no scalar has that name so far. {did_you_mean(custom.data_src, names)}"
            for custom in self._custom
            if custom.data_src not in names
        ]

    def get_log_after_iter(
        self, runner: Runner, batch_idx: int, mode: str
    ) -> tuple[dict[str, Any], str]:
        """Return the scalars and the line of one iteration; in training, every rank calls it.

        Rates and times are this rank's; all else is the mean over the ranks, which are asked here,
        and not in each iteration.

        Args:
            runner: Its hub and counters are read.
            batch_idx: Place in the epoch, from 0.
            mode: ``"train"``, ``"val"`` or ``"test"``.
        """
        scalars = self._collect(runner, mode)
        if mode == "train" and get_world_size() > 1:
            scalars |= _over_ranks(scalars)
        rates = [name for name in scalars if name.endswith("lr")]
        line = self._header(runner, batch_idx, mode)
        line += "".join(f"{name}: {scalars[name]:.{self.num_digits}e}  " for name in rates)
        eta = runner.message_hub.get_info("eta")
        parts = [f"eta: {datetime.timedelta(seconds=int(eta))}"] if eta is not None else []
        parts += [
            self._show(name, scalars[name]) for name in ("time", "data_time") if name in scalars
        ]
        memory = max_memory(runner.device)
        parts.append(f"memory: {memory}")
        if mode == "train":
            shown = {*rates, *_TIMES}
            parts += [self._show(name, scalars[name]) for name in scalars if name not in shown]
        tag = self._tag(runner, scalars, mode, ahead=int(mode == "train"))
        tag["memory"] = memory
        return tag, line + "  ".join(parts)

    def get_log_after_epoch(
        self, runner: Runner, batches: int, mode: str, metrics: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], str]:
        """Return the scalars and the line at the end of a validation or test.

        Args:
            runner: Its hub and counters are read.
            batches: Batches that were evaluated.
            mode: ``"val"`` or ``"test"``.
            metrics: What was measured; None: all that the hub has of ``mode``.
        """
        only = None if metrics is None else {*metrics, *_TIMES}
        scalars = self._collect(runner, mode, at_end=True, only=only)
        times = {name: scalars.pop(name) for name in _TIMES if name in scalars}
        facts = {
            key.removeprefix(f"{mode}/"): value
            for key, value in runner.message_hub.runtime_info.items()
            if key.startswith(f"{mode}/")
        }
        others = {k: v for k, v in facts.items() if metrics is None or k in metrics}
        shown = {**scalars, **others, **times}
        line = self._header(runner, batches - 1, mode)
        line += "  ".join(self._show(name, value) for name, value in shown.items())
        return self._tag(runner, {**scalars, **times}, mode), line

    def counts_epochs(self, runner: Runner) -> bool:
        """Whether lines count in epochs."""
        return runner.by_epoch if self.by_epoch is None else self.by_epoch

    def _collect(
        self,
        runner: Runner,
        mode: str,
        *,
        at_end: bool = False,
        only: Collection[str] | None = None,
    ) -> dict[str, float]:
        """Return the scalars of ``mode`` by name, as they are logged.

        Args:
            runner: Its hub is read.
            mode: ``"train"``, ``"val"`` or ``"test"``.
            at_end: At the end of an evaluation times are means of the whole of it, and nothing else
                is smoothed, as there was one value in each evaluation.
            only: Scalars to look at; None: all.
        """
        buffers = {
            key.removeprefix(f"{mode}/"): buffer
            for key, buffer in runner.message_hub.log_scalars.items()
            if key.startswith(f"{mode}/")
        }
        found: dict[str, float] = {}
        for name in [name for name in buffers if only is None or name in only]:
            if at_end:
                mean: Window | None = "epoch" if name in _TIMES else None
            else:
                mean = self.window_size if self.mean_pattern.search(name) else None
            found[name] = buffers[name].current() if mean is None else buffers[name].mean(mean)
        for custom in self._custom:
            if custom.data_src in buffers and (only is None or custom.data_src in only):
                if custom.log_name in buffers and custom.log_name != custom.data_src:
                    raise ConfigError(_taken(custom.log_name, custom.data_src))
                buffer = buffers[custom.data_src]
                found[custom.log_name] = buffer.statistics(custom.method, custom.window)
        return found

    def _tag(
        self, runner: Runner, scalars: Mapping[str, float], mode: str, ahead: int = 0
    ) -> dict[str, Any]:
        """Return what the backends get; ``ahead`` is 1 before the counters have risen."""
        prefix = f"{mode}/" if self.log_with_hierarchy else ""
        tag: dict[str, Any] = {f"{prefix}{name}": value for name, value in scalars.items()}
        samples = runner.message_hub.get_info("samples")
        counters = {"epoch": runner.epoch + ahead, "iter": runner.iter + ahead, "samples": samples}
        return tag | {name: value for name, value in counters.items() if value is not None}

    def _header(self, runner: Runner, batch_idx: int, mode: str) -> str:
        total = num_batches(runner.dataloader(mode)) or batch_idx + 1
        if mode == "train" and not self.counts_epochs(runner):
            end = runner.max_iters
            return f"Iter(train)  [{runner.iter + 1:>{len(str(end))}}/{end}]  "
        place = f"[{batch_idx + 1:>{len(str(total))}}/{total}]  "
        if mode == "test":
            return f"Epoch(test)  {place}" if self.counts_epochs(runner) else f"Iter(test)  {place}"
        if not self.counts_epochs(runner):
            return f"Iter({mode})  {place}"
        epoch = runner.epoch + 1 if mode == "train" else runner.epoch
        return f"Epoch({mode})  [{epoch:>{len(str(runner.max_epochs))}}]{place}"

    def _show(self, name: str, value: Any) -> str:
        if isinstance(value, float):
            return f"{name}: {value:.{self.num_digits}f}"
        # An array, such as a confusion matrix, has lines of its own.
        return f"{name}:\n{value}\n" if getattr(value, "ndim", 0) else f"{name}: {value}"


def _over_ranks(scalars: Mapping[str, float]) -> dict[str, float]:
    """Return the means over the ranks of what is neither a rate nor a time."""
    own = {k: v for k, v in scalars.items() if k not in _TIMES and not k.endswith("lr")}
    told = all_gather_object(own)
    values = {name: [one[name] for one in told if name in one] for name in own}
    return {name: sum(found) / len(found) for name, found in values.items()}


@dataclass(frozen=True)
class _Custom:
    """One entry of ``custom_cfg``."""

    data_src: str
    log_name: str
    method: str | Statistic
    window: Window


def _parse(
    custom_cfg: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any] | None] | None,
) -> list[_Custom]:
    """Return the entries of ``custom_cfg``.

    Raises:
        ConfigError: An entry that is none, or two for one name.
    """
    if isinstance(custom_cfg, Mapping):
        named = {str(name): node for name, node in custom_cfg.items() if node is not None}
        found = [_entry(node, name, name) for name, node in named.items()]
    elif custom_cfg is None or (
        isinstance(custom_cfg, Sequence) and not isinstance(custom_cfg, str)
    ):
        found = [_entry(node, str(index)) for index, node in enumerate(custom_cfg or ())]
    else:
        raise ConfigError(
            f"log_processor.custom_cfg is {custom_cfg!r}; expected a list of mappings, or mappings "
            "by name."
        )
    for custom in found:
        if custom.log_name in _BUILT_IN and custom.log_name != custom.data_src:
            raise ConfigError(_taken(custom.log_name, custom.data_src))
    names = [custom.log_name for custom in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"log_processor.custom_cfg has several entries that are logged as {name!r}. Give "
                "all but one of them another log_name."
            )
    return found


def _entry(node: Any, index: str, name: str | None = None) -> _Custom:
    """Return one entry; ``name`` is what it stands under, and what it is about unless it tells."""
    path = f"log_processor.custom_cfg.{index}"
    if not isinstance(node, Mapping):
        raise ConfigError(f"{path} is {node!r}; expected a mapping with data_src.")
    for key in node:
        if key not in _CUSTOM_KEYS:
            near = did_you_mean(str(key), _CUSTOM_KEYS)
            raise ConfigError(f"{path}.{key}: a statistic has no such option. {near}")
    source = node.get("data_src", name)
    log_name = node.get("log_name", source if name is None else name)
    for key, value in (("data_src", source), ("log_name", log_name)):
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{path}.{key} is {value!r}; expected the name of a scalar.")
    method = node.get("method_name", "mean")
    if method not in METHODS and not callable(method):
        near = did_you_mean(str(method), METHODS)
        raise ConfigError(f"{path}.method_name is {method!r}; expected a statistic. {near}")
    window = node.get("window_size", "global")
    if not (type(window) is int and window > 0) and window not in ("epoch", "global"):
        raise ConfigError(
            f"{path}.window_size is {window!r}; expected a number of values, 'epoch' or 'global'."
        )
    return _Custom(source, log_name, method, window)


def _taken(log_name: str, source: str) -> str:
    return (
        f"log_processor.custom_cfg logs a statistic of {source!r} as {log_name!r}, which is the "
        "name of another scalar. Give it another log_name."
    )


def max_memory(device: torch.device) -> int:
    """Return the peak memory in MiB: of the device since the last call, else of the process."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return int(peak // 2**20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    return int(peak // (2**20 if sys.platform == "darwin" else 2**10))
