"""The command line: what it trains, where, and what it answers to mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trainkit.__main__ import main
from trainkit.run_dir import lock

SHORT = ("env.num_threads=1", "train_cfg.max_epochs=2", "+dataloader.train.num_batch_per_epoch=2")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def runs() -> list[Path]:
    return sorted(path.parent for path in Path("outputs").glob("*/*/status.json"))


def status(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "status.json").read_text())
    return record


def test_a_run_has_a_directory_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(SHORT)) == 0
    assert main(["train", *SHORT]) == 0
    first, second = runs()
    for run in (first, second):
        assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?", run.name)
        names = {path.name for path in run.iterdir()}
        assert {"config.yaml", "status.json", "env.json", "train.log", "metrics.jsonl"} <= names
        assert {"tensorboard", "checkpoints", ".hydra"} <= names
        assert status(run)["status"] == "finished"
        assert status(run)["identity"] == ["digits", *sorted(SHORT)[:1], *sorted(SHORT)[2:]]
    assert "Epoch(val)" in capsys.readouterr().out


def test_the_stored_config_gives_the_same_run_again() -> None:
    main([*SHORT, "seed=5"])
    (run,) = runs()
    from omegaconf import OmegaConf

    stored = OmegaConf.load(run / "config.yaml")
    assert (stored.seed, stored.train_cfg.max_epochs) == (5, 2)


def test_val_and_test_repeat_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    main(list(SHORT))
    (run,) = runs()
    capsys.readouterr()
    assert main(["val", f"run={run}"]) == 0
    assert f"accuracy: {status(run)['metrics']['accuracy']}" in capsys.readouterr().out
    before = (run / "status.json").read_text()
    assert main(["test", f"run={run}", "dataloader.test.batch_size=7"]) == 0
    assert "accuracy: " in capsys.readouterr().out
    assert (run / "status.json").read_text() == before


def test_resume_goes_on_in_the_same_directory(capsys: pytest.CaptureFixture[str]) -> None:
    main(list(SHORT))
    (run,) = runs()
    assert main([*SHORT[:1], *SHORT[2:], "train_cfg.max_epochs=3", f"resume={run}"]) == 0
    assert runs() == [run]
    assert status(run)["epoch"] == 3
    log = (run / "train.log").read_text()
    assert "Resumed from" in log


def test_resume_of_a_finished_run_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    main(list(SHORT))
    (run,) = runs()
    before = (run / "train.log").read_text()
    assert main([*SHORT, "resume=true"]) == 0
    assert "is finished already" in capsys.readouterr().out
    assert (run / "train.log").read_text() == before
    assert main([*SHORT, "resume=fresh"]) == 0
    assert len(runs()) == 2


def test_resume_without_a_run_starts_one_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    main(list(SHORT))
    assert main([*SHORT, "seed=9", "resume=true"]) == 0
    assert "no earlier run of" in capsys.readouterr().out
    assert len(runs()) == 2


def test_work_dir_names_the_directory() -> None:
    assert main([*SHORT, "work_dir=here/there"]) == 0
    assert Path("here/there/checkpoints/epoch_2/model.pt").is_file()


def test_a_work_dir_that_holds_a_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    main([*SHORT, "work_dir=here"])
    before = {path: path.stat().st_mtime_ns for path in Path("here").rglob("*") if path.is_file()}
    assert main([*SHORT, "work_dir=here"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {p.name for p in before if before[p] != after[p]} <= {".lock"}


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["tran"], 2, "ConfigError: There is no command 'tran'. Did you mean 'train'?"),
        (["--nope"], 2, "ConfigError: The command line cannot be read: unrecognized arguments"),
        (["seed=1", "foo"], 2, "ConfigError: The argument 'foo' is no override"),
        (["seed=1", "seed=2"], 2, "ConfigError: seed is given more than once: seed=1 and"),
        (["seed=abc"], 2, "ConfigError: seed is 'abc'; expected a whole number or null."),
        (["+typo=1"], 2, "ConfigError: typo: nothing reads a key of this name."),
        (["train_cfg.max_epochs=two"], 2, "ConfigError: train_cfg.max_epochs is 'two'"),
        (
            ["optim_wrapper.optimizer.lr=abc"],
            2,
            "ConfigError: optim_wrapper.optimizer.lr is 'abc'; SGD takes a number.",
        ),
        (
            ["dataloader.train.batch_size=0"],
            2,
            "ConfigError: dataloader.train.batch_size is 0; expected a whole number of at least 1.",
        ),
        (["model._target_=trainkit.model.Convnet"], 2, "Did you mean 'ConvNet'?"),
        (
            ["param_scheduler=multistep", "param_scheduler.multistep.milestones=3"],
            2,
            "param_scheduler.multistep.milestones is 3; MultiStepLR takes a list of whole numbers.",
        ),
        (["fast_dev_run=-1"], 2, "ConfigError: fast_dev_run is -1"),
        (["load_from=nowhere"], 3, "CheckpointError: There is no checkpoint 'nowhere'"),
        (["resume=nowhere"], 3, "CheckpointError: resume is 'nowhere'"),
        (["work_dir=/proc/x"], 2, "ConfigError: The directory /proc/x cannot be made"),
        (["val", "run=nowhere"], 2, "ConfigError: run=nowhere has no config.yaml"),
        (["test"], 2, "ConfigError: trainkit test needs weights"),
        (["val", "run=x", "-m"], 2, "evaluates one run; it does not take --multirun"),
        (["val", "run=x", "--cfg", "job"], 2, "evaluates one run; it does not take --cfg"),
        (["--resolve"], 2, "--resolve belongs to --cfg"),
        (["--cfg", "jobb"], 2, "argument --cfg/-c: invalid choice: 'jobb'"),
        (["-m", "--cfg", "job"], 2, "--cfg shows one config"),
        (["--config-name", "nowhere"], 2, "There is no primary config 'nowhere'"),
        (["--help", "--config-name", "nowhere"], 2, "There is no primary config 'nowhere'"),
        (["~hooks.checkpoint"], 2, "a hook is removed by hooks.checkpoint=null"),
        (["hooks=ema,early_stopping"], 2, "Write hooks=[ema,early_stopping] for all"),
        (["train_cfg=none"], 2, "there is no option 'none'. Choose from: epoch, iter."),
        (["hydra/launcher=submitit_slurm"], 2, "pip install 'trainkit[slurm]'"),
        (["experiment_name=null"], 2, "The config has no experiment_name"),
        (["work_dir="], 2, "work_dir is empty"),
        (["compile={backendd:eager}"], 2, "compile has no argument 'backendd'"),
        (["hooks=ema", "hooks.ema.momentum=2"], 2, "hooks.ema.momentum is 2"),
        (["-m", "seed=1,2", "hydra.sweep.dir=x"], 2, "name the sweep's directory with work_dir="),
        (
            ["evaluator.metrics.accuracy._target_=pycocotools.coco.COCO"],
            2,
            "evaluator.metrics.accuracy._target_: pycocotools.coco.COCO needs pycocotools",
        ),
        (["-m", "seed=1,2", "resume=true"], 2, "ConfigError: A sweep starts new runs"),
        (["-m", "optim_wrapper=amp,ampp"], 2, "optim_wrapper=ampp: there is no option 'ampp'"),
    ],
)
def test_a_mistake_gets_one_message_and_leaves_nothing(
    argv: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == code
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert runs() == []


def test_an_error_in_the_users_code_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "faulty_by_test.py").write_text(
        "from trainkit import Hook\n\n\nclass Faulty(Hook):\n"
        "    def before_train_iter(self, runner, batch_idx, data_batch=None):\n"
        "        raise LookupError('lost')\n"
    )
    with pytest.raises(LookupError, match="lost"):
        main([*SHORT, "+hooks.mine._target_=faulty_by_test.Faulty"])
    (run,) = runs()
    assert status(run)["status"] == "failed"


def test_the_config_is_shown_instead_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "--resolve", "seed=7", "param_scheduler=warmup_cosine"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 7" in shown
    assert "begin: 20" in shown
    assert not Path("outputs").exists()


def test_other_directories_and_primary_configs_are_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - config\n  - override /optim_wrapper: default\n  - _self_\n"
        "experiment_name: mine\n"
    )
    assert main(["--config-dir", str(tmp_path), "--config-name", "mine", *SHORT]) == 0
    (run,) = runs()
    assert run.parent.name == "mine"


def test_a_run_with_a_secret_is_found_again(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "tags=[ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]"
    main([*SHORT, secret])
    (run,) = runs()
    assert "ghp_" not in (run / "status.json").read_text()
    assert main([*SHORT, secret, "resume=true"]) == 0
    assert "is finished already" in capsys.readouterr().out


def test_a_resumed_run_keeps_both_configs() -> None:
    main(list(SHORT))
    (run,) = runs()
    main([*SHORT, "optim_wrapper.optimizer.lr=0.01", f"resume={run}"])
    assert "lr: 0.01" in (run / "config.yaml").read_text()
    assert "lr: 0.1" in (run / "config_2.yaml").read_text()


def test_a_start_that_is_refused_leaves_a_live_run_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*SHORT, "work_dir=live"])
    before = (tmp_path / "live" / "status.json").read_text()
    with lock(tmp_path / "live"):
        assert main(["resume=live", "train_cfg.max_epochs=7"]) == 3
    assert "works in" in capsys.readouterr().err
    assert (tmp_path / "live" / "status.json").read_text() == before


def test_a_run_without_checkpoints_is_not_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "work_dir=here", "hooks.checkpoint=null"]) == 0
    assert main([*SHORT, "work_dir=here", "hooks.checkpoint=null"]) == 2
    assert "holds a run already, with no good checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# @package _global_\nseed: {1", "my/experiment/mine.yaml:2 is no YAML"),
        ("seed: 3\n", "begins with the line '# @package _global_'"),
        ("# @package _global_\nmodel:\n  chanels: [8]\n", "Did you mean 'channels'?"),
        ("# @package _global_\nmodel: {_target_: no.such.Net}\n", "no module 'no'"),
    ],
)
def test_a_mistake_in_ones_own_file_is_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "my" / "experiment").mkdir(parents=True)
    (tmp_path / "my" / "experiment" / "mine.yaml").write_text(text)
    assert main(["--config-dir", "my", "experiment=mine", *SHORT]) == 2
    assert message in capsys.readouterr().err


def test_the_version_is_trainkits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("trainkit 0.")


def test_an_evaluation_takes_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    main(list(SHORT))
    (run,) = runs()
    assert main(["val", f"run={run}", "seed=1,2"]) == 2
    assert "gives several values" in capsys.readouterr().err
