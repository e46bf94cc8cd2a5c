"""No byte that a run writes holds a secret of its config, environment, overrides or git state."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainkit.__main__ import main
from trainkit.model import ConvNet

SHORT = ("env.num_threads=1", "fast_dev_run=2", "param_scheduler=none")
MODEL = f"model._target_={__name__}.Leaky"

# Made up, and each found in no other text.
BY_KEY = "kanarie-4711-by-key"
OF_ENVIRONMENT = "kanarie-of-the-environment"
OF_VARIABLE = "kanarie-of-another-variable"
IN_CONFIG_FILE = "kanarie-in-a-config-file"
IN_DICT = "kanarie-in-a-dict"
IN_LIST = "kanarie-in-a-list"
QUOTED = "kanarie 'and \"more"
NUMBER = "8400471193"
PASSWORD_OF_URL = "kanariepassword"
LINES = "kanarie-base64-line-of-a-key"
IN_DIFF = "kanarie-in-the-diff"
OF_REMOTE = "kanarie-of-the-remote"
PATTERNS = {
    "github": "ghp_" + "k4Na" * 9,
    "hugging_face": "hf_" + "k4Na" * 8,
    "aws": "AKIA" + "K4NA" * 4,
    "openai": "sk-" + "k4Na" * 8,
}
CANARIES = [
    *(BY_KEY, OF_ENVIRONMENT, OF_VARIABLE, IN_CONFIG_FILE, IN_DICT, IN_LIST, QUOTED, NUMBER),
    *(PASSWORD_OF_URL, LINES, IN_DIFF, OF_REMOTE, *PATTERNS.values()),
]
URL = f"https://me:{PASSWORD_OF_URL}@host.example/x"

FILE = f"""\
# @package _global_
model:
  hub_token: ${{oc.env:CANARY_TOKEN}}
  hub_password: ${{oc.env:CANARY_LOGIN}}
  default_secret: ${{oc.env:NOT_SET,{IN_CONFIG_FILE}}}
  clientSecret: {IN_CONFIG_FILE}
  pem: |
    -----BEGIN PRIVATE KEY-----
    {LINES}
    -----END PRIVATE KEY-----
"""

OVERRIDES = (
    "experiment=mine",
    f"+model.api_key={BY_KEY}",
    f"+model.options={{password: {IN_DICT}, depth: 3}}",
    f"+model.access_keys=[{IN_LIST},{IN_LIST}]",
    f"+model.pass_phrases={{passphrase: '{QUOTED.replace(chr(39), chr(92) + chr(39))}'}}",
    f"+model.pin={{password: {NUMBER}}}",
    f"+model.url='{URL}'",
    f"+model.note='see {PATTERNS['aws']} there'",
    f"+model.many=[{PATTERNS['openai']},{PATTERNS['hugging_face']}]",
    f"tags=[{PATTERNS['github']}]",
)


class Leaky(ConvNet):
    """A user's model that needs secrets, and tells them to everybody."""

    got: dict[str, Any]

    def __init__(self, fail: bool = False, channels: Any = (4, 4), **secrets: Any) -> None:
        super().__init__(channels=channels)
        type(self).got = secrets
        self.fail = fail
        logging.getLogger("trainkit.model").warning("A model got %s", secrets)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Any]:
        texts = [str(secret) for secret in self.got.values()]
        logging.getLogger("trainkit.model").warning("As %r, as %s", texts, json.dumps(texts))
        if self.fail:
            password = self.got["options"]["password"]
            raise RuntimeError(f"Login with {self.got}, with {password!r} failed: {texts}")
        return super().train_step(data, optim_wrapper)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.setenv("CANARY_TOKEN", OF_ENVIRONMENT)
    monkeypatch.setenv("CANARY_LOGIN", OF_VARIABLE)
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/mine.yaml").write_text(FILE)


def git(*args: str) -> None:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    subprocess.run(["git", *who, *args], check=True, capture_output=True)


@pytest.fixture
def _in_git() -> None:
    """A checkout whose remote and uncommitted changes hold secrets."""
    git("init", "-q")
    git("remote", "add", "origin", f"https://me:{OF_REMOTE}@host.example/x.git")
    Path("mine.py").write_text("x = 1\n")
    git("add", "mine.py")
    git("commit", "-qm", "first")
    Path("mine.py").write_text(
        f'API_KEY = "{IN_DIFF}"\nheaders = {{"Authorization": "Basic {IN_DIFF}"}}\n'
        f"connect('{URL}', {PATTERNS['aws']!r}, {BY_KEY!r})\n"
        f"export_token={IN_DIFF}\npassword: {IN_DIFF}\n"
        "lr = 0.125\ntoken = tokenizer.encode(text)\n"
    )


