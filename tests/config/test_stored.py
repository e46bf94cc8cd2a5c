"""The config of a run: read within limits, changed by overrides, and not trusted."""

from __future__ import annotations

import functools
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from trainkit import ConfigError, compose
from trainkit.__main__ import main
from trainkit.config.stored import read_stored, stored_config

CANARY = "canary_by_test"
REFUSED = (
    "run/config.yaml asks for more than a stored config may:\n"
    f"  model._target_ names {CANARY}.Bird, and the package {CANARY} is not trusted.\n"
    f"If you know the code of {CANARY}, add: trust=[{CANARY}]"
)


@pytest.fixture(autouse=True)
def sprung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that a module makes when it is imported, and that the resolver ``eval`` makes."""
    sprung = tmp_path / "sprung"
    (tmp_path / f"{CANARY}.py").write_text(
        f"from pathlib import Path\n\nPath({str(sprung)!r}).touch()\n\n\nclass Bird:\n"
        "    def __init__(self, typo=None): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    # omegaconf 2.4 warns of the old name.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        OmegaConf.register_new_resolver("eval", lambda text: sprung.touch())
    yield sprung
    OmegaConf.clear_resolver("eval")
    sys.modules.pop(CANARY, None)


DEFAULT = functools.cache(compose)


def store(text: str = "", **changes: object) -> Path:
    """Make a run of the default config, with changes; or of ``text``."""
    run = Path("run")
    run.mkdir(exist_ok=True)
    cfg = DEFAULT().copy()
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, merge=False, force_add=True)
    (run / "config.yaml").write_text(text or OmegaConf.to_yaml(cfg))
    return run


def bird() -> Path:
    return store(model__net={"_target_": "torch.nn.ReLU"}, model___target_=f"{CANARY}.Bird")


def refusal(run: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        stored_config(run, overrides)
    assert CANARY not in sys.modules
    assert not Path("sprung").exists()
    return str(caught.value)


def test_a_stored_config_is_what_was_composed() -> None:
    cfg = stored_config(store(), [])
    assert cfg == DEFAULT()
    assert isinstance(cfg, DictConfig)


def test_values_and_options_change_it() -> None:
    cfg = stored_config(
        store(),
        [
            "seed=3",
            "model.channels=[4]",
            "optim_wrapper/optimizer=adamw",
            "param_scheduler=cosine",
            "+model.extra={a: 1}",
            "++model.dropout=0.5",
        ],
    )
    assert (cfg.seed, cfg.model.channels, cfg.model.extra) == (3, [4], {"a": 1})
    assert (
        cfg.optim_wrapper.optimizer
        == compose(["optim_wrapper/optimizer=adamw"])["optim_wrapper"].optimizer
    )
    assert list(cfg.param_scheduler) == ["cosine"]
    assert cfg.model.dropout == 0.5


@pytest.mark.parametrize("value", ["${eval:1}", "${nowhere}", "???", None, [1], {"a": 1}])
def test_whatever_stands_there_can_be_replaced(value: object) -> None:
    run = store(seed=value, model__channels=[value, 2], trust=value, load_from=value)
    cfg = stored_config(run, ["seed=3", "model.channels.0=4"])
    assert (cfg.seed, cfg.model.channels, cfg.trust, cfg.load_from) == (3, [4, 2], [], None)
    assert not Path("sprung").exists()


def test_hooks_are_added_to_those_that_are_stored() -> None:
    own = {"_target_": "trainkit.hooks.EMAHook", "momentum": 0.5, "begin_iter": 3}
    run = store(hooks__early={"_target_": "torch.nn.ReLU"}, hooks__ema=own, hooks__timer=None)
    cfg = stored_config(run, ["hooks=[ema,swa]"])
    ema, swa = (compose([f"hooks={name}"]).hooks[name] for name in ("ema", "swa"))
    stored = read_stored(run / "config.yaml").hooks
    assert cfg.hooks == {**stored, "ema": {**own, **ema}, "swa": swa}
    assert stored_config(run, ["hooks=[]"]).hooks == stored


@pytest.mark.parametrize("hooks", [None, {}, "${kept}", 3, "???"])
def test_hooks_are_added_to_whatever_stands_there(hooks: object) -> None:
    cfg = stored_config(store(hooks=hooks, kept={"mine": None}), ["hooks=ema"])
    kept = {"mine": None} if hooks == "${kept}" else {}
    assert cfg.hooks == {**kept, "ema": compose(["hooks=ema"]).hooks.ema}


def test_stored_hooks_are_not_trusted_for_those_that_are_added() -> None:
    evil = {"_target_": f"{CANARY}.Bird"}
    run = store(hooks__evil=evil, hooks__ema={"_target_": f"{CANARY}.Bird", "inner": evil})
    message = refusal(run, "hooks=ema")
    assert "  hooks.evil._target_ names" in message
    assert "  hooks.ema.inner._target_ names" in message
    assert "  hooks.ema._target_ names" not in message
    assert "resolver eval" in refusal(store(hooks="${eval:1}"), "hooks=ema")
    cfg = stored_config(store(hooks__ema="${eval:1}"), ["hooks=ema"])
    assert cfg.hooks.ema == compose(["hooks=ema"]).hooks.ema
    assert not Path("sprung").exists()


def test_an_option_that_includes_others_is_composed_whole() -> None:
    own("hooks/both.yaml", "defaults: [ema, swa, _self_]\nema: {momentum: 0.5}\n")
    own("hooks/quiet.yaml", "logger: {interval: 9}\n")
    cfg = stored_config(store(), ["hooks=[both,quiet]"], config_dirs=["own"])
    ema, swa = (compose([f"hooks={name}"]).hooks[name] for name in ("ema", "swa"))
    assert (cfg.hooks.ema, cfg.hooks.swa) == ({**ema, "momentum": 0.5}, swa)
    assert cfg.hooks.logger == {**DEFAULT().hooks.logger, "interval": 9}


@pytest.mark.parametrize("option", ["val_cfg=none", "test_cfg=none", "param_scheduler=none"])
def test_an_option_may_set_its_group_from_the_top(option: str) -> None:
    assert stored_config(store(), [option]) == compose([option])


def own(name: str, text: str) -> None:
    """Write an option of the user's."""
    Path("own", name).parent.mkdir(parents=True, exist_ok=True)
    Path("own", name).write_text(text)


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        ("# @package _global_\nmodel: {a: 1}\nseed: 77\ntags: [x]\n", "seed, tags"),
        ("# @package _global_\nmodel: {a: 1}\nenv: {num_threads: 3}\n", "env.num_threads"),
        ("# @package _global_\nmodel: {a: 1}\nhydra: {verbose: true}\n", "hydra.verbose"),
        ("# @package model_other\na: 1\n", "model_other.a"),
        ("defaults: [part]\na: 1\n", "seed"),
        ("defaults: [convnet, /env@_global_.extra: other]\n", "extra.num_threads"),
    ],
)
def test_an_option_that_sets_more_than_its_group_is_refused(text: str, outside: str) -> None:
    own("model/pk.yaml", text)
    own("model/part.yaml", "# @package _global_\nseed: 3\n")
    own("env/other.yaml", "num_threads: 2\n")
    with pytest.raises(ConfigError) as caught:
        stored_config(store(), ["model=pk"], config_dirs=["own"])
    assert str(caught.value) == (
        f"model=pk: this option sets more than model ({outside}), so it cannot be put on a run's "
        "config. Override single keys."
    )


