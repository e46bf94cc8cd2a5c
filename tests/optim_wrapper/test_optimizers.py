"""Any optimizer: each of torch's, by its name or class, and classes of others."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import ToyModel, loader, make_runner
from trainkit.errors import ConfigError

EVERY = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
)
# The class without a step; one for sparse gradients; and one that asks for the loss several times.
OTHERS = {"Optimizer", "SparseAdam", "LBFGS"}


class Matrix(ToyModel):
    """The toy model without a bias, which Muon would not take."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1, bias=False)


class SignSGD(torch.optim.Optimizer):
    """An optimizer of another package: as torch's, but for its name of the parameters."""

    def __init__(self, weights: Any, rate: float = 0.01) -> None:
        super().__init__(weights, {"lr": rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                weight -= group["lr"] * weight.grad.sign()


def bare(kind: Any, **options: Any) -> torch.Tensor:
    """Two epochs of the toy data, with nothing but torch."""
    model = Matrix()
    optimizer = kind(model.parameters(), **options)
    for _ in range(2):
        for batch in loader():
            model(**batch, mode="loss")["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.linear.weight


def trained(tmp_path: Path, target: Any, **options: Any) -> torch.Tensor:
    model = Matrix()
    optimizer = {"_target_": target, **options}
    split = dict.fromkeys(("val_dataloader", "val_cfg", "val_evaluator"))
    make_runner(
        tmp_path,
        model=model,
        train_dataloader=loader(),
        optim_wrapper={"optimizer": optimizer},
        default_hooks={"checkpoint": None, "logger": None},
        **split,
    ).train()
    return model.linear.weight


@pytest.mark.parametrize("name", [name for name in EVERY if name not in OTHERS])
@pytest.mark.parametrize("by_class", [True, False])
def test_each_of_torchs_trains_as_without_trainkit(
    tmp_path: Path, name: str, by_class: bool
) -> None:
    kind = getattr(torch.optim, name)
    torch.manual_seed(0)
    expected = bare(kind, lr=0.01)
    torch.manual_seed(0)
    found = trained(tmp_path, kind if by_class else f"torch.optim.{name}", lr=0.01)
    assert torch.equal(found, expected)


def test_an_optimizer_of_others_needs_only_its_name(tmp_path: Path) -> None:
    expected = bare(SignSGD, rate=0.1)
    assert torch.equal(trained(tmp_path, f"{__name__}.SignSGD", rate=0.1), expected)


def test_one_that_asks_for_the_loss_again_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer is LBFGS.*'closure'"):
        trained(tmp_path, "torch.optim.LBFGS")
