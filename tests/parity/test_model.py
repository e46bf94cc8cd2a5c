"""Initial weights, images and losses are MMEngine's, to the bit, but for what is said below."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.parity.test_hook_order import their_loader
from tests.toy import loader, make_runner
from trainkit import CheckpointError, ConfigError
from trainkit import model as ours

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.model as theirs
    from mmengine.logging import MMLogger
    from mmengine.model.weight_init import initialize
    from mmengine.runner import Runner as TheirRunner

pytestmark = pytest.mark.filterwarnings("ignore")
fast = settings(deadline=None, max_examples=60, database=None, derandomize=True)


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> None:
    MMLogger.get_instance("parity", log_level="CRITICAL")


def layers() -> list[nn.Module]:
    return [
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.Conv2d(4, 3, 1, bias=False), nn.GroupNorm(1, 3), nn.ReLU()),
        nn.Linear(3, 5),
        nn.Conv1d(2, 2, 3),
    ]


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(*layers())


def same(one: nn.Module, other: nn.Module) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


# ------------------------------------------------------------------ initialisers

numbers = st.floats(-3, 3, allow_nan=False, width=32)
above_0 = st.floats(0.125, 3, width=32)
distribution = st.sampled_from(["normal", "uniform"])
ARGUMENTS = {
    "Constant": st.fixed_dictionaries({"val": numbers}),
    "Xavier": st.fixed_dictionaries({}, optional={"gain": above_0, "distribution": distribution}),
    "Normal": st.fixed_dictionaries({}, optional={"mean": numbers, "std": above_0}),
    "TruncNormal": st.fixed_dictionaries(
        {},
        optional={
            "mean": st.floats(-1, 1),
            "std": above_0,
            "a": st.floats(-3, -1.5),
            "b": st.floats(1.5, 3),
        },
    ),
    "Uniform": st.fixed_dictionaries({}, optional={"a": st.floats(-3, 0), "b": st.floats(1, 3)}),
    "Kaiming": st.fixed_dictionaries(
        {},
        optional={
            "a": st.floats(0, 2),
            "mode": st.sampled_from(["fan_in", "fan_out"]),
            "nonlinearity": st.sampled_from(["relu", "leaky_relu", "linear", "tanh"]),
            "distribution": distribution,
        },
    ),
    "Caffe2Xavier": st.just({}),
}
WITH_FAN = ["Conv2d", "Linear", "_ConvNd", "Conv1d"]  # the last: a base class


@st.composite
def initializers(draw: Any) -> tuple[str, dict[str, Any]]:
    kind = draw(st.sampled_from(sorted(ARGUMENTS)))
    arguments = draw(ARGUMENTS[kind])
    free = kind in ("Constant", "Normal", "TruncNormal", "Uniform")
    names = [*WITH_FAN, "BatchNorm2d", "_BatchNorm", "GroupNorm"] if free else WITH_FAN
    several = st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)
    arguments["layer"] = draw(st.sampled_from(names) | several)
    arguments |= draw(
        st.fixed_dictionaries({}, optional={"bias": numbers})
        | st.fixed_dictionaries({"bias_prob": st.floats(0.01, 0.99)})
    )
    return kind, arguments


@fast
@given(chosen=st.lists(initializers(), min_size=1, max_size=3), seed=st.integers(0, 2**30))
def test_the_same_seed_gives_the_same_weights(
    chosen: list[tuple[str, dict[str, Any]]], seed: int
) -> None:
    one, other = network(), network()
    torch.manual_seed(seed)
    initialize(one, [{"type": kind, **arguments} for kind, arguments in chosen])
    torch.manual_seed(seed)
    for kind, arguments in chosen:
        our_init(kind, **arguments)(other)
    same(one, other)


@pytest.mark.parametrize(
    ("their_override", "our_override"),
    [
        ({"name": "4"}, "4"),
        ([{"name": "3"}, {"name": "0"}], ["3", "0"]),
        (
            {"type": "Normal", "name": "3", "std": 0.1, "bias": 1},
            {"3": ours.NormalInit(std=0.1, bias=1)},
        ),
        (
            [{"type": "Constant", "name": "2", "val": 2}, {"type": "Uniform", "name": "0"}],
            {"2": ours.ConstantInit(2), "0": ours.UniformInit()},
        ),
    ],
    ids=str,
)
def test_overrides_set_the_same_weights(their_override: Any, our_override: Any) -> None:
    one = network()
    initialize(one, {"type": "Normal", "layer": "Conv2d", "override": their_override})
    other = network()  # which sets the seed again
    ours.NormalInit(layer="Conv2d", override=our_override)(other)
    same(one, other)


class Plain(nn.Module):
    """A module of neither, which initialises itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def init_weights(self) -> None:
        nn.init.normal_(self.linear.weight)