def test_an_option_that_chooses_for_other_groups_is_refused() -> None:
    own("hooks/pk.yaml", "# @package _global_\ndefaults: [override /param_scheduler: none]\n")
    with pytest.raises(ConfigError) as caught:
        stored_config(store(), ["hooks=pk"], config_dirs=["own"])
    assert str(caught.value) == (
        "hooks=pk: this option sets more than hooks (param_scheduler), so it cannot be put on a "
        "run's config. Override single keys."
    )


def test_an_option_refers_to_the_stored_config() -> None:
    cfg = stored_config(store(optim_wrapper__optimizer__lr=0.7), ["param_scheduler=onecycle"])
    assert cfg.param_scheduler.onecycle.eta_max == 0.7


def test_how_that_run_was_started_is_left_out() -> None:
    run = store(resume="there", load_from="there", work_dir="there")
    cfg = stored_config(run, [])
    assert (cfg.resume, cfg.load_from, cfg.work_dir) == (False, None, "there")
    cfg = stored_config(run, ["load_from=here"], reset=["work_dir"])
    assert (cfg.resume, cfg.load_from, cfg.work_dir) == (False, "here", None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.x=1", "hydra.x=1: a run's config has nothing for Hydra. Drop this override."),
        ("+hydra/a=b", "+hydra/a=b: a run's config has nothing for Hydra. Drop this override."),
        (
            "model.channels.7=1",
            "The config has no 'model.channels.7'. Did you mean 'model.channels'?",
        ),
        ("sed=1", "The config has no 'sed'. Did you mean 'seed'?"),
        ("seed=1,2", "seed=1,2 gives several values; a stored config takes one."),
        ("trust=a,b", "trust=a,b gives several values; a stored config takes one."),
        ("~seed", "~seed: a key of a run's config cannot be deleted; set it to null."),
        (
            "experiment=digits_cosine",
            "experiment=digits_cosine: experiment changes the whole config, so it cannot be put on "
            "a run's. Override single keys.",
        ),
        (
            "+model@teacher=convnet",
            "+model@teacher=convnet: a package (@teacher) cannot be chosen for an option that is "
            "put on a run's config. Override single keys.",
        ),
    ],
)
def test_an_override_that_does_not_fit_is_answered(override: str, message: str) -> None:
    assert refusal(store(), override) == message


