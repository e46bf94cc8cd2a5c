"""From the arguments ``*_dataloader`` to data loaders."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sized
from typing import Any

from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from trainkit.config.build import build, find_target, is_config, partial, to_plain
from trainkit.config.signature import REQUIRED, schema_of
from trainkit.dataloader import (
    DefaultSampler,
    FirstOfStream,
    FirstSamples,
    data_sampler,
    num_batches,
    pseudo_collate,
    take_over,
)
from trainkit.dist import get_world_size, is_main_process
from trainkit.errors import ConfigError

logger = logging.getLogger(__name__)

TIMEOUT = 600  # seconds without a batch after which data workers are taken to hang
_BATCHES = {"batch_size": 1, "drop_last": False}  # a loader's own, and torch's values of them


def build_dataloader(node: Any, path: str, *, seed: int | None, training: bool) -> Any:
    """Return the loader, made such that its place in the data can be gone back to.

    A config of a ``DataLoader`` may leave the sampler out (shuffled for training; for evaluation in
    order, unpadded, in blocks) and the timeout (:data:`TIMEOUT` where there are workers); its
    ``sampler``, ``batch_sampler`` and ``collate_fn`` need no ``_partial_``. A batch sampler gets
    the loader's ``batch_size`` and ``drop_last`` where it takes them and has none of its own. See
    :func:`trainkit.dataloader.take_over` for what becomes of a loader.
    """
    loader = _built(node, path, seed, training) if is_config(node) else node
    # Of a few samples that are evaluated by many ranks, some have none.
    if num_batches(loader) == 0 and (training or get_world_size() == 1):
        raise ConfigError(f"{path} gives no batch{_sizes(loader)}.")
    if not training:
        _warn_of_padding(loader, path)
        _warn_of_turns(loader, path)
    _warn_of_copies(loader, path)
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


def _warn_of_turns(loader: Any, path: str) -> None:
    """Say so if what the ranks find, one after the other, will not be in the dataset's order."""
    sampler = data_sampler(loader)
    if isinstance(sampler, DefaultSampler):
        in_turn = not sampler.in_blocks
    else:
        in_turn = isinstance(sampler, DistributedSampler)
    if in_turn and get_world_size() > 1 and is_main_process():
        logger.warning(
            "%s: its %s deals samples out in turn, so metrics get those of %d ranks in another "
            "order than the dataset's, and DumpResults keeps them so. Leave the sampler to "
            "trainkit, or give it trainkit.dataloader.DefaultSampler(dataset, shuffle=False, "
            "round_up=False, in_blocks=True).",
            *(path, type(sampler).__name__, get_world_size()),
        )


def _warn_of_copies(loader: Any, path: str) -> None:
    """Say so if each rank reads all of the data."""
    plain = type(data_sampler(loader)) in (RandomSampler, SequentialSampler)
    if plain and get_world_size() > 1 and is_main_process():
        logger.warning(
            "%s deals nothing out: each of the %d ranks reads all of its samples. Give the loader "
            "as a config, or with sampler=trainkit.dataloader.DefaultSampler(dataset).",
            *(path, get_world_size()),
        )


def _built(node: Any, path: str, seed: int | None, training: bool) -> Any:
    node = to_plain(node, path)
    target = find_target(node, path, DataLoader)
    if not (inspect.isclass(target) and issubclass(target, DataLoader)):
        return build(node, path)
    options = dict(node)
    dataset = _dataset(options, path)
    is_stream = isinstance(dataset, IterableDataset)
    check_options(options, path, is_stream=is_stream)
    if not is_stream and (options.get("batch_sampler") is None or _batches_by_config(options)):
        _order(options, path, _sampler(options, path, dataset, seed, training))
    for name, fallback in (("collate_fn", pseudo_collate), ("worker_init_fn", None)):
        function = options.get(name)
        if is_config(function):
            function = partial(function, f"{path}.{name}").bound()
        elif function is not None and not callable(function):
            raise ConfigError(
                f"{path}.{name} is {function!r}; expected a function, or a config with _target_."
            )
        options[name] = function or fallback
    if options.get("num_workers"):
        options.setdefault("timeout", TIMEOUT)
    return build(options, path, default=DataLoader, args=(dataset,))


