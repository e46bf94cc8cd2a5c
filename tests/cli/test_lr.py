"""``trainkit lr``: what it shows is what a run uses, and nothing is built to know it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from trainkit import Hook, Runner
from trainkit.__main__ import main
from trainkit.config import compose
from trainkit.errors import ConfigError
from trainkit.loops import IterBasedTrainLoop
from trainkit.param_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, chain
from trainkit.runner.schedule import MAX_POINTS, Curve, plan

# A real run of three epochs of two batches, and nothing beside its training.
SHORT = (
    *("env.num_threads=1", "train_cfg.max_epochs=3", "+dataloader.train.num_batch_per_epoch=2"),
    *("val_cfg=none", "test_cfg=none", "hooks.checkpoint=null", "visualizer=none"),
)
ITER = ("train_cfg=iter", "train_cfg.max_iters=7")
LINEAR = "{_target_: trainkit.param_scheduler.LinearLR, start_factor: 0.25, end: 2}"
COSINE = "{_target_: trainkit.param_scheduler.CosineAnnealingLR, by_epoch: false"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])


class Recorder(Hook):
    """Keeps what the optimizer has in each iteration."""

    def __init__(self) -> None:
        self.lr: list[float] = []
        self.momentum: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.lr += runner.optim_wrapper.get_lr()["lr"]
        self.momentum += runner.optim_wrapper.get_momentum()["momentum"]


def used(*overrides: str) -> Recorder:
    """Return what a real run uses."""
    recorder = Recorder()
    runner = Runner.from_cfg(compose(overrides), work_dir="run", custom_hooks=[recorder])
    runner.train()
    return recorder


def planned(*overrides: str) -> dict[str, list[float]]:
    """Return the value of each curve in each iteration of a run with two batches an epoch."""
    told = plan(compose(overrides))
    times = 2 if told.unit == "epoch" else 1
    for curve in told.curves:
        assert curve.steps in ([0], list(range(told.length)))
    return {
        curve.name: [value for value in curve.values for _ in range(times)]
        if len(curve.steps) > 1
        else list(curve.values) * told.length * times
        for curve in told.curves
    }


@pytest.mark.parametrize("loop", ["epoch", "iter"])
@pytest.mark.parametrize(
    "option",
    [
        *("multistep", "cosine", "warmup_cosine", "poly", "onecycle", "none"),
        *("constant", "exponential", "step", "cosine_restart"),
    ],
)
def test_the_values_are_those_of_a_run(option: str, loop: str) -> None:
    changes = {
        "multistep": ("param_scheduler.multistep.milestones=[1,2]",),
        "warmup_cosine": ("param_scheduler.warmup.end=3",),
        "constant": ("param_scheduler.warmup.end=3",),
        "step": ("param_scheduler.step.step_size=2",),
    }
    overrides = [*SHORT, f"param_scheduler={option}", *changes.get(option, ())]
    if loop == "iter":
        overrides = [*overrides[:1], *ITER, *overrides[2:]]
    assert planned(*overrides)["lr"] == used(*overrides).lr


@pytest.mark.parametrize(
    "overrides",
    [
        ["param_scheduler=poly", "param_scheduler.poly.by_epoch=true"],
        ["param_scheduler=poly", f"+param_scheduler.warmup={LINEAR}"],
        [
            *("param_scheduler=cosine", "+param_scheduler.cosine.by_update=true"),
            "optim_wrapper.accumulative_counts=4",
        ],
        [
            "auto_scale_lr={enable: true, base_batch_size: 48}",
            "param_scheduler=cosine",
            "optim_wrapper.accumulative_counts=2",
        ],
        ["fast_dev_run=2"],
        ["overfit_batches=1", "train_cfg.max_epochs=3", "hooks.logger=null"],
        ["hooks.param_scheduler=null", "param_scheduler=cosine"],
    ],
)
def test_so_they_are_with_other_units_and_what_changes_a_run(overrides: list[str]) -> None:
    keys = {text.partition("=")[0] for text in overrides}
    overrides = [*(text for text in SHORT if text.partition("=")[0] not in keys), *overrides]
    assert planned(*overrides)["lr"] == used(*overrides).lr


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_momentum_is_shown_with_the_learning_rate(optimizer: str) -> None:
    overrides = [
        *(*SHORT, f"optim_wrapper/optimizer={optimizer}", "param_scheduler=poly"),
        f"+param_scheduler.momentum={COSINE}, param_name: momentum, eta_min: 0.8}}",
    ]
    run, told = used(*overrides), planned(*overrides)
    assert list(told) == ["lr", "momentum"]
    assert (told["lr"], told["momentum"]) == (run.lr, run.momentum)


def stepped(length: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedulers = [
        LinearLR(optimizer, start_factor=0.01, end=1234, by_epoch=False),
        CosineAnnealingLR(optimizer, T_max=125, begin=1234, end=length, by_epoch=False),
    ]
    chain(schedulers)
    values = []
    for _ in range(length):
        values.append(float(optimizer.param_groups[0]["lr"]))
        for scheduler in schedulers:
            scheduler.step()
    return values


def test_of_a_long_run_some_steps_are_told_and_all_turns() -> None:
    curve = only_curve(
        *("param_scheduler=warmup_cosine", "param_scheduler.warmup.end=1234"),
        *("+param_scheduler.cosine.T_max=125", "train_cfg=iter", "train_cfg.max_iters=500000"),
    )
    values = stepped(5000)
    early = [step for step in curve.steps if step < 5000]
    assert [curve.values[curve.steps.index(step)] for step in early] == [values[s] for s in early]
    assert {0, 1233, 1234, 1358, 1359, 499_999} <= set(curve.steps)
    assert MAX_POINTS < len(curve.steps) < 3 * MAX_POINTS
    # Its half-waves are as long as the distance of even points would be: all would be alike.
    late = [v for s, v in zip(curve.steps, curve.values, strict=True) if s > 5000]
    assert min(late) < 0.001
    assert max(late) > 0.099


def test_the_highest_value_of_a_long_run_is_exact() -> None:
    curve = only_curve(
        "param_scheduler=onecycle", "train_cfg=iter", "train_cfg.max_iters=40_000_000"
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = OneCycleLR(optimizer, eta_max=0.1, end=40_000_000, by_epoch=False)
    scheduler.load_state_dict({"last_step": 11_999_999})
    assert max(curve.values) == optimizer.param_groups[0]["lr"] == 0.1
    assert curve.steps[curve.values.index(0.1)] == 11_999_999


def only_curve(*overrides: str) -> Curve:
    (curve,) = plan(compose(overrides)).curves
    return curve


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return what the command prints."""
    assert main(["lr", *argv]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return the message of a command that is refused."""
    assert main(["lr", *argv]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.rstrip("\n")


def test_a_schedule_is_a_chart_and_a_table_of_its_turns(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        shown(capsys, "--iters-per-epoch", "20", "param_scheduler=multistep")
        == """\
digits param_scheduler=multistep
300 iterations (15 epochs)
An epoch has 20 iterations: --iters-per-epoch.

lr
  0.1 |   **************************************
      |   *                                    *
      |  **                                    *
      |  *                                     *
      | **                                     *
      | *                                      *
      |**                                      *
      |*                                       *
      |*                                       *************
0.001 |                                                    ********
      +------------------------------------------------------------
       0                       iteration                        300
iteration  epoch     lr
        0      0   0.01  warmup.begin, multistep.begin
       20      1    0.1  warmup.end
      200     10   0.01  multistep.milestones
      260     13  0.001  multistep.milestones
      299  14.95  0.001  last

--out lr.png draws it as a picture.
"""
    )


def test_a_terminal_gets_finer_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert main(["lr", "param_scheduler=cosine", "train_cfg=iter"]) == 0
    chart = terminal.getvalue().split("\nlr\n")[1].splitlines()
    assert chart[0] == "        0.1 ┤⠉⠉⠉⠉⠓⠒⠒⠲⠤⢤⣀⣀"
    assert chart[9] == "2.74153e-06 ┤" + " " * 48 + "⠉⠉⠓⠒⠲⠤⠤⢤⣀⣀⣀⣀"
    assert chart[10] == " " * 12 + "└" + "─" * 60


def test_what_no_schedule_moves_stays(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "param_scheduler=none", "optim_wrapper.optimizer.lr=0.02")
    assert "15 epochs\n\nlr stays 0.02\n\n" in out
    out = shown(
        capsys, "hooks.param_scheduler=null", "param_scheduler=multistep", "--iters-per-epoch=20"
    )
    assert "hooks.param_scheduler is null, so no schedule ever moves." in out
    assert "lr stays 0.01\n" in out


def test_a_long_table_is_cut_in_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    milestones = f"param_scheduler.multistep.milestones={list(range(2, 15))}".replace(" ", "")
    out = shown(capsys, "--iters-per-epoch=20", "param_scheduler=multistep", milestones)
    table = out.partition("iteration  epoch")[2].splitlines()[1:-2]
    assert len(table) == 12
    assert table[6].split() == ["...", "5", "more"]
    assert table[0].endswith("warmup.begin, multistep.begin")
    assert table[-1].endswith("last")


OWN = """
import torch
from torch.utils.data import Dataset
from trainkit.model import BaseModel


class Model(BaseModel):
    def __init__(self):
        raise AssertionError("a model was made")


class Data(Dataset):
    def __init__(self, samples: int = 0, labels: str = ""):
        raise AssertionError("data was read")

    @classmethod
    def declared_length(cls, samples: int = 0, labels: str = "") -> int | None:
        return samples or None
"""


@pytest.fixture
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options whose model and data cannot be made, and data loaders neither."""
    (tmp_path / "own_of_lr_test.py").write_text(OWN)
    for group, text in {
        "model": "_target_: own_of_lr_test.Model",
        "dataloader": "train:\n  _target_: torch.utils.data.DataLoader\n  batch_size: 10\n"
        "  dataset:\n    _target_: own_of_lr_test.Data\n    samples: 95\n",
    }.items():
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "own.yaml").write_text(text)

    make = DataLoader.__init__

    def refuse(self: Any, dataset: Any, *args: Any, **kwargs: Any) -> None:
        assert dataset == [None], "a data loader was made"  # the check tries one over nothing
        make(self, dataset, *args, **kwargs)

    monkeypatch.setattr("torch.utils.data.DataLoader.__init__", refuse)