def test_a_way_that_leads_nowhere_is_answered() -> None:
    assert refusal(store(dataloader="${nowhere}"), "dataloader.train.batch_size=7") == (
        "dataloader.train.batch_size=7 does not fit run/config.yaml: Interpolation key 'nowhere' "
        "not found."
    )


def test_what_is_no_run_is_answered() -> None:
    for run in (Path("nowhere"), Path()):
        assert refusal(run) == (
            f"run={run} has no config.yaml, so it is no run. Expected a directory such as "
            "outputs/digits/<run>."
        )


def test_where_the_checkpoints_were_kept_does_not_matter_to_an_evaluation() -> None:
    assert (
        stored_config(store(hooks__checkpoint__out_dir="/x"), []).hooks.checkpoint.out_dir is None
    )
    assert stored_config(store(hooks=None), []).hooks is None
    assert stored_config(store(), []).hooks == DEFAULT().hooks


def test_a_stored_config_is_not_trusted() -> None:
    assert refusal(bird()) == REFUSED


@pytest.mark.parametrize("command", ["val", "test"])
def test_an_evaluation_refuses_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    bird()
    assert main([command, "run=run"]) == 2
    assert capsys.readouterr().err == f"ConfigError: {REFUSED}\n"
    assert not Path("sprung").exists()


@pytest.mark.parametrize("given", [f"trust=[{CANARY}]", f"trust={CANARY}", f"+trust=[a,{CANARY}]"])
def test_the_command_line_trusts_packages(given: str, sprung: Path) -> None:
    cfg = stored_config(bird(), [given])
    assert CANARY in cfg.trust
    assert sprung.exists()


def test_python_trusts_packages(sprung: Path) -> None:
    assert stored_config(bird(), [], trust=[CANARY]).trust == [CANARY]


def test_the_users_own_config_trusts_packages(sprung: Path) -> None:
    Path("conf").mkdir()
    Path("conf", "mine.yaml").write_text(f"defaults: [config, _self_]\ntrust: [{CANARY}]\n")
    cfg = stored_config(bird(), ["trust=other"], config_name="mine", config_dirs=["conf"])
    assert cfg.trust == [CANARY, "other"]


def test_the_stored_config_cannot_trust_itself() -> None:
    run = store(trust=[CANARY], model={"_target_": f"{CANARY}.Bird"})
    assert refusal(run) == REFUSED


def test_only_ones_own_packages_can_be_trusted() -> None:
    assert refusal(store(), "trust=[torch]") == (
        "trust has 'torch', which is no package of your own. Name the one whose code stored "
        "configs may run, as in trust=[mypkg]."
    )


