"""What a run may do to a whole model (compile, checkpoint, batch norm) changes no result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as torch_dist
from omegaconf import OmegaConf
from torch import nn

from tests.toy import ToyModel, make_runner
from trainkit import ConfigError, Runner
from trainkit.checkpoint import read_checkpoint
from trainkit.config import compose
from trainkit.config.trust import check_trust
from trainkit.model import BaseModel
from trainkit.runner.check import find_mistakes
from trainkit.runner.parts import with_batchnorm

EMA = {"_target_": "trainkit.hooks.EMAHook", "momentum": 0.1}
FOUR = {"by_epoch": True, "max_epochs": 4}


class Normed(BaseModel):
    """A network with batch norm, dropout and two parts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3))
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        out = self.head(self.body(x))
        return {"loss": (out - y).square().mean()} if mode == "loss" else out


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests() -> Iterator[None]:
    yield
    torch.compiler.reset()


def run(work_dir: Path, **changes: Any) -> Runner:
    runner = make_runner(work_dir, **{"model": Normed(), "custom_hooks": [EMA], **changes})
    runner.train()
    return runner


def saved(runner: Runner) -> dict[str, Any]:
    newest = max(runner.checkpoint_dir.glob("epoch_*"), key=lambda path: int(path.name[6:]))
    checkpoint = read_checkpoint(newest)
    return {**checkpoint["state_dict"], **checkpoint["ema_state_dict"]}


def assert_same(one: Runner, other: Runner) -> None:
    expected, found = saved(one), saved(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value)), name


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_run_gives_the_same_weights_under_the_same_names(
    tmp_path: Path, backend: str
) -> None:
    plain = run(tmp_path / "plain")
    compiled = run(tmp_path / "compiled", compile={"backend": backend})
    assert_same(plain, compiled)
    assert not any("_orig_mod" in name for name in saved(compiled))


@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True)])
def test_a_run_may_be_resumed_compiled_or_not(tmp_path: Path, first: bool, then: bool) -> None:
    options: list[Any] = [{"backend": "eager"} if on else False for on in (first, then)]
    whole = run(tmp_path / "whole", train_cfg=FOUR)
    run(tmp_path / "parts", compile=options[0])
    rest = run(tmp_path / "parts", compile=options[1], resume=True, train_cfg=FOUR)
    assert_same(whole, rest)


class Backend:
    """A backend that counts the graphs it gets, by whether the model was training."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


def test_training_and_evaluation_are_compiled_and_disable_is_heard(tmp_path: Path) -> None:
    backend, silent = Backend(), Backend()
    runner = make_runner(tmp_path / "a", model=Normed(), compile={"backend": backend})
    runner.val(load=False)
    evaluated = backend.graphs
    assert evaluated > 0
    runner.train()
    assert backend.graphs > evaluated
    run(tmp_path / "b", compile={"backend": silent, "disable": True})
    assert silent.graphs == 0


class Around(ToyModel):
    """A model that trains without calling itself."""

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        loss = (self.linear(data["x"]) - data["y"]).square().mean()
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}


def test_a_step_that_goes_past_what_is_compiled_is_told_once(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, model=Around(), compile={"backend": Backend()})
    runner.train()
    log = (tmp_path / "train.log").read_text()
    assert log.count("compile does nothing in ") == 1
    assert "compile does nothing in Around.train_step: it never calls the model, self(...)" in log


def test_nothing_is_told_of_steps_that_are_compiled_nor_without_compiling(tmp_path: Path) -> None:
    runner = make_runner(tmp_path / "compiled", compile={"backend": Backend()})
    runner.train()
    runner.test()
    plain = make_runner(tmp_path / "plain", model=Around())
    plain.train()
    for run in (runner, plain):
        assert "compile does nothing" not in (run.work_dir / "train.log").read_text()


class Delegating(nn.Module):
    """Hands the steps on: as the config's wrapper; or as a model, whose part is ``module``."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def train_step(self, data: Any, optim_wrapper: Any) -> Any:
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: Any) -> Any:
        return self.module.val_step(data)


def test_what_the_config_wraps_a_model_in_puts_nothing_into_names(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, model_wrapper_cfg={"_target_": Delegating})
    runner.train()
    assert isinstance(runner.model, Delegating)
    names = read_checkpoint(runner.checkpoint_dir / "epoch_1")["state_dict"]
    assert [*names] == ["linear.weight", "linear.bias"]


def test_a_model_whose_only_part_is_called_module_keeps_its_names(tmp_path: Path) -> None:
    runner = make_runner(tmp_path, model=Delegating(ToyModel()))
    runner.train()
    names = read_checkpoint(runner.checkpoint_dir / "epoch_1")["state_dict"]
    assert [*names] == ["module.linear.weight", "module.linear.bias"]


