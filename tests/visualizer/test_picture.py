"""Pictures: pixels, grids, files, and what each backend makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainkit import ConfigError
from trainkit.visualizer import (
    LocalVisBackend,
    TensorboardVisBackend,
    Visualizer,
    draw_grid,
    to_pixels,
    write_png,
)

RED: Any = np.zeros((6, 5, 3), np.uint8)
RED[..., 0] = 255


@pytest.mark.parametrize(
    "image",
    [
        torch.tensor(RED).permute(2, 0, 1),
        torch.tensor(RED / 255).permute(2, 0, 1),
        torch.tensor(RED / 255, dtype=torch.bfloat16).permute(2, 0, 1),
        torch.tensor(RED / 127.5 - 1.0).permute(2, 0, 1),
        RED,
        RED / 255,
        np.concatenate([RED, RED[..., :1]], axis=-1),
    ],
    ids=lambda image: f"{type(image).__name__} {image.dtype} {tuple(image.shape)}",
)
def test_images_of_all_kinds_become_bytes(image: Any) -> None:
    pixels = to_pixels(image)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (6, 5, 3))
    assert np.array_equal(pixels, RED)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_values_keep_their_order(values: list[float]) -> None:
    pixels = to_pixels(torch.tensor(values, dtype=torch.float64).view(2, 2))[..., 0].flatten()
    ranked = [pixel for _, pixel in sorted(zip(values, pixels.tolist(), strict=True))]
    assert ranked == sorted(ranked)


def test_brightness_is_kept_as_it_is() -> None:
    assert to_pixels(np.full((2, 2), 0.5)).max() == to_pixels(np.full((2, 2), 0.5)).min() == 128


def test_what_is_no_number_is_dark_and_infinity_is_the_brightest() -> None:
    values = torch.tensor([[float("nan"), 5.0], [7.0, float("inf")], [-float("inf"), 5.0]])
    assert to_pixels(values)[..., 0].tolist() == [[0, 0], [255, 255], [0, 0]]
    assert to_pixels(torch.full((1, 2, 2), float("nan"))).max() == 0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            torch.zeros(5),
            "A picture is a Tensor of shape torch.Size([5]); expected a tensor (channels, height, "
            "width), or an array (height, width, channels).",
        ),
        (
            "a.png",
            "A picture is a str of shape None; expected a tensor (channels, height, width), or an "
            "array (height, width, channels).",
        ),
        (
            torch.zeros(5, 4, 4),
            "A picture has the shape (5, 4, 4); expected 1, 3 or 4 channels, and some pixels.",
        ),
        (
            np.zeros((0, 4, 3)),
            "A picture has the shape (0, 4, 3); expected 1, 3 or 4 channels, and some pixels.",
        ),
    ],
)
def test_what_is_no_image_is_refused(image: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        to_pixels(image)
    assert str(caught.value) == message


def test_a_grid_is_square_and_shows_each_picture_enlarged() -> None:
    pictures = [RED, 255 - RED, RED, RED, RED]
    grid = draw_grid(pictures, [""] * 5, [(0, 0, 0)] * 5)
    cell = np.array([78, 65])  # 6 x 5 pixels, 13 times
    assert grid.shape == (2 * (cell[0] + 4) + 4, 3 * (cell[1] + 4) + 4, 3)
    assert grid[5, 5].tolist() == [255, 0, 0]
    assert grid[5, 5 + 69].tolist() == [0, 255, 255]
    assert grid[0, 0].tolist() == [255, 255, 255]


def test_captions_have_their_colour_and_any_letters() -> None:
    grid = draw_grid([RED], ["caf\u00e9 \u732b"], [(0, 110, 0)]).astype(int)
    assert ((grid[..., 1] - grid[..., 0]) > 80)[80:].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (3000, 2), (500, 500), (64, 64)])
def test_pictures_of_any_size_fit(size: tuple[int, int]) -> None:
    grid = draw_grid([np.zeros((*size, 3), np.uint8)], ["x"], [(0, 0, 0)])
    assert max(grid.shape) <= 256 + 14 + 8


def read(path: Path) -> Any:
    return np.asarray(PIL.Image.open(path))


def test_a_file_holds_the_pixels(tmp_path: Path) -> None:
    write_png(tmp_path / "new" / "a.png", RED)
    assert np.array_equal(read(tmp_path / "new" / "a.png"), RED)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def local(directory: Path, resume_step: int | None = None) -> LocalVisBackend:
    backend = LocalVisBackend()
    backend.open(directory, resume_step)
    return backend


def test_the_local_backend_writes_png_files(tmp_path: Path) -> None:
    backend = local(tmp_path)
    backend.add_image("val/../predictions", RED, 20)
    backend.close()
    (path,) = (tmp_path / "vis_image").iterdir()
    assert path.name == "val_.._predictions_00000020.png"
    assert np.array_equal(read(path), RED)


def test_pictures_after_the_checkpoint_are_dropped_by_a_resumed_run(tmp_path: Path) -> None:
    backend = local(tmp_path)
    for step in (10, 20, 30):
        backend.add_image("a", RED, step)
    backend.close()
    local(tmp_path, resume_step=20).close()
    names = sorted(path.name for path in (tmp_path / "vis_image").iterdir())
    assert names == ["a_00000010.png", "a_00000020.png"]


def test_pictures_of_a_run_without_a_checkpoint_are_kept_aside(tmp_path: Path) -> None:
    backend = local(tmp_path)
    backend.add_image("a", RED, 10)
    backend.close()
    backend = local(tmp_path)
    backend.add_image("a", RED, 10)
    backend.close()
    assert {path.name for path in tmp_path.glob("vis_image*")} == {"vis_image", "vis_image_2"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")
def test_tensorboard_reads_the_picture_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    visualizer = Visualizer([TensorboardVisBackend()])
    visualizer.open(tmp_path)
    visualizer.add_image("val/predictions", torch.tensor(RED).permute(2, 0, 1), 20)
    visualizer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (image,) = events.Images("val/predictions")
    assert (image.step, image.width, image.height) == (20, 5, 6)


def test_a_visualizer_that_is_not_open_writes_nothing(tmp_path: Path) -> None:
    visualizer = Visualizer([LocalVisBackend()])
    assert not visualizer.is_open
    visualizer.add_image("a", RED, 1)
    visualizer.open(tmp_path)
    assert visualizer.is_open
    visualizer.close()
    assert not (tmp_path / "vis_image").exists()
