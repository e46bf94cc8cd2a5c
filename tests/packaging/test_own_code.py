"""docs/own_code.md, done as written with the installed wheel in an empty directory."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.installed import ROOT, run
from tests.page import read_page

PAGE = read_page(ROOT / "docs" / "own_code.md")
SHORT = "fast_dev_run=1"  # added to what trains, so that it is one batch long

pytestmark = pytest.mark.slow


class Project:
    """A directory that holds the files of the page up to one of its sections."""

    def __init__(self, title: str, directory: Path, site: Path) -> None:
        self.directory, self.site = directory, site
        titles = list(PAGE)
        for each in titles[: titles.index(title) + 1]:
            for name, content in PAGE[each].files.items():
                file = directory / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content, encoding="utf-8")
        self.commands = PAGE[title].commands

    def run(self, command: str) -> str:
        """Run a line of the page as a shell would; return what it printed."""
        words = shlex.split(command)
        trains = "make_data.py" not in words and not {"check", "explain"} & {*words}
        done = run([*words, *([SHORT] if trains else [])], self.directory, self.site)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def train(self, command: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Run a line that trains; return config and status of each run that it made."""
        before = set(self.directory.glob("outputs/**/status.json"))
        self.run(command)
        made = sorted(set(self.directory.glob("outputs/**/status.json")) - before)
        found = []
        for file in made:
            status = json.loads(file.read_text())
            assert (status["status"], status["epoch"], status["iter"]) == ("finished", 1, 1)
            assert list((file.parent / "checkpoints").glob("epoch_1/model.pt"))
            found.append((yaml.safe_load((file.parent / "config.yaml").read_text()), status))
        return found


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, site: Path) -> Project:
    return Project(request.param, tmp_path, site)


