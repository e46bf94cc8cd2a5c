"""Stored configs: what they may name; what is refused is neither imported nor run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from trainkit import ConfigError, compose, conf_dir
from trainkit.config import build
from trainkit.config.stored import read_stored
from trainkit.config.trust import check_trust, only_resolvers, trust_list

CANARY, MINE = "canary_by_test", "mypkg_by_test"
HEAD = "The stored config asks for more than a stored config may:\n"
NOT_LISTED = "which is not on the list of what may be called."
OPTIONS = sorted(
    f"{file.parent.relative_to(conf_dir())}={file.stem}"
    for file in conf_dir().rglob("*.yaml")
    if file.parent != conf_dir()
)


@pytest.fixture(autouse=True)
def sprung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that a module makes when it is imported, and that the resolver ``eval`` makes."""
    sprung = tmp_path / "sprung"
    (tmp_path / f"{CANARY}.py").write_text(
        f"from pathlib import Path\n\nPath({str(sprung)!r}).touch()\n\n\nclass Bird: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    # omegaconf 2.4 warns of the old name.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        OmegaConf.register_new_resolver("eval", lambda text: sprung.touch())
    yield sprung
    OmegaConf.clear_resolver("eval")
    for name in [name for name in sys.modules if name.split(".")[0] in (CANARY, MINE)]:
        del sys.modules[name]


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A package of the user's, with some names that it has from elsewhere."""
    package = tmp_path / MINE
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import parts\n")
    (package / "parts" / "__init__.py").write_text("from .net import Net, make\n")
    (package / "parts" / "net.py").write_text(
        "import functools\nimport os\nimport shutil\nfrom os import system\n\n\nclass Net:\n"
        "    def __init__(self, *parts):\n        self.parts = parts\n\n"
        "    @classmethod\n    def small(cls):\n        return cls()\n\n\n"
        "def make():\n    return Net()\n\n\nready = functools.partial(Net)\n"
    )
    return MINE


def refusal(node: Any, trust: tuple[str, ...] = (), typed: tuple[str, ...] = ()) -> str:
    """Return the message with which a config is refused; it must import nothing."""
    cfg = OmegaConf.create(node)
    modules = set(sys.modules)
    with pytest.raises(ConfigError) as caught:
        check_trust(cfg, trust, typed=typed)
    parsers = ("omegaconf", "antlr4", "yaml")
    assert {name for name in sys.modules if name.split(".")[0] not in parsers} <= modules
    return str(caught.value)


def test_the_canary_springs_where_nothing_is_checked(sprung: Path) -> None:
    build({"_target_": f"{CANARY}.Bird"}, "bird")
    assert sprung.exists()
    sprung.unlink()
    assert OmegaConf.create({"a": "${eval:1}"}).a is None
    assert sprung.exists()


BIRD = {"_target_": f"{CANARY}.Bird"}


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ({"model": BIRD}, "model"),
        (BIRD, ""),
        ({"hooks": {"a": {"b": {"c": BIRD}}}}, "hooks.a.b.c"),
        ({"model": {"_target_": "torch.nn.Identity", "_args_": [1, BIRD]}}, "model._args_[1]"),
        ({"model": [[0, {"x": BIRD}]]}, "model[0][1].x"),
        (
            {"model": {"_target_": "torch.nn.Identity", "_recursive_": False, "x": BIRD}},
            "model.x",
        ),
        (
            {"model": {"_target_": "torch.nn.Identity", "_partial_": True, "x": BIRD}},
            "model.x",
        ),
        ({"model": {**BIRD, "_partial_": True}}, "model"),
        ({"a": "${oc.create:{b:{_target_:canary_by_test.Bird}}}"}, "a.b"),
        ({"a": "${oc.create:'{_target_: canary_by_test.Bird}'}"}, "a"),
        ({"a": "${oc.decode:'{_target_: canary_by_test.Bird}'}"}, "a"),
        ({"a": ["${oc.decode:'[1, {_target_: canary_by_test.Bird}]'}"]}, "a[0][1]"),
        ({"b": "canary_by_test", "a": "${oc.create:{_target_:'${b}.Bird'}}"}, "a"),
        ({"b": "{_target_: canary_by_test.Bird}", "a": "${oc.decode:${b}}"}, "a"),
    ],
)
def test_a_target_is_found_wherever_it_stands(node: Any, path: str, sprung: Path) -> None:
    where = f"{path}._target_".lstrip(".")
    assert refusal(node) == (
        f"{HEAD}  {where} names {CANARY}.Bird, and the package {CANARY} is not trusted.\n"
        f"If you know the code of {CANARY}, add: trust=[{CANARY}]"
    )
    assert CANARY not in sys.modules
    assert not sprung.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("torch.load", "torch.hub.load", "torch.utils.cpp_extension.load", "torch.jit.load"),
        *("builtins.exec", "builtins.open", "os.system", "posix.system", "logging.os.system"),
        *("pathlib.Path.write_text", "functools.partial", "operator.methodcaller", "numpy.load"),
        *("hydra.utils.get_method", "hydra.utils.instantiate", "omegaconf.OmegaConf.load"),
        *("trainkit.checkpoint.remove_checkpoint", "trainkit.config.build.Partial"),
        *("trainkit.run_dir.make_unique", "trainkit.cli.train.train_in", "trainkit.Runner"),
        *("trainkit.env.os.system", "trainkit.models.Net", "torch.nnn.Linear"),
        *("torch.utils.data.datapipes.iter.FileOpener", "torch.utils.datas.X"),
    ],
)
def test_what_is_not_listed_is_refused_without_advice(name: str) -> None:
    assert refusal({"a": {"_target_": name}}) == f"{HEAD}  a._target_ names {name}, {NOT_LISTED}"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("torch.nn.modules.module.torch.load", "where torch.nn.modules.module.torch is torch"),
        ("torch.nn.functional.torch.hub.load", "where torch.nn.functional.torch is torch"),
        ("trainkit.model.base.torch.load", "where trainkit.model.base.torch is torch"),
        (
            "torch.utils.data.dataloader.threading.Thread",
            "where torch.utils.data.dataloader.threading is threading",
        ),
        (
            "torch.utils.data.dataloader.python_multiprocessing.Process",
            "where torch.utils.data.dataloader.python_multiprocessing is multiprocessing",
        ),
        (
            "torch.utils.data.IterDataPipe",
            "which is torch.utils.data.datapipes.datapipe.IterDataPipe",
        ),
        ("torch.optim.lr_scheduler.partial", "which is functools.partial"),
        ("torch.nn.modules.module.OrderedDict", "which is collections.OrderedDict"),
        ("trainkit.hooks.checkpoint.ConfigError", "which is trainkit.errors.ConfigError"),
    ],
)
def test_what_a_module_has_from_elsewhere_is_refused(name: str, why: str) -> None:
    assert refusal({"a": {"_target_": name}}) == (
        f"{HEAD}  a._target_ names {name}, {why}, {NOT_LISTED}"
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("torch.nn.init.zeros_", "a function; only classes may be named there."),
        ("torch.nn.functional.relu", "a function; only classes may be named there."),
        ("torch.nn.utils.clip_grad_norm_", "a function; only classes may be named there."),
        ("torch.nn.Embedding.from_pretrained", "a function; only classes may be named there."),
        ("torch.utils.data.random_split", "a function; only classes may be named there."),
        ("trainkit.dataloader.num_batches", "a function; only classes may be named there."),
        ("torch.nn.functional", "a module; expected a class or a function."),
    ],
)
def test_of_the_list_only_classes_may_be_named(name: str, why: str) -> None:
    assert refusal({"a": {"_target_": name}}) == f"{HEAD}  a._target_ names {name}, {why}"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (None, "is None; expected the name of a class, written out"),
        (3, "is 3; expected the name of a class, written out"),
        ({"a": 1}, "is {'a': 1}; expected the name of a class, written out"),
        (["os.system"], "is ['os.system']; expected the name of a class, written out"),
        ("${b}", "is '${b}'; expected the name of a class, written out"),
        ("torch.nn.${b}", "is 'torch.nn.${b}'; expected the name of a class, written out"),
        *(
            (name, f"is {name!r}; expected the public dotted name of a class")
            for name in (
                *("", ".", "Net", "torch.nn.", "torch..nn.Linear", "torch.nn.Linear()", "a b.c"),
                *("torch.nn.Linear.__init__", "torch.nn.modules.module._addindent"),
                *("torch._C.Foo", "__main__.Net", "torch.nn.Linear.__init__.__globals__.get"),
            )
        ),
    ],
)
def test_a_target_is_a_public_name_that_is_written_out(target: Any, why: str) -> None:
    assert refusal({"b": "Linear", "a": {"_target_": target}}) == f"{HEAD}  a._target_ {why}."


