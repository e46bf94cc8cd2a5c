"""``trainkit explain KEY``: who set a value, in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainkit.__main__ import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


OWN = ["--config-dir", "my", "experiment=mine"]


def own_file(content: str) -> None:
    Path("my/experiment").mkdir(parents=True, exist_ok=True)
    Path("my/experiment/mine.yaml").write_text(f"# @package _global_\n{content}")


def told(argv: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of the explanation; columns are joined by one space, lines of conf/ are ``:N``."""
    assert main(["explain", *argv]) == 0
    lines = re.sub(r"(conf/[\w/]+\.yaml):\d+", r"\1:N", capsys.readouterr().out).splitlines()
    return [re.sub(r"(?<=\S) +", " ", line) for line in lines]


def test_a_value_of_conf_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(["seed"], capsys) == ["seed = 0", "  conf/config.yaml:N 0"]


def test_files_and_overrides_come_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["experiment_name", "experiment=digits_cosine", "experiment_name=mine"], capsys)
    assert lines == [
        "experiment_name = 'mine'",
        "  conf/config.yaml:N 'digits'",
        "  conf/experiment/digits_cosine.yaml:N 'digits_cosine' "
        "(chosen by experiment=digits_cosine)",
        "  the override experiment_name=mine 'mine'",
    ]


def test_an_option_is_shown_with_who_chose_it(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["optim_wrapper.optimizer.lr", "experiment=digits_cosine"], capsys)
    assert lines == [
        "optim_wrapper.optimizer.lr = 0.002",
        "  conf/optim_wrapper/optimizer/adamw.yaml:N 0.002 "
        "(chosen by the defaults of experiment/digits_cosine)",
    ]


def test_an_interpolation_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["seed", "seed=${fast_dev_run}", "fast_dev_run=2"], capsys)
    assert lines == [
        "seed = 2",
        "  conf/config.yaml:N 0",
        "  the override seed=${fast_dev_run} '${fast_dev_run}'",
        "    fast_dev_run = 2",
        "      conf/config.yaml:N 0",
        "      the override fast_dev_run=2 2",
    ]


