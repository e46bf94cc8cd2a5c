"""Who set a value: files with lines, overrides and dataclasses, in the order of their turns."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from trainkit import TrainConfig, compose
from trainkit.config import EpochBasedTrainLoopConfig
from trainkit.config.origins import Touch, is_at_or_below, leaves, trace, trace_stored
from trainkit.config.request import Request


def touches(key: str, *overrides: str, config: TrainConfig | None = None) -> list[Touch]:
    return trace(Request(overrides, config=config)).of(key)


def test_a_file_is_named_with_its_line_and_who_chose_it() -> None:
    (touch,) = touches("optim_wrapper.optimizer.lr", "optim_wrapper/optimizer=adam")
    assert touch.source == "conf/optim_wrapper/optimizer/adam.yaml:2"
    assert touch.why == "chosen by optim_wrapper/optimizer=adam"
    assert touch.shown == f"{touch.source}, {touch.why}"
    assert (touch.value, touch.is_user) == (0.001, False)


def test_touches_come_in_the_order_of_their_turns() -> None:
    found = touches("train_cfg.max_epochs", "train_cfg.max_epochs=3")
    assert [touch.value for touch in found] == [15, 3]
    assert [touch.is_user for touch in found] == [False, True]
    assert found[-1].source == "the override train_cfg.max_epochs=3"


def test_an_experiment_comes_after_what_it_changes() -> None:
    found = touches("experiment_name", "experiment=digits_cosine")
    assert [touch.value for touch in found] == ["digits", "digits_cosine"]
    assert found[-1].source.startswith("conf/experiment/digits_cosine.yaml:")


def test_a_mapping_in_an_override_touches_each_of_its_keys() -> None:
    found = touches("optim_wrapper.clip_grad", "optim_wrapper.clip_grad={max_norm:1,norm_type:2}")
    assert [(touch.key.rpartition(".")[2], touch.value) for touch in found[1:]] == [
        ("max_norm", 1),
        ("norm_type", 2),
    ]


def test_a_deletion_is_a_touch() -> None:
    found = touches("model.dropout", "~model.dropout")
    assert [touch.is_deletion for touch in found] == [False, True]
    assert found[-1].value is None


def test_a_dataclass_is_named() -> None:
    config = TrainConfig(train_cfg=EpochBasedTrainLoopConfig(max_epochs=4), seed=7)
    (touch,) = touches("train_cfg.max_epochs", config=config)
    assert (touch.source, touch.value) == ("EpochBasedTrainLoopConfig given in Python", 4)
    assert touches("seed", config=config)[-1].source == "what is given in Python"


def test_a_file_of_ones_own_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "experiment").mkdir(parents=True)
    (tmp_path / "my" / "experiment" / "mine.yaml").write_text("# @package _global_\n\nseed: 3\n")
    last = trace(Request(("experiment=mine",), config_dirs=("my",))).last("seed")
    assert last is not None
    assert last.shown == "my/experiment/mine.yaml:3, chosen by experiment=mine"
    assert last.is_user


def test_nothing_touches_a_key_that_is_not_there() -> None:
    assert touches("nothing") == []
    assert trace(Request()).last("nothing") is None


def test_hydras_own_settings_are_left_out() -> None:
    assert touches("hydra") == []


@pytest.mark.parametrize(
    ("key", "parent", "expected"),
    [
        ("a", "", True),
        ("a.b", "a", True),
        ("a", "a", True),
        ("a[0].b", "a", True),
        ("ab", "a", False),
        ("a", "a.b", False),
        ("a.0.b", "a[0]", True),
        ("a[0]", "a.0", True),
        ("a[10]", "a[1]", False),
    ],
)
def test_what_is_inside_of_what(key: str, parent: str, *, expected: bool) -> None:
    assert is_at_or_below(key, parent) == expected


def own_file(content: str, name: str = "experiment/mine") -> Path:
    file = Path(f"my/{name}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def told(key: str, *overrides: str) -> str:
    """Who set a key, in words, with my/ as the directory of configs."""
    origins = trace(Request(overrides, config_dirs=("my",)))
    last = origins.last(key)
    assert last is not None
    return origins.told(last, key)


LIST = "_target_: x.Net\nblocks:\n  - width: 1\n    inner:\n      - 5\n      - 6\n  - width: 2\n"


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("model.blocks[0].width", 1, 3),
        ("model.blocks[0].inner[1]", 6, 6),
        ("model.blocks.0.inner.1", 6, 6),
        ("model.blocks[1].width", 2, 7),
        ("model.blocks[1].not_there", {"width": 2}, 7),
    ],
)
def test_what_is_in_a_list_has_a_line_of_its_own(
    key: str, value: object, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own_file(LIST, "model/net")
    last = trace(Request(("model=net",), config_dirs=("my",))).last(key)
    assert last is not None
    assert (last.value, last.source) == (value, f"my/model/net.yaml:{line}")


def test_so_it_has_in_a_stored_config(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(LIST)
    last = trace_stored(file, []).last("blocks[1].width")
    assert last is not None
    assert last.source == f"{file}:7"


def test_an_override_of_an_entry_touches_what_is_in_a_list() -> None:
    found = touches("model.channels[1]", "model.channels.1=7")
    assert [touch.value for touch in found] == [64, 7]


CHAIN = """# @package _global_
base_lr: 0.1
half: ${base_lr}
optim_wrapper:
  optimizer:
    lr: ${half}
    momentum: ${oc.select:half}
    weight_decay: ${.lr}