def uses(name: str, path: str = "a") -> str:
    return (
        f"{HEAD}  {path} uses the resolver {name}, which is not OmegaConf's own; one that does no "
        f"harm, whatever it is given, is trusted by trust=['{name}:']."
    )


@pytest.mark.parametrize(
    "node",
    [
        {"a": "${eval:1}"},
        {"a": "x ${ eval : 1 } y"},
        {"a": "${oc.select:b,${eval:1}}"},
        {"b": "eval", "a": "${${b}:1}"},
        {"b": "$", "c": "{eval:1}", "a": "${oc.decode:${b}${c}}"},
        {"a": "${oc.decode:'\\${eval:1}'}"},
    ],
)
def test_a_resolver_of_the_users_is_not_called(node: Any, sprung: Path) -> None:
    assert refusal(node) == uses("eval")
    assert not sprung.exists()


def test_an_unknown_resolver_is_refused_as_it_may_be_registered_later() -> None:
    assert refusal({"a": {"b": ["${later:1}"]}}) == uses("later", "a.b[0]")


def test_a_resolver_is_trusted_by_name(sprung: Path) -> None:
    cfg = OmegaConf.create({"a": "${eval:1}"})
    check_trust(cfg, ["eval:"])
    assert sprung.exists()


def test_resolvers_are_there_again_afterwards(sprung: Path) -> None:
    with only_resolvers([]), pytest.raises(Exception, match="Unsupported interpolation type eval"):
        _ = OmegaConf.create({"a": "${eval:1}"}).a
    assert OmegaConf.has_resolver("eval")
    refusal({"a": "${eval:1}"})
    assert OmegaConf.has_resolver("eval")


