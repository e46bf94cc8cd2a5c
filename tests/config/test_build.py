"""The door from a config to an object: what it builds, and how it refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from trainkit import ConfigError
from trainkit.config import Partial, build, to_plain
from trainkit.config.build import partial


class Box:
    """Keep the arguments."""

    def __init__(self, first: Any = None, *, second: Any = None) -> None:
        self.first, self.second = first, second


def faulty(value: int) -> None:
    raise LookupError(f"in the user's code: {value}")


BOX = f"{__name__}.Box"


def test_an_object_is_returned_as_it_is() -> None:
    thing = object()
    assert build(thing, "here") is thing


def test_nested_nodes_are_built_inside_out() -> None:
    node = {"_target_": BOX, "first": {"a": [{"_target_": BOX, "second": 2}]}, "second": 3}
    box = build(node, "here")
    assert (box.second, box.first["a"][0].second) == (3, 2)


def test_live_objects_pass_through_untouched() -> None:
    live = torch.nn.Linear(1, 1)
    box = build({"_target_": Box, "first": live, "second": {"inner": live}}, "here")
    assert box.first is live
    assert box.second["inner"] is live


def test_lists_and_dicts_arrive_plain() -> None:
    config = OmegaConf.create({"_target_": BOX, "first": [1, {"a": 2}], "second": "${.first}"})
    box = build(config, "here")
    assert (type(box.first), type(box.first[1])) == (list, dict)
    assert box.second == [1, {"a": 2}]


def test_positional_and_runtime_arguments_come_from_the_run() -> None:
    box = build({"_target_": BOX}, "here", args=(1,), second=2)
    assert (box.first, box.second) == (1, 2)
    assert build({"_target_": BOX, "second": 3}, "here", second=2).second == 3
    assert build({"_target_": BOX, "_args_": [5]}, "here").first is None


def test_partial_nodes_wait() -> None:
    box = build({"_target_": BOX, "first": {"_target_": BOX, "_partial_": True}}, "here")
    assert isinstance(box.first, Partial)
    assert box.first(7).first == 7


def test_nested_nodes_can_be_left_alone() -> None:
    inner = {"_target_": "no.such.Thing"}
    box = build({"_target_": BOX, "_recursive_": False, "first": inner}, "here")
    assert box.first == inner


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({}, "here has no _target_, so nothing says what to build. It has: nothing."),
        (
            {"type": "SGD", "lr": 1},
            "here has no _target_, so nothing says what to build (MMEngine's 'type: SGD' is "
            "'_target_: <full import path>' here). It has: type, lr.",
        ),
        (
            {"_target_": "SGD"},
            "here._target_ is 'SGD'; expected a full import path such as 'torch.optim.SGD'.",
        ),
        (
            {"_target_": "torhc.optim.SGD"},
            "here._target_: 'torhc.optim.SGD' cannot be imported: no module 'torhc'. Install it, "
            "or mend the name.",
        ),
        (
            {"_target_": "torch.optim.SDG"},
            "here._target_: 'torch.optim.SDG' cannot be imported: torch.optim has no 'SDG'. "
            "Did you mean 'SGD'?",
        ),
        (
            {"_target_": "torch.optin.SGD"},
            "here._target_: 'torch.optin.SGD' cannot be imported: torch has no 'optin'. "
            "Did you mean 'optim'?",
        ),
        ({"_target_": "torch.optim"}, "here._target_: 'torch.optim' is a module; expected"),
        ({"_target_": 3}, "here._target_ is 3; expected the import path of a class or function."),
        (
            {"_target_": "os.system"},
            "here._target_: Hydra refuses 'os.system': a config may not name what runs or changes "
            "whatever it is given.",
        ),
        ({"_target_": "shutil.rmtree"}, "here._target_: Hydra refuses 'shutil.rmtree': a config"),
        (
            {"_target_": BOX, "secnd": 1},
            "here.secnd: Box has no argument 'secnd'. Did you mean 'second'?",
        ),
        (
            {"_target_": f"{__name__}.faulty"},
            "here: faulty cannot be called so: missing a required argument: 'value'. "
            "Its arguments: value.",
        ),
        (
            {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": "two"},
            "here: Linear(in_features=1, out_features='two') is refused: ",
        ),
        (
            {"_target_": BOX, "first": {"_target_": "torch.nn.ReLU", "in_place": True}},
            "here.first.in_place: ReLU has no argument 'in_place'. Did you mean 'inplace'?",
        ),
    ],
)
def test_a_node_that_cannot_be_built_says_why(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(node, "here")
    assert str(caught.value).startswith(message)


def test_missing_and_dangling_values_are_named() -> None:
    with pytest.raises(ConfigError, match=r"a\.b"):
        to_plain(OmegaConf.create({"a": {"b": "???"}}), "config")
    with pytest.raises(ConfigError, match="no_such"):
        to_plain(OmegaConf.create({"a": "${no_such}"}), "config")


def test_an_error_of_the_users_code_passes_through() -> None:
    with pytest.raises(LookupError, match="in the user's code: 3"):
        build({"_target_": f"{__name__}.faulty", "value": 3}, "here")


def test_a_module_that_fails_to_import_keeps_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_by_test.py").write_text("import no_such_package_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package_anywhere"):
        build({"_target_": "broken_by_test.Thing"}, "here")
    assert "broken_by_test" not in sys.modules


def test_a_partial_knows_what_it_accepts() -> None:
    part = partial({"_target_": BOX, "first": 1}, "here")
    assert part.accepts("second")
    assert not part.accepts("first")
    assert not part.accepts("third")