def nested(kit: Any, init: Any, override: Any, weights: Path) -> Any:
    """A model of either with initial weights at several levels."""

    class Custom(kit.BaseModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__(init("Normal", layer="Linear", std=0.5))
            self.linear, self.other = nn.Linear(2, 2), nn.Linear(2, 2)

        def init_weights(self) -> None:
            super().init_weights()
            nn.init.uniform_(self.other.weight)

    class Model(kit.BaseModel):  # type: ignore[misc,name-defined]
        def forward(self) -> None: ...

    model = Model(
        init_cfg=[
            init("Pretrained", checkpoint=str(weights), prefix="kept"),
            init("Constant", layer="Linear", val=0.25, bias=7.0),
            init("Kaiming", layer=["Conv2d", "Linear"], override=override),
        ]
    )
    xavier = kit.Sequential(nn.Conv2d(1, 2, 3), init_cfg=init("Xavier", layer="Conv2d"))
    uniform = init("Uniform", layer="Linear")
    model.first, model.custom, model.plain = nn.Linear(2, 2), Custom(), Plain()
    model.blocks = kit.ModuleList([xavier], init_cfg=init("Normal", layer="Conv2d"))
    model.named = kit.ModuleDict({"a": nn.Linear(2, 3)}, init_cfg=uniform)
    model.loaded = nn.Linear(2, 3)
    return model


def their_init(kind: str, **arguments: Any) -> Any:
    return {"type": kind, **arguments}


def our_init(kind: str, **arguments: Any) -> Any:
    return getattr(ours, f"{kind}Init")(**arguments)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(9)
    linear = nn.Linear(2, 3)
    state = {"kept.loaded.weight": linear.weight.detach(), "kept.loaded.bias": linear.bias.detach()}
    torch.save({**state, "left.weight": torch.ones(1)}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_a_model_initialises_itself_and_what_is_inside_in_the_same_order(weights: Path) -> None:
    models = []
    for kit, init, override in ((theirs, their_init, {"name": "first"}), (ours, our_init, "first")):
        torch.manual_seed(8)
        models.append(nested(kit, init, override, weights))
        models[-1].init_weights()
    for model in models:
        assert torch.equal(model.loaded.weight, torch.load(weights)["kept.loaded.weight"])
    same(*models)
    drawn = []
    for model in models:
        torch.manual_seed(8)
        model.init_weights()  # the second time nothing is drawn, and nothing changes
        drawn.append(torch.rand(1))
    same(*models)
    assert drawn[0] == drawn[1]


class _Forward(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        out = self.linear(x)
        return {"loss": (out - y).square().mean()} if mode == "loss" else list(out)


def test_a_run_with_a_seed_begins_from_the_same_weights_and_ends_with_the_same(
    tmp_path: Path,
) -> None:
    models = []
    for kit, init in ((theirs, their_init), (ours, our_init)):

        class Model(_Forward, kit.BaseModel):  # type: ignore[misc,name-defined]
            pass

        models.append(Model(init_cfg=init("Kaiming", layer="Linear", bias=0.5)))
        models[-1].linear = nn.Linear(3, 1)
    one, other = models
    common = {
        "train_cfg": {"by_epoch": True, "max_epochs": 2},
        "randomness": {"seed": 5},
    }
    TheirRunner(
        model=one,
        work_dir=str(tmp_path / "theirs"),
        train_dataloader=their_loader(),
        optim_wrapper={"optimizer": torch.optim.SGD(one.parameters(), lr=0.05)},
        experiment_name=tmp_path.name,
        default_hooks={"logger": None},
        log_level="ERROR",
        **common,
    ).train()
    wrapper = {"optimizer": torch.optim.SGD(other.parameters(), lr=0.05)}
    runner = make_runner(
        tmp_path / "ours",
        model=other,
        train_dataloader=loader(),
        optim_wrapper=wrapper,
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        **common,
    )
    torch.rand(7)  # what is drawn between, as by a validation, changes nothing
    runner.train()
    same(one, other)


def test_a_module_deeper_than_a_plain_container_is_initialised_on_purpose() -> None:
    """MMEngine passes over it in silence."""

    def model(kit: Any, init: Any) -> Any:
        return kit.Sequential(nn.Sequential(kit.Sequential(nn.Linear(1, 1), init_cfg=init)))

    one = model(theirs, {"type": "Constant", "layer": "Linear", "val": 4})
    other = model(ours, ours.ConstantInit(4, layer="Linear"))
    one.init_weights()
    other.init_weights()
    assert one[0][0][0].weight != 4
    assert other[0][0][0].weight == 4


def test_a_class_is_found_by_any_of_its_base_classes_on_purpose() -> None:
    """MMEngine knows only those that it names itself as its bases."""

    class Mine(nn.Conv2d):
        pass

    class Special(Mine):
        pass

    one, other = nn.Sequential(Special(1, 1, 1)), nn.Sequential(Special(1, 1, 1))
    initialize(one, {"type": "Constant", "layer": "Conv2d", "val": 4})
    ours.ConstantInit(4, layer="Conv2d")(other)
    assert one[0].weight != 4
    assert other[0].weight == 4


def test_a_layer_that_there_is_not_is_an_error_on_purpose() -> None:
    """MMEngine initialises nothing, in silence."""
    initialize(network(), {"type": "Normal", "layer": "Conv2D"})
    with pytest.raises(ConfigError, match=r"called 'Conv2D'. Did you mean 'Conv2d'"):
        ours.NormalInit(layer="Conv2D")(network())


def test_pretrained_weights_of_which_none_fits_are_an_error_on_purpose(weights: Path) -> None:
    """MMEngine goes on with a warning."""
    initialize(nn.Linear(2, 3), {"type": "Pretrained", "checkpoint": str(weights)})
    with pytest.raises(CheckpointError, match="nothing of it fits Linear"):
        ours.PretrainedInit(str(weights))(nn.Linear(2, 3))


# ------------------------------------------------------------------ images

sides = st.integers(1, 40)


@st.composite
def preprocessing(draw: Any) -> tuple[dict[str, Any], Any]:
    three = draw(st.booleans())
    options: dict[str, Any] = {
        "pad_size_divisor": draw(st.integers(1, 33)),
        "pad_value": draw(st.integers(-3, 300) | st.floats(-3, 3)),
    }
    if draw(st.booleans()):
        sizes = [1, 3] if three else [1]
        for name, value in (("mean", st.floats(-200, 200)), ("std", st.floats(0.01, 200))):
            size = draw(st.sampled_from(sizes))
            options[name] = draw(st.lists(value | st.integers(1, 9), min_size=size, max_size=size))
    if three:
        options |= draw(st.sampled_from([{}, {"bgr_to_rgb": True}, {"rgb_to_bgr": True}]))
    depth = 3 if three else draw(st.integers(1, 2))
    dtype = draw(st.sampled_from([torch.uint8, torch.float32, torch.float64, torch.float16]))

    def image(*shape: int) -> torch.Tensor:
        return torch.randint(0, 255, shape).to(dtype)

    if draw(st.booleans()):
        return options, image(draw(st.integers(1, 3)), depth, draw(sides), draw(sides))
    count = draw(st.integers(1, 4))
    images = [image(depth, draw(sides), draw(sides)) for _ in range(count)]
    return options, draw(st.sampled_from([list, tuple]))(images)


@fast
@given(case=preprocessing(), training=st.booleans())
def test_images_become_the_same_batch(case: tuple[dict[str, Any], Any], training: bool) -> None:
    options, inputs = case
    given_so = {"inputs": inputs}
    their_batch = theirs.ImgDataPreprocessor(**options)(dict(given_so), training)
    our_batch = ours.ImgDataPreprocessor(**options)(dict(given_so), training)
    assert torch.equal(our_batch["inputs"], their_batch["inputs"])
    assert our_batch["inputs"].dtype == their_batch["inputs"].dtype
    assert our_batch.keys() == their_batch.keys()
    assert our_batch["data_samples"] is None


def test_a_batch_with_names_of_its_own_gets_no_data_samples_on_purpose() -> None:
    """The model is called with what is in the batch, and would have to take data_samples too."""
    batch = {"inputs": torch.ones(1, 1, 2, 2), "labels": torch.ones(1)}
    assert "data_samples" in theirs.ImgDataPreprocessor()(dict(batch))
    assert list(ours.ImgDataPreprocessor()(dict(batch))) == ["inputs", "labels"]


def test_grey_images_do_not_become_coloured_on_purpose() -> None:
    """MMEngine gives a batch of one channel three, where the mean has three."""
    options: dict[str, Any] = {"mean": [1, 2, 3], "std": [1, 1, 1]}
    images = torch.ones(2, 1, 4, 4)
    their_batch = theirs.ImgDataPreprocessor(**options)({"inputs": images})
    assert their_batch["inputs"].shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"have the shape \(2, 1, 4, 4\), but three channels"):
        ours.ImgDataPreprocessor(**options)({"inputs": images})


# ------------------------------------------------------------------ losses

tensors = st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=4).map(torch.tensor)
scalars = st.floats(-9, 9, width=32).map(torch.tensor)
losses = st.dictionaries(
    st.sampled_from(["loss_a", "loss_b", "my_loss", "acc", "d0.loss_c", "norm"]),
    tensors | scalars | st.lists(tensors | scalars, min_size=1, max_size=3),
    min_size=1,
).map(lambda losses: {"loss_z": torch.tensor(0.5), **losses})


class TheirModel(theirs.BaseModel):  # type: ignore[misc]
    def forward(self) -> None: ...


@fast
@given(losses=losses)
def test_losses_are_reduced_and_logged_alike(losses: dict[str, Any]) -> None:
    total, logged = ours.BaseModel().parse_losses(losses)
    their_total, their_logged = TheirModel().parse_losses(losses)
    assert torch.equal(total, their_total)
    assert list(logged) == list(their_logged)
    assert all(torch.equal(logged[name], value) for name, value in their_logged.items())


def test_the_total_that_is_logged_is_the_one_of_the_gradients_on_purpose() -> None:
    """MMEngine logs the term of that name in its place."""
    losses = {"loss": torch.tensor(1.0), "loss_b": torch.tensor(4.0)}
    their_total, their_logged = TheirModel().parse_losses(losses)
    total, logged = ours.BaseModel().parse_losses(losses)
    assert (float(their_total), float(their_logged["loss"])) == (5, 1)
    assert (float(total), float(logged["loss"]), float(logged["loss_term"])) == (5, 5, 1)


# ------------------------------------------------------------------ changes to a whole model


def test_batch_norm_is_converted_and_reverted_alike() -> None:
    from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm

    images = torch.randn(3, 2, 6, 6)
    nets = [nn.Sequential(*layers()[:3]) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    one = convert_sync_batchnorm(nets[0])
    other = ours.convert_sync_batchnorm(nets[1])
    same(one, other)
    assert [type(m).__name__ for m in one.modules()] == [type(m).__name__ for m in other.modules()]
    one, other = revert_sync_batchnorm(one), ours.revert_sync_batchnorm(other)
    assert torch.equal(one(images), other(images))
    same(one, other)


def test_conversion_keeps_the_mode_on_purpose() -> None:
    """MMEngine's SyncBatchNorm is in training mode, even of a frozen model."""
    from mmengine.model import convert_sync_batchnorm

    assert convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(1)).eval())[0].training
    assert not ours.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(1)).eval())[0].training


def test_a_batch_norm_used_twice_is_converted_in_both_places_on_purpose() -> None:
    """MMEngine converts the first."""
    from mmengine.model import convert_sync_batchnorm

    norm = nn.BatchNorm2d(1)
    one = convert_sync_batchnorm(nn.Sequential(norm, norm))
    other = ours.convert_sync_batchnorm(nn.Sequential(norm, norm))
    assert not isinstance(one[1], nn.SyncBatchNorm)
    assert isinstance(other[1], nn.SyncBatchNorm)
    assert other[0] is other[1]