@pytest.mark.parametrize("key", ["model.channels[0]", "model.channels.0"])
def test_an_entry_of_a_list_may_be_written_in_two_ways(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told([key], capsys) == ["model.channels[0] = 32", "  conf/model/convnet.yaml:N 32"]


def test_nodes_in_a_list_are_explained_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    own_file("model:\n  channels:\n    - width: 1\n    - width: 2\n")
    assert told(["model.channels", *OWN], capsys) == [
        "model.channels[0].width = 1",
        "  conf/model/convnet.yaml:N model.channels[0] = 32",
        "  my/experiment/mine.yaml:4 1 (chosen by experiment=mine)",
        "model.channels[1].width = 2",
        "  conf/model/convnet.yaml:N model.channels[1] = 64",
        "  my/experiment/mine.yaml:5 2 (chosen by experiment=mine)",
    ]


def test_a_key_that_a_resolver_reads_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(["fast_dev_run", "fast_dev_run=${oc.select:seed,1}"], capsys) == [
        "fast_dev_run = 0",
        "  conf/config.yaml:N 0",
        "  the override fast_dev_run=${oc.select:seed,1} '${oc.select:seed,1}'",
        "    seed = 0",
        "      conf/config.yaml:N 0",
    ]
    assert told(["seed", "seed=${oc.select:not_there,1}"], capsys)[-1] == (
        "    not_there is not in the config; the default 1 stands"
    )


def test_what_a_whole_node_is_read_from_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    own_file(
        "zoo:\n  sgd: {_target_: torch.optim.SGD, lr: 0.3}\n"
        "optim_wrapper:\n  optimizer: ${zoo.sgd}\n"
    )
    assert told(["optim_wrapper.optimizer.lr", *OWN], capsys) == [
        "optim_wrapper.optimizer.lr = 0.3",
        "  conf/optim_wrapper/optimizer/sgd.yaml:N 0.1",
        "  my/experiment/mine.yaml:5 optim_wrapper.optimizer = '${zoo.sgd}' "
        "(chosen by experiment=mine)",
        "    zoo.sgd.lr = 0.3",
        "      my/experiment/mine.yaml:3 0.3 (chosen by experiment=mine)",
    ]


def test_what_leads_back_to_itself_ends(capsys: pytest.CaptureFixture[str]) -> None:
    own_file("a: {x: '${a}'}\nb: ['${b.0}']\n")
    assert told(["b", *OWN], capsys) == [
        "b = ['${b.0}']",
        "  my/experiment/mine.yaml:3 ['${b.0}'] (chosen by experiment=mine)",
        "    b[0] = (cannot be resolved: Recursive interpolation detected)",
        "      my/experiment/mine.yaml:3 '${b.0}' (chosen by experiment=mine)",
    ]
    assert told(["a", *OWN], capsys) == [
        "a.x = (cannot be resolved: Interpolation to parent node detected)",
        "  my/experiment/mine.yaml:2 '${a}' (chosen by experiment=mine)",
        "    a.x = (cannot be resolved: Interpolation to parent node detected)",
        "      my/experiment/mine.yaml:2 '${a}' (chosen by experiment=mine)",
    ]


def test_a_variable_is_told_set_or_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lr = "optim_wrapper.optimizer.lr"
    argv = [lr, lr + "=${oc.env:TRAINKIT_TEST_LR,0.01}"]
    assert told(argv, capsys) == [
        f"{lr} = '0.01'",
        "  conf/optim_wrapper/optimizer/sgd.yaml:N 0.1",
        f"  the override {argv[1]} '${{oc.env:TRAINKIT_TEST_LR,0.01}}'",
        "    the environment variable TRAINKIT_TEST_LR is not set; the default 0.01 stands",
    ]
    monkeypatch.setenv("TRAINKIT_TEST_LR", "0.5")
    lines = told(argv, capsys)
    assert lines[0] == f"{lr} = '0.5'"
    assert lines[-1] == "    the environment variable TRAINKIT_TEST_LR is set"


def test_the_value_of_a_secret_is_not_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINKIT_TEST_TOKEN", "abc")
    assert told(["+model.x=${oc.env:TRAINKIT_TEST_TOKEN}", "model.x"], capsys) == [
        "model.x = '<redacted>'",
        "  the override +model.x=${oc.env:TRAINKIT_TEST_TOKEN} '${oc.env:TRAINKIT_TEST_TOKEN}'",
        "    the environment variable TRAINKIT_TEST_TOKEN is set",
    ]
    own_file("credentials: {user: xyz}\nwho: ${credentials.user}\n")
    assert told(["who", *OWN], capsys) == [
        "who = '<redacted>'",
        "  my/experiment/mine.yaml:3 '${credentials.user}' (chosen by experiment=mine)",
        "    credentials.user = '<redacted>'",
        "      my/experiment/mine.yaml:2 '<redacted>' (chosen by experiment=mine)",
    ]


def test_an_option_that_is_one_of_several_is_shown_with_who_chose_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told(["hooks.ema.momentum", "hooks=[ema]"], capsys)[-1] == (
        "  conf/hooks/ema.yaml:N 0.01 (chosen by hooks=[ema])"
    )


def test_a_mapping_is_explained_key_by_key(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["param_scheduler.cosine"], capsys)
    assert [line.partition(" =")[0] for line in lines if not line.startswith(" ")] == [
        "param_scheduler.cosine._target_",
        "param_scheduler.cosine.eta_min",
        "param_scheduler.cosine.by_epoch",
    ]


def test_a_group_may_be_written_with_a_slash(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(["optim_wrapper/optimizer.lr"], capsys)[0] == "optim_wrapper.optimizer.lr = 0.1"


def test_what_was_removed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(["model.dropout", "~model.dropout"], capsys)
    assert lines[-1] == "  the override ~model.dropout (removed)"


def test_an_argument_that_only_the_signature_gives(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(["dataloader.train.drop_last"], capsys) == [
        "dataloader.train.drop_last is not in the config. It has the default false in DataLoader; "
        "set it by +dataloader.train.drop_last=..."
    ]


def test_a_line_of_ones_own_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    own_file("seed: 3\n")
    lines = told(["seed", *OWN], capsys)
    assert lines[-1] == "  my/experiment/mine.yaml:2 3 (chosen by experiment=mine)"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            [],
            "trainkit explain got 0 keys; expected one, such as: trainkit explain "
            "optim_wrapper.optimizer.lr [overrides].",
        ),
        (
            ["seed", "tags"],
            "trainkit explain got 2 keys: seed, tags; expected one, such as: trainkit explain "
            "optim_wrapper.optimizer.lr [overrides].",
        ),
        (["lr"], "The config has no 'lr'. It stands at optim_wrapper.optimizer.lr."),
        (["sead"], "The config has no 'sead'. Did you mean 'seed'?"),
        (["seed", "sede=1"], "The config has no 'sede'. Did you mean 'seed'?"),
        *(
            (
                [key],
                f"{key!r} is no key; expected one such as optim_wrapper.optimizer.lr or "
                "model.channels[0].",
            )
            for key in ("", ".model", "model.", "model..dropout", "model[", "model.channels[]")
        ),
        *(
            (
                [key],
                f"The config has no {told!r}. The entries of the list are model.channels[0] to "
                "model.channels[1].",
            )
            for key, told in {
                "model.channels.7": "model.channels[7]",
                "model.channels[5]": "model.channels[5]",
                "model.channels.x": "model.channels.x",
            }.items()
        ),
        (["tags[0]"], "The config has no 'tags[0]'. tags is an empty list."),
        (["seed.x"], "The config has no 'seed.x'. seed is 0, which has no keys."),
        (
            ["model.channels[0].x"],
            "The config has no 'model.channels[0].x'. model.channels[0] is 32, which has no keys.",
        ),
        (["seed", "-m"], "trainkit explain looks at one config; it takes overrides only."),
    ],
)
def test_a_mistake_is_answered(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *argv]) == 2
    assert capsys.readouterr().err == f"ConfigError: {message}\n"


def test_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(["seed"], capsys)
    assert list(tmp_path.iterdir()) == []
