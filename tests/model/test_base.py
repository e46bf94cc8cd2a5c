"""BaseModel: a train step is the bare PyTorch step, and logs what it backpropagated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainkit.errors import ConfigError
from trainkit.model import BaseDataPreprocessor, BaseModel, ImgDataPreprocessor
from trainkit.optim_wrapper import OptimWrapper


class Regression(BaseModel):
    """One linear layer; in training the input is doubled by the preprocessor of a test."""

    def __init__(self, data_preprocessor: nn.Module | None = None) -> None:
        super().__init__(data_preprocessor)
        torch.manual_seed(5)
        self.linear = nn.Linear(3, 1)

    def forward(self, x: Any, y: Any = None, mode: str = "tensor") -> Any:
        out = self.linear(x)
        if mode == "loss":
            return {"loss_square": (out - y) ** 2, "loss_abs": [(out - y).abs(), out.abs()]}
        return {"predict": [out], "tensor": out}[mode]


def batches(number: int = 5) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "x": torch.randn(4, 3, generator=generator),
            "y": torch.randn(4, 1, generator=generator),
        }
        for _ in range(number)
    ]


def wrap(model: nn.Module) -> OptimWrapper:
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))


def test_training_steps_equal_a_bare_loop_to_the_bit() -> None:
    model, bare = Regression(), Regression()
    wrapper, optimizer = wrap(model), wrap(bare).optimizer
    for batch in batches():
        logged = model.train_step(batch, wrapper)
        out = bare.linear(batch["x"])
        terms = [
            ((out - batch["y"]) ** 2).mean(),
            (out - batch["y"]).abs().mean() + out.abs().mean(),
        ]
        loss = terms[0] + terms[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.equal(logged["loss"], loss)
        assert torch.equal(logged["loss_abs"], terms[1])
    assert torch.equal(model.linear.weight, bare.linear.weight)
    assert torch.equal(model.linear.bias, bare.linear.bias)


@pytest.mark.parametrize("form", [dict, lambda b: list(b.values()), lambda b: tuple(b.values())])
def test_a_batch_is_a_mapping_a_list_or_a_tuple(form: Any) -> None:
    expected, model = Regression(), Regression()
    (batch,) = batches(1)
    expected.train_step(batch, wrap(expected))
    model.train_step(form(batch), wrap(model))
    assert torch.equal(model.linear.weight, expected.linear.weight)
    (predicted,) = model.val_step(form(batch))
    assert torch.equal(predicted, model(batch["x"]))
    assert torch.equal(model.test_step(form(batch))[0], predicted)


@pytest.mark.parametrize("batch", [torch.ones(4, 3), "text", None, {1, 2}])
def test_a_batch_of_another_kind_is_refused(batch: Any) -> None:
    model = Regression()
    with pytest.raises(TypeError, match=f"gave a {type(batch).__name__}; expected a mapping"):
        model.train_step(batch, wrap(model))
    with pytest.raises(TypeError, match="expected a mapping, a list or a tuple"):
        model.val_step(batch)


def test_the_preprocessor_knows_whether_it_is_training() -> None:
    class Remember(nn.Module):
        def forward(self, data: Any, training: bool = False) -> Any:
            seen.append(training)
            return data

    seen: list[bool] = []
    model = Regression(Remember())
    (batch,) = batches(1)
    model.train_step(batch, wrap(model))
    model.val_step(batch)
    model.test_step(batch)
    assert seen == [True, False, False]


def parse(losses: Any) -> tuple[torch.Tensor, dict[str, float]]:
    total, logged = Regression().parse_losses(losses)
    assert not any(value.requires_grad for value in logged.values())
    return total, {name: value.item() for name, value in logged.items()}


def test_a_preprocessor_may_be_a_config_of_one() -> None:
    config = {"_target_": "trainkit.model.ImgDataPreprocessor", "pad_value": 3}
    built = BaseModel(data_preprocessor=config).data_preprocessor
    assert isinstance(built, ImgDataPreprocessor)
    assert built.pad_value == 3
    plain = BaseModel(data_preprocessor={"non_blocking": True}).data_preprocessor
    assert type(plain) is BaseDataPreprocessor
    assert plain.non_blocking


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"non_blockin": True}, "data_preprocessor.non_blockin: .* Did you mean 'non_blocking'"),
        ({"_target_": "builtins.dict"}, "data_preprocessor is a dict; expected a torch.nn.Module"),
        ("images", "data_preprocessor is a str; expected a torch.nn.Module, or a config of one"),
    ],
)
def test_what_is_no_preprocessor_is_refused_when_the_model_is_made(given: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        BaseModel(data_preprocessor=given)


def test_tensors_count_with_their_mean_and_lists_with_the_sum_of_means() -> None:
    total, logged = parse(
        {
            "loss_a": torch.tensor([1.0, 3.0]),
            "loss_b": [torch.tensor([2.0, 4.0]), torch.tensor(5.0)],
            "b_LOSS": torch.tensor(100.0),
            "accuracy": torch.tensor([0.0, 1.0]),
        }
    )
    assert total == 10
    assert logged == {"loss": 10, "loss_a": 2, "loss_b": 8, "b_LOSS": 100, "accuracy": 0.5}
    assert next(iter(logged)) == "loss"


def test_only_the_total_is_backpropagated() -> None:
    weight = torch.ones(1, requires_grad=True)
    total, _ = parse({"loss": 2 * weight, "auxiliary": 5 * weight})
    total.backward()
    assert weight.grad == 2


@pytest.mark.parametrize(
    "losses",
    [
        {"loss": 2.0},
        {"loss": 2.0, "accuracy": 0.5},
        {"loss_a": 2.0, "loss_b": 3.0},
        {"loss": 1.0, "loss_cls": 4.0},
        {"loss_cls": 4.0, "loss": 1.0},
    ],
    ids=str,
)
def test_the_logged_total_is_the_one_that_was_backpropagated(losses: dict[str, float]) -> None:
    total, logged = parse({name: torch.tensor(value) for name, value in losses.items()})
    assert logged["loss"] == total
    assert total == sum(value for name, value in losses.items() if "loss" in name)


def test_a_term_called_loss_beside_others_is_logged_under_another_name() -> None:
    _, logged = parse({"loss": torch.tensor(1.0), "loss_cls": torch.tensor(4.0)})
    assert logged == {"loss": 5, "loss_term": 1, "loss_cls": 4}


def test_no_term_is_lost_where_names_clash() -> None:
    _, logged = parse({"loss": torch.tensor(1.0), "loss_term": torch.tensor(4.0)})
    assert logged.pop("loss") == 5
    assert sorted(logged.values()) == [1, 4]


def test_what_is_logged_is_the_value_of_this_step_not_of_the_next() -> None:
    class Scaled(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: torch.Tensor, mode: str = "tensor") -> Any:
            return {"loss": (x * self.scale).mean(), "scale": self.scale}

    model = Scaled()
    logged = model.train_step([torch.ones(2)], wrap(model))
    assert model.scale.item() != 1.0
    assert logged["scale"].item() == 1.0


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (torch.tensor(1.0), r"forward\(mode='loss'\) gave a Tensor; expected a dict of losses"),
        ([1], "gave a list"),
        ({"loss": 1.0}, "The loss 'loss' is a float; expected a tensor or a list of tensors"),
        ({"loss": [torch.tensor(1.0), 2.0]}, "The loss 'loss' is a list"),
        ({"loss": []}, "The loss 'loss' is a list"),
        ({"loss": None}, "The loss 'loss' is a NoneType"),
    ],
)
def test_losses_of_another_kind_are_refused(losses: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Regression().parse_losses(losses)


@pytest.mark.parametrize("losses", [{}, {"accuracy": torch.tensor(1.0)}])
def test_a_step_without_a_loss_says_what_the_model_gave(losses: Any) -> None:
    with pytest.raises(ValueError, match=f"The model gave: {', '.join(losses) or 'nothing'}"):
        Regression().parse_losses(losses)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_losses_are_reduced_as_mmengine_does() -> None:
    import mmengine.model as mmengine

    class Reference(mmengine.BaseModel):  # type: ignore[misc]
        def forward(self) -> None: ...

    losses = {
        "loss_a": torch.randn(7),
        "acc": torch.rand(3),
        "loss_b": [torch.randn(2), torch.randn(5, 2)],
        "my_loss": torch.randn(()),
    }
    total, logged = Regression().parse_losses(losses)
    their_total, their_logged = Reference().parse_losses(losses)
    assert torch.equal(total, their_total)
    assert list(logged) == list(their_logged)
    assert all(torch.equal(logged[name], value) for name, value in their_logged.items())
