"""Curves as a chart of characters, and as a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from trainkit.runner.schedule import Curve, Plan

_WIDTH, _HEIGHT = 60, 10  # in characters, without labels
_LINES = ("-", "--", ":", "-.")  # each with ten colours
_FORMATS = (".png", ".pdf", ".svg")
# The dots of a braille character, each a bit: rows from the top, with left and right.
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def draw(curve: Curve, length: int, unit: str, *, fine: bool) -> Iterator[str]:
    """Yield the lines of a chart; ``fine`` draws it with the dots of braille characters."""
    low, high = min(curve.values), max(curve.values)
    labels = [""] * _HEIGHT
    labels[0], labels[-1] = f"{high:.6g}", f"{low:.6g}"
    if low == high:
        labels[0] = ""
    margin = max(map(len, labels))
    tick, side, corner, line = "┤│└─" if fine else "||+-"
    for label, row in zip(labels, _cells(curve, length, fine), strict=True):
        yield f"{label:>{margin}} {tick if label else side}{row}".rstrip()
    yield f"{'':>{margin}} {corner}{line * _WIDTH}"
    ends = f"0{unit:^{_WIDTH - 1 - len(f'{length:,}')}}{length:,}"
    yield f"{'':>{margin}}  {ends}"


def _cells(curve: Curve, length: int, fine: bool) -> list[str]:
    """Return the rows of the chart; a value holds up to the next step."""
    across, down = (2, 4) if fine else (1, 1)
    low, high = min(curve.values), max(curve.values)
    top = _HEIGHT * down - 1
    scale = top / (high - low) if high > low else 0.0
    cells = [[0] * _WIDTH for _ in range(_HEIGHT)]
    for x, (least, most) in enumerate(_columns(curve, length, _WIDTH * across)):
        for y in range(round((least - low) * scale), round((most - low) * scale) + 1):
            bit = _BRAILLE[(top - y) % down][x % across]
            cells[(top - y) // down][x // across] |= bit
    glyphs = [[chr(0x2800 + bits) if fine else "*" for bits in row] for row in cells]
    return [
        "".join(glyph if bits else " " for glyph, bits in zip(*pair, strict=True))
        for pair in zip(glyphs, cells, strict=True)
    ]


def _columns(curve: Curve, length: int, width: int) -> Iterator[tuple[float, float]]:
    """Yield the least and the highest value in each of ``width`` parts of the run."""
    points = list(zip(curve.steps, curve.values, strict=True))
    held = points[0][1]
    index = 0
    for column in range(1, width + 1):
        seen = [held]
        while index < len(points) and points[index][0] * width < column * length:
            seen.append(points[index][1])
            index += 1
        held = seen[-1]
        yield min(seen), max(seen)


def check_picture(path: Path) -> None:
    """Raise unless a picture can be written to ``path``.

    Raises:
        ConfigError: An ending that is no format, or a place that cannot be written to.
        MissingExtra: Matplotlib is not installed.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--out is '{path}'; expected a name that ends in {', '.join(_FORMATS)}.")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra("matplotlib", "plot", "trainkit lr --out") from None
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(
            f"--out is '{path}', which cannot be written: {error.strerror}."
        ) from None
    if not existed:
        path.unlink()


def save_picture(path: Path, title: str, plans: Mapping[str, Plan]) -> None:
    """Draw each value in a panel of its own, the plans over each other, into ``path``."""
    from matplotlib.figure import Figure  # which by itself needs no display

    units = {plan.unit for plan in plans.values()}
    if len(units) > 1:
        raise ConfigError(
            "Some trials are told by epochs and some by iterations, which fit on no common axis. "
            "Draw them one by one."
        )
    names = list(dict.fromkeys(curve.name for plan in plans.values() for curve in plan.curves))
    figure = Figure(figsize=(8, 0.8 + 3.2 * len(names)), dpi=150, layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(title, 90)), fontsize=10, parse_math=False)
    panels = figure.subplots(len(names), squeeze=False)[:, 0]
    for name, panel in zip(names, panels, strict=True):
        for index, plan in enumerate(plans.values()):
            for curve in plan.curves:
                if curve.name == name:
                    _add(panel, curve, plan.length, index)
        _dress(panel, name, next(iter(plans.values())))
    if len(plans) > 1:
        _add_legend(figure, plans)
    try:
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(
            f"--out is '{path}', which cannot be written: {error.strerror}."
        ) from None


def _style(index: int) -> dict[str, Any]:
    return {"color": f"C{index % 10}", "linestyle": _LINES[index // 10 % len(_LINES)]}


def _add(panel: Any, curve: Curve, length: int, index: int) -> None:
    steps, values = [*curve.steps, length], [*curve.values, curve.values[-1]]
    panel.plot(steps, values, drawstyle="steps-post", **_style(index))


def _add_legend(figure: Any, labels: Iterable[str]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], label=label.replace("$", r"\$"), **_style(index))
        for index, label in enumerate(labels)
    ]
    figure.legend(handles=lines, loc="outside lower center", fontsize=8, frameon=False)


def _dress(panel: Any, name: str, plan: Plan) -> None:
    """Label the axes; a run by epochs that is told by iterations has its epochs on top."""
    from matplotlib.ticker import MaxNLocator

    panel.set_xlabel(plan.unit)
    panel.set_ylabel(name)
    panel.set_xlim(0, plan.length)
    panel.margins(y=0.06)
    panel.grid(alpha=0.3, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    panel.xaxis.set_major_formatter("{x:,.0f}")
    if plan.epoch_length:
        per_epoch = plan.epoch_length
        epochs = panel.secondary_xaxis(
            "top", functions=(lambda step: step / per_epoch, lambda epoch: epoch * per_epoch)
        )
        epochs.set_xlabel("epoch")
        epochs.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        epochs.tick_params(length=0)
        epochs.spines["top"].set_visible(False)