@pytest.mark.parametrize("key", ["hydra", "hydra.callbacks", "hydra/launcher", "hydra@x"])
def test_nothing_is_handed_to_hydra(key: str, sprung: Path) -> None:
    node = {key: {"callbacks": {"a": BIRD}}}
    assert refusal(node) == (
        f"{HEAD}  {key} configures Hydra itself, which is for the command line alone."
    )
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("compiled", "path", "text"),
    [
        ({"options": {"cpp.cxx": [None, "./sing"]}}, "compile.options.cpp.cxx[1]", "./sing"),
        ({"options": {"cpp.cxx": ["${other}"]}}, "compile.options.cpp.cxx[0]", "${other}"),
        ({"options": "${other}"}, "compile.options", "${other}"),
        ("${other}", "compile", "${other}"),
        ({"mode": "${other}"}, "compile.mode", "${other}"),
    ],
)
def test_the_compiler_is_not_given_programs_to_run(compiled: Any, path: str, text: str) -> None:
    assert refusal({"compile": compiled, "other": {"options": {"cpp.cxx": "./sing"}}}) == (
        f"{HEAD}  {path} is {text!r}; expected a number or a truth value, as a text may name a "
        "program that torch.compile runs."
    )


def test_other_arguments_of_compile_are_fine() -> None:
    compiled = {"backend": "eager", "mode": "default", "options": {"max_autotune": True, "n": 3}}
    for node in (True, False, None, compiled):
        check_trust(OmegaConf.create({"compile": node}), [])
    typed = OmegaConf.create({"compile": {"options": {"cpp.cxx": "clang"}}})
    check_trust(typed, [], typed=["compile.options"])


