"""Accuracy of a classifier."""

from __future__ import annotations

from typing import Any

import torch

from trainkit.errors import ConfigError
from trainkit.evaluator.metric import BaseMetric, label_of


class Accuracy(BaseMetric):
    """Share of samples whose label is right, in [0, 1], as ``accuracy``.

    Args:
        label_key: Where the labels ``(N,)`` stand in a batch that is a mapping; of a pair they are
            the second item.
        prefix: See :class:`BaseMetric`.

    Predictions are scores ``(N, C)``, of which the greatest counts, or labels ``(N,)``.
    """

    names = ("accuracy",)

    def __init__(self, label_key: str = "labels", prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.label_key = label_key

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """Count the right ones of a batch; the count stays on the device."""
        scores = data_samples
        if not isinstance(scores, torch.Tensor):
            raise ConfigError(
                f"Accuracy got predictions of type {type(scores).__name__}; expected a tensor (N, "
                "C) or (N,)."
            )
        predicted = scores.argmax(dim=1) if scores.dim() == 2 else scores
        labels = torch.as_tensor(label_of(data_batch, self.label_key)).to(predicted.device)
        if predicted.shape != labels.shape:
            raise ConfigError(
                f"Accuracy got predictions {tuple(scores.shape)} for labels {tuple(labels.shape)}."
            )
        self.results.append(((predicted == labels).sum(), len(labels)))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Add up the batches."""
        right = (
            sum(int(count) for count in torch.stack([count for count, _ in results]).tolist())
            if results
            else 0
        )
        total = sum(size for _, size in results)
        return {"accuracy": right / total if total else float("nan")}
