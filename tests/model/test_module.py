"""BaseModule: initial weights from the outside to the inside, once, and told in the log."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from tests.toy import ToyModel, make_runner
from trainkit.config import compose
from trainkit.config.build import build
from trainkit.errors import ConfigError
from trainkit.model import (
    BaseModule,
    ConstantInit,
    ConvNet,
    ModuleDict,
    ModuleList,
    NormalInit,
    PretrainedInit,
    Sequential,
    check_init_cfg,
)
from trainkit.runner import Runner


def set_to(value: float, **options: Any) -> ConstantInit:
    return ConstantInit(value, layer="Linear", **options)


class Block(BaseModule):
    """Two layers, one of them a part that initialises itself."""

    def __init__(self, init_cfg: Any = None, inner: Any = None) -> None:
        super().__init__(init_cfg)
        self.own = nn.Linear(1, 1)
        self.part = Sequential(nn.Linear(1, 1), init_cfg=inner)


def values(model: nn.Module) -> dict[str, float]:
    return {name: p.item() for name, p in model.named_parameters() if name.endswith("weight")}


def test_the_inner_wins_over_the_outer_and_pretrained_over_both(tmp_path: Path) -> None:
    torch.save({"own.weight": torch.full((1, 1), 3.0)}, tmp_path / "w.pth")
    block = Block([PretrainedInit(str(tmp_path / "w.pth")), set_to(1)], set_to(2))
    block.init_weights()
    assert values(block) == {"own.weight": 3, "part.0.weight": 2}


@pytest.mark.parametrize("form", [lambda a, b: [a, b], lambda a, b: {"a": a, "no": None, "b": b}])
def test_initialisers_are_a_list_or_named(form: Any) -> None:
    block = Block(form(set_to(1), ConstantInit(5, override="part")))
    block.init_weights()
    assert values(block) == {"own.weight": 1, "part.0.weight": 5}


def test_any_function_of_the_module_is_an_initialiser() -> None:
    block = Block(lambda module: nn.init.constant_(module.own.weight, 9))
    block.init_weights()
    assert block.own.weight == 9


def test_the_second_time_nothing_is_done_and_a_warning_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    block = Block(NormalInit(layer="Linear"))
    block.init_weights()
    before = values(block)
    block.init_weights()
    assert values(block) == before
    assert caplog.messages == [
        "Block.init_weights() was called again; the weights stay as they are."
    ]


def test_containers_are_what_torchs_are_with_initial_weights_of_their_own() -> None:
    model = Block()
    model.items = ModuleList([nn.Linear(1, 1)], init_cfg=set_to(4))
    model.named = ModuleDict({"a": nn.Linear(1, 1)}, init_cfg=set_to(5))
    model.init_weights()
    assert (model.items[0].weight, model.named["a"].weight) == (4, 5)
    assert isinstance(model.items, nn.ModuleList)
    assert isinstance(model.named, nn.ModuleDict)
    part = Sequential(nn.Linear(1, 2), nn.ReLU(), init_cfg=set_to(1))
    assert part(torch.ones(1, 1)).shape == (1, 2)
    assert len(part[:1]) == 1
    assert ModuleList().append(nn.ReLU())[0].training
    assert list(ModuleDict().keys()) == []


def test_modules_deep_inside_plain_ones_are_reached() -> None:
    model = Sequential(nn.Sequential(nn.ModuleDict({"a": Block(set_to(6))})))
    model.init_weights()
    assert set(values(model).values()) == {6}


def test_what_is_initialised_already_is_left_out() -> None:
    model = Sequential(Block(set_to(6)), Block(set_to(7)), init_cfg=set_to(1))
    model[0].is_init = True
    model.init_weights()
    assert list(values(model).values()) == [1, 1, 7, 7]
    assert all(block.is_init for block in model)


def test_a_shared_module_is_initialised_once(caplog: pytest.LogCaptureFixture) -> None:
    block = Block(set_to(6))
    model = Sequential(nn.Sequential(block), nn.Sequential(block))
    model.init_weights()
    assert not caplog.messages


class Foreign(nn.Module):
    """A module from elsewhere, with an init_weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def init_weights(self) -> None:
        self.linear.weight.data.fill_(8)