@pytest.mark.parametrize(
    ("node", "path", "shown"),
    [
        ({"hooks": {"checkpoint": {"out_dir": "/x"}}}, "hooks.checkpoint.out_dir", "/x"),
        ({"hooks": [{"out_dir": "kept"}]}, "hooks[0].out_dir", "kept"),
        ({"a": {"out_dir": "~/x"}}, "a.out_dir", "~/x"),
        ({"a": {"out_dir": Path("x")}}, "a.out_dir", "x"),
        ({"a": {"out_dir": "${b}"}, "b": None}, "a.out_dir", "${b}"),
        ({"a": "${oc.create:{out_dir:x}}"}, "a.out_dir", "x"),
        ({"a": {"subdir": "/x"}}, "a.subdir", "/x"),
        ({"a": {"subdir": "in/../../x"}}, "a.subdir", "in/../../x"),
        ({"a": {"_args_": [3, "/x"]}}, "a._args_[1]", "/x"),
        ({"a": {"subdir": "${b}/x"}, "b": ".."}, "a.subdir", "../x"),
    ],
)
def test_places_outside_the_run_are_for_the_user_to_name(node: Any, path: str, shown: str) -> None:
    assert refusal(node) == (
        f"{HEAD}  {path} is {shown!r}, a place outside the new run; if you want it, give it on the "
        "command line."
    )
    check_trust(OmegaConf.create(node), [], typed=[path])


def test_places_inside_the_run_are_fine() -> None:
    check_trust(OmegaConf.create({"a": {"out_dir": None, "subdir": "tb/a..b"}}), [])


def test_a_tag_for_paths_hides_no_place(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: {out_dir: !!python/object/apply:pathlib.PosixPath [/x]}\n")
    with pytest.raises(ConfigError, match=r"a\.out_dir is '/x', a place outside the new run"):
        check_trust(read_stored(file), [])


def test_what_cannot_be_resolved_is_left_to_those_who_use_it() -> None:
    check_trust(
        OmegaConf.create(
            {"a": "${nowhere}", "b": "???", "c": "${oc.env:NOT_SET_BY_TEST}", "d": "${d2}"}
            | {"d2": "${d}", "e": "${b}", "f": None, "g": {"h": "${..a}"}}
        ),
        [],
    )


def test_interpolations_within_the_config_are_fine() -> None:
    check_trust(
        OmegaConf.create(
            {
                "model": {"_target_": "torch.nn.Linear", "in_features": "${size}"},
                "size": "${oc.decode:${oc.env:NOT_SET_BY_TEST,'3'}}",
                "again": {"one": "${model}", "all": "${oc.dict.values:again2}"},
                "again2": {"x": "${model}", "keys": "${oc.dict.keys:model}"},
                "created": "${oc.create:{_target_:torch.nn.ReLU}}",
            }
        ),
        [],
    )


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            {"a": "${oc.create:{b:'\\${a}'}}"},
            "The stored config nests more than 100 deep, in a.b.b.",
        ),
        (
            {f"a{i}": f"${{a{i + 1}}}" for i in range(600)},
            "The stored config cannot be resolved: the interpolations of a0 lead too deep.",
        ),
        (
            {"a": "${oc.create:{b:'\\${a}',c:'\\${a}'}}"},
            "The stored config nests more than 100 deep, in a.b.b.",
        ),
    ],
)
def test_interpolations_without_end_are_refused(node: Any, message: str) -> None:
    assert refusal(node) == message


def test_interpolations_do_not_create_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.config.trust._MAX_CREATED", 3)
    check_trust(OmegaConf.create({"a": ["${oc.create:{b:1}}"] * 3}), [])
    assert refusal({"a": ["${oc.create:{b:1}}"] * 4}) == (
        "The stored config cannot be resolved: its interpolations create more than 3 nodes."
    )


def test_everything_that_is_refused_is_told_at_once() -> None:
    node = {
        "model": {"_target_": "mine.Net", "init": {"_target_": "torch.load", "f": "x"}},
        "hooks": {"a": {"_target_": "theirs.hooks.A"}, "b": {"_target_": "mine.B"}},
        "seed": "${eval:1}",
    }
    assert refusal(node, ("ours",)) == (
        f"{HEAD}"
        "  model._target_ names mine.Net, and the package mine is not trusted.\n"
        f"  model.init._target_ names torch.load, {NOT_LISTED}\n"
        "  hooks.a._target_ names theirs.hooks.A, and the package theirs is not trusted.\n"
        "  hooks.b._target_ names mine.B, and the package mine is not trusted.\n"
        "  seed uses the resolver eval, which is not OmegaConf's own; one that does no harm, "
        "whatever it is given, is trusted by trust=['eval:'].\n"
        "If you know the code of mine and theirs, add: trust=[ours,mine,theirs]"
    )