def test_compiled_and_checkpointed_gives_the_same_weights(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain")
    options = {"compile": {"backend": "aot_eager"}, "activation_checkpointing": "body"}
    assert_same(plain, run(tmp_path / "both", **options))


def test_a_backend_that_would_change_statistics_is_refused(tmp_path: Path) -> None:
    options = {"compile": {"backend": "eager"}, "activation_checkpointing": "body"}
    with pytest.raises(ConfigError, match=r"compile.backend is 'eager', which would.*'aot_eager'"):
        run(tmp_path, **options)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("compile={mode: max-autotun}", "Unrecognized mode=max-autotun, should be one of: default"),
        ("compile={options: {foo: 1}}", "Unexpected optimization option foo"),
    ],
)
def test_a_mode_or_option_that_there_is_not_is_told_by_the_check(override: str, text: str) -> None:
    (finding,) = find_mistakes(compose([override]))
    assert finding.key == "compile"
    assert text in finding.text


INIT = "+model.init_cfg.a={_target_: trainkit.model."
IMAGES = "model.data_preprocessor._target_=trainkit.model.ImgDataPreprocessor"
MISTAKES = {
    "a value": (
        [INIT + "NormalInit, layer: Conv2d, std: -1}"],
        "model.init_cfg.a.std is -1; expected a standard deviation of at least 0.",
    ),
    "a value that is a default": (
        [INIT + "UniformInit, layer: Conv2d, b: -1}"],
        "model.init_cfg.a.a is 0.0 and b is -1; expected a not above b.",
    ),
    "an argument": (
        [INIT + "NormalInit, layers: Conv2d}"],
        "model.init_cfg.a.layers: NormalInit has no argument 'layers'. Did you mean 'layer'?",
    ),
    "an override": (
        [INIT + "NormalInit, override: {head: {_target_: trainkit.model.XavierInit, gain: x}}}"],
        "model.init_cfg.a.override.head.gain is 'x'; XavierInit takes a number.",
    ),
    "MMEngine's form": (
        ["+model.init_cfg={type: Kaiming, layer: Conv2d}"],
        "model.init_cfg is {type: 'Kaiming', layer: 'Conv2d'}; ConvNet takes something to call",
    ),
    "an address": (
        [INIT + "PretrainedInit, checkpoint: 'torchvision://resnet50'}"],
        "model.init_cfg.a.checkpoint is 'torchvision://resnet50', an address; expected a file.",
    ),
    "a checkpoint": (
        [INIT + "PretrainedInit, checkpoint: nowhere.pth}"],
        "There is no checkpoint 'nowhere.pth'.",
    ),
    "images": (
        [IMAGES, "+model.data_preprocessor.std=[1]"],
        "model.data_preprocessor.std is given without mean; expected both, or neither.",
    ),
}


@pytest.mark.parametrize(("overrides", "text"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_parts_of_a_model_are_told_by_the_check(
    overrides: list[str], text: str
) -> None:
    (finding,) = find_mistakes(compose(overrides))
    assert finding.text.startswith(text)


def test_pretrained_weights_need_not_be_there_to_resume() -> None:
    pretrained = INIT + "PretrainedInit, checkpoint: nowhere.pth}"
    assert find_mistakes(compose([pretrained, "resume=true"])) == []


def test_initialisers_of_a_stored_config_need_no_trust() -> None:
    pretrained = INIT + "PretrainedInit, checkpoint: nowhere.pth}"
    cfg = compose([pretrained, "+model.init_cfg.b={_target_: trainkit.model.NormalInit}"])
    check_trust(OmegaConf.create({"model": cfg.model}), [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own modules
@pytest.mark.skipif(shutil.which("c++") is None, reason="the compiler of torch needs c++")
def test_torchs_own_compiler_trains_and_evaluates_within_rounding(tmp_path: Path) -> None:
    plain = make_runner(tmp_path / "plain")
    compiled = make_runner(tmp_path / "compiled", compile=True)
    plain.train()
    compiled.train()
    assert isinstance(compiled.model, ToyModel)
    for ours, theirs in zip(compiled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())


def test_checkpointed_activations_give_the_same_run(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain")
    sparing = run(tmp_path / "sparing", activation_checkpointing=["body", "head"])
    assert_same(plain, sparing)


# ------------------------------------------------------------------ batch norm over ranks


@pytest.fixture
def _group(tmp_path: Path) -> Iterator[None]:
    torch_dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    yield
    torch_dist.destroy_process_group()


def norms(model: nn.Module) -> list[str]:
    return [type(m).__name__ for m in model.modules() if "BatchNorm" in type(m).__name__]


def test_in_one_process_batch_norm_over_ranks_becomes_plain(tmp_path: Path) -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(Normed())
    runner = make_runner(tmp_path, model=model, sync_bn="torch")
    assert norms(runner.model) == ["_AnyBatchNorm"]
    runner.train()


@pytest.mark.usefixtures("_group")
def test_among_ranks_sync_bn_converts_where_torch_can() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert norms(with_batchnorm(Normed(), "torch", cuda)) == ["SyncBatchNorm"]
    assert norms(with_batchnorm(Normed(), None, cuda)) == ["BatchNorm1d"]
    with pytest.raises(ConfigError, match="sync_bn is 'torch', but the device is the CPU"):
        with_batchnorm(Normed(), "torch", cpu)