"""
CHOSEN = "chosen by experiment=mine"
HALF = (
    f"which reads half, set by my/experiment/mine.yaml:3, {CHOSEN}, "
    "which reads base_lr, set by the override base_lr=abc"
)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lr", f"my/experiment/mine.yaml:6, {CHOSEN}, {HALF}"),
        ("momentum", f"my/experiment/mine.yaml:7, {CHOSEN}, {HALF}"),
        (
            "weight_decay",
            f"my/experiment/mine.yaml:8, {CHOSEN}, which reads optim_wrapper.optimizer.lr, set by "
            f"my/experiment/mine.yaml:6, {CHOSEN}, {HALF}",
        ),
    ],
)
def test_who_set_what_an_interpolation_reads_is_told(
    key: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own_file(CHAIN)
    assert told(f"optim_wrapper.optimizer.{key}", "experiment=mine", "base_lr=abc") == words


def test_what_leads_back_to_itself_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own_file("# @package _global_\na: ${b}\nb: ${a}\n")
    assert told("a", "experiment=mine") == (
        f"my/experiment/mine.yaml:2, {CHOSEN}, which reads b, set by my/experiment/mine.yaml:3, "
        f"{CHOSEN}"
    )


def test_a_variable_that_is_set_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    own_file("# @package _global_\nseed: ${oc.env:TRAINKIT_TEST_SEED,1}\n")
    assert told("seed", "experiment=mine") == f"my/experiment/mine.yaml:2, {CHOSEN}"
    monkeypatch.setenv("TRAINKIT_TEST_SEED", "2")
    assert told("seed", "experiment=mine") == (
        f"my/experiment/mine.yaml:2, {CHOSEN}, which reads the environment variable "
        "TRAINKIT_TEST_SEED"
    )


@pytest.mark.parametrize(
    ("override", "key", "why"),
    [
        ("hooks=ema", "hooks.ema.momentum", "chosen by hooks=ema"),
        ("hooks=[ema]", "hooks.ema.momentum", "chosen by hooks=[ema]"),
        (
            "hooks=[early_stopping,ema]",
            "hooks.ema.momentum",
            "chosen by hooks=[early_stopping,ema]",
        ),
        ("+extra/opt=mine", "extra.opt.x", "chosen by +extra/opt=mine"),
        ("+extra/opt@here=mine", "here.x", "chosen by +extra/opt@here=mine"),
        ("experiment=both", "hooks.ema.momentum", "chosen by the defaults of experiment/both"),
    ],
)
def test_what_chose_an_option_is_told(
    override: str, key: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own_file("x: 1\n", "extra/opt/mine")
    own_file(
        "# @package _global_\ndefaults:\n  - override /hooks: [early_stopping, ema]\n",
        "experiment/both",
    )
    last = trace(Request((override,), config_dirs=("my",))).last(key)
    assert last is not None
    assert last.why == why


CHOICES = [
    st.sampled_from(["optim_wrapper=default", "optim_wrapper=amp"]),
    st.sampled_from(["optim_wrapper/optimizer=adam", "optim_wrapper/optimizer=adamw"]),
    st.sampled_from(["train_cfg=iter", "param_scheduler=none", "param_scheduler=multistep"]),
    st.sampled_from(["hooks=ema", "hooks=[ema,early_stopping]", "hooks.logger.interval=3"]),
    st.sampled_from(["experiment=digits_cosine", "debug=overfit", "debug=fast_dev_run"]),
    st.sampled_from(["seed=3", "seed=null", "seed=${fast_dev_run}", "++seed=4"]),
    st.sampled_from(["model.channels=[8]", "+model.extra=1", "~model.dropout"]),
    st.sampled_from(["optim_wrapper.optimizer.lr=0.5", "optim_wrapper.clip_grad={max_norm:1}"]),
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(*(st.none() | choice for choice in CHOICES)))
def test_the_last_touch_has_the_value_that_hydra_composes(chosen: tuple[str | None, ...]) -> None:
    overrides = tuple(text for text in chosen if text is not None)
    raw = OmegaConf.to_container(compose(overrides), resolve=False)
    origins = trace(Request(overrides))
    for key, value in leaves(raw, ""):
        last = origins.last(key)
        assert last is not None, key
        assert not last.is_deletion
        if last.key == key:
            assert last.value == value, key