def test_a_foreign_module_initialises_itself_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Sequential(Foreign(), init_cfg=set_to(1))
    with caplog.at_level(logging.INFO):
        model.init_weights()
    assert model[0].linear.weight == 8
    warning, table = caplog.messages
    assert warning == (
        "Foreign.init_weights() has set 1 parameters. If they were loaded before, set is_init = "
        "True on that module."
    )
    assert "0.linear.weight (1, 1): Foreign.init_weights()" in table
    assert "0.linear.bias (1,): ConstantInit" in table


def test_the_log_tells_of_each_parameter_what_has_set_it(caplog: pytest.LogCaptureFixture) -> None:
    class Custom(Block):
        def init_weights(self) -> None:
            super().init_weights()
            nn.init.zeros_(self.own.bias)

    model = Sequential(Custom(inner=set_to(2)), nn.BatchNorm1d(1), nn.Linear(1, 1))
    model.init_cfg = ConstantInit(1, override="2")
    with caplog.at_level(logging.INFO):
        model.init_weights()
    (message,) = caplog.messages
    assert message.splitlines() == [
        "Initial weights of Sequential:",
        "0.own.weight (1, 1): as the module made it",
        "0.own.bias (1,): Custom.init_weights()",
        "0.part.0.weight (1, 1): ConstantInit(layer='Linear', val=2)",
        "0.part.0.bias (1,): ConstantInit(layer='Linear', val=2)",
        "1.weight (1,): as the module made it",
        "1.bias (1,): as the module made it",
        "2.weight (1, 1): ConstantInit(override='2', val=1)",
        "2.bias (1,): ConstantInit(override='2', val=1)",
    ]


