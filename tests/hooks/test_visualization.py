"""VisualizationHook: what is drawn, when, and where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.toy import ToyModel, loader_config, make_runner
from trainkit import BaseModel, ConfigError, Runner
from trainkit.evaluator import BaseMetric
from trainkit.hooks import VisualizationHook
from trainkit.hooks.visualization import _classes, _images


class Pictures(Dataset[dict[str, Any]]):
    """Twelve pictures, each all of one brightness."""

    def __init__(self, key: str = "inputs") -> None:
        self.key = key
        self.metainfo = {"classes": ["dark", "bright"]}

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {self.key: torch.full((1, 8, 8), index / 11), "labels": int(index > 5)}


class Bright(BaseModel):
    """Say whether a picture is bright; from one third on, which is too early."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Any, labels: Any, mode: str = "tensor") -> Any:
        if mode == "loss":
            return {"loss": self.bias.square().sum()}
        bright = (inputs.mean(dim=(1, 2, 3)) > 1 / 3).float()
        return torch.stack([1 - bright, bright], dim=1)


class Count(BaseMetric):
    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"count": float(sum(results))}


def make(tmp_path: Path, hook: VisualizationHook, **changes: Any) -> Runner:
    loaders = {
        f"{split}_dataloader": DataLoader(Pictures(), batch_size=4)
        for split in ("train", "val", "test")
    }
    return make_runner(
        tmp_path,
        model=Bright(),
        val_evaluator=Count(),
        test_evaluator=Count(),
        custom_hooks={"visualization": hook},
        **{**loaders, **changes},
    )


def drawn(runner: Runner) -> list[str]:
    return sorted(path.name for path in (runner.work_dir / "vis_image").glob("*"))


def test_each_validation_has_a_picture_at_its_iteration(tmp_path: Path) -> None:
    runner = make(tmp_path, VisualizationHook())
    runner.train()
    assert drawn(runner) == ["val_predictions_00000003.png", "val_predictions_00000006.png"]


def test_the_interval_counts_batches_from_the_first(tmp_path: Path) -> None:
    runner = make(
        tmp_path, VisualizationHook(interval=2), train_cfg={"by_epoch": True, "max_epochs": 1}
    )
    runner.train()
    names = ["val_predictions_00000003.png", "val_predictions_batch_2_00000003.png"]
    assert drawn(runner) == names
    runner.test()
    assert drawn(runner) == [name.replace("val", "test") for name in names] + names


def test_an_evaluation_alone_writes_its_pictures_and_no_scalars(tmp_path: Path) -> None:
    runner = make(tmp_path, VisualizationHook())
    runner.test(load=False)
    runner.test(load=False)
    stem = f"test_predictions_{runner.timestamp}"
    assert drawn(runner) == [f"{stem}.png", f"{stem}_2.png"]
    assert not (tmp_path / "metrics.jsonl").exists()


def test_nothing_is_drawn_where_it_is_switched_off(tmp_path: Path) -> None:
    runner = make(tmp_path, VisualizationHook(draw=False))
    runner.train()
    assert drawn(runner) == []


def test_pictures_after_the_checkpoint_are_drawn_anew(tmp_path: Path) -> None:
    make(tmp_path, VisualizationHook(), train_cfg={"by_epoch": True, "max_epochs": 2}).train()
    (tmp_path / "vis_image" / "val_predictions_00000009.png").write_bytes(b"of a killed run")
    (tmp_path / "vis_image" / "mine.png").write_bytes(b"of the user")
    runner = make(
        tmp_path, VisualizationHook(), train_cfg={"by_epoch": True, "max_epochs": 2}, resume=True
    )
    runner.train()
    assert drawn(runner) == [
        "mine.png",
        "val_predictions_00000003.png",
        "val_predictions_00000006.png",
    ]


