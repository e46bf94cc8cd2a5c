"""From the arguments ``*_dataloader`` to data loaders."""

from __future__ import annotations

import inspect
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from trainkit.config.build import build, find_target, is_config, partial, to_plain
from trainkit.dataloader import DefaultSampler, FirstSamples, num_batches, pseudo_collate
from trainkit.dist import get_world_size
from trainkit.errors import ConfigError


def build_dataloader(node: Any, path: str, *, seed: int | None, training: bool) -> Any:
    """Return the loader.

    A config of a ``DataLoader`` may leave the sampler out (shuffled for training, in order and
    unpadded for evaluation); its ``sampler``, ``batch_sampler`` and ``collate_fn`` need no
    ``_partial_``.
    """
    if not is_config(node):
        return node
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
    loader = build(options, path, default=DataLoader, args=(dataset,))
    if num_batches(loader) == 0:
        raise ConfigError(
            f"{path} gives no batch: {len(dataset)} samples, batch_size={loader.batch_size}, "
            f"drop_last={loader.drop_last}. Lower batch_size, or set drop_last=false."
        )
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
