"""Names of the user's own choice: nothing is ever written outside of the run's root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainkit.__main__ import main
from trainkit.evaluator import Accuracy

SHORT = ("env.num_threads=1", "fast_dev_run=2", "param_scheduler=none")


class Named(Accuracy):
    """Accuracy under a name that climbs."""

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        (value,) = super().compute_metrics(results).values()
        return {"acc/../../../../../climbed": value}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


def written(tmp_path: Path) -> list[str]:
    """What lies beside the directories of the test itself, and the runs of outputs/."""
    outside = [
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if "outputs" not in path.relative_to(tmp_path).parts
    ]
    assert sorted(outside) == ["a", "a/b"]
    return sorted(path.parent.parent.as_posix() for path in Path().rglob("status.json"))


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("../../evil", "_.._evil"),
        ("..", "_"),
        (".hidden", "hidden"),
        ("'a\nb'", "a_b"),
        ("'e\u0301 \U0001f600'", "\u00e9_"),
        ("CON", "CON"),
        ("x" * 300, "x" * 91 + "-0d4e2ca9"),
    ],
)
def test_an_experiment_of_any_name_is_one_directory(
    tmp_path: Path, name: str, directory: str
) -> None:
    argv = [*SHORT, f"experiment_name={name}"]
    assert main(argv) == 0
    assert written(tmp_path) == [f"outputs/{directory}"]
    assert main([*argv, "resume=true"]) == 0
    assert written(tmp_path) == [f"outputs/{directory}"]


def test_trials_and_tags_of_any_name_stay_in_the_sweep(tmp_path: Path) -> None:
    assert main(["-m", *SHORT, "experiment_name='a/../b','.'", "tags=['../../x','/y','a\nb']"]) == 0
    (sweep,) = Path("outputs/a_.._b").iterdir()
    assert written(tmp_path) == [sweep.as_posix()] * 2


def test_a_metric_of_any_name_stays_in_the_run(tmp_path: Path) -> None:
    assert main([*SHORT, f"evaluator.metrics.accuracy._target_={__name__}.Named"]) == 0
    (run,) = Path("outputs/digits").iterdir()
    assert written(tmp_path) == ["outputs/digits"]
    (best,) = run.glob("checkpoints/best_*")
    assert best.name == "best_acc_.._.._.._.._.._climbed_epoch_1"


@pytest.mark.parametrize("flags", [[], ["-m"]])
@pytest.mark.parametrize("name", ["'a\nb'", "'a\tb/c'", "../" + "x" * 300])
def test_a_work_dir_that_is_no_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, flags: list[str]
) -> None:
    assert main([*flags, *SHORT, f"work_dir={name}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ConfigError: The directory ")
    assert "work_dir=..." in error
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        *((name, []) for name in ("it's", "a b", "..dots", "e\u0301", "\U0001f600", "a\\b")),
        *((name, ["-m"]) for name in ("it's", "{a}")),
    ],
)
def test_a_work_dir_with_an_odd_name_is_just_that(name: str, flags: list[str]) -> None:
    quoted = name.replace("'", r"\'")
    assert main([*flags, *SHORT, f"work_dir='{quoted}'"]) == 0
    assert (Path(name) / "status.json").is_file() or flags
    assert len(list(Path(name).rglob("status.json"))) == 1
    assert [path.name for path in Path().iterdir()] == [name]


@pytest.mark.parametrize("template", ["'../{}'", "'a\n{}'", "'..{}'", f"'{'x' * 300}{{}}'"])
def test_a_template_that_is_no_file_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], template: str
) -> None:
    assert main([*SHORT, f"+hooks.checkpoint.filename_tmpl={template}"]) == 2
    assert "hooks.checkpoint.filename_tmpl is " in capsys.readouterr().err
    assert written(tmp_path) == []
