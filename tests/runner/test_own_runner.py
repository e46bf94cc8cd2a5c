"""A Runner of the user's, named by the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.toy import ToyModel
from trainkit import ConfigError, Runner
from trainkit.config import compose
from trainkit.runner.check import find_mistakes

HERE = "tests.runner.test_own_runner"


class MyRunner(Runner):
    """A runner with an argument of its own, which may be an object."""

    def __init__(self, *args: Any, greeting: str, model_too: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.greeting, self.model_too = greeting, model_too


class Closed(Runner):
    """A runner that passes nothing on."""

    def __init__(self, model: Any, work_dir: Any) -> None:
        super().__init__(model, work_dir)


def config(**runner: Any) -> Any:
    cfg = compose()
    cfg.runner = {"_target_": f"{HERE}.MyRunner", **runner}
    return cfg


def test_a_config_names_the_class_and_its_arguments(tmp_path: Path) -> None:
    other = {"_target_": "tests.toy.ToyModel"}
    runner = Runner.from_cfg(config(greeting="hello", model_too=other), work_dir=tmp_path)
    assert isinstance(runner, MyRunner)
    assert runner.greeting == "hello"
    assert isinstance(runner.model_too, ToyModel)
    assert runner.seed == 0


def test_the_command_line_names_it_too(tmp_path: Path) -> None:
    cfg = compose([f"+runner._target_={HERE}.MyRunner", "+runner.greeting=hi"])
    assert find_mistakes(cfg) == []
    assert isinstance(Runner.from_cfg(cfg, work_dir=tmp_path), MyRunner)


def test_the_class_that_is_asked_holds_where_the_config_names_no_other(tmp_path: Path) -> None:
    cfg = compose()
    del cfg.runner

    class Plain(Runner):
        pass

    assert type(Plain.from_cfg(cfg, work_dir=tmp_path / "a")) is Plain
    assert type(Plain.from_cfg(compose(), work_dir=tmp_path / "b")) is Plain
    assert type(Runner.from_cfg(compose(), work_dir=tmp_path / "c")) is Runner
    with pytest.raises(ConfigError, match=r"'MyRunner'; expected a subclass of .*Plain"):
        Plain.from_cfg(config(greeting="hello"), work_dir=tmp_path / "d")


@pytest.mark.parametrize(
    ("runner", "key", "text"),
    [
        ({"_target_": f"{HERE}.MyRunner"}, "runner._target_", "greeting"),
        ({"_target_": f"{HERE}.MyRuner"}, "runner._target_", "Did you mean"),
        (
            {"_target_": "tests.toy.ToyModel"},
            "runner._target_",
            "a class of runs, a subclass of trainkit.Runner",
        ),
        (
            {"_target_": f"{HERE}.MyRunner", "greeting": "x", "seed": 1},
            "runner.seed",
            "a place of its own",
        ),
        (
            {"_target_": f"{HERE}.MyRunner", "greeting": "x", "work_dir": "w"},
            "runner.work_dir",
            "a place of its own",
        ),
        (
            {"_target_": f"{HERE}.Closed"},
            "runner._target_",
            "Closed does not take train_cfg, which every Runner gets.",
        ),
        ({"seed": 1}, "runner.seed", "a place of its own"),
        (
            {"note": "x"},
            "runner.note",
            "Runner has no argument 'note'. Name the class that takes it: +runner._target_=",
        ),
        ("mine", "runner", "expected a mapping"),
    ],
)
def test_a_wrong_class_is_found_before_anything_is_built(
    runner: Any, key: str, text: str, tmp_path: Path
) -> None:
    cfg = {**compose(), "runner": runner}
    (finding,) = find_mistakes(cfg)
    assert finding.key == key
    assert text in finding.text
    with pytest.raises(ConfigError):
        Runner.from_cfg(cfg, work_dir=tmp_path)


def test_an_argument_that_nobody_takes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runner\.foo: neither MyRunner nor Runner takes"):
        Runner.from_cfg(config(greeting="x", foo=1), work_dir=tmp_path)
