"""The digits: three disjoint, stratified splits of real images."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from trainkit.data import Digits
from trainkit.errors import ConfigError


@pytest.fixture(scope="module")
def splits() -> dict[str, Digits]:
    return {name: Digits(name) for name in ("train", "val", "test")}


def test_the_splits_have_the_sizes_they_promise(splits: dict[str, Digits]) -> None:
    assert [len(split) for split in splits.values()] == [1259, 269, 269]


def test_every_image_is_in_one_split_only(splits: dict[str, Digits]) -> None:
    images = [tuple(image.flatten().tolist()) for s in splits.values() for image in s.images]
    assert len(set(images)) == len(images) == 1797


def test_every_split_has_each_digit_in_its_share(splits: dict[str, Digits]) -> None:
    whole = Counter(label for split in splits.values() for label in split.labels)
    assert sorted(whole) == list(range(10))
    for split in splits.values():
        share = len(split) / 1797
        for digit, count in Counter(split.labels).items():
            assert abs(count - share * whole[digit]) < 2


def test_an_item_is_an_image_in_zero_to_one_and_its_label(splits: dict[str, Digits]) -> None:
    for split in splits.values():
        item = split[0]
        assert set(item) == {"inputs", "labels"}
        assert item["inputs"].shape == (1, 8, 8)
        assert item["inputs"].dtype == torch.float32
        assert type(item["labels"]) is int
        assert (split.images.min(), split.images.max()) == (0, 1)
        assert torch.equal(split.images * 16, (split.images * 16).round())


def test_images_of_one_digit_are_alike(splits: dict[str, Digits]) -> None:
    train, test = splits["train"], splits["test"]
    labels = torch.tensor(train.labels)
    means = torch.stack([train.images[labels == digit].mean(dim=0) for digit in range(10)])
    nearest = torch.cdist(test.images.flatten(1), means.flatten(1)).argmin(dim=1)
    assert (nearest == torch.tensor(test.labels)).float().mean() > 0.8


def test_training_is_the_default_and_all_say_what_they_are(splits: dict[str, Digits]) -> None:
    assert torch.equal(Digits().images, splits["train"].images)
    assert splits["val"].metainfo["classes"] == [str(digit) for digit in range(10)]
    assert (splits["val"].split, splits["test"].split) == ("val", "test")


def test_an_unknown_split_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"Digits has no split 'tain'\. Did you mean 'train'"):
        Digits("tain")


def test_changing_one_split_changes_no_other() -> None:
    first, second = Digits("val"), Digits("val")
    first.images.zero_()
    assert second.images.sum() > 0
