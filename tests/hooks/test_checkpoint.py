"""CheckpointHook: which checkpoints there are after a run."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.toy import ToyModel, make_runner
from trainkit import CheckpointError, ConfigError, Hook, Runner
from trainkit.checkpoint import read_checkpoint, read_manifest
from trainkit.evaluator import BaseMetric
from trainkit.hooks import CheckpointHook


class Scores(BaseMetric):
    """Give one of a list of scores at each validation."""

    def __init__(self, scores: list[float], name: str = "accuracy") -> None:
        super().__init__()
        self.scores, self.name = list(scores), name

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {self.name: self.scores.pop(0)}


def saved(tmp_path: Path, train_cfg: dict[str, Any] | None = None, **options: Any) -> set[str]:
    scores = options.pop("scores", [0.0] * 20)
    runner = make_runner(
        tmp_path / "run",
        train_cfg={"by_epoch": True, **(train_cfg or {"max_epochs": 5})},
        default_hooks={"checkpoint": options},
        val_evaluator=Scores(scores),
    )
    runner.train()
    return {path.name for path in runner.checkpoint_dir.iterdir() if path.is_dir()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"interval": 1}, {1, 2, 3, 4, 5}),
        ({"interval": 2}, {2, 4, 5}),
        ({"interval": 2, "save_last": False}, {2, 4}),
        ({"interval": -1}, {5}),
        ({"interval": 2, "save_begin": 3}, {3, 5}),
        ({"interval": 1, "max_keep_ckpts": 2}, {4, 5}),
    ],
)
def test_the_interval_decides(tmp_path: Path, options: dict[str, Any], expected: set[int]) -> None:
    assert saved(tmp_path, **options) == {f"epoch_{number}" for number in expected}


def test_an_iteration_run_counts_iterations(tmp_path: Path) -> None:
    loop = {"by_epoch": False, "max_iters": 7}
    assert saved(tmp_path, loop, interval=3) == {"iter_3", "iter_6", "iter_7"}


def test_iterations_can_be_counted_in_an_epoch_run(tmp_path: Path) -> None:
    loop = {"max_epochs": 2}
    assert saved(tmp_path, loop, interval=4, by_epoch=False) == {"iter_4", "iter_6"}


def test_the_template_names_a_checkpoint(tmp_path: Path) -> None:
    assert saved(tmp_path, interval=5, filename_tmpl="epoch_{:03d}") == {"epoch_005"}


def test_the_best_replaces_the_one_before(tmp_path: Path) -> None:
    names = saved(tmp_path, interval=5, save_best="accuracy", scores=[0.1, 0.5, 0.3, 0.5, 0.4])
    assert names == {"epoch_5", "best_accuracy_epoch_2"}


def test_zero_is_a_score_and_nan_is_none(tmp_path: Path) -> None:
    nan = float("nan")
    names = saved(tmp_path, interval=5, save_best="auto", scores=[nan, 0.0, nan, -1.0, nan])
    assert names == {"epoch_5", "best_accuracy_epoch_2"}


def test_less_can_be_better(tmp_path: Path) -> None:
    options = {"save_best": "accuracy", "rule": "less"}
    names = saved(tmp_path, interval=5, scores=[0.3, 0.2, 0.4, 0.4, 0.4], **options)
    assert names == {"epoch_5", "best_accuracy_epoch_2"}


def test_a_metric_with_a_prefix_is_a_file_name(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        val_evaluator=Scores([0.1, 0.2], "coco/AP"),
        default_hooks={"checkpoint": {"save_best": "coco/AP", "rule": "greater"}},
    )
    runner.train()
    assert (runner.checkpoint_dir / "best_coco_AP_epoch_2").is_dir()


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("coco/AR@100", "coco_AR@100"),
        ("top 5 (%)", "top 5 (%)"),
        ("a/../b", "a_.._b"),
        ("../../evil", ".._.._evil"),
        ("a\nb\0c", "a_b_c"),
        ("\U0001f600", "_"),
        ("pr\u00e9cision", "pr\u00e9cision"),
        ("acc" * 100, f"{('acc' * 100)[:91]}-64405469"),
    ],
)
def test_a_metric_of_any_name_is_a_part_of_a_file_name(
    tmp_path: Path, metric: str, name: str
) -> None:
    runner = make_runner(
        tmp_path / "deep" / "run",
        val_evaluator=Scores([0.1, 0.2], metric),
        default_hooks={"checkpoint": {"save_best": metric, "rule": "greater"}},
        visualizer={"vis_backends": {}},
    )
    runner.train()
    assert [path.name for path in runner.checkpoint_dir.glob("best_*")] == [f"best_{name}_epoch_2"]
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]


def test_two_metrics_do_not_share_a_best_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        CheckpointHook(save_best=["val/acc", "val_acc"])
    assert str(caught.value) == (
        "hooks.checkpoint.save_best names 'val/acc' and 'val_acc', whose checkpoints would stand "
        "under one name. Drop one of them."
    )


def test_a_metric_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        CheckpointHook(save_best=["accuracy", "loss", "accuracy"])
    assert str(caught.value).startswith("hooks.checkpoint.save_best names 'accuracy' twice, whose")


def test_an_iteration_run_has_no_checkpoints_by_epoch_on_purpose(tmp_path: Path) -> None:
    """MMEngine saves at the end only, as the whole run is one epoch for the hooks."""
    with pytest.raises(ConfigError) as caught:
        saved(tmp_path, {"by_epoch": False, "max_iters": 7}, interval=1, by_epoch=True)
    assert str(caught.value) == (
        "hooks.checkpoint.by_epoch is true, but the train loop counts iterations, so it would save "
        "at the end only. Set by_epoch: false or null, and give interval and save_begin in "
        "iterations."
    )


@pytest.mark.parametrize("template", ["a\n{}", "a\0{}", "../{}", "{}" + "x" * 50, "\ud800{}", 5])
def test_a_template_that_gives_no_file_name_is_refused(template: Any) -> None:
    with pytest.raises(ConfigError, match=r"filename_tmpl is .*at most 50 bytes with \{\} where"):
        CheckpointHook(filename_tmpl=template)


def test_a_metric_that_is_not_given_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"save_best is 'acuracy'.* Did you mean 'accuracy'"):
        saved(tmp_path, save_best="acuracy")


def test_a_metric_without_a_direction_needs_a_rule(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        val_evaluator=Scores([1.0, 1.0], "zeal"),
        default_hooks={"checkpoint": {"save_best": "zeal"}},
    )
    with pytest.raises(ConfigError, match=r"more or less of 'zeal' better.*hooks.checkpoint.rule"):
        runner.train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_keep_ckpts": 0}, "max_keep_ckpts is 0"),
        ({"save_begin": -1}, "save_begin is -1"),
        ({"rule": "bigger"}, "rule is 'bigger'"),
        ({"save_best": ["a", "b"], "rule": ["less"] * 3}, "rule has 3 entries for 2 metrics"),
        ({"save_best": ["auto", "a"]}, "'auto' beside metrics"),
        ({"published_keys": ["meta", "meta"]}, "published_keys is .*; expected each key once"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CheckpointHook(**options)


def test_a_checkpoint_holds_the_whole_run(tmp_path: Path) -> None:
    saved(tmp_path, interval=5)
    path = tmp_path / "run" / "checkpoints" / "epoch_5"
    assert {file.name for file in path.iterdir()} == {
        "model.pt",
        "state.pt",
        "rank_0.pt",
        "manifest.json",
    }
    checkpoint = read_checkpoint(path)
    assert checkpoint.keys() == {
        "state_dict",
        "meta",
        "train_loop",
        "end",
        "message_hub",
        "hooks",
        "visualizer",
        "optimizer",
        "param_schedulers",
        "rank",
    }
    assert (checkpoint["meta"]["epoch"], checkpoint["meta"]["iter"]) == (5, 15)
    assert read_manifest(path)["iter"] == 15
    assert (path.parent / "last_checkpoint").read_text() == "epoch_5\n"
    plain = torch.load(path / "model.pt", weights_only=True)
    assert plain.keys() == {"linear.weight", "linear.bias"}


def test_a_lower_limit_prunes_when_resuming(tmp_path: Path) -> None:
    saved(tmp_path, interval=1)
    again = make_runner(
        tmp_path / "run",
        train_cfg={"by_epoch": True, "max_epochs": 6},
        val_evaluator=Scores([0.0] * 9),
        default_hooks={"checkpoint": {"max_keep_ckpts": 2}},
        resume=True,
    )
    again.train()
    names = {path.name for path in again.checkpoint_dir.glob("epoch_*")}
    assert names == {"epoch_5", "epoch_6"}


def test_several_metrics_have_a_best_each_by_a_rule_each(tmp_path: Path) -> None:
    evaluator = [Scores([0.1, 0.3, 0.2]), Scores([0.1, 0.3, 0.2], "cost")]
    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 3},
        val_evaluator=evaluator,
        default_hooks={
            "checkpoint": {"save_best": ["accuracy", "cost"], "rule": ["greater", "less"]}
        },
    )
    runner.train()
    best = {path.name for path in runner.checkpoint_dir.glob("best_*")}
    assert best == {"best_accuracy_epoch_2", "best_cost_epoch_1"}


@pytest.mark.parametrize(
    ("rule", "best"), [({"greater_keys": ["zeal"]}, 2), ({"less_keys": ["z"]}, 1)]
)
def test_keys_tell_which_names_are_better_when_greater(
    tmp_path: Path, rule: dict[str, Any], best: int
) -> None:
    runner = make_runner(
        tmp_path,
        val_evaluator=Scores([1.0, 2.0], "zeal"),
        default_hooks={"checkpoint": {"save_best": "zeal", **rule}},
    )
    runner.train()
    assert (runner.checkpoint_dir / f"best_zeal_epoch_{best}").is_dir()


def test_checkpoints_can_be_kept_elsewhere(tmp_path: Path) -> None:
    assert saved(tmp_path, interval=4, out_dir=str(tmp_path / "big")) == {"epoch_4", "epoch_5"}
    link = tmp_path / "run" / "checkpoints"
    assert link.readlink() == tmp_path / "big" / "run"
    again = make_runner(
        tmp_path / "run",
        train_cfg={"by_epoch": True, "max_epochs": 6},
        default_hooks={"checkpoint": {"out_dir": tmp_path / "big", "max_keep_ckpts": 1}},
        resume=True,
    )
    again.train()
    assert (again.epoch, again.iter) == (6, 18)
    kept = {path.name for path in (tmp_path / "big" / "run").iterdir()}
    assert kept == {"epoch_6", "last_checkpoint"}


def test_two_runs_of_one_name_do_not_share_what_is_elsewhere(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        saved(tmp_path / parent, interval=5, out_dir=tmp_path / "big")
    assert {path.name for path in (tmp_path / "big").iterdir()} == {"run", "run_1"}


def test_checkpoints_that_are_elsewhere_and_gone_are_missed(tmp_path: Path) -> None:
    saved(tmp_path, interval=5, out_dir=tmp_path / "big")
    (tmp_path / "big").rename(tmp_path / "unmounted")
    with pytest.raises(CheckpointError) as caught:
        make_runner(
            tmp_path / "run",
            default_hooks={"checkpoint": {"out_dir": tmp_path / "big"}},
            resume=True,
        ).train()
    link = tmp_path / "run" / "checkpoints"
    assert str(caught.value) == (
        f"{link} leads to {tmp_path / 'big' / 'run'}, which is not there. Mount it or restore it; "
        f"to go on without its checkpoints, remove {link}."
    )


def test_a_run_keeps_its_checkpoints_where_it_began(tmp_path: Path) -> None:
    saved(tmp_path, interval=5)
    again = make_runner(
        tmp_path / "run",
        train_cfg={"by_epoch": True, "max_epochs": 6},
        default_hooks={"checkpoint": {"out_dir": tmp_path / "big"}},
        resume=True,
    )
    again.train()
    assert (again.work_dir / "checkpoints" / "epoch_6").is_dir()
    assert not again.checkpoint_dir.is_symlink()
    said = (again.work_dir / "train.log").read_text()
    assert f"but the run's checkpoints stay in {again.checkpoint_dir}, where it began." in said


def test_the_last_and_the_best_are_published_at_the_end(tmp_path: Path) -> None:
    options = {"save_best": "accuracy", "published_keys": ["state_dict", "meta"]}
    saved(tmp_path, interval=5, scores=[0.1, 0.9, 0.3, 0.2, 0.1], **options)
    files = sorted((tmp_path / "run" / "checkpoints").glob("*.pth"))
    assert [path.name.rpartition("-")[0] for path in files] == [
        "best_accuracy_epoch_2",
        "epoch_5",
    ]
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.stem.endswith(f"-{digest[:8]}")
        published = torch.load(path, weights_only=True)
        assert published.keys() == {"state_dict", "meta"}
    whole = read_checkpoint(files[1].with_name("epoch_5"))
    loaded = make_runner(tmp_path / "other", load_from=files[1])
    loaded.load_or_resume()
    expected = whole["state_dict"]["linear.weight"]
    assert torch.equal(loaded.model.linear.weight.detach(), expected)


def test_one_key_is_published_as_well(tmp_path: Path) -> None:
    saved(tmp_path, interval=5, save_last=False, published_keys="state_dict")
    assert not list((tmp_path / "run" / "checkpoints").glob("*.pth"))
    saved(tmp_path / "b", interval=5, published_keys="state_dict")
    (path,) = (tmp_path / "b" / "run" / "checkpoints").glob("*.pth")
    assert torch.load(path, weights_only=True).keys() == {"state_dict"}


def test_a_key_that_no_checkpoint_has_is_pointed_out_before_training(tmp_path: Path) -> None:
    saved(tmp_path, interval=5, published_keys=["state_dct", "state_dict"])
    said = (tmp_path / "run" / "train.log").read_text()
    warning = (
        "hooks.checkpoint.published_keys has 'state_dct', which a checkpoint has only if a hook "
        "adds it. Did you mean 'state_dict'?"
    )
    assert warning in said
    assert said.index(warning) < said.index("Epoch(train)")


def test_evaluating_alone_saves_nothing(tmp_path: Path) -> None:
    options = {"checkpoint": {"save_best": "mse"}}
    runner = make_runner(tmp_path, default_hooks=options)
    runner.val(load=False)
    assert not runner.checkpoint_dir.exists()


class Poison(Hook):
    """Put NaN into the weights after some epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def after_train_epoch(self, runner: Runner) -> None:
        if runner.epoch + 1 == self.epoch:
            with torch.no_grad():
                runner.model.linear.bias.fill_(float("nan"))


