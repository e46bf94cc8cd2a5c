"""Public names of MMEngine's classes are here too, or the migration page says they are not."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

import trainkit
from trainkit import data, evaluator, history, log_processor, message_hub, optim_wrapper, visualizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmengine.dataset
    import mmengine.evaluator
    import mmengine.hooks
    import mmengine.logging
    import mmengine.optim
    import mmengine.runner
    import mmengine.visualization

PAGE = Path(__file__).parents[2] / "docs" / "migration" / "mmengine.md"
PAIRS = [
    (mmengine.dataset.BaseDataset, data.BaseDataset),
    (mmengine.evaluator.Evaluator, evaluator.Evaluator),
    (mmengine.hooks.Hook, trainkit.Hook),
    (mmengine.logging.HistoryBuffer, history.HistoryBuffer),
    (mmengine.logging.MessageHub, message_hub.MessageHub),
    (mmengine.optim.OptimWrapperDict, optim_wrapper.OptimWrapperDict),
    (mmengine.runner.LogProcessor, log_processor.LogProcessor),
    (mmengine.visualization.LocalVisBackend, visualizer.LocalVisBackend),
    (mmengine.visualization.Visualizer, visualizer.Visualizer),
]


def left_out() -> dict[str, set[str]]:
    """Return the names that the page says are left out, by class."""
    section = PAGE.read_text(encoding="utf-8").partition("## Names left out\n")[2]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section.partition("\n## ")[0], re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", names)) for name, names in rows}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_the_migration_page_says_which_public_names_are_left_out(pair: tuple[Any, Any]) -> None:
    theirs, ours = ({name for name in dir(cls) if name[0] != "_"} for cls in pair)
    assert left_out().get(pair[0].__name__, set()) == theirs - ours