CONF = ("--config-dir", "conf", "model=own", "dataloader=own", "val_cfg=none", "test_cfg=none")


@pytest.mark.usefixtures("_own")
def test_neither_model_nor_data_is_made_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    out = shown(capsys, *CONF, "param_scheduler=cosine")
    assert "150 iterations (15 epochs)" in out
    assert "An epoch has 10 iterations: 95 samples, batch_size=10, drop_last=False." in out
    assert files() == before


@pytest.mark.usefixtures("_own")
@pytest.mark.parametrize(
    ("overrides", "length", "source"),
    [
        (["dataloader.train.batch_size=95"], 1, "95 samples, batch_size=95, drop_last=False"),
        (["+dataloader.train.drop_last=true"], 9, "95 samples, batch_size=10, drop_last=True"),
        (["+dataloader.train.num_batch_per_epoch=4"], 4, "dataloader.train.num_batch_per_epoch"),
        (["+dataloader.train.num_batch_per_epoch=40"], 10, "95 samples, batch_size=10"),
        (["fast_dev_run=2", "dataloader.train.dataset.samples=0"], 2, "num_batch_per_epoch"),
        (["--iters-per-epoch", "7", "dataloader.train.dataset.samples=0"], 7, "--iters-per-epoch"),
        (["--iters-per-epoch=7", "fast_dev_run=2"], 2, "num_batch_per_epoch"),
    ],
)
def test_an_epoch_is_as_long_as_the_config_tells(
    overrides: list[str], length: int, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(capsys, *CONF, *overrides, "param_scheduler=poly")
    (line,) = [line for line in out.splitlines() if line.startswith("An epoch has")]
    assert line.startswith(f"An epoch has {length} iterations: ")
    assert source in line


@pytest.mark.usefixtures("_own")
def test_the_length_of_an_epoch_is_asked_for_only_where_it_is_needed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unknown = "dataloader.train.dataset.samples=0"
    by_epoch = "param_scheduler.poly.by_epoch=true"
    assert "300 iterations\n" in shown(
        capsys, *CONF, unknown, "param_scheduler=cosine", "train_cfg=iter"
    )
    assert "15 epochs\n" in shown(capsys, *CONF, unknown, "param_scheduler=none")
    assert "15 epochs\n" in shown(capsys, *CONF, unknown, "param_scheduler=poly", by_epoch)
    assert refused(capsys, *CONF, unknown, "param_scheduler=cosine") == (
        "ConfigError: dataloader.train does not tell, without its data, how many iterations an "
        "epoch has: Data declares no length. Give it: --iters-per-epoch N.\n"
        "   Set by conf/dataloader/own.yaml:5, chosen by dataloader=own."
    )
    # Here epochs become iterations, although the loop counts iterations.
    assert "Give it: --iters-per-epoch N." in refused(
        capsys, *CONF, unknown, "train_cfg=iter", "param_scheduler=multistep"
    )


def test_the_scaled_learning_rate_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(
        capsys,
        *("param_scheduler=none", "auto_scale_lr={enable: true, base_batch_size: 16}"),
        "optim_wrapper.accumulative_counts=2",
    )
    assert "auto_scale_lr: lr times 8, in one process.\n\nlr stays 0.8\n" in out


def test_a_sweep_shows_each_trial(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(
        capsys, "-m", "train_cfg=iter", "param_scheduler=cosine,none", "seed=1", "optim_wrapper=amp"
    )
    assert out.startswith("digits train_cfg=iter seed=1 optim_wrapper=amp\n")
    first, second = out.split("\n== ")[1:]
    assert first.startswith("param_scheduler=cosine\n300 iterations\n")
    assert second.startswith("param_scheduler=none\n300 iterations\n\nlr stays 0.1\n")


def test_secrets_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "param_scheduler=none", "tags=[ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]")
    assert "ghp_" not in out


@pytest.mark.parametrize(
    "argv",
    [
        ["--iters-per-epoch=20", "param_scheduler=warmup_cosine"],
        ["-m", "train_cfg=iter", "param_scheduler=cosine,poly", "optim_wrapper.optimizer.lr=1,2"],
        ["param_scheduler=none", "tags=[$a$]"],
    ],
)
def test_out_draws_a_picture(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("matplotlib.image")
    assert shown(capsys, *argv, "--out", "lr.png").endswith("Drawn: lr.png\n")
    pixels = image.imread("lr.png")
    height, width, _ = pixels.shape
    assert width == 1200
    assert height >= 500
    blue = (pixels[..., 2] > 0.6) & (pixels[..., 0] < 0.3)  # matplotlib's first colour
    assert blue.sum() > width
    assert Path("lr.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--out", "lr.jpg"],
            "--out is 'lr.jpg'; expected a name that ends in .png, .pdf, .svg.",
        ),
        (
            ["--out", "no/lr.png"],
            "--out is 'no/lr.png', which cannot be written: No such file or directory.",
        ),
        (["--out"], "The command line cannot be read: argument --out: expected one argument. See "
         "trainkit --help."),
        (["--iters-per-epoch", "0"], "--iters-per-epoch is 0; expected at least 1."),
        (
            ["--iters-per-epoch", "few"],
            "The command line cannot be read: argument --iters-per-epoch: invalid int value: "
            "'few'. See trainkit --help.",
        ),
        (["--cfg", "job"], "trainkit lr draws schedules; it does not take --cfg."),
        (
            ["-m", "optim_wrapper.optimizer.lr=interval(0,1)"],
            "optim_wrapper.optimizer.lr=interval(0,1) is drawn while the sweep runs; give the "
            "values: key=1,2.",
        ),
        (
            ["-m", "param_scheduler=cosine,none", "--out", "lr.png", "--iters-per-epoch=9"],
            "Some trials are told by epochs and some by iterations, which fit on no common axis. "
            "Draw them one by one.",
        ),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_message_and_leaves_nothing(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--out" in argv:
        pytest.importorskip("matplotlib")
    assert refused(capsys, *argv) == f"ConfigError: {message}"
    assert list(tmp_path.iterdir()) == []


def test_a_picture_needs_matplotlib(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert refused(capsys, "--out", "lr.png") == (
        "MissingExtra: trainkit lr --out needs matplotlib, which is not installed. Run: pip "
        "install 'trainkit[plot]'"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["train_cfg.max_epochs=two"],
        ["fast_dev_run=-1", "+typo=1"],
        ["optim_wrapper.optimizer.lr=high", "param_scheduler.poly.pow=2"],
        ["param_scheduler.poly._target_=trainkit.param_scheduler.PolyLr"],
    ],
)
def test_a_mistake_in_the_config_is_told_as_by_check(
    overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = refused(capsys, "param_scheduler=poly", *overrides)
    assert main(["check", "param_scheduler=poly", *overrides]) == 2
    assert out == capsys.readouterr().err.rstrip("\n")


def test_a_config_that_does_not_train_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        plan({**compose(), "train_cfg": None})
    assert str(error.value) == (
        "train_cfg is null, so nothing is trained and there is no schedule."
    )


@pytest.mark.usefixtures("_own")
def test_what_is_wrong_with_data_or_weights_does_not_matter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = ("load_from=nowhere", "+dataloader.train.dataset.root=nowhere", "train_cfg=iter")
    assert "lr stays 0.1" in shown(capsys, *CONF, *wrong, "param_scheduler=none")


def test_what_a_run_never_reaches_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(
        capsys, "param_scheduler=multistep", "train_cfg.max_epochs=11", "--iters-per-epoch=20"
    )
    assert "The run ends before multistep.milestones is reached, at 260.\n" in out


def test_schedulers_without_names_are_told_by_class() -> None:
    cosine = {"_target_": "trainkit.param_scheduler.CosineAnnealingLR", "by_epoch": False}
    cfg = compose(["train_cfg=iter"])
    for given, name in ((cosine, "CosineAnnealingLR"), ([cosine], "CosineAnnealingLR[0]")):
        (curve,) = plan({**cfg, "param_scheduler": given}).curves
        assert curve.marks == {0: f"{name}.begin"}


class Reader(IterBasedTrainLoop):
    """Asks more of the run than a length."""

    def __init__(self, runner: Any, dataloader: Any, max_iters: int) -> None:
        super().__init__(runner, dataloader, max_iters * runner.world_size)


def test_a_loop_that_needs_the_run_itself_is_told() -> None:
    cfg = {**compose(), "train_cfg": {"_target_": Reader, "max_iters": 4}}
    with pytest.raises(ConfigError) as error:
        plan(cfg)
    assert str(error.value) == (
        "The train loop reads runner.world_size while it is made, so how long it trains cannot be "
        "told without a run."
    )