def poisoned(tmp_path: Path, after: int, **changes: Any) -> Runner:
    return make_runner(
        tmp_path / "run",
        train_cfg={"by_epoch": True, "max_epochs": changes.pop("max_epochs", 5)},
        default_hooks={"checkpoint": {"interval": 1, "max_keep_ckpts": 2, "save_best": "mse"}},
        custom_hooks=[Poison(after)],
        **changes,
    )


def test_the_last_finite_checkpoint_stays_and_is_gone_on_from(tmp_path: Path) -> None:
    runner = poisoned(tmp_path, after=3)
    runner.train()
    names = {path.name for path in runner.checkpoint_dir.glob("epoch_*")}
    assert names == {"epoch_2", "epoch_4", "epoch_5"}
    bad = read_manifest(runner.checkpoint_dir / "epoch_5")["non_finite"]
    assert bad == ["linear.weight", "linear.bias"]
    said = (runner.work_dir / "train.log").read_text()
    assert "epoch_3 has NaN or infinity in its weights (linear.bias). The newest without" in said
    again = poisoned(tmp_path, after=9, max_epochs=6, resume=True)
    again.train()
    assert again.epoch == 6
    assert all(value.isfinite().all() for value in again.model.state_dict().values())
    assert sorted(path.name for path in again.checkpoint_dir.glob("epoch_*")) == [
        "epoch_5",
        "epoch_6",
    ]
    said = (again.work_dir / "train.log").read_text()
    assert "It was set aside, and the checkpoint before it is used." in said
    assert "Resumed from" in said


