"""A table on standard output: drawn on a terminal, plain aligned columns elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

_SHORT = 12  # characters of a cell that is not folded on a narrow terminal


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str] | None = None
) -> None:
    """Print rows under columns; a column in which all cells are empty is left out.

    Args:
        columns: The names of the columns.
        rows: A text for each column.
        styles: The style of rich for a cell that holds just that text.
    """
    clean = [[printable(cell) for cell in row] for row in rows]
    used = [index for index in range(len(columns)) if any(row[index] for row in clean)]
    names = [columns[index] for index in used]
    kept = [[row[index] for index in used] for row in clean]
    if sys.stdout.isatty():
        _draw(names, kept, styles or {})
        return
    widths = [max(map(len, column)) for column in zip(names, *kept, strict=True)]
    for row in (names, *kept):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def printable(text: str) -> str:
    """Return a text as one line that cannot steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _draw(names: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(names):
        width = max(len(name), *(len(row[index]) for row in rows))
        # What is short stays on one line; what is long gives way.
        table.add_column(name, overflow="fold", no_wrap=width <= _SHORT)
    for row in rows:
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    Console().print(table)
