"""``trainkit diff``: what two runs differ in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trainkit.__main__ import main
from trainkit.run_dir import RunRecord


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])


ENV = {"python": "3.11", "packages": {"torch": "2.13"}, "git": {"commit": "a1", "diff": ""}}


def make_run(name: str, config: str | None, env: Any = ENV, **facts: Any) -> Path:
    run = Path("outputs/digits", name)
    run.mkdir(parents=True)
    RunRecord(run).begin(**{"experiment_name": "digits", "seed": 0, **facts})
    RunRecord(run).end("finished")
    if config is not None:
        (run / "config.yaml").write_text(config)
    (run / "env.json").write_text(json.dumps(env))
    return run


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["diff", *(argv or ("a", "b"))]) == 0
    return capsys.readouterr().out


def test_two_real_runs_differ_in_what_was_changed(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["env.num_threads=1", "fast_dev_run=2", "param_scheduler=none"]
    main([*short, "work_dir=first"])
    main([*short, "work_dir=second", "seed=1", "optim_wrapper/optimizer=adamw"])
    capsys.readouterr()
    output = printed(capsys, "first", "second/checkpoints/epoch_1")
    assert output.startswith("A: first (finished)\nB: second (finished)\n\nconfig ")
    rows = [line.split() for line in output.splitlines()]
    assert ["optim_wrapper.optimizer._target_", "torch.optim.SGD", "torch.optim.AdamW"] in rows
    assert ["optim_wrapper.optimizer.momentum", "0.9", "—"] in rows
    assert ["seed", "0", "1"] in rows
    assert next(row[:2] for row in rows if row[:1] == ["accuracy"]) == ["accuracy", "(last)"]
    assert not any(row[:1] == ["model.channels"] for row in rows)


def test_the_whole_of_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(
        "a",
        "lr: 0.1\nmodel: {_target_: x.A, z: 1, a: null}\nsame: 1\n",
        {**ENV, "python": "3.11.7"},
        metrics={"accuracy": 0.5, "loss": 2.0},
        best={"accuracy": {"value": 0.5, "checkpoint": "x"}},
    )
    env = {**ENV, "python": "3.12.1", "git": {"commit": "a1", "diff": "x\ny"}}
    make_run(
        "b",
        "lr: 1.0e-2\nmodel: {_target_: x.B, width: [1, 2], z: '1'}\nsame: 1\n",
        env,
        metrics={"accuracy": 0.75, "error": 0.25},
        best={"accuracy": {"value": 0.75, "checkpoint": "x"}},
    )
    assert printed(capsys) == (
        "A: outputs/digits/a (finished)\n"
        "B: outputs/digits/b (finished)\n"
        "\n"
        "config          A     B\n"
        "lr              0.1   0.01\n"
        "model._target_  x.A   x.B\n"
        "model.a         null  —\n"
        "model.width     —     [1, 2]\n"
        'model.z         1     "1"\n'
        "\n"
        "metrics          A    B     B - A  %\n"
        "accuracy (last)  0.5  0.75  +0.25  +50\n"
        "loss (last)      2    —\n"
        "accuracy (best)  0.5  0.75  +0.25  +50\n"
        "error (last)     —    0.25\n"
        "\n"
        "environment      A                  B\n"
        "git.uncommitted  0 lines, 00000000  2 lines, 7695c1e8\n"
        "python           3.11.7             3.12.1\n"
    )


def test_json_has_the_same_facts(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("a", "x: 1\nonly: a\n", metrics={"loss": 2.0, "nan": float("nan"), "zero": 0})
    make_run("b", "x: true\n", metrics={"loss": 1.0, "nan": 1.0, "zero": 1})
    facts = json.loads(printed(capsys, "a", "b", "--json"), parse_constant=pytest.fail)
    assert facts == {
        "a": "outputs/digits/a",
        "b": "outputs/digits/b",
        "config": {"only": {"a": "a"}, "x": {"a": 1, "b": True}},
        "metrics": {
            "loss (last)": {"a": 2.0, "b": 1.0, "difference": -1.0, "percent": -50.0},
            "nan (last)": {"a": "nan", "b": 1.0, "difference": "nan", "percent": "nan"},
            "zero (last)": {"a": 0.0, "b": 1.0, "difference": 1.0},
        },
        "environment": {},
        "unknown": {"a": [], "b": []},
    }
    make_run("c", None)
    (Path("outputs/digits/c") / "status.json").write_text("{torn")
    assert json.loads(printed(capsys, "a", "c", "--json"))["unknown"] == {
        "a": [],
        "b": ["config", "metrics"],
    }


@pytest.mark.parametrize(
    ("damaged", "told", "last"),
    [
        (
            ["status.json"],
            ["status.json that can be read, so its metrics are not known"],
            "They do not differ in config or environment.",
        ),
        (
            ["status.json", "env.json"],
            [
                "status.json that can be read, so its metrics are not known",
                "env.json that can be read, so its environment is not known",
            ],
            "They do not differ in config.",
        ),
        (
            ["status.json", "env.json", "config.yaml"],
            [
                "config.yaml, as its runner was made from objects",
                "status.json that can be read, so its metrics are not known",
                "env.json that can be read, so its environment is not known",
            ],
            "So nothing of them can be compared.",
        ),
    ],
)
def test_what_cannot_be_read_is_not_the_same(
    capsys: pytest.CaptureFixture[str], damaged: list[str], told: list[str], last: str
) -> None:
    for name in ("a", "b"):
        run = make_run(name, "x: 1\n")
        for file in damaged:
            (run / file).write_text("{torn")
        if "config.yaml" in damaged:
            (run / "config.yaml").unlink()
    assert printed(capsys).splitlines()[2:] == [
        *(f"outputs/digits/{name} has no {text}." for name in ("a", "b") for text in told),
        last,
    ]


def test_a_part_that_one_run_lacks_is_not_called_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run("a", "x: 1\n")
    (make_run("b", "x: 2\n") / "env.json").unlink()
    (Path("outputs/digits/a") / "status.json").write_text("[]")
    assert "No metrics to compare." in printed(capsys).splitlines()


@pytest.mark.parametrize("content", [None, ""])
def test_a_config_that_cannot_be_read_is_no_missing_one(
    capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    for name in ("a", "b"):
        file = make_run(name, None) / "config.yaml"
        file.mkdir() if content is None else file.write_text(content)
    assert main(["diff", "a", "b"]) == 2
    why = (
        "cannot be read: Is a directory."
        if content is None
        else ("is empty, so it is no config. Restore the file.")
    )
    assert capsys.readouterr().err == f"ConfigError: outputs/digits/a/config.yaml {why}\n"


def test_what_is_the_same_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("a", "x: 1\ny: {}\nz: []\n", metrics={"loss": float("nan")})
    make_run("b", "z: []\ny: {}\nx: 1\n", metrics={"loss": float("nan")})
    make_run("c", "x: 2\ny: {}\nz: []\n", metrics={"loss": float("nan")})
    assert printed(capsys).splitlines()[2:] == [
        "They do not differ in config, metrics or environment."
    ]
    assert printed(capsys, "a", "a").endswith(
        "They do not differ in config, metrics or environment.\n"
    )
    assert printed(capsys, "a", "c").splitlines()[5:] == [
        *("", "The same metrics.", "", "The same environment.")
    ]


def test_named_nodes_and_lists_are_compared_entry_by_entry(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run("a", "hooks: [{_target_: x.A, n: 1}, {_target_: x.B}]\nsteps: [1, 2]\n")
    make_run("b", "hooks: [{_target_: x.A, n: 2}]\nsteps: [1, 3]\n")
    assert printed(capsys).splitlines()[3:7] == [
        "config             A       B",
        "hooks[0].n         1       2",
        "hooks[1]._target_  x.B     —",
        "steps              [1, 2]  [1, 3]",
    ]


def test_nothing_of_a_config_is_imported_or_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    Path("canary_of_diff.py").write_text("open('sung', 'w').close()\n")
    make_run("a", "model: {_target_: canary_of_diff.Model}\nx: ${oc.env:HOME}\ny: ${eval:1}\n")
    make_run("b", "model: {_target_: canary_of_diff.Other}\nx: ${oc.env:PATH}\ny: 1\n")
    output = printed(capsys)
    assert "canary_of_diff.Model  canary_of_diff.Other" in output
    assert "${oc.env:HOME}" in output
    assert not Path("sung").exists()
    assert "canary_of_diff" not in sys.modules


def test_how_the_runs_stand_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    RunRecord(make_run("a", "x: 1\n")).begin()
    (make_run("b", "x: 2\n") / "status.json").write_text("{torn")
    assert printed(capsys).splitlines()[:2] == [
        "A: outputs/digits/a (died)",
        "B: outputs/digits/b (unreadable)",
    ]


def test_a_run_made_from_objects_has_no_config(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("a", None)
    make_run("b", "x: 1\n")
    assert printed(capsys).splitlines()[2:5] == [
        "outputs/digits/a has no config.yaml, as its runner was made from objects.",
        "",
        "config  A  B",
    ]


def test_of_a_run_that_was_resumed_the_newest_environment_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run("a", "x: 1\n")
    run = make_run("b", "x: 1\n")
    for number, device in ((2, "cpu"), (10, "cuda")):
        (run / f"env_{number}.json").write_text(json.dumps({**ENV, "device": device}))
    assert printed(capsys).splitlines()[-2:] == ["environment  A  B", "device       —  cuda"]


@pytest.mark.parametrize("env", [None, [], 3, {"git": None}, {"git": {"diff": None}}])
def test_a_damaged_environment_is_none(capsys: pytest.CaptureFixture[str], env: Any) -> None:
    make_run("a", "x: 1\n", env)
    make_run("b", "x: 2\n")
    assert "x       1  2" in printed(capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["a"],
            "ConfigError: trainkit diff got 1 run; expected two: trainkit diff A B. trainkit runs "
            "lists them.\n",
        ),
        (
            ["a", "b", "c"],
            "ConfigError: trainkit diff got 3 runs; expected two: trainkit diff A B. trainkit runs "
            "lists them.\n",
        ),
        (
            ["a", "c"],
            "ConfigError: There is no run 'c'. The newest below outputs/: outputs/digits/a. "
            "trainkit runs lists them all.\n",
        ),
    ],
)
def test_mistakes_are_told(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    make_run("a", "x: 1\n")
    assert main(["diff", *argv]) == 2
    assert capsys.readouterr().err == message


def test_a_config_that_is_damaged_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    make_run("a", "x: [\n")
    make_run("b", "x: 1\n")
    assert main(["diff", "a", "b"]) == 2
    assert "outputs/digits/a/config.yaml is no YAML" in capsys.readouterr().err