def test_a_checkpoint_with_bad_weights_that_is_named_is_used_and_warned_of(tmp_path: Path) -> None:
    poisoned(tmp_path, after=3).train()
    path = tmp_path / "run" / "checkpoints" / "epoch_5"
    other = make_runner(tmp_path / "other", load_from=path)
    other.train()
    said = (other.work_dir / "train.log").read_text()
    assert f"{path}, which is used, has NaN or infinity in its weights (linear.weight" in said


class Masked(ToyModel):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))


def test_infinity_in_a_buffer_is_meant(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, model=Masked())
    runner.train()
    assert read_manifest(runner.checkpoint_dir / "epoch_2")["non_finite"] == []


def test_the_trained_weights_count_beside_their_average(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path / "run",
        train_cfg={"by_epoch": True, "max_epochs": 3},
        custom_hooks=[{"_target_": "trainkit.hooks.EMAHook", "interval": 3}, Poison(3)],
    )
    runner.train()
    path = runner.checkpoint_dir / "epoch_3"
    assert read_checkpoint(path)["state_dict"]["linear.bias"].isfinite().all()
    assert read_manifest(path)["non_finite"] == ["linear.bias"]


def test_a_checkpoint_that_someone_removed_does_not_count_as_kept(tmp_path: Path) -> None:
    class Removes(Hook):
        def before_train_epoch(self, runner: Runner) -> None:
            if runner.epoch == 3:
                shutil.rmtree(runner.checkpoint_dir / "epoch_3")

    runner = make_runner(
        tmp_path,
        train_cfg={"by_epoch": True, "max_epochs": 4},
        default_hooks={"checkpoint": {"interval": 1, "max_keep_ckpts": 2}},
        custom_hooks=[Removes()],
    )
    runner.train()
    names = {path.name for path in runner.checkpoint_dir.glob("epoch_*")}
    assert names == {"epoch_2", "epoch_4"}


def test_what_a_hook_adds_that_cannot_be_loaded_back_is_named_when_it_is_saved(
    tmp_path: Path,
) -> None:
    class Score(Hook):
        def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
            checkpoint["score"] = {"best": np.float64(1)}

    for async_save in (False, True):
        runner = make_runner(
            tmp_path / str(async_save),
            default_hooks={"checkpoint": {"interval": 1, "async_save": async_save}},
            custom_hooks=[Score()],
        )
        with pytest.raises(CheckpointError, match=r"state\.score\.best is a numpy.*say float\(x\)"):
            runner.train()
        assert runner.epoch == 0, "at the save itself, not at the next step"