def test_nothing_is_imported_while_anything_is_refused(mine: str, sprung: Path) -> None:
    node = {"a": {"_target_": f"{mine}.parts.Net"}, "b": {"_target_": "os.system"}}
    refusal(node, (mine,))
    assert mine not in sys.modules


@pytest.mark.parametrize("name", ["parts.Net", "parts.net.Net", "parts.make", "parts.Net.small"])
def test_a_trusted_package_may_name_classes_and_functions(mine: str, name: str) -> None:
    check_trust(OmegaConf.create({"a": {"_target_": f"{mine}.{name}"}}), [mine])
    check_trust(OmegaConf.create({"a": {"_target_": f"{mine}.{name}"}}), [f"{mine}.parts"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("parts.net.os.system", f"where {MINE}.parts.net.os is os, {NOT_LISTED}"),
        ("parts.net.shutil.rmtree", f"where {MINE}.parts.net.shutil is shutil, {NOT_LISTED}"),
        ("parts.net.system", f"which is posix.system, {NOT_LISTED}"),
        ("parts.net.functools.partial", f"where {MINE}.parts.net.functools is functools, "),
        ("parts.net.ready", "a partial; expected a class or a function."),
        ("parts.net", "a module; expected a class or a function."),
    ],
)
def test_trust_ends_where_a_package_has_names_from_elsewhere(
    mine: str, name: str, why: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_trust(OmegaConf.create({"a": {"_target_": f"{mine}.{name}"}}), [mine])
    assert str(caught.value).startswith(f"{HEAD}  a._target_ names {mine}.{name}, {why}")


def test_another_package_behind_a_trusted_name_is_named(mine: str, tmp_path: Path) -> None:
    other = tmp_path / f"{MINE}_other"
    other.mkdir()
    (other / "__init__.py").write_text(f"from {mine}.parts import Net\n")
    with pytest.raises(ConfigError) as caught:
        check_trust(OmegaConf.create({"a": {"_target_": f"{MINE}_other.Net"}}), [f"{MINE}_other"])
    del sys.modules[f"{MINE}_other"]
    assert str(caught.value) == (
        f"{HEAD}  a._target_ names {MINE}_other.Net, which is {MINE}.parts.net.Net, and the "
        f"package {MINE} is not trusted.\n"
        f"If you know the code of {MINE}, add: trust=[{MINE}_other,{MINE}]"
    )


def test_trust_ends_at_a_dot(mine: str) -> None:
    assert "is not trusted" in refusal({"a": {"_target_": f"{mine}x.Net"}}, (mine,))
    assert "is not trusted" in refusal({"a": {"_target_": f"{mine}.parts.Net"}}, (f"{mine}.par",))


def test_a_name_that_does_not_exist_raises_what_building_it_would(mine: str) -> None:
    with pytest.raises(
        ConfigError, match=r"mypkg_by_test\.parts has no 'Nett'. Did you mean 'Net'"
    ):
        check_trust(OmegaConf.create({"a": {"_target_": f"{mine}.parts.Nett"}}), [mine])


def test_a_name_that_only_some_can_reach_is_refused_in_our_words(mine: str, tmp_path: Path) -> None:
    (tmp_path / MINE / "late.py").write_text(
        "def __getattr__(name):\n    calls.append(name)\n    if calls.count('Net') == 1:\n"
        "        raise AttributeError(name)\n    return dict\n\n\ncalls = []\n"
    )
    with pytest.raises(ConfigError) as caught:
        check_trust(OmegaConf.create({"a": {"_target_": f"{mine}.late.Net"}}), [mine])
    assert str(caught.value) == (
        f"{HEAD}  a._target_ names {mine}.late.Net, which cannot be reached: {mine}.late is a "
        "module without 'Net'."
    )


def test_an_error_in_a_trusted_module_keeps_its_traceback(mine: str, tmp_path: Path) -> None:
    (tmp_path / MINE / "broken.py").write_text("raise LookupError('lost')\n")
    with pytest.raises(LookupError, match="lost"):
        check_trust(OmegaConf.create({"a": {"_target_": f"{mine}.broken.Net"}}), [mine])


@pytest.mark.parametrize("typed", ["a", "a.b", "a.b._target_"])
def test_what_the_user_typed_is_trusted(typed: str) -> None:
    check_trust(OmegaConf.create({"a": {"b": BIRD}}), [], typed=[typed])


@pytest.mark.parametrize("typed", ["", "a.b.x", "a.bb", "b", "a[0]", "_target_"])
def test_what_stands_beside_is_not(typed: str) -> None:
    refusal({"a": {"b": BIRD}}, typed=(typed,))


def test_a_key_with_a_dot_is_none_that_was_typed() -> None:
    refusal({"a.b": BIRD}, typed=("a",))


def test_an_entry_of_a_list_can_be_typed() -> None:
    check_trust(OmegaConf.create({"a": [1, BIRD]}), [], typed=["a[1]"])
    check_trust(OmegaConf.create({"a": [1, BIRD]}), [], typed=["a.1"])


@pytest.mark.parametrize(
    "entry",
    [
        *("torch", "torch.nn", "builtins", "os", "os.path", "*", "", "mypkg.*", "my pkg", "mypkg."),
        *(
            ".mypkg",
            "_mypkg",
            "__main__",
            "trainkit",
            "numpy",
            "omegaconf",
            ":",
            "a b:",
            "subprocess",
        ),
    ],
)
def test_only_packages_of_ones_own_can_be_trusted(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_trust(OmegaConf.create({}), ["mypkg", entry])
    assert str(caught.value) == (
        f"trust has {entry!r}, which is no package of your own. Name the one whose code stored "
        "configs may run, as in trust=[mypkg]."
    )


def test_trust_may_be_one_name_or_a_list() -> None:
    assert trust_list(None) == trust_list([]) == []
    assert trust_list("mypkg") == ["mypkg"]
    assert trust_list(OmegaConf.create(["mypkg.sub", "mul:"])) == ["mypkg.sub", "mul:"]
    for wrong in (3, [3], {"mypkg": True}):
        with pytest.raises(ConfigError, match="expected package names, as in trust="):
            trust_list(wrong)


def test_the_list_cannot_be_widened_by_the_config_itself() -> None:
    refusal({"trust": [CANARY], "a": BIRD})


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_that_ships_passes(option: str) -> None:
    check_trust(compose([option]), [])


@pytest.mark.parametrize(
    "name",
    [
        *("trainkit.env.setup_env", "trainkit.dataloader.default_collate"),
        *("trainkit.dataloader.pseudo_collate", "trainkit.evaluator.Accuracy"),
        *("torch.optim.Muon", "torch.optim.lr_scheduler.StepLR", "torch.optim.swa_utils.SWALR"),
        *("torch.utils.data.ConcatDataset", "torch.nn.modules.activation.ReLU"),
    ],
)
def test_what_is_listed_passes(name: str) -> None:
    check_trust(OmegaConf.create({"a": [{"_target_": name}]}), [])


def test_all_layers_and_optimizers_pass() -> None:
    found = [
        f"{module.__name__}.{name}"
        for module in (torch.nn, torch.optim)
        for name in dir(module)
        if isinstance(getattr(module, name), type) and not name.startswith("_")
    ]
    assert len(found) > 150
    check_trust(OmegaConf.create([{"_target_": name} for name in found]), [])


part = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True) | st.sampled_from(
    [
        "torch",
        "nn",
        "optim",
        "utils",
        "data",
        "trainkit",
        "os",
        "system",
        "load",
        "builtins",
        CANARY,
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.lists(part, min_size=1, max_size=5).map(".".join))
def test_no_other_name_passes_or_is_imported(name: str) -> None:
    if not name.startswith(("torch.nn", "torch.optim", "torch.utils.data", "trainkit.data")):
        refusal({"a": {"_target_": name}})
    assert CANARY not in sys.modules
