"""Weights from a checkpoint, put into a model: all that fits, or nothing at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainkit.checkpoint import read_checkpoint
from trainkit.checkpoint.fit import Fit, Rename, put, renamed, some, without_wrappers
from trainkit.config.build import build, is_config
from trainkit.dist import get_rank
from trainkit.errors import CheckpointError, ConfigError, did_you_mean
from trainkit.model import trained_weights, unwrap

if TYPE_CHECKING:
    from trainkit.runner.runner import Runner


@dataclass(frozen=True)
class LoadOptions:
    """How the weights of ``load_from`` are taken; resuming takes a checkpoint as it is.

    Args:
        strict: Whether every entry must fit, or what fits is taken and the rest is told; None:
            every entry for an evaluation, what fits to start training from.
        revise_keys: Pairs ``(regular expression, replacement)`` that rename the checkpoint's
            entries, one after the other. What ``DistributedDataParallel`` and ``torch.compile`` put
            into names is gone before.
        key: Under which key of the file the weights are; None: ``state_dict``, or else the file is
            the weights.
    """

    strict: bool | None = None
    revise_keys: Sequence[Rename] = ()
    key: str | None = None

    def __post_init__(self) -> None:
        for pair in self.revise_keys:
            try:
                pattern, replacement = pair
                re.sub(re.compile(pattern), replacement, "")
            except (re.error, IndexError, TypeError, ValueError) as error:
                raise ConfigError(
                    f"revise_keys has {pair!r}; expected a regular expression and its replacement, "
                    f"such as ['^backbone\\.', ''] ({error})."
                ) from None


def build_load_options(node: Any, path: str) -> LoadOptions:
    """Return the options; None is one with the defaults."""
    if node is not None and not is_config(node):
        raise ConfigError(f"{path} is {node!r}; expected a mapping such as {{strict: true}}.")
    options: LoadOptions = build(node or {}, path, default=LoadOptions)
    return options


def load_weights(
    runner: Runner,
    path: Path,
    *,
    map_location: str | torch.device = "cpu",
    options: LoadOptions | None = None,
) -> dict[str, Any]:
    """Load a checkpoint's weights into the model; return the checkpoint.

    Nothing of the model is changed unless the weights as a whole are taken.

    Raises:
        CheckpointError: The weights do not fit: any entry if ``strict``, else no entry at all.
    """
    options = options or LoadOptions()
    checkpoint = _chosen(read_checkpoint(path, map_location, get_rank()), options.key, path)
    runner.hooks.after_load_checkpoint(runner, checkpoint)
    if runner.is_resuming and "ema_state_dict" in checkpoint:
        runner.logger.warning("%s holds an average that no hook keeps; it is left out.", path)
        checkpoint["state_dict"] = trained_weights(checkpoint.pop("ema_state_dict"))
    model, weights = unwrap(runner.model), checkpoint["state_dict"]
    own = model.state_dict()
    bare = without_wrappers(weights, own)
    for pattern, _ in options.revise_keys:
        if not any(re.search(pattern, name) for name in bare):
            names = some(list(bare))
            runner.logger.warning("revise_keys: %r finds nothing in %s.", pattern, names)
    fit = Fit(own, renamed(bare, options.revise_keys))
    _accept(runner, path, fit, strict=bool(options.strict))
    put(model, fit, str(path))
    return checkpoint


def _chosen(checkpoint: dict[str, Any], key: str | None, path: Path) -> dict[str, Any]:
    """Return a checkpoint whose ``state_dict`` is what stands under ``key``."""
    if key is None:
        return checkpoint
    # Of a file without a state_dict, the whole was taken for one.
    file = checkpoint if key in checkpoint else checkpoint["state_dict"]
    chosen = file.get(key)
    if not isinstance(chosen, Mapping):
        near = did_you_mean(key, [str(name) for name in file], listed="It has")
        raise CheckpointError(f"load_cfg.key is {key!r}, under which {path} has no weights. {near}")
    return {**checkpoint, "state_dict": chosen}


def _accept(runner: Runner, path: Path, fit: Fit, *, strict: bool) -> None:
    """Tell how the weights fit.

    Raises:
        CheckpointError: They are not to be taken.
    """
    problems, name = fit.problems(), type(unwrap(runner.model)).__name__
    if not problems:
        return
    advice = fit.advice()
    if strict or not fit.fitting:
        text = f"{path} does not fit {name} ({fit.summary}): {'; '.join(problems)}."
        raise CheckpointError(f"{text} {advice} Nothing was loaded.".replace("  ", " "))
    runner.logger.warning("%s gives %s of %s.", path, fit.summary, name)
    for problem in problems:
        runner.logger.warning("%s: %s", path, problem)
    if advice:
        runner.logger.warning("%s", advice)
