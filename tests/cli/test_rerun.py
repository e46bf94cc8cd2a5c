"""``trainkit rerun``: the config of a run, trained again and changed, in a directory of its own."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from trainkit.__main__ import main
from trainkit.cli.rerun import _merged

SHORT = (
    *("env.num_threads=1", "train_cfg.max_epochs=2", "param_scheduler=cosine"),
    *("+dataloader.train.num_batch_per_epoch=2", "seed=5"),
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one run in its outputs/."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr("sys.path", [*sys.path])
        assert main(list(SHORT)) == 0
    return home


@pytest.fixture
def base(trained: Path, tmp_path: Path) -> Path:
    """The run that is trained again."""
    shutil.copytree(trained / "outputs", tmp_path / "outputs")
    (run,) = runs()
    return run


def runs() -> list[Path]:
    return sorted(path.parent for path in Path("outputs").glob("*/*/status.json"))


def rerun(base: Path, *overrides: str) -> Path:
    """Train ``base`` again; return the new run."""
    before = runs()
    assert main(["rerun", base.name, *overrides]) == 0
    (run,) = set(runs()) - set(before)
    return run


def status(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "status.json").read_text())
    return record


def content(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(
        run / "checkpoints" / "epoch_2" / "model.pt", weights_only=True
    )
    return state


def test_a_rerun_gives_the_same_bits_and_leaves_the_first_run_alone(base: Path) -> None:
    before = content(base)
    again = rerun(base)
    assert content(base) == before
    assert status(again)["status"] == "finished"
    assert status(again)["metrics"] == status(base)["metrics"]
    assert all(torch.equal(value, weights(base)[key]) for key, value in weights(again).items())


def test_overrides_change_the_stored_config(base: Path) -> None:
    again = rerun(
        base,
        "optim_wrapper/optimizer=adamw",
        "dataloader.train.num_batch_per_epoch=1",
        "+hooks.ema={_target_: trainkit.hooks.EMAHook}",
    )
    stored = OmegaConf.load(again / "config.yaml")
    assert (stored.seed, stored.train_cfg.max_epochs) == (5, 2)
    assert stored.optim_wrapper.optimizer._target_ == "torch.optim.AdamW"
    assert stored.dataloader.train.num_batch_per_epoch == 1
    assert list(stored.param_scheduler) == ["cosine"]
    assert status(again)["iter"] == 2
    assert status(again)["overrides"] == [
        *("env.num_threads=1", "train_cfg.max_epochs=2", "param_scheduler=cosine", "seed=5"),
        *("optim_wrapper/optimizer=adamw", "+dataloader.train.num_batch_per_epoch=1"),
        "+hooks.ema={_target_: trainkit.hooks.EMAHook}",
    ]


def test_new_hooks_join_those_that_are_stored() -> None:
    first = ("hooks=[early_stopping]", "hooks.checkpoint.max_keep_ckpts=1", "hooks.timer=null")
    assert main([*SHORT, *first, "work_dir=first"]) == 0
    assert main(["rerun", "first", "hooks=ema"]) == 0
    (again,) = runs()
    before, stored = (OmegaConf.load(run / "config.yaml") for run in (Path("first"), again))
    assert stored.hooks.pop("ema")._target_ == "trainkit.hooks.EMAHook"
    assert stored.hooks == before.hooks
    assert status(again)["overrides"] == [*SHORT, *first[1:], "hooks=[early_stopping,ema]"]
    assert main([*status(again)["overrides"], "resume=true"]) == 0  # finds it, and trains nothing
    assert runs() == [again]


def test_an_option_that_sets_more_than_its_group_is_refused(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own/model").mkdir(parents=True)
    Path("own/model/pk.yaml").write_text("# @package _global_\nmodel: {channels: [4]}\nseed: 77\n")
    assert main(["rerun", base.name, "model=pk", "--config-dir", "own"]) == 2
    assert capsys.readouterr().err == (
        "ConfigError: model=pk: this option sets more than model (seed), so it cannot be put on a "
        "run's config. Override single keys.\n"
    )
    assert runs() == [base]


def test_a_stored_config_does_not_write_elsewhere(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = OmegaConf.load(base / "config.yaml")
    cfg.hooks.checkpoint.out_dir = str(Path("victim").absolute())
    OmegaConf.save(cfg, base / "config.yaml")
    assert main(["rerun", base.name]) == 2
    assert capsys.readouterr().err == (
        f"ConfigError: {base}/config.yaml asks for more than a stored config may:\n"
        f"  hooks.checkpoint.out_dir is {str(Path('victim').absolute())!r}, a place outside the "
        "new run; if you want it, give it on the command line.\n"
    )
    assert not Path("victim").exists()
    assert runs() == [base]
    again = rerun(base, "hooks.checkpoint.out_dir=victim")
    assert (again / "checkpoints").resolve() == Path("victim", again.name).resolve()
    assert main(["val", f"run={again}"]) == 0  # which keeps no checkpoints


def test_the_recorded_overrides_give_the_same_config(base: Path) -> None:
    again = rerun(base, "optim_wrapper.optimizer.lr=0.02", "dataloader.train.num_batch_per_epoch=1")
    assert main([*status(again)["overrides"], "resume=true"]) == 0  # finds it, and trains nothing
    assert len(runs()) == 2


def test_a_rerun_that_was_killed_is_gone_on_with(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["rerun", base.name, "optim_wrapper.optimizer.lr=0.02"]
    assert main(command) == 0
    (again,) = set(runs()) - {base}
    whole = weights(again)
    for path in (again / "checkpoints").glob("*_2"):
        shutil.rmtree(path)
    (again / "status.json").write_text(json.dumps({**status(again), "status": "running"}))
    assert main([*command, "resume=true"]) == 0
    assert set(runs()) == {base, again}
    assert "Resumed from" in (again / "train.log").read_text()
    assert all(torch.equal(value, whole[key]) for key, value in weights(again).items())
    capsys.readouterr()
    assert main([*command, "resume=true"]) == 0
    assert capsys.readouterr().out == (
        f"{again} is finished already, so there is nothing to resume. resume=fresh starts a new "
        "run.\n"
    )
    assert main([*command, "resume=fresh"]) == 0
    assert len(runs()) == 3


def test_a_rerun_does_not_resume_the_first_run(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base / "status.json").write_text(json.dumps({**status(base), "status": "failed"}))
    before = content(base)
    again = rerun(base, "resume=true")
    assert f"Training the config of {base} again." in capsys.readouterr().out
    assert content(base) == before
    assert status(again)["overrides"] == status(base)["overrides"]


def test_where_and_how_the_first_run_started_is_not_repeated() -> None:
    assert main([*SHORT, "work_dir=first", "resume=true", "trust=[mine]"]) == 0
    assert main(["rerun", "first"]) == 0
    (again,) = runs()
    assert status(again)["overrides"] == list(SHORT)
    assert OmegaConf.load(again / "config.yaml").work_dir is None
    assert main(["rerun", "first", "work_dir=second"]) == 0
    assert status(Path("second"))["status"] == "finished"


def test_weights_that_the_first_run_started_from_are_taken_again(base: Path) -> None:
    assert main([*SHORT, f"load_from={base}", "work_dir=tuned"]) == 0
    assert main(["rerun", "tuned", "work_dir=again"]) == 0
    first, second = weights(Path("tuned")), weights(Path("again"))
    assert all(torch.equal(value, first[key]) for key, value in second.items())
    assert not all(torch.equal(value, weights(base)[key]) for key, value in second.items())


def test_a_rerun_that_fails_to_start_leaves_no_directory(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rerun", base.name, "model.channels=[0]"]) == 2
    assert main(["rerun", base.name, "train_cfg.max_epochs=two"]) == 2
    assert "train_cfg.max_epochs is 'two'" in capsys.readouterr().err
    assert runs() == [base]


def test_the_code_that_a_stored_config_names_is_trusted_by_name(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine_by_test.py").write_text(
        "from pathlib import Path\n\nfrom trainkit import Hook\n\nPath('sprung').touch()\n\n\n"
        "class Quiet(Hook):\n    pass\n"
    )
    cfg = OmegaConf.load(base / "config.yaml")
    cfg.hooks.quiet = {"_target_": "mine_by_test.Quiet"}
    OmegaConf.save(cfg, base / "config.yaml")
    assert main(["rerun", base.name]) == 2
    assert capsys.readouterr().err == (
        f"ConfigError: {base}/config.yaml asks for more than a stored config may:\n"
        "  hooks.quiet._target_ names mine_by_test.Quiet, and the package mine_by_test is not "
        "trusted.\n"
        "If you know the code of mine_by_test, add: trust=[mine_by_test]\n"
    )
    assert not Path("sprung").exists()
    assert runs() == [base]
    again = rerun(base, "trust=[mine_by_test]")
    assert Path("sprung").exists()
    assert status(again)["overrides"] == list(SHORT)
    del sys.modules["mine_by_test"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            [],
            "trainkit rerun needs a run, before anything else: trainkit rerun outputs/digits/<run> "
            "[key=value ...].",
        ),
        (
            ["-m", "x"],
            "trainkit rerun needs a run, before anything else: trainkit rerun outputs/digits/<run> "
            "[key=value ...].",
        ),
        (["BASE", "-m", "seed=1,2"], "trainkit rerun trains one run; it does not take --multirun."),
        (["BASE", "--cfg", "job"], "trainkit rerun trains one run; it does not take --cfg."),
        (["BASE", "seed=1,2"], "seed=1,2 gives several values; a stored config takes one."),
        (["BASE", "sed=1"], "The config has no 'sed'. Did you mean 'seed'?"),
        (
            ["BASE", "resume=there"],
            "resume is 'there'; a rerun takes true, to go on with the newest rerun of these "
            "overrides, or fresh. To go on with any other run: trainkit resume=there",
        ),
        (
            ["BASE", "work_dir=outputs/digits/BASE"],
            "work_dir is 'outputs/digits/BASE', the run to train again. A rerun leaves that as it "
            "is: name another directory.",
        ),
        (
            ["nowhere"],
            "There is no run 'nowhere'. The newest below outputs/: outputs/digits/BASE. trainkit "
            "runs lists them all.",
        ),
    ],
)
def test_a_mistake_gets_one_message_and_leaves_nothing(
    base: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(base)
    assert main(["rerun", *(text.replace("BASE", base.name) for text in argv)]) == 2
    assert capsys.readouterr().err == f"ConfigError: {message.replace('BASE', base.name)}\n"
    assert runs() == [base]
    assert content(base) == before


@pytest.mark.parametrize(
    ("recorded", "given", "merged"),
    [
        (["a=1", "b=2"], ["a=3"], ["b=2", "a=3"]),
        (["+a.b=1"], ["a.b=2"], ["+a.b=2"]),
        (["++a.b=1"], ["a.b=2"], ["++a.b=2"]),
        (["a.b=1"], ["++a.b=2"], ["++a.b=2"]),
        (["a=x", "a/b=y", "a.b.c=1", "ab=1"], ["a=z"], ["ab=1", "a=z"]),
        (["a.b.c=1"], ["a/b=z"], ["a/b=z"]),
        (["a/b=y"], ["a.b.c=1"], ["a/b=y", "a.b.c=1"]),
        (["resume=true", "work_dir=x", "trust=y", "load_from=z"], ["resume=true"], ["load_from=z"]),
        ([], ["a=b=c"], ["a=b=c"]),
    ],
)
def test_new_overrides_replace_what_they_change(
    recorded: list[str], given: list[str], merged: list[str]
) -> None:
    assert _merged(recorded, given, {}) == merged


EMA = ("hooks.ema._target_", "hooks.ema.momentum")


@pytest.mark.parametrize(
    ("recorded", "merged"),
    [
        ([], ["hooks=ema"]),
        (["hooks=swa"], ["hooks=[swa,ema]"]),
        (["hooks=[swa,ema]", "seed=1"], ["seed=1", "hooks=[swa,ema]"]),
        (["hooks.logger=null", "hooks.ema.interval=2"], None),
        (["hooks.ema.momentum=1"], ["hooks=ema"]),
        (["+hooks.ema={_target_: x.Y}"], ["hooks=ema"]),
    ],
)
def test_new_hooks_join_those_that_were_recorded(
    recorded: list[str], merged: list[str] | None
) -> None:
    expected = [*recorded, "hooks=ema"] if merged is None else merged
    assert _merged(recorded, ["hooks=ema"], {"hooks=ema": EMA}) == expected