def of(title: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("project", [title], indirect=True, ids=[""])


@of("Options of your own")
def test_an_own_directory_adds_options(project: Project) -> None:
    check, train = project.commands
    assert project.run(check) == "No mistake found.\n"
    ((config, _),) = project.train(train)
    assert config["optim_wrapper"]["_target_"] == "trainkit.optim_wrapper.OptimWrapper"
    assert config["optim_wrapper"]["clip_grad"] == {"max_norm": 1.0}
    assert config["optim_wrapper"]["optimizer"]["lr"] == 0.1, "as in the option it starts from"


@of("Experiments")
def test_an_experiment_changes_several_groups(project: Project) -> None:
    (train,) = project.commands
    ((config, status),) = project.train(train)
    assert config["optim_wrapper"]["_target_"] == "trainkit.optim_wrapper.OptimWrapper"
    assert config["optim_wrapper"]["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert (config["model"]["channels"], config["seed"]) == ([8, 16], 1)
    assert status["identity"] == ["tiny", "experiment=tiny", SHORT, "seed=1"]


@of("A root config of your own")
def test_an_own_root_config_stands_on_trainkits(project: Project) -> None:
    (train,) = project.commands
    ((config, status),) = project.train(train)
    assert config["optim_wrapper"]["clip_grad"] == {"max_norm": 1.0}
    assert list(config["param_scheduler"]) == ["warmup", "multistep"]
    assert config["model"]["channels"] == [8, 16], "an option that hydra.searchpath adds"
    assert (status["experiment_name"], status["seed"]) == ("my_run", 7)
    searched = project.run("trainkit check 'hydra.searchpath=[file://shared]' model=narrow")
    assert searched == "No mistake found.\n"


@of("Classes of your own")
def test_own_classes_are_used_by_their_path(project: Project) -> None:
    make_data, train = project.commands
    project.run(make_data)
    ((config, status),) = project.train(train)
    assert config["model"] == {"_target_": "lab.model.Perceptron", "hidden": 48}
    assert config["dataloader"]["train"]["dataset"]["root"] == "${data_root}"
    assert set(status["metrics"]) == {"accuracy", "worst_class"}
    (log,) = project.directory.glob("outputs/lab/*/train.log")
    assert "Goal not reached: worst_class is 0.000 of 0.9." in log.read_text()
    evaluated = project.run(f"trainkit val run={log.parent} trust=[lab]")
    assert f"worst_class: {status['metrics']['worst_class']:.4f}" in evaluated


@of("Classes of your own")
def test_what_own_classes_declare_is_checked(project: Project) -> None:
    project.run("python make_data.py")
    command = "trainkit check --config-dir conf --config-name lab data_root=data"
    wrong = [
        "hooks.goal.metric=worst_clas",
        "model.hidden=many",
        "+dataloader.train.drop_last=true",
    ]
    words = [*shlex.split(command), *wrong, "dataloader.train.batch_size=2000"]
    done = run(words, project.directory, project.site)
    assert (done.returncode, done.stdout) == (2, "")
    for mistake in (
        "model.hidden is 'many'; Perceptron takes a whole number.",
        "dataloader.train gives no batch: 1,259 samples, batch_size=2000, drop_last=True.",
        "hooks.goal.metric is 'worst_clas', which no metric of the evaluator gives. Did you mean "
        "'worst_class'?",
    ):
        assert mistake in done.stderr


@of("A train loop of your own")
def test_an_own_loop_is_named_by_the_config(project: Project) -> None:
    (train,) = project.commands
    ((config, _),) = project.train(train)
    assert config["train_cfg"]["_target_"] == "lab.loop.ImpatientLoop"
    (log,) = project.directory.glob("outputs/digits/*/train.log")
    assert "Training will stop: an epoch took more than 0 s." in log.read_text()


@of("A Runner of your own")
def test_an_own_runner_is_named_by_the_config(project: Project) -> None:
    (train,) = project.commands
    ((config, _),) = project.train(train)
    assert config["runner"] == {"_target_": "lab.runner.NotedRunner", "note": "done"}
    (note,) = project.directory.glob("outputs/digits/*/note.txt")
    assert note.read_text() == "done"
    evaluated = project.run(f"trainkit val run={note.parent} trust=[lab]")
    assert "accuracy: " in evaluated


@of("Dataclasses of your own")
def test_own_dataclasses_are_options_of_an_own_script(project: Project) -> None:
    first, second, direct = project.commands
    ((config, _),) = project.train(first)
    assert config["optim_wrapper"]["clip_grad"] == {"max_norm": 2.0}
    assert config["optim_wrapper"]["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert "defaults" not in config["optim_wrapper"]
    ((config, _),) = project.train(second)
    assert config["param_scheduler"]["cosine"]["eta_min"] == 0.001
    assert (config["train_cfg"]["max_epochs"], config["train_cfg"]["val_interval"]) == (4, 1)
    assert [loader["batch_size"] for loader in config["dataloader"].values()] == [48, 48, 48]
    assert config["hooks"]["patience"]["monitor"] == "accuracy"
    assert "checkpoint" in config["hooks"], "a dataclass adds to the default hooks"
    ((config, status),) = project.train(direct)
    assert config["optim_wrapper"]["clip_grad"] == {"max_norm": 3.0}
    assert (config["train_cfg"]["max_epochs"], config["dataloader"]["val"]["batch_size"]) == (2, 48)
    assert (status["experiment_name"], status["seed"]) == ("direct", 3)


@of("A Hydra application of your own")
def test_an_own_application_of_hydra_trains_and_sweeps(project: Project) -> None:
    once, sweep, by_hand = project.commands
    ((config, status),) = project.train(once)
    assert config["optim_wrapper"]["clip_grad"] == {"max_norm": 1.0}
    assert (status["experiment_name"], status["seed"]) == ("my_run", 11)
    assert [status["seed"] for _, status in project.train(sweep)] == [1, 2]
    ((config, _),) = project.train(by_hand)
    assert config["model"]["channels"] == [4, 8]
    assert (project.directory / "outputs" / "by_hand" / "status.json").exists()


@of("Settings of one machine")
def test_a_local_file_is_read_where_it_is(project: Project) -> None:
    explain, train = project.commands
    assert project.run(explain).splitlines() == [
        "env.num_threads = 2",
        "  conf/env/default.yaml:6     null",
        "  conf/local/default.yaml:2   2",
    ]
    ((config, status),) = project.train(train)
    assert (config["env"]["num_threads"], config["trust"]) == (2, ["lab"])
    assert status["identity"] == ["digits", SHORT], "runs of two machines are told as the same"


@of("Settings of one machine")
def test_a_local_file_gives_what_a_root_config_leaves_open(project: Project) -> None:
    project.run("python make_data.py")
    local = project.directory / "conf" / "local" / "default.yaml"
    check = "trainkit check --config-dir conf --config-name lab"
    without = run(shlex.split(check), project.directory, project.site)
    assert without.returncode == 2
    assert "data_root has no value yet. Give it one: data_root=..." in without.stderr
    local.write_text(local.read_text() + "data_root: data\n")
    assert project.run(check) == "No mistake found.\n"


COMPLETE = r"""
complete_line() {
  COMP_LINE="$1" COMP_POINT=${#1} COMP_CWORD=$2 COMPREPLY=()
  hydra_bash_completion
  echo "${COMPREPLY[@]}"
}
INSTALL
complete -p trainkit > /dev/null
complete_line 'trainkit ch' 1
complete_line 'trainkit check optim_wr' 2
complete_line 'trainkit --config-dir conf optim_wrapper=' 3
complete_line 'trainkit optim_wrapper.optimizer.m' 1
eval "$(python script.py -sc install=bash)"
complete -p python > /dev/null && complete_line 'python script.py optim_wrapper=m' 2
eval "$(python script.py -sc uninstall=bash)"
complete -p python 2> /dev/null || echo no python
eval "$(trainkit -sc install=bash)"
eval "$(trainkit -sc uninstall=bash)"
complete -p trainkit 2> /dev/null || echo none
"""


@of("Completion")
def test_bash_completes_the_console_script(project: Project) -> None:
    (install,) = project.commands
    script = COMPLETE.replace("INSTALL", install)
    done = run(["bash", "--norc", "-c", script], project.directory, project.site)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "check",
        "optim_wrapper optim_wrapper.",
        "optim_wrapper=amp optim_wrapper=careful optim_wrapper=default",
        "optim_wrapper.optimizer.momentum=",
        "optim_wrapper=mine",
        "no python",
        "none",
    ]


def test_every_section_is_followed() -> None:
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    marks = [mark for test in tests for mark in getattr(test, "pytestmark", ())]
    followed = {mark.args[1][0] for mark in marks if mark.name == "parametrize"}
    assert followed == set(PAGE)
