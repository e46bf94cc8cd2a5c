"""A config that is checked: what the rules between its parts look at."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainkit.config.check import Node
from trainkit.config.origins import is_at_or_below
from trainkit.runner.sets import named_sets

_TRAINING = ("optim_wrapper.",)  # what only a run that trains makes, beside its loader


@dataclass(frozen=True)
class Config:
    """A resolved config, its nodes by path, and the Runner's arguments that win over it."""

    plain: Mapping[str, Any]
    nodes: Mapping[str, Node]
    given: Collection[str] = ()

    def below(self, path: str) -> Iterator[tuple[str, Node]]:
        """Yield the nodes at and below ``path``."""
        for key, node in self.nodes.items():
            if is_at_or_below(key, path):
                yield key, node

    def loader(self, split: str) -> tuple[str, Mapping[str, Any]]:
        """Return where the loader of a split stands, and its config; empty for an object."""
        if f"{split}_dataloader" in self.plain:
            path, loader = f"{split}_dataloader", self.plain[f"{split}_dataloader"]
        else:
            loaders = self.plain.get("dataloader")
            path = f"dataloader.{split}"
            loader = loaders.get(split) if isinstance(loaders, Mapping) else None
        return path, loader if isinstance(loader, Mapping) else {}

    def loaders(self, split: str) -> dict[str | None, tuple[str, Mapping[str, Any]]]:
        """Return the loaders of a split as :meth:`loader` does, by set; under None if it is one."""
        path, whole = self.loader(split)
        named = named_sets(whole)
        if named is None or split == "train":
            return {None: (path, whole)}
        return {
            name: (f"{path}.{name}", loader if isinstance(loader, Mapping) else {})
            for name, loader in named.items()
        }

    def evaluator(self, split: str) -> tuple[str, Any]:
        """Return where the evaluator of a split stands, and its config."""
        if f"{split}_evaluator" in self.plain:
            return f"{split}_evaluator", self.plain[f"{split}_evaluator"]
        whole = self.plain.get("evaluator")
        if isinstance(whole, Mapping) and "_target_" not in whole and split in whole:
            return f"evaluator.{split}", whole[split]
        return "evaluator", whole

    def uses(self, path: str) -> bool:
        """Whether what stands at ``path`` is used: it is not of a split that is switched off."""
        for split in ("train", "val", "test"):
            places = (f"dataloader.{split}.", f"{split}_dataloader.")
            if f"{path}.".startswith(places + (_TRAINING if split == "train" else ())):
                return self.plain.get(f"{split}_cfg") is not None
        return True

    @property
    def is_shortened(self) -> bool:
        """Whether the run is cut short on purpose, so that its horizon says nothing."""
        return bool(self.plain.get("fast_dev_run") or self.plain.get("overfit_batches"))