def test_what_is_typed_over_it_is_trusted() -> None:
    assert stored_config(bird(), ["model=convnet"]).model == DEFAULT().model
    cfg = stored_config(bird(), ["model._target_=my.Net", "+hooks.mine={_target_: my.Hook}"])
    assert (cfg.model._target_, cfg.hooks.mine._target_) == ("my.Net", "my.Hook")


@pytest.mark.parametrize("override", ["model.typo=1", "model.net.typo=1", "modl=1"])
def test_a_mistake_in_an_override_imports_nothing(override: str) -> None:
    assert refusal(bird(), override) == REFUSED
    assert refusal(bird(), override, "model=convnet") == REFUSED


def test_the_way_to_a_key_calls_nothing() -> None:
    run = store(dataloader="${eval:1}")
    message = refusal(run, "dataloader.train.batch_size=7")
    assert "dataloader uses the resolver eval, which is not OmegaConf's own" in message
    cfg = stored_config(run, ["++dataloader.train.batch_size=7"])  # which puts that in its place
    assert cfg.dataloader == {"train": {"batch_size": 7}}
    assert not Path("sprung").exists()


def test_a_secret_that_was_left_out_is_asked_for() -> None:
    run = store(model__token="<redacted>")
    assert refusal(run).startswith("The run's config was stored without its secrets")
    assert stored_config(run, ["model.token=abc"]).model.token == "abc"


def _bomb(levels: int) -> str:
    lines = [f"a0: &a0 [{', '.join('x' * 10)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (_bomb(5), "has more than 100,000 nodes, so it is no config."),
        (_bomb(300), "has more than 100,000 nodes, so it is no config."),
        ("a: &a [*a]", "has more than 100,000 nodes, so it is no config."),
        (
            "a0: &a0 {x: 1}\n"
            + "".join(
                f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 8)
            ),
            "has more than 100,000 nodes, so it is no config.",
        ),
        (
            "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200)),
            "nests more than 100 deep, so it is no config.",
        ),
        ("a: " + "[" * 2000 + "]" * 2000, "nests more than 100 deep, so it is no config."),
        ("a: " + "{a: " * 2000 + "}" * 2000, "nests more than 100 deep, so it is no config."),
        ("- " * 2000 + "x", "nests more than 100 deep, so it is no config."),
        ("a: " + "x" * 1_000_001, "has more than 1,000,000 bytes, so it is no config."),
        (
            "a: " + "${a:" * 2000 + "}" * 2000,
            "is no config: it nests too deep. Restore the file.",
        ),
        ("\n", "is empty, so it is no config. Restore the file."),
        ("- 1", "is no config: expected keys with values, not a list."),
        ("3", "is no config: Invalid loaded object type: int. Restore the file."),
        ("null: 3", "is no config: Incompatible key type 'NoneType'. Restore the file."),
        ("a: ${", "is no config: no viable alternative at input '${'. Restore the file."),
        (
            "a: !!python/object/apply:os.system [x]",
            "is no YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.system' in \"<file>\", line 1, column 4",
        ),
        (
            "a: 1\na: 2",
            'is no YAML: while constructing a mapping in "<file>", line 1, column 1 found '
            'duplicate key a in "<file>", line 2, column 1',
        ),
    ],
)
def test_a_file_made_to_choke_its_reader_is_refused_at_once(text: str, why: str) -> None:
    file = store(text) / "config.yaml"
    start = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        read_stored(file)
    assert time.perf_counter() - start < 1
    assert str(caught.value) == f"{file} {why}"


def test_a_file_that_is_no_text_is_refused() -> None:
    file = store() / "config.yaml"
    file.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError) as caught:
        read_stored(file)
    assert str(caught.value) == f"{file} is no text in UTF-8, so it is no config."


def test_aliases_within_limits_are_read() -> None:
    run = store("a: &a {x: [1, 2]}\nb: *a\nc: {<<: *a, y: 3}\n")
    assert read_stored(run / "config.yaml") == {
        "a": {"x": [1, 2]},
        "b": {"x": [1, 2]},
        "c": {"x": [1, 2], "y": 3},
    }
