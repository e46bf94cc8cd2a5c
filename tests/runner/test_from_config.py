"""From a config to the Runner's arguments, and back to YAML without secrets."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.toy import ToyModel
from trainkit import ConfigError, Runner, compose
from trainkit.config.secrets import (
    REDACTED,
    as_yaml,
    redact,
    redact_override,
    refuse_redacted,
)
from trainkit.runner.from_config import SAME_NAME, arguments


def test_every_group_reaches_its_argument() -> None:
    given = arguments(compose(["seed=4", "load_from=x"]), work_dir="w")
    assert given["train_dataloader"]["batch_size"] == 64
    assert given["val_evaluator"] == given["test_evaluator"]
    assert given["randomness"] == {"seed": 4, "deterministic": False, "diff_rank_seed": False}
    assert (given["work_dir"], given["load_from"], given["resume"]) == ("w", "x", False)


def test_a_null_cfg_switches_its_split_off() -> None:
    given = arguments(compose(["val_cfg=none", "train_cfg=epoch"]), work_dir="w")
    names = ("val_dataloader", "val_cfg", "val_evaluator")
    assert [given[name] for name in names] == [None] * 3
    assert given["test_cfg"] is not None


def test_splits_may_have_evaluators_of_their_own() -> None:
    cfg = compose()
    cfg.evaluator = {"val": {"metrics": []}, "test": cfg.evaluator}
    given = arguments(cfg, work_dir="w")
    assert given["val_evaluator"] == {"metrics": []}
    assert given["test_evaluator"]["_target_"] == "trainkit.evaluator.Evaluator"
    assert given["paths"]["val_evaluator"] == "evaluator.val"


def test_keys_that_nothing_reads_are_refused() -> None:
    message = r"sede: nothing reads a key of this name. Did you mean 'seed'"
    with pytest.raises(ConfigError, match=message):
        Runner.from_cfg({**compose(), "sede": 1}, work_dir="w")


def test_a_config_without_work_dir_gets_a_new_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = Runner.from_cfg(compose()), Runner.from_cfg(compose())
    assert first.work_dir.parent == tmp_path / "outputs" / "digits"
    assert first.work_dir != second.work_dir


def test_what_is_no_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="from_cfg got an int"):
        Runner.from_cfg(3)


def test_messages_name_the_place_in_the_config(tmp_path: Path) -> None:
    cfg = compose(["+dataloader.train.batchsize=3"])
    with pytest.raises(ConfigError, match="DataLoader has no argument 'batchsize'"):
        Runner.from_cfg(cfg, work_dir=tmp_path).build_training()


@pytest.mark.parametrize("loop", ["epoch", "iter"])
def test_a_fast_dev_run_is_short_in_every_loop(tmp_path: Path, loop: str) -> None:
    cfg = compose([f"train_cfg={loop}", "debug=fast_dev_run"])
    runner = Runner.from_cfg(cfg, work_dir=tmp_path)
    runner.train()
    assert runner.iter == 2
    assert len(runner.val_dataloader) <= 2
    assert "accuracy" in (tmp_path / "status.json").read_text()


def test_a_tokenizer_is_no_secret() -> None:
    config = {"tokenizer": "bert", "pad_token": "PAD", "author": "me", "hf_token": "x"}
    assert redact(config) == {**config, "hf_token": REDACTED}


def test_what_stands_under_a_secret_key_is_secret_too() -> None:
    config = {"password": 123456, "credentials": {"user": "u"}, "auth": ["a"]}
    hidden = {"password": REDACTED, "credentials": {"user": REDACTED}, "auth": [REDACTED]}
    assert redact(config) == hidden
    assert redact_override("+a={api_key: abc, b: 1}") == f"+a={REDACTED}"


def test_a_config_of_live_objects_can_be_written() -> None:
    assert "_target_: tests.toy.ToyModel" in as_yaml({"model": {"_target_": ToyModel}})


def test_a_stored_config_without_its_secret_is_not_used() -> None:
    stored = OmegaConf.create({"model": {"api_key": REDACTED}})
    with pytest.raises(ConfigError, match=r"model\.api_key is missing\. Give model\.api_key="):
        refuse_redacted(stored)


SECRETS = {
    "api_key": "abc",
    "nested": {"token": "abc", "url": "https://user:abc@host/x", "list": ["ghp_" + "a" * 30]},
    "plain": "value",
    "env": "${oc.env:SECRET}",
}


def test_secrets_stay_out_of_what_is_written() -> None:
    text = as_yaml(OmegaConf.create(SECRETS))
    assert "abc" not in text
    assert "ghp_a" not in text
    assert "plain: value" in text
    assert "${oc.env:SECRET}" in text
    assert redact_override("+wandb.api_key=abc") == "+wandb.api_key=<redacted>"
    assert redact_override("seed=1") == "seed=1"


def test_no_config_is_no_text() -> None:
    assert as_yaml(None) == ""


@pytest.mark.parametrize(
    ("resume", "expected"),
    [
        (False, (False, None)),
        ("fresh", (False, None)),
        (True, (True, None)),
        ("here", (True, "here")),
    ],
)
def test_resume_may_be_a_path_or_fresh(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resume: object,
    expected: tuple[bool, str | None],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    cfg = compose()
    cfg.resume = resume
    runner = Runner.from_cfg(cfg, work_dir=tmp_path)
    assert (runner.resume_wanted, runner.load_from) == expected


def test_the_runners_own_arguments_may_stand_in_a_config(tmp_path: Path) -> None:
    cfg = {"model": ToyModel(), "work_dir": tmp_path, "train_dataloader": [1], "sync_bn": "torch"}
    given = arguments({**cfg, "train_cfg": {"by_epoch": True}, "optim_wrapper": {}})
    assert (given["train_dataloader"], given["sync_bn"]) == ([1], "torch")
    assert "train_dataloader" not in given["paths"]


def test_every_argument_of_the_runner_can_be_configured() -> None:
    parameters = set(inspect.signature(Runner).parameters)
    assert set(SAME_NAME) == parameters - {"cfg", "paths"}


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["epoch", "iter"])
def test_the_shipped_model_learns_one_batch_by_heart(tmp_path: Path, loop: str) -> None:
    cfg = compose(["debug=overfit", f"train_cfg={loop}", "env.num_threads=1"])
    Runner.from_cfg(cfg, work_dir=tmp_path).train()
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["metrics"]["accuracy"] == 1.0


def test_a_seed_may_stand_in_randomness() -> None:
    cfg = {**compose(), "seed": None, "randomness": {"seed": 5}}
    assert arguments(cfg, work_dir="w")["randomness"] == {"seed": 5}
