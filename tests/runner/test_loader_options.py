"""A loader's options: none is left without effect, whether a run or the check looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf, open_dict
from torch.utils.data import BatchSampler, IterableDataset, Sampler

from tests.runner.test_check import mistakes, own, torchs, trainkits
from tests.toy import SAMPLES, ToyDataset, loader_config, make_runner
from trainkit import ConfigError, Hook, Runner, compose

COLLATE = trainkits("dataloader.default_collate")
BATCHES = torchs("utils.data.BatchSampler")


class Stream(IterableDataset[dict[str, torch.Tensor]]):
    """The toy samples, without a length."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        data = ToyDataset()
        return (data[index] for index in range(SAMPLES))


class Images(IterableDataset[dict[str, Any]]):
    """Endless digits."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield {"inputs": torch.ones(1, 8, 8), "labels": 3}


class Whole:
    """A batch sampler that takes no size: one batch of everything."""

    def __init__(self, sampler: Sampler[int]) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[int]]:
        yield list(self.sampler)

    def __len__(self) -> int:
        return 1


class Fives(BatchSampler):
    """Takes whatever its base takes, by name."""

    def __init__(self, sampler: Sampler[int], **options: Any) -> None:
        super().__init__(sampler, **{"drop_last": True, **options})


class Sizes(Hook):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.seen.append(len(data_batch["x"]))


def sizes(work_dir: Path, **options: Any) -> list[int]:
    """Train an epoch; return the sizes of its batches."""
    hook = Sizes()
    given = {"dataset": ToyDataset(), "collate_fn": COLLATE, **options}
    train_cfg = {"by_epoch": True, "max_epochs": 1}
    make_runner(work_dir, train_dataloader=given, train_cfg=train_cfg, custom_hooks=[hook]).train()
    return hook.seen


def mine(_name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{_name}", **arguments}


IS_STREAM = "is given, but the dataset is an iterable one, which has its own order. Set it to null."
# Options of a loader of 64 samples a batch with a sampler, as in conf/, and what is said to them.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "shuffle beside a sampler": (
        {"shuffle": False},
        "shuffle is False, but the order is that of {path}.sampler. Drop shuffle, or give it to "
        "the sampler: {path}.sampler.shuffle.",
    ),
    "a sampler of a stream": ({"dataset": mine("Stream")}, f"sampler {IS_STREAM}"),
    "batches of a stream": (
        {"dataset": mine("Stream"), "sampler": None, "batch_sampler": BATCHES},
        f"batch_sampler {IS_STREAM}",
    ),
    "shuffling a stream": (
        {"dataset": mine("Stream"), "sampler": None, "shuffle": True},
        f"shuffle {IS_STREAM}",
    ),
    "two batch sizes": (
        {"batch_sampler": {**BATCHES, "batch_size": 5, "drop_last": False}},
        "batch_size is 64, but {path}.batch_sampler, which makes the batches, has 5. Drop "
        "{path}.batch_size.",
    ),
    "a batch size that is not taken": (
        {"batch_sampler": mine("Whole")},
        "batch_size is 64, but {path}.batch_sampler, which makes the batches, (Whole) takes none. "
        "Drop {path}.batch_size.",
    ),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_what_would_have_no_effect_is_refused_by_the_run(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    given = {"batch_size": 64, "sampler": {"shuffle": True}, **options}
    with pytest.raises(ConfigError) as caught:
        sizes(tmp_path, **given)
    path = "train_dataloader"
    assert str(caught.value) == f"{path}.{message.format(path=path)}"


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_what_would_have_no_effect_is_one_finding_of_the_check(
    options: dict[str, Any], message: str
) -> None:
    path = "dataloader.train"
    changes = {f"{path}.{name}": value for name, value in options.items()}
    assert mistakes(["train_cfg=iter"], changes) == [f"{path}.{message.format(path=path)}"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 5, "batch_sampler": BATCHES}, [5, 5, 2]),
        ({"batch_sampler": {**BATCHES, "batch_size": 5, "drop_last": True}}, [5, 5]),
        ({"batch_size": 5, "batch_sampler": {**BATCHES, "batch_size": 5}}, [5, 5, 2]),
        ({"batch_sampler": mine("Whole")}, [12]),
        ({"batch_size": 5, "batch_sampler": mine("Fives")}, [5, 5]),
        ({"batch_size": 5, "drop_last": False, "batch_sampler": mine("Fives")}, [5, 5, 2]),
        ({"batch_sampler": {**BATCHES, "batch_size": 5}, "num_batch_per_epoch": 1}, [5]),
    ],
)
def test_a_batch_sampler_gets_what_it_takes_and_keeps_its_own(
    tmp_path: Path, options: dict[str, Any], expected: list[int]
) -> None:
    assert sizes(tmp_path, **options) == expected


@pytest.mark.parametrize(
    "batch_sampler",
    [
        {**BATCHES, "batch_size": 5},
        {**BATCHES, "batch_size": 5, "drop_last": True},
        mine("Whole"),
        mine("Fives", batch_size=5),
    ],
)
def test_the_check_takes_a_batch_sampler_with_a_size_of_its_own(
    batch_sampler: dict[str, Any],
) -> None:
    loader = {"dataset": trainkits("data.Digits"), "batch_sampler": batch_sampler}
    assert mistakes([], {"dataloader.train": loader}) == []


def test_an_order_beside_a_batch_sampler_that_is_an_object_is_refused(tmp_path: Path) -> None:
    batches = BatchSampler(range(SAMPLES), 4, False)
    with pytest.raises(ConfigError, match=r"train_dataloader\.sampler is given, but .* an object"):
        sizes(tmp_path, batch_sampler=batches, sampler={"shuffle": True})
    assert sizes(tmp_path, batch_sampler=batches) == [4, 4, 4]


@pytest.mark.parametrize("name", ["collate_fn", "worker_init_fn"])
def test_the_name_of_a_function_is_no_function(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sizes(tmp_path, **{name: "mine"})
    assert str(caught.value) == (
        f"train_dataloader.{name} is 'mine'; expected a function, or a config with _target_."
    )
    (told,) = mistakes([], {f"dataloader.train.{name}": "mine"})
    assert told.startswith(f"dataloader.train.{name} is 'mine'; DataLoader takes something to call")


def test_batches_of_an_iterable_dataset_can_be_limited(tmp_path: Path) -> None:
    assert sizes(tmp_path, dataset=Stream(), batch_size=4, num_batch_per_epoch=2) == [4, 4]
    assert sizes(tmp_path / "all", dataset=Stream(), batch_size=5, num_batch_per_epoch=3) == [
        *(5, 5, 2)
    ]


@pytest.mark.parametrize("short", ["fast_dev_run=2", "overfit_batches=2"])
@pytest.mark.parametrize("loop", ["epoch", "iter"])
def test_a_run_over_an_iterable_dataset_can_be_cut_short(
    tmp_path: Path, short: str, loop: str
) -> None:
    cfg = compose([short, f"train_cfg={loop}", "env.num_threads=1", "visualizer=none"])
    node = {"dataset": mine("Images"), "batch_size": 4, "collate_fn": COLLATE}
    with open_dict(cfg):
        for split in ("train", "val"):
            OmegaConf.update(cfg, f"dataloader.{split}", node, merge=False)
    runner = Runner.from_cfg(cfg, work_dir=tmp_path)
    assert (len(runner.train_dataloader), len(runner.val_loop.dataloader)) == (2, 2)
    if short.startswith("fast"):
        runner.train()
        assert runner.iter == 2


def test_a_stream_takes_the_loaders_options(tmp_path: Path) -> None:
    options = loader_config(dataset=Stream(), sampler=None, shuffle=False, drop_last=True)
    assert sizes(tmp_path, **{**options, "batch_size": 5, "num_batch_per_epoch": 3}) == [5, 5]
    assert mistakes(["train_cfg=iter"], {"dataloader.train": own_stream()}) == []


def own_stream() -> dict[str, Any]:
    return {"dataset": own("Stream", shards="a"), "sampler": None, "shuffle": False}
