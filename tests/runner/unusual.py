"""Right but unusual targets, which the check before a run must not complain of."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, ParamSpec, TypedDict

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from typing_extensions import Unpack

from trainkit import BaseModel, Hook
from trainkit.evaluator import BaseMetric
from trainkit.loops import EpochBasedTrainLoop
from trainkit.optim_wrapper import OptimWrapper

if TYPE_CHECKING:
    from nowhere import Thing  # type: ignore[import-not-found] # a package only type checkers see

P = ParamSpec("P")
Size = NewType("Size", int)


class Model(BaseModel):
    """Takes anything by name, as what all models here do with what they were given."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()


class Star(Model):
    def __init__(self, *widths: int, depth: int = 3) -> None:
        super().__init__()


class Implicit(Model):
    """Defaults that their annotations do not allow, and names that only type checkers know."""

    def __init__(
        self,
        size: int = None,  # type: ignore[assignment] # noqa: RUF013 - common, and tested here
        thing: Thing = None,
        ratio: float = 1,
        act: Callable[[Any], Any] = nn.ReLU,
    ) -> None:
        super().__init__()


class Quoted(Model):
    def __init__(
        self,
        size: "int | None" = 3,  # noqa: UP037 - quoted twice, so to speak
        kind: "Literal['a', 'b'] | None" = "a",  # noqa: UP037
        path: "str | Path" = ".",  # noqa: UP037
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()


class Options(TypedDict, total=False):
    depth: int
    width: int


class Unpacked(Model):
    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__()


def noted(function: Callable[P, Any]) -> Callable[P, Any]:
    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Any:
        return function(*args, **kwargs)

    return inner


@noted
def decorated(depth: int, *, name: str = "x") -> Model:
    return Model()


def passed_on(*args: P.args, **kwargs: P.kwargs) -> Any:  # type: ignore[valid-type] # as found
    return Model()


class Factory:
    def __call__(self, depth: int = 1) -> Model:
        return Model()


factory = Factory()


class Sized(Model):
    def __init__(self, layers: Any) -> None:
        super().__init__()

    @classmethod
    def small(cls, layers: int = 3) -> Sized:
        return cls(layers)


class Colour(enum.Enum):
    red = 1


class Typed(Model):
    def __init__(
        self,
        colour: Colour = Colour.red,
        size: Size = Size(3),
        count: Annotated[int, "of layers"] = 2,
    ) -> None:
        super().__init__()


class Block(nn.Module):
    def __init__(self, width: int, act: type[nn.Module] | Callable[..., nn.Module] = nn.ReLU):
        super().__init__()


class Nested(Model):
    def __init__(
        self,
        blocks: Sequence[nn.Module],
        heads: dict[str, nn.Module],
        loss: nn.Module,
        extra: Iterable[float] = (),
        other: Optional[nn.Module] = None,  # noqa: UP045 - as much code still has it
    ) -> None:
        super().__init__()


@dataclass
class Settings:
    depth: int
    name: str = "n"


class FromDataclass(Model):
    def __init__(self, settings: Settings) -> None:
        super().__init__()


class Calling(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__call__()


class WithMetaclass(nn.Module, metaclass=Calling):
    pass


class Stream(IterableDataset[Any]):
    def __init__(self, shards: Sequence[str] | str, transform: Callable[..., Any] | None = None):
        super().__init__()

    def __iter__(self) -> Iterator[int]:
        yield 1


class Loader(DataLoader[Any]):
    def __init__(self, dataset: Any, batch_size: int = 1, mine: int = 3, **options: Any) -> None:
        super().__init__(dataset, batch_size, **options)


class Loop(EpochBasedTrainLoop):
    def __init__(self, runner: Any, dataloader: Any, max_epochs: int, warm: int = 3, **rest: Any):
        super().__init__(runner, dataloader, max_epochs, **rest)


class FreeLoop:
    def __init__(self, runner: Any, dataloader: Any, steps: int) -> None: ...

    def run(self) -> None: ...


class Odd(BaseMetric):
    def __init__(self, topk: int | tuple[int, ...] = 1, **options: Any) -> None:
        super().__init__(**options)

    def process(self, data_batch: Any, data_samples: Any) -> None: ...

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"odd": 1.0}


class Every(Hook):
    def __init__(self, every: int | str = "1ep", on: list[str] | None = None) -> None: ...


class Wrapper(OptimWrapper):
    def __init__(self, optimizer: torch.optim.Optimizer, extra: int = 3, **options: Any) -> None:
        super().__init__(optimizer, **options)


def schedule(optimizer: Any, **options: Any) -> None: ...


def collate(batch: Any, pad: float = 0) -> Any:
    return batch


# Nodes kept under a key of one's own, and used by interpolation.
KEPT_APART: dict[str, dict[str, Any]] = {
    "an optimizer": {
        "zoo": {"sgd": {"_target_": "torch.optim.SGD", "lr": 0.1}},
        "optim_wrapper.optimizer": "${zoo.sgd}",
    },
    "a collate_fn": {
        "zoo": {"collate": {"_target_": "tests.runner.unusual.collate", "pad": 1}},
        "dataloader.train.collate_fn": "${zoo.collate}",
    },
}