def files() -> Iterator[tuple[Path, bytes]]:
    for path in Path("outputs").rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def assert_nothing_leaked() -> None:
    """Look for every canary in every byte, and in every name."""
    seen = 0
    for path, content in files():
        for canary in CANARIES:
            assert canary.encode() not in content.replace(b"\\", b""), f"{path} holds {canary}"
            assert canary not in str(path)
        seen += 1
    assert seen > 5, "there was nothing to look at"


@pytest.mark.usefixtures("_in_git")
def test_a_run_writes_no_secret() -> None:
    argv = ["--config-dir", "mine", MODEL, *SHORT, *OVERRIDES]
    assert main(argv) == 0
    assert_nothing_leaked()
    kinds = {path.suffix for path, _ in files()} | {path.name for path, _ in files()}
    assert {".pt", "status.json", "train.log", "env.json", "config.yaml", "overrides.yaml"} <= kinds
    assert any("tfevents" in path.name for path, _ in files())
    # It trained with the real ones.
    got = Leaky.got
    assert got["api_key"] == BY_KEY
    assert got["hub_token"] == OF_ENVIRONMENT
    assert got["options"] == {"password": IN_DICT, "depth": 3}
    assert got["pass_phrases"] == {"passphrase": QUOTED}
    assert got["url"] == URL
    # What is no secret is still there.
    (run,) = Path("outputs/digits").iterdir()
    config = (run / "config.yaml").read_text()
    assert "hub_token: ${oc.env:CANARY_TOKEN}" in config
    assert "depth: 3" in config
    diff = json.loads((run / "env.json").read_text())["git"]["diff"]
    assert "+lr = 0.125\n+token = tokenizer.encode(text)\n" in diff


def test_a_run_that_fails_writes_no_secret() -> None:
    argv = ["--config-dir", "mine", MODEL, *SHORT, *OVERRIDES, "+model.fail=true"]
    with pytest.raises(RuntimeError, match="Login with"):
        main(argv)
    assert_nothing_leaked()
    (run,) = Path("outputs/digits").iterdir()
    status = json.loads((run / "status.json").read_text())
    assert status["error"].startswith("RuntimeError: Login with {")
    assert "Traceback" in (run / "train.log").read_text()


def test_a_sweep_writes_no_secret_not_even_in_names() -> None:
    swept = f"+model.api_key={BY_KEY},{BY_KEY}-2"
    argv = ["-m", swept, "--config-dir", "mine", MODEL, *SHORT, "experiment=mine", *OVERRIDES[2:]]
    assert main(argv) == 0
    assert_nothing_leaked()
    names = sorted(path.parent.name for path in Path("outputs").rglob("status.json"))
    assert [name[:25] for name in names] == [
        "0_+model.api_key=_redacte",
        "1_+model.api_key=_redacte",
    ]
    assert not list(Path("outputs").rglob("multirun.yaml"))


def test_a_sweep_whose_trials_fail_writes_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["-m", "--config-dir", "mine", MODEL, *SHORT, *OVERRIDES]
    with pytest.raises(RuntimeError, match="Login with"):
        main([*argv, "+model.fail=true"])
    assert_nothing_leaked()
    # Before training begins: the model cannot be built.
    with pytest.raises(TypeError):
        main([*argv, "model.channels=7"])
    assert_nothing_leaked()
    statuses = [json.loads(p.read_text()) for p in Path("outputs").rglob("status.json")]
    assert [status["status"] for status in statuses] == ["failed"] * 2


def test_a_mistake_is_told_and_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"+model.api_key={BY_KEY}", "seed=abc"]) == 2
    assert main([f"+model.api_key={BY_KEY}", "sed=1"]) == 2
    assert main(["-m", f"+model.api_key={BY_KEY}", "seed=abc,1"]) == 2
    assert not list(files())


def test_a_killed_sweep_has_left_no_record_in_clear() -> None:
    """While trials run, Hydra's own record of the sweep is nowhere to be read."""
    seen: list[bytes] = []

    class Looking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.extend(content for _, content in files())
            seen.extend(p.read_bytes() for p in Path("outputs").rglob("multirun.yaml"))

    handler = Looking()
    logging.getLogger("trainkit.model").addHandler(handler)
    try:
        argv = ["-m", "--config-dir", "mine", MODEL, *SHORT, *OVERRIDES, "seed=1"]
        assert main(argv) == 0
    finally:
        logging.getLogger("trainkit.model").removeHandler(handler)
    assert seen
    assert not any(canary.encode() in content for content in seen for canary in CANARIES)


def test_a_run_whose_overrides_hold_secrets_is_found_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["--config-dir", "mine", MODEL, *SHORT, *OVERRIDES]
    assert main(argv) == 0
    assert main([*argv, "resume=true"]) == 0
    assert "is finished already" in capsys.readouterr().out
    changed = [text.replace(BY_KEY, "another-key-4711") for text in argv]
    assert main([*changed, "resume=true"]) == 0
    assert "no earlier run of" in capsys.readouterr().out
    assert len(list(Path("outputs/digits").iterdir())) == 2