def check_options(options: Mapping[str, Any], path: str, *, is_stream: bool) -> None:
    """See that none of a loader's arguments would be left without effect.

    Args:
        options: The arguments, with samplers as they are given.
        path: Where they stand in the config.
        is_stream: Whether the dataset is an iterable one.

    Raises:
        ConfigError: One would.
    """
    shuffle, sampler, batches = map(options.get, ("shuffle", "sampler", "batch_sampler"))
    given = {"sampler": sampler, "batch_sampler": batches, "shuffle": shuffle or None}
    for name, value in given.items():
        if is_stream and value is not None:
            raise ConfigError(
                f"{path}.{name} is given, but the dataset is an iterable one, which has its own "
                "order. Set it to null."
            )
    if shuffle is not None and sampler is not None:
        raise ConfigError(
            f"{path}.shuffle is {shuffle!r}, but the order is that of {path}.sampler. Drop "
            f"shuffle, or give it to the sampler: {path}.sampler.shuffle."
        )
    if _batches_by_config(options):
        _batch_arguments(options, path)
    elif batches is not None and (shuffle or sampler is not None):
        name = "shuffle" if shuffle else "sampler"
        raise ConfigError(
            f"{path}.{name} is given, but {path}.batch_sampler is an object, which has its own "
            f"order. Drop {name}, or give the batch sampler as a config."
        )


def _batches_by_config(options: Mapping[str, Any]) -> bool:
    return is_config(options.get("batch_sampler"))


def _order(options: dict[str, Any], path: str, sampler: Any) -> None:
    """Put the sampler into the loader's arguments, inside the batch sampler if there is one."""
    if not _batches_by_config(options):
        options["sampler"] = sampler
        return
    given = _batch_arguments(options, path)
    batched = partial(options["batch_sampler"], f"{path}.batch_sampler")
    options["batch_sampler"] = batched(sampler, **given)
    for name in _BATCHES:
        options.pop(name, None)


def _batch_arguments(options: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return what the config of a batch sampler gets of the loader's arguments.

    Raises:
        ConfigError: The loader has one that the batch sampler does not take, or has otherwise.
    """
    node, where = options["batch_sampler"], f"{path}.batch_sampler"
    target = find_target(node, where)
    schema = schema_of(target)
    parameters = {} if schema is None else schema.parameters
    found: dict[str, Any] = {}
    for name, fallback in _BATCHES.items():
        value = options.get(name)
        takes = name in parameters or (schema is not None and schema.is_open)
        if takes and name not in node:
            needs = name in parameters and parameters[name].default is REQUIRED
            value = fallback if value is None and needs else value
            found.update({} if value is None else {name: value})
        elif value not in (None, fallback, node.get(name)):
            kind = getattr(target, "__name__", repr(target))
            reason = f"has {node[name]!r}" if name in node else f"({kind}) takes none"
            raise ConfigError(
                f"{path}.{name} is {value!r}, but {where}, which makes the batches, {reason}. "
                f"Drop {path}.{name}."
            )
    return found


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
        size = _batch_size(options)
        if isinstance(dataset, IterableDataset):
            return FirstOfStream(dataset, batches, size)
        return FirstSamples(dataset, batches * size * get_world_size())
    return dataset


def _batch_size(options: Mapping[str, Any]) -> int:
    batches: Any = options.get("batch_sampler")
    own = batches.get("batch_size") if is_config(batches) else getattr(batches, "batch_size", None)
    return int(own or options.get("batch_size") or 1)


def _sampler(
    options: dict[str, Any], path: str, dataset: Dataset[Any], seed: int | None, training: bool
) -> Any:
    node = options.pop("sampler", None)
    shuffle = options.pop("shuffle", None)
    if node is not None and not is_config(node):
        return node
    part = partial(
        node or {"shuffle": training if shuffle is None else shuffle},
        f"{path}.sampler",
        default=DefaultSampler,
    )
    runtime: dict[str, Any] = {"seed": seed} if part.accepts("seed") else {}
    if not training and part.accepts("round_up"):
        runtime["round_up"] = False  # a padded sample would be counted twice
    if not training and part.accepts("in_blocks"):
        runtime["in_blocks"] = True  # entries of all ranks come in the dataset's order
    return part(dataset, **runtime)
