"""ImgDataPreprocessor: images of any size become one normalised tensor; others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainkit.config import compose
from trainkit.errors import ConfigError
from trainkit.model import ImgDataPreprocessor
from trainkit.runner import Runner


def test_images_are_reversed_normalised_and_padded_in_this_order() -> None:
    preprocessor = ImgDataPreprocessor(
        mean=[1, 2, 3], std=[1, 2, 4], pad_size_divisor=4, pad_value=9, bgr_to_rgb=True
    )
    image = torch.tensor([11, 6, 5], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 5)
    (made,) = preprocessor({"inputs": [image]})["inputs"]
    assert made.shape == (3, 4, 8)
    assert made.dtype == torch.float32
    assert made[:, :2, :5].eq(torch.tensor([4.0, 2.0, 2.0]).view(3, 1, 1)).all()
    assert made[:, 2:].eq(9).all()
    assert made[:, :, 5:].eq(9).all()


def test_images_of_several_sizes_are_padded_to_the_greatest() -> None:
    images = [torch.ones(1, 2, 5), torch.ones(1, 3, 4)]
    made = ImgDataPreprocessor()({"inputs": images})["inputs"]
    assert made.shape == (2, 1, 3, 5)
    assert made.sum() == 22
    video = ImgDataPreprocessor(mean=[1, 2, 3], std=[1])({"inputs": [torch.ones(3, 4, 2, 2)]})
    assert video["inputs"].shape == (1, 3, 4, 2, 2)
    assert video["inputs"][0, 1].eq(-1).all()


def test_the_batch_that_was_given_stays_as_it_was() -> None:
    images = torch.ones(1, 1, 2, 2)
    batch = {"inputs": images, "labels": torch.ones(1)}
    made = ImgDataPreprocessor([1], [2])(batch)
    assert batch["inputs"] is images
    assert images.eq(1).all()
    assert made["inputs"].eq(0).all()
    assert made["labels"].eq(1).all()


def test_statistics_follow_the_device_and_stay_out_of_the_state_dict() -> None:
    preprocessor = ImgDataPreprocessor([1], [2]).to("meta")
    assert preprocessor.state_dict() == {}
    assert preprocessor({"inputs": [torch.ones(1, 2, 2)], "x": torch.ones(1)})["x"].is_meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bgr_to_rgb": True, "rgb_to_bgr": True}, "both true; they do the same"),
        ({"mean": [1]}, "mean is given without std; expected both, or neither"),
        ({"std": [1]}, "std is given without mean"),
        ({"mean": [1, 2], "std": [1]}, r"mean has 2 values, \[1, 2\]; expected one for all"),
        ({"mean": [], "std": [1]}, "mean has 0 values"),
        ({"mean": [1], "std": [0.0]}, r"std is \[0.0\]; expected numbers above 0"),
        ({"pad_size_divisor": 0}, "pad_size_divisor is 0; expected a whole number of at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImgDataPreprocessor(**options)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([torch.ones(1)], TypeError, "got a list; expected a mapping with 'inputs'"),
        ({"image": 1}, TypeError, "got a dict of image; expected a mapping with 'inputs'"),
        ({"inputs": "x"}, TypeError, "inputs are a str; expected a tensor or a list of tensors"),
        ({"inputs": [torch.ones(3, 2, 2), 1]}, TypeError, "inputs are a list"),
        ({"inputs": []}, ValueError, "expected at least one image"),
        ({"inputs": [torch.ones(2, 2)]}, ValueError, r"shapes \[\(2, 2\)\]"),
        ({"inputs": [torch.ones(3, 2, 2), torch.ones(1, 2, 2)]}, ValueError, "the same C"),
        ({"inputs": torch.ones(3, 2, 2)}, ValueError, r"shape \(3, 2, 2\); expected \(N, C, H, W"),
        ({"inputs": torch.ones(1, 1, 2, 2)}, ValueError, "three channels"),
        ({"inputs": [torch.ones(4, 2, 2)]}, ValueError, "three channels"),
    ],
)
def test_batches_that_do_not_fit_are_refused(batch: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ImgDataPreprocessor(rgb_to_bgr=True)(batch)


@pytest.mark.parametrize("train_cfg", ["epoch", "iter"])
def test_the_default_model_trains_with_it(tmp_path: Path, train_cfg: str) -> None:
    node = "model.data_preprocessor"
    cfg = compose(
        [
            f"{node}._target_=trainkit.model.ImgDataPreprocessor",
            *(f"+{node}.mean=[0.3]", f"+{node}.std=[0.4]", f"+{node}.pad_size_divisor=3"),
            *("model.channels=[2]", f"train_cfg={train_cfg}", "fast_dev_run=1"),
            f"work_dir={tmp_path}",
        ]
    )
    runner = Runner.from_cfg(cfg)
    seen = []
    runner.model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    runner.train()
    assert {shape[1:] for shape in seen} == {(1, 9, 9)}