def test_nothing_is_logged_where_nothing_is_set(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        ConvNet(channels=(2,)).init_weights()
    assert not caplog.messages


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_parameters_of_any_kind_pass() -> None:
    model = Sequential(nn.Linear(2, 1, dtype=torch.complex64), nn.LazyLinear(3), nn.Linear(1, 1))
    model.append(Block(set_to(2)).to(torch.bfloat16)).append(nn.Linear(1, 1, device="meta"))
    nn.init.constant_(model[3].own.bias, torch.nan)
    model.init_weights()
    assert model[3].own.weight == 2


def test_a_parameter_that_is_replaced_is_told_for_the_optimizer_has_the_old_one() -> None:
    class Replacing(Block):
        def init_weights(self) -> None:
            self.own.weight = nn.Parameter(torch.ones(1, 1))

    model = Sequential(Replacing())
    with pytest.raises(RuntimeError, match=r"has added or replaced the parameter 'own.weight'"):
        model.init_weights()
    assert not model.is_init
    assert "_init_record" not in vars(model[0])


@pytest.mark.parametrize(
    ("init_cfg", "message"),
    [
        (
            {"type": "Kaiming", "layer": "Conv2d"},
            r"Here it is an initialiser: _target_: trainkit.*",
        ),
        ([{"type": "KaimingInit"}], r"KaimingInit in a config, KaimingInit\(...\) in Python"),
        ([3], "Block got 3 in init_cfg; expected an initialiser, as"),
        (NormalInit(), "says not what it is for. Name classes"),
        ({"a": [set_to(1)]}, "Block got"),
    ],
)
def test_what_is_no_initialiser_is_refused_when_the_module_is_made(
    init_cfg: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Block(init_cfg)


def test_names_of_layers_are_checked_in_a_whole_model() -> None:
    check_init_cfg(Sequential(Block(set_to(1)), nn.Sequential(Block()), init_cfg=set_to(1)))
    model = nn.Sequential(Block(inner=NormalInit(layer="Liner")))
    with pytest.raises(ConfigError, match=r"init_cfg of Sequential has.*'Liner'.*'Linear'"):
        check_init_cfg(model)


def test_a_copy_initialises_its_own_weights() -> None:
    block = Block(set_to(1))
    other = copy.deepcopy(block)
    other.init_weights()
    assert (other.own.weight, other.is_init, block.is_init) == (1, True, False)


# ------------------------------------------------------------------ in a run


class Initialised(ToyModel):
    """The toy model with weights of an initialiser."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()
        self.init_cfg = init_cfg or NormalInit(layer="Linear")


def first_weights(runner: Runner) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    runner.model.linear.register_forward_pre_hook(
        lambda linear, _: seen.append(linear.weight.detach().clone())
    )
    runner.train()
    return seen[0]


def test_a_run_begins_from_initial_weights_that_its_seed_gives(tmp_path: Path) -> None:
    first = first_weights(make_runner(tmp_path / "a", model=Initialised()))
    runner = make_runner(tmp_path / "b", model=Initialised())
    runner.val(load=False)
    torch.rand(5)
    again = first_weights(runner)
    other = make_runner(tmp_path / "c", model=Initialised(), randomness={"seed": 4})
    assert torch.equal(first, again)
    assert not torch.equal(first, first_weights(other))
    assert (
        "linear.weight (1, 3): NormalInit(layer='Linear')"
        in (tmp_path / "a" / "train.log").read_text()
    )


def test_loaded_weights_win_over_initial_ones(tmp_path: Path) -> None:
    make_runner(tmp_path / "a").train()
    runner = make_runner(tmp_path / "b", model=Initialised(), load_from=tmp_path / "a")
    trained = torch.load(tmp_path / "a" / "checkpoints" / "epoch_2" / "model.pt")
    assert torch.equal(first_weights(runner), trained["linear.weight"])


def test_a_resumed_run_does_not_need_the_pretrained_weights_again(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save({"weight": torch.full((1, 3), 2.0)}, weights)
    init = PretrainedInit(str(weights))

    def runner(**changes: Any) -> Runner:
        model = Initialised(lambda module: init(module.linear))
        return make_runner(tmp_path / "run", model=model, **changes)

    assert first_weights(runner()).eq(2).all()
    weights.unlink()
    longer = {"by_epoch": True, "max_epochs": 3}
    resumed = runner(resume=True, train_cfg=longer)
    resumed.train()
    assert resumed.epoch == 3


def test_a_config_gives_initialisers_by_their_targets(tmp_path: Path) -> None:
    init = "{_target_: trainkit.model.%s, %s}"
    nodes = (
        f"+model.init_cfg.a={init % ('ConstantInit', 'layer: [Conv2d], val: 0.5')}",
        f"+model.init_cfg.b={init % ('NormalInit', 'std: 0, bias: 3, override: head')}",
    )
    cfg = compose([*nodes, "model.channels=[2]", f"work_dir={tmp_path}"])
    model = Runner.from_cfg(cfg).model
    model.init_weights()
    assert model.backbone[0].weight.eq(0.5).all()
    assert model.head.weight.eq(0).all()
    assert model.head.bias.eq(3).all()


def test_a_wrong_layer_is_told_before_the_run_has_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no class of modules called 'Liner'"):
        make_runner(tmp_path / "run", model=Initialised(NormalInit(layer="Liner")))
    assert not (tmp_path / "run").exists()


def test_the_model_of_the_documentation_can_be_made() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    node = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    model = build(node, "model")
    model.init_weights()
    assert torch.sigmoid(model.head.bias).allclose(torch.tensor(0.1))
    batch = model.data_preprocessor({"inputs": [torch.ones(3, 20, 40)]})
    assert batch["inputs"].shape == (1, 3, 32, 64)
