"""Shell completion: what may come next on a line, and the scripts for the shells."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainkit.__main__ import main
from trainkit.cli.arguments import COMMANDS
from trainkit.cli.completion import complete


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/trainkit"])


def query(monkeypatch: pytest.MonkeyPatch, line: str, point: int | None = None) -> int:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line) if point is None else point))
    return main(["-sc", "query=bash"])


def test_the_first_word_is_a_command_a_group_or_a_key() -> None:
    found = complete("")
    assert set(COMMANDS) <= {*found}
    assert {"train_cfg=", "train_cfg.", "optim_wrapper.", "seed="} <= {*found}
    assert complete("ch") == ["check"]
    assert complete("exp") == ["explain", "experiment=", "experiment_name="]


@pytest.mark.parametrize("command", ["", "train ", "check ", "lr ", "test ", "explain seed "])
def test_overrides_complete_after_every_command_that_takes_them(command: str) -> None:
    assert complete(f"{command}optim_wrapper=a") == ["optim_wrapper=amp"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("optim_wr", ["optim_wrapper", "optim_wrapper."]),
        ("optim_wrapper/optimizer=adam", ["optim_wrapper/optimizer=adam", "…=adamw"]),
        ("optim_wrapper.optimizer.m", ["optim_wrapper.optimizer.momentum="]),
        ("optim_wrapper.optimizer.lr=", ["optim_wrapper.optimizer.lr=0.1"]),
        ("+experiment=", ["+experiment=digits_cosine"]),
        ("~optim", ["~optim_wrapper"]),
        ("hooks=[em", ["hooks=[ema", "hooks=[empty_cache"]),
        ("hooks=[ema,e", ["hooks=[ema,early_stopping", "hooks=[ema,ema", "hooks=[ema,empty_cache"]),
        ("--config-n", ["--config-name"]),
        ("check --st", ["--step"]),
        (
            "lr --",
            ["--out", "--iters-per-epoch", "--multirun", "--config-dir", "--config-name", "--help"],
        ),
        ("runs --s", ["--status", "--sort"]),
        ("lr --iters-per-epoch 4 optim_wrapper=a", ["optim_wrapper=amp"]),
        ("lr --iters-per-epoch ", []),
        ("--config-name ", ["config"]),
        ("test ru", ["run=", "runner."]),
    ],
)
def test_a_word_becomes(line: str, expected: list[str]) -> None:
    head = line.rpartition("=")[0]
    assert complete(line) == [text.replace("…", head) for text in expected]


def test_keys_are_those_of_the_options_chosen_before() -> None:
    word = "optim_wrapper.optimizer.b"
    assert complete(word) == []
    assert complete(f"optim_wrapper/optimizer=adamw {word}") == ["optim_wrapper.optimizer.betas."]
    assert complete("-m train_cfg=iter,epoch train_cfg.max") == ["train_cfg.max_iters="]


@pytest.mark.parametrize("mistake", ["seed=[", "optim_wrapper=amq", "nonsense=1", "word"])
def test_a_mistake_typed_before_does_not_end_completion(mistake: str) -> None:
    assert complete(f"{mistake} train_cfg=") == ["train_cfg=epoch", "train_cfg=iter"]


@pytest.mark.parametrize("flag", ["--config-dir mine", "--config-dir=mine", "-cd mine"])
def test_options_of_a_config_dir_are_known(flag: str) -> None:
    option = Path("mine/optim_wrapper/careful.yaml")
    option.parent.mkdir(parents=True)
    option.write_text("defaults: [default]\n")
    Path("mine/my_run.yaml").write_text("defaults: [config, _self_]\n")
    assert complete(f"check {flag} optim_wrapper=c") == ["optim_wrapper=careful"]
    assert complete(f"{flag} --config-name m") == ["my_run"]


def test_runs_and_directories_are_files() -> None:
    Path("outputs/digits").mkdir(parents=True)
    Path("other.txt").touch()
    for line in ("runs ", "diff ", "diff a ", "rerun ", "--config-dir "):
        assert sorted(complete(f"{line}o")) == ["other.txt", "outputs/"]
    assert complete("test run=outputs/") == ["run=outputs/digits/"]
    assert complete("rerun outputs/digits train_cfg=e") == ["train_cfg=epoch"]


def test_explain_completes_keys_and_then_overrides() -> None:
    assert complete("explain optim_wrapper.optimizer.m") == ["optim_wrapper.optimizer.momentum"]
    assert complete("explain seed train_cfg.max") == ["train_cfg.max_epochs="]


def test_a_query_ends_at_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "trainkit optim_wrapper=a seed=3"
    assert query(monkeypatch, line, line.index(" seed")) == 0
    assert capsys.readouterr().out == "optim_wrapper=amp\n"


def test_what_a_shell_would_expand_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("$(touch run)").touch()
    Path("two words").touch()
    Path("plain").touch()
    assert query(monkeypatch, "trainkit runs ") == 0
    assert capsys.readouterr().out == "plain\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-sc", f"install={shell}"]) == 0
    assert "trainkit" in capsys.readouterr().out
    assert main(["--shell-completion", f"uninstall={shell}"]) == 0
    assert "trainkit" in capsys.readouterr().out


def test_mistakes_are_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {
        ("install=bsh",): "-sc install=bsh: there is no completion for 'bsh'. Did you mean 'bash'?",
        ("install",): "-sc got 'install'; expected install=SHELL or uninstall=SHELL, with one of: "
        "bash, fish, zsh.",
        (): "-sc got 'nothing'; expected install=SHELL or uninstall=SHELL, with one of: bash, "
        "fish, zsh.",
    }
    for argv, message in expected.items():
        assert main(["-sc", *argv]) == 2
        assert capsys.readouterr().err == f"ConfigError: {message}\n"
    monkeypatch.setattr("sys.argv", ["/somewhere/trainkit/__main__.py"])
    assert main(["-sc", "install=bash"]) == 2
    assert capsys.readouterr().err == (
        "ConfigError: A shell completes programs by name, not python -m trainkit. Write: trainkit "
        "-sc install=bash\n"
    )


@pytest.mark.slow
def test_a_query_does_not_import_torch() -> None:
    code = (
        "import os, sys; os.environ['COMP_LINE'] = 'trainkit optim_wrapper=a';"
        "from trainkit.__main__ import main; main(['-sc', 'query=bash']);"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "optim_wrapper=amp\nFalse\n"
