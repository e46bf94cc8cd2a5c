"""What counts as a secret, and what does not."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from trainkit.config.secrets import (
    REDACTED,
    Redactor,
    as_yaml,
    redact,
    redact_override,
    redact_text,
    refuse_redacted,
)
from trainkit.errors import ConfigError


@pytest.mark.parametrize(
    "key",
    [
        *("token", "hf_token", "hfToken", "HF-TOKEN", "api_key", "apiKey", "apikey", "x-api-key"),
        *("password", "PASSWORD", "db_passwd", "passphrase", "secret", "clientSecret", "secrets"),
        *("secret_key", "aws_secret_access_key", "private_key", "signing-key", "account_key"),
        *("credentials", "session_cookie", "sentry_dsn", "auth", "Authorization", "api_keys"),
    ],
)
def test_a_key_that_names_a_secret(key: str) -> None:
    assert redact({key: "x"}) == {key: REDACTED}
    assert redact_text(f"before {key}=x, after") == f"before {key}={REDACTED}, after"
    assert redact_override(f"+model.{key}=x") == f"+model.{key}={REDACTED}"


@pytest.mark.parametrize(
    "key",
    [
        *("tokenizer", "max_tokens", "tokens", "pad_token", "CLS_token", "mask_token", "author"),
        *("secretary", "keys", "key", "monkey", "keyword", "authority", "passwordless_login"),
        *("passage", "hot_key", "tokenization", "_target_", "cookiecutter", "num_classes"),
    ],
)
def test_a_key_that_names_none(key: str) -> None:
    assert redact({key: "x"}) == {key: "x"}
    assert redact_text(f"{key}: x") == f"{key}: x"


PATTERNS = [
    "ghp_" + "aB3d" * 9,
    "github_pat_" + "aB3d" * 9,
    "glpat-" + "aB3d" * 5,
    "hf_" + "aB3d" * 8,
    "AKIA" + "AB3D" * 4,
    "sk-" + "aB3d" * 8,
    "sk-proj-" + "aB3d" * 8,
    "sk_live_" + "aB3d" * 8,
    "xoxb-123456789012-" + "aB3d" * 4,
    "AIza" + "aB3d_" * 7,
    "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln-bmF0",
    "-----BEGIN RSA PRIVATE KEY-----\nabc\ndef\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", PATTERNS)
def test_a_value_that_looks_like_a_secret(secret: str) -> None:
    assert redact({"plain": [f"a {secret} b"]}) == {"plain": [f"a {REDACTED} b"]}
    assert redact_text(f"x={secret!r}") == f"x='{REDACTED}'"
    assert redact({secret: 1}) == {REDACTED: 1}


@pytest.mark.parametrize(
    "text",
    [
        *("mask-rcnn_r50-fpn_1x_coco_2020", "disk-backed-cache-of-images", "sk-learn"),
        *("hf_transformers_and_more_of_them", "outputs/digits/2026-11-24_05-45-49", "a" * 64),
        *("https://example.org/a@b", "me@example.org", "Bearer of good news and more"),
        *("https://example.org:8080/x", "trainkit.model.ConvNet", "c0ffee" * 7),
    ],
)
def test_a_value_that_looks_like_none(text: str) -> None:
    assert redact_text(text) == text
    assert redact({"plain": text}) == {"plain": text}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:pass@host/x", f"https://{REDACTED}@host/x"),
        ("git clone https://me:p@ss@host/x.git", f"git clone https://{REDACTED}@host/x.git"),
        ('API_KEY = "abc"', f"API_KEY = {REDACTED}"),
        ("{'password': 'a\\'b', 'n': 1}", f"{{'password': {REDACTED}, 'n': 1}}"),
        ('{"api_key": "abc"}', f'{{"api_key": {REDACTED}}}'),
        ("export HF_TOKEN=abc", f"export HF_TOKEN={REDACTED}"),
        ("curl --token=abc&x=1 y", f"curl --token={REDACTED} y"),
        ("Authorization: Bearer abc123", f"Authorization: Bearer {REDACTED}"),
        ("Authorization: Basic YWJj", f"Authorization: Basic {REDACTED}"),
        ("-H 'Authorization: Bearer abc12345'", f"-H 'Authorization: {REDACTED} {REDACTED}'"),
        ('password = """a\nb"""', f"password = {REDACTED}"),
        ("password: 12345", f"password: {REDACTED}"),
        ("token := b'abc'", f"token := {REDACTED}"),
        ("+password: pa$$word", f"+password: {REDACTED}"),
    ],
)
def test_a_text_that_tells_a_secret(text: str, left: str) -> None:
    assert redact_text(text) == left


@pytest.mark.parametrize(
    "text",
    [
        *("token = read()", "token = words[0]", "f(token=token)", "self.api_key = api_key"),
        *("connect(api_key=cfg.api_key)", "def f(token: str, n: int = 3)", "password: str | None"),
        *("password=None", "auth=False", "api_key: ${oc.env:KEY}", "token=$TOKEN", "token: {x}"),
        *(
            "loss_per_token: 2.3415",
            "val/acc_per_token: 1.5e-3  max_token=4096",
            "auth:\n  user: x",
        ),
        *("tokens = [1, 2]", "the secret is out", "if token in words:", "password=<redacted>"),
        "wandb.api_key is missing",
    ],
)
def test_code_and_numbers_stay_as_they_are(text: str) -> None:
    assert redact_text(text) == text


def test_below_a_secret_key_all_is_secret_but_what_builds_it() -> None:
    config = {
        "credentials": {"_target_": "mine.Login", "user": "me", "more": [{"a": "b"}], "on": True},
        "auth": None,
        "use_auth": False,
        "num_token": 3,
        "password": 123456,
        "pair": ("a", "ghp_" + "a" * 30),
    }
    assert redact(config) == {
        "credentials": {
            "_target_": "mine.Login",
            "user": REDACTED,
            "more": [{"a": REDACTED}],
            "on": True,
        },
        "auth": None,
        "use_auth": False,
        "num_token": 3,
        "password": REDACTED,
        "pair": ("a", REDACTED),
    }


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        *(("${oc.env:TOKEN}", True), ("${other.key}", True), ("${oc.env:TOKEN,null}", True)),
        *(("${oc.decode:${oc.env:TOKEN}}", True), ("", True), ("null", True)),
        *(("${oc.env:TOKEN,abc}", False), ("${a}abc", False), ("abc${a}", False)),
        ("${a}abc${b}", False),
    ],
)
def test_a_reference_is_kept_and_a_default_is_not(value: str, kept: bool) -> None:
    assert redact({"password": value}) == {"password": value if kept else REDACTED}


@pytest.mark.parametrize(
    ("override", "left"),
    [
        ("seed=1", "seed=1"),
        ("~hooks.logger", "~hooks.logger"),
        ("+a={password: x, b: 1}", f"+a={REDACTED}"),
        ("+a={'api-key': x}", f"+a={REDACTED}"),
        ('+a=[{b: {"token": x}}]', f"+a={REDACTED}"),
        ("+url=https://me:pass@host", f"+url=https://{REDACTED}@host"),
        ("tags=[ghp_" + "a" * 30 + ",b]", f"tags=[{REDACTED},b]"),
        ("+a={max_tokens: 3}", "+a={max_tokens: 3}"),
        ("model.auth=null", "model.auth=null"),
    ],
)
def test_an_override_without_its_secret(override: str, left: str) -> None:
    assert redact_override(override) == left


def test_secret_values_are_known_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_LOGIN", "from-the-environment")
    cfg = OmegaConf.create(
        {
            "api_key": "very-secret-1",
            "nested": [{"password": "${oc.env:OF_LOGIN}"}, {"token": "${nested[0].password}"}],
            "secrets": {"a": ["very-secret-2"], "pin": 87654321, "other": "${shared}"},
            "shared": {"b": "very-secret-3"},
            "missing_password": "${oc.env:NOT_SET_ANYWHERE}",
            "url": "https://me:passwordofurl@host/x",
            "auth": "basic",
            "mode": "basic",
            "n": 3,
        }
    )
    redactor = Redactor(cfg)
    for secret in ("very-secret-1", "very-secret-2", "very-secret-3", "from-the-environment"):
        assert redactor.text(f"a{secret}b") == f"a{REDACTED}b"
        assert redactor.facts({"x": [secret]}) == {"x": [REDACTED]}
    assert redactor.text("87654321 passwordofurl") == f"{REDACTED} {REDACTED}"
    # A short one only as a word of its own, and in a config by its key alone.
    assert redactor.text("basic, basically, 0.basic") == f"{REDACTED}, basically, 0.basic"
    assert "mode: basic" in as_yaml(cfg)
    assert "auth: <redacted>" in as_yaml(cfg)
    assert "3" in redactor.text("3")


def test_a_known_value_is_left_out_of_the_whole_config() -> None:
    text = as_yaml({"api_key": "very-secret-1", "note": "use very-secret-1", "pem": PATTERNS[-1]})
    assert text == f"api_key: {REDACTED}\nnote: use {REDACTED}\npem: {REDACTED}\n"


def test_facts_keep_their_numbers_and_types() -> None:
    facts = {"metrics": {"loss_per_token": 2.5, "auth": 1}, "t": (1, "a"), "error": "password=x"}
    assert Redactor().facts(facts) == {**facts, "error": f"password={REDACTED}"}


def test_secrets_of_the_environment_are_known_but_paths_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "environment-4711")
    monkeypatch.setenv("SOME_CREDENTIALS", str(tmp_path))
    text = Redactor().text(f"environment-4711 {tmp_path}")
    assert text == f"{REDACTED} {tmp_path}"


def test_a_live_object_is_written_without_the_secrets_in_its_repr() -> None:
    @dataclass
    class Client:
        api_key: str

    text = as_yaml({"client": Client("abc"), "cls": Client})
    assert "abc" not in text
    assert f"Client(api_key={REDACTED})" in text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8), st.integers(0, 3))
def test_no_quoting_hides_a_secret(secret: str, depth: int) -> None:
    assume("${" not in secret and not secret.isspace() and "???" not in secret)
    text: Any = [secret]
    for _ in range(depth):
        text = repr([text])
    redactor = Redactor({"password": secret})
    for quoted in (str(text), json.dumps(text), json.dumps(text, ensure_ascii=False)):
        assert redactor.text(quoted) != quoted
    assert secret not in redactor.text(f"a {secret} b")
    assert quote(secret, safe="") not in redactor.text(f"https://host/?q={quote(secret, safe='')}")


@given(st.text(max_size=200))
def test_any_text_is_redacted_without_an_error_and_once(text: str) -> None:
    assert redact_text(redact_text(text)) == redact_text(text)


@pytest.mark.parametrize(
    "piece", ["a", "a_", "token", "token=", 'token="', "-----BEGIN", "://", "eyJaaaaaaaaa.", "\\"]
)
def test_no_text_takes_long(piece: str) -> None:
    text = (piece * 200_000)[:200_000]
    before = time.monotonic()
    redact_text(text)
    assert time.monotonic() - before < 2


def test_every_secret_that_is_missing_is_named() -> None:
    stored = OmegaConf.create({"a": [{"token": REDACTED}], "b": {"url": f"https://{REDACTED}@x"}})
    with pytest.raises(ConfigError) as caught:
        refuse_redacted(stored)
    assert str(caught.value) == (
        "The run's config was stored without its secrets, and a[0].token, b.url are missing. Give "
        "a[0].token=... b.url=..., or write ${oc.env:NAME} in the config, which is stored as it is."
    )
    refuse_redacted(OmegaConf.create({"a": 1}))
