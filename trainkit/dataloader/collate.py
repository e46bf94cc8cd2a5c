"""Turn a list of samples into a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate as torch_collate


def pseudo_collate(samples: Sequence[Any]) -> Any:
    """Regroup samples by field without stacking: ``[{"x": 1}, {"x": 2}]`` gives ``{"x": [1, 2]}``.

    Raises:
        ValueError: Sequences of different length inside the samples.
    """
    return _regroup(samples, list)


def default_collate(samples: Sequence[Any]) -> Any:
    """Regroup samples by field; stack tensors, arrays and numbers along a first dimension.

    Strings and objects of other classes stay in a list.

    Raises:
        ValueError: Sequences of different length inside the samples.
    """
    return _regroup(samples, _stack)


def _regroup(samples: Sequence[Any], leaf: Any) -> Any:
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: _regroup([sample[key] for sample in samples], leaf) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(_regroup(column, leaf) for column in _columns(samples)))
    if isinstance(first, Sequence) and not isinstance(first, str | bytes):
        return [_regroup(column, leaf) for column in _columns(samples)]
    return leaf(list(samples))


def _columns(samples: Sequence[Sequence[Any]]) -> list[list[Any]]:
    lengths = {len(sample) for sample in samples}
    if len(lengths) > 1:
        raise ValueError(
            f"The samples of a batch hold sequences of lengths {sorted(lengths)}; expected one "
            "length."
        )
    return [list(column) for column in zip(*samples, strict=True)]


def _stack(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor | int | float) or type(first).__module__ == "numpy":
        return torch_collate(values)
    return values
