"""From the arguments ``*_dataloader`` to data loaders."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sized
from typing import Any

from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from trainkit.config.build import build, find_target, is_config, partial, to_plain
from trainkit.dataloader import (
    DefaultSampler,
    FirstSamples,
    data_sampler,
    num_batches,
    pseudo_collate,
    take_over,
)
from trainkit.dist import get_world_size
from trainkit.errors import ConfigError

logger = logging.getLogger(__name__)

TIMEOUT = 600  # seconds without a batch after which data workers are taken to hang


def build_dataloader(node: Any, path: str, *, seed: int | None, training: bool) -> Any:
    """Return the loader, made such that its place in the data can be gone back to.

    A config of a ``DataLoader`` may leave the sampler out (shuffled for training, in order and
    unpadded for evaluation) and the timeout (:data:`TIMEOUT` where there are workers); its
    ``sampler``, ``batch_sampler`` and ``collate_fn`` need no ``_partial_``. See
    :func:`trainkit.dataloader.take_over` for what becomes of a loader.
    """
    loader = _built(node, path, seed, training) if is_config(node) else node
    # Of a few samples that are evaluated by many ranks, some have none.
    if num_batches(loader) == 0 and (training or get_world_size() == 1):
        raise ConfigError(f"{path} gives no batch{_sizes(loader)}.")
    if not training:
        _warn_of_padding(loader, path)
    return take_over(loader, seed or 0)


def _sizes(loader: Any) -> str:
    """Return why a loader has no batch, as far as it tells."""
    if not isinstance(loader, DataLoader):
        return ", its length being 0"
    dataset: Any = loader.dataset
    size = len(dataset) if isinstance(dataset, Sized) else "unknown"
    return (
        f": {size} samples, batch_size={loader.batch_size}, drop_last={loader.drop_last}. Lower "
        "batch_size, set drop_last=false, or give it more samples"
    )


def _warn_of_padding(loader: Any, path: str) -> None:
    """Say so if samples will be counted twice."""
    sampler, dataset = data_sampler(loader), getattr(loader, "dataset", None)
    if isinstance(sampler, DistributedSampler):
        pads, ranks = not sampler.drop_last, sampler.num_replicas
    else:
        pads, ranks = getattr(sampler, "round_up", False), getattr(sampler, "world_size", 1)
    if pads and isinstance(dataset, Sized) and len(dataset) % ranks:
        logger.warning(
            "%s: its %s repeats samples so that all %d ranks read the same number, and the metrics "
            "count those twice. Give it round_up=False, or leave the sampler to trainkit.",
            path,
            type(sampler).__name__,
            ranks,
        )


def _built(node: Any, path: str, seed: int | None, training: bool) -> Any:
    node = to_plain(node, path)
    target = find_target(node, path, DataLoader)
    if not (inspect.isclass(target) and issubclass(target, DataLoader)):
        return build(node, path)
    options = dict(node)
    dataset = _dataset(options, path)
    if isinstance(dataset, IterableDataset):  # it decides its own order
        options.pop("sampler", None)
    else:
        _order(options, path, _sampler(options, path, dataset, seed, training))
    for name, fallback in (("collate_fn", pseudo_collate), ("worker_init_fn", None)):
        function = options.get(name)
        if is_config(function):
            function = partial(function, f"{path}.{name}").bound()
        options[name] = function or fallback
    if options.get("num_workers"):
        options.setdefault("timeout", TIMEOUT)
    loader = build(options, path, default=DataLoader, args=(dataset,))
    return loader


def _order(options: dict[str, Any], path: str, sampler: Any) -> None:
    """Put the sampler into the loader's arguments, inside the batch sampler if there is one."""
    if options.get("batch_sampler") is None:
        options["sampler"] = sampler
        return
    if not is_config(options["batch_sampler"]):
        return
    batched = partial(options.pop("batch_sampler"), f"{path}.batch_sampler")
    drop_last = options.pop("drop_last", False)
    extra = {"drop_last": drop_last} if batched.accepts("drop_last") else {}
    options["batch_sampler"] = batched(sampler, options.pop("batch_size", 1), **extra)


def _dataset(options: dict[str, Any], path: str) -> Any:
    if "dataset" not in options:
        raise ConfigError(
            f"{path} has no dataset. Give it one: a Dataset, or a config with _target_."
        )
    dataset = build(options.pop("dataset"), f"{path}.dataset")
    if hasattr(dataset, "full_init"):  # here, and not again in every worker
        dataset.full_init()
    batches = options.pop("num_batch_per_epoch", None)
    if batches is not None:
        if type(batches) is not int or batches < 1:
            raise ConfigError(
                f"{path}.num_batch_per_epoch is {batches!r}; expected at least 1, or null for all."
            )
        return FirstSamples(dataset, batches * (options.get("batch_size") or 1) * get_world_size())
    return dataset


def _sampler(
    options: dict[str, Any], path: str, dataset: Dataset[Any], seed: int | None, training: bool
) -> Any:
    node = options.pop("sampler", None)
    if node is not None and not is_config(node):
        return node
    shuffle = options.pop("shuffle", None)
    part = partial(
        node or {"shuffle": training if shuffle is None else shuffle},
        f"{path}.sampler",
        default=DefaultSampler,
    )
    runtime: dict[str, Any] = {"seed": seed} if part.accepts("seed") else {}
    if not training and part.accepts("round_up"):
        runtime["round_up"] = False  # a padded sample would be counted twice
    return part(dataset, **runtime)