def test_right_is_green_and_wrong_is_red(tmp_path: Path) -> None:
    runner = make(
        tmp_path, VisualizationHook(), val_dataloader=DataLoader(Pictures(), batch_size=6)
    )
    runner.val(load=False)
    (path,) = (tmp_path / "vis_image").iterdir()
    pixels = np.asarray(PIL.Image.open(path)).astype(int)
    assert pixels.shape[2] == 3
    captions = pixels[68:86]  # below the first row: 0, 1 and 2 of 11
    second = pixels[68 + 82 :][:18]  # 3 of 11 is dark, 4 and 5 are taken for bright
    assert _has(captions, green=True)
    assert not _has(captions, green=False)
    assert _has(second, green=True)
    assert _has(second, green=False)


def _has(pixels: Any, *, green: bool) -> bool:
    red, of_green = pixels[..., 0], pixels[..., 1]
    return bool(((of_green - red if green else red - of_green) > 80).any())


def test_a_render_of_ones_own_is_called(tmp_path: Path) -> None:
    seen: list[Any] = []

    def render(batch: Any, outputs: Any) -> list[tuple[Any, str]]:
        seen.append((len(batch["labels"]), tuple(outputs.shape)))
        return [(np.zeros((5, 7, 3), np.uint8), "caption")] * 30

    runner = make(tmp_path, VisualizationHook(render=render, max_images=3))
    runner.val(load=False)
    assert seen == [(4, (4, 2))]
    assert len(drawn(runner)) == 1


def test_a_batch_without_images_is_an_error_that_names_it(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, model=ToyModel(), custom_hooks=[VisualizationHook()])
    with pytest.raises(ConfigError) as caught:
        runner.val(load=False)
    assert str(caught.value) == (
        "hooks.VisualizationHook finds no images in a batch of dict with x, y. Give it a "
        "render=... that returns images and captions, or remove the hook."
    )


def test_images_of_lists_are_found(tmp_path: Path) -> None:
    plain = loader_config(dataset=Pictures("img"), collate_fn=None)

    class Listed(Bright):
        def forward(self, img: Any, labels: Any, mode: str = "tensor") -> Any:
            return [{"pred_label": 1} for _ in labels]

    runner = make(tmp_path, VisualizationHook(), val_dataloader=plain)
    runner.model.__class__ = Listed
    runner.val(load=False)
    assert len(drawn(runner)) == 1


IMAGES = torch.zeros(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        ({"inputs": IMAGES}, 2),
        ({"meta": 1, "img": list(IMAGES)}, 2),
        ({"inputs": {"image": IMAGES}}, 2),
        ((IMAGES, torch.zeros(2)), 2),
        ([IMAGES, torch.zeros(2)], 2),
        (IMAGES, 2),
        (list(IMAGES), 2),
        ({"inputs": torch.zeros(2, 8)}, None),
        ({"inputs": torch.zeros(2, 5, 8, 8)}, None),
        ([], None),
        (None, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_images_are_found_where_batches_have_them(batch: Any, count: int | None) -> None:
    found = _images(batch)
    assert (None if found is None else len(found)) == count


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (torch.tensor([[0.1, 0.9], [0.8, 0.2]]), [1, 0]),
        (torch.tensor([3, 1]), [3, 1]),
        (torch.tensor([[3], [1]]), [3, 1]),
        ([torch.tensor([0.1, 0.9]), torch.tensor([0.8, 0.2])], [1, 0]),
        ([3, 1], [3, 1]),
        ([torch.tensor(3), torch.tensor([1])], [3, 1]),
        (torch.rand(2, 4, 8, 8), []),
        (torch.tensor([0.5, 0.2]), []),
        (["a", "b"], []),
        ([1, None], []),
        (None, []),
    ],
)
def test_classes_are_read_from_scores_and_indices(values: Any, expected: list[int]) -> None:
    assert _classes(values) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0}, "interval is 0; expected a whole number of at least 1."),
        ({"max_images": 2.5}, "max_images is 2.5; expected a whole number of at least 1."),
        ({"render": "mine"}, "render is 'mine'; expected something to call."),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VisualizationHook(**options)
    assert str(caught.value) == message
