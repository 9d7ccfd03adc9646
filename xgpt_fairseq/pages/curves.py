"""Training curves: losses by objective, validation scores and the learning rate over updates, drawn by matplotlib."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_write
from xgpt_fairseq.pages.fonts import fonts_for
from xgpt_fairseq.pages.panels import PANELS, Curve, Panel
from xgpt_fairseq.pages.stages import StageAxis
from xgpt_fairseq.pages.training_log import TrainingLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D
    from matplotlib.typing import LineStyleType

FORMATS = (".png", ".svg", ".pdf")
Layout = Literal["columns", "stages", "overlay"]
Place = Callable[[int], float]
"""Number of updates → its place on the horizontal axis."""

# Okabe and Ito's colours for any colour vision, without the yellow, which is faint on white. Dashes and markers also
# distinguish the curves, for prints without colours.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[LineStyleType, ...] = (
    "-",
    (0, (6, 1.5)),
    (0, (1.5, 1)),
    (0, (6, 1, 1.5, 1)),
    (0, (9, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 2)),
)
_MARKERS = ("o", "s", "^", "D")
_GREY = "0.4"

# Names with a fixed colour in every figure; the others get the remaining colours.
_KNOWN = ("IC", "IMLM", "IDA", "TIFG", "MLM", "MASS")

_NOT_IN_PROPORTION = "updates (short stages are drawn wider)"
_CAPTIONS = 6  # of an image
_LONGEST = 110  # letters of a caption

_MARKED = 40  # a curve of more validations is a line without markers
_SHORT_STAGE = 0.25  # of the axis; names of shorter stages take two lines, so as not to overlap


def check_output(path: Path) -> None:
    """Check that the suffix of *path* names one of `FORMATS`, and that they can be drawn.

    Raises:
        DataError: it does not, or matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: curves are drawn as {', '.join(FORMATS)}; the file name must end in one of these")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise DataError('drawing curves needs matplotlib: pip install "xgpt-fairseq[report]"') from None


def write_figure(figure: Figure, path: Path) -> None:
    """Write *figure* to *path*, atomically, in the format of its suffix."""
    with atomic_write(path) as aside:
        figure.savefig(aside, format=path.suffix.lower()[1:], dpi=150)


def draw_curves(
    logs: Mapping[str, TrainingLog], layout: Layout = "columns", *, images: int = 1, at: Sequence[int] | None = None
) -> Figure:
    """Draw those of `PANELS` for which any log has values, and below them captions of validation, if a log has some.

    Args:
        logs: name → log, in the order of drawing; at least one.
        layout: "columns": one column of panels per log, with the same vertical axes; "stages": one set of panels, in
            which each log begins at the update where the previous one ended, and short ones are drawn wider; "overlay":
            one set of panels with all logs from update 0, each in its own colour.
        images: of how many images the captions are shown, of each log. Captions with a character that no installed
            font has are left out.
        at: at which updates; each shows the last validation until then. None: at some, from the first to the last.

    Raises:
        DataError: the logs have nothing to draw, or there are more logs than colours for an overlay.
    """
    panels = [panel for panel in PANELS if any(panel.curves(log) for log in logs.values())]
    if not panels:
        files = ", ".join(str(log.path) for log in logs.values())
        raise DataError(f"{files}: no loss, score or learning rate among the values")
    if layout == "overlay" and len(logs) > len(_COLOURS):
        raise DataError(f"{len(logs)} logs: an overlay has colours for at most {len(_COLOURS)}")

    if layout == "columns" and len(logs) > 1:
        figure, host = _with_captions(1 + 4.2 * len(logs), 0.5 + 2.3 * len(panels), logs, images, at)
        grid = host.subplots(len(panels), len(logs), sharex="col", sharey="row", squeeze=False)
        for row, panel in zip(grid, panels, strict=True):
            for axes, (name, log) in zip(row, logs.items(), strict=True):
                _draw(axes, panel, {name: log}, layout)
            row[0].set_ylabel("\n".join(filter(None, (panel.title, panel.units_of(logs.values())))))
        for axes, name in zip(grid[0], logs, strict=True):
            axes.set_title(_literal(name), fontsize=12, fontweight="bold")
        for axes in grid[-1]:
            axes.set_xlabel("updates")
        return figure

    rows = math.ceil(len(panels) / 2)
    figure, host = _with_captions(13, 0.6 + 2.9 * rows, logs, images, at)
    grid = host.subplots(rows, 2, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, logs, layout)
        axes.set_title(panel.title, fontsize=11, loc="left", pad=30 if layout == "stages" else None)
        axes.set_ylabel(panel.units_of(logs.values()))
        axes.set_xlabel("updates" if layout != "stages" or _axis(logs).in_proportion else _NOT_IN_PROPORTION)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if layout == "overlay":
        from matplotlib.lines import Line2D

        lines = [Line2D([], [], color=colour, linewidth=3) for colour in _COLOURS[: len(logs)]]
        host.legend(lines, [_literal(name) for name in logs], loc="outside upper center", ncols=4, frameon=False)
    elif layout == "columns":
        host.suptitle(_literal(next(iter(logs))), fontsize=12, fontweight="bold")
    return figure


def _draw(axes: Axes, panel: Panel, logs: Mapping[str, TrainingLog], layout: Layout) -> None:
    """Draw the curves of *panel* for all *logs*, their legend and, for stages, the boundaries."""
    styles = _styles([curve.what for log in logs.values() for curve in panel.curves(log)])
    legend: dict[str, Line2D] = {}
    stages = _axis(logs) if layout == "stages" else None
    for number, log in enumerate(logs.values()):

        def place(update: int, number: int = number) -> float:
            return update if stages is None else stages.place(number, update)

        for curve in panel.curves(log):
            colour, dashes = styles[curve.what]
            if layout == "overlay":
                colour = _COLOURS[number]
            line = _line(axes, curve, log, place=place, colour=colour, dashes=dashes)
            legend.setdefault(_label(curve, log), line)
            if panel.best:
                _mark_best(axes, curve, place=place, colour=colour)
    if stages is not None:
        _mark_stages(axes, list(logs), stages)
    longest = max(log.last_update for log in logs.values()) if stages is None else stages.starts[-1]
    axes.set_xlim(0, longest * 1.03)
    _dress(axes)
    if stages is not None and not stages.in_proportion:
        places, labels = zip(*stages.ticks(), strict=True)
        axes.set_xticks(places, labels)
    if not legend:
        axes.text(0.5, 0.5, "not in this log", transform=axes.transAxes, ha="center", va="center", color=_GREY)
    elif list(legend) != [panel.title]:
        drawn = axes.legend(list(legend.values()), list(legend), frameon=False, fontsize=9, handlelength=3.5)
        if layout == "overlay":  # colours distinguish logs, so dashes and markers distinguish curves
            for handle in drawn.get_lines():
                handle.set_color(_GREY)


def _line(axes: Axes, curve: Curve, log: TrainingLog, *, place: Place, colour: str, dashes: LineStyleType) -> Line2D:
    marker = ""
    if curve.subset is not None and len(curve.series) <= _MARKED:
        marker = _MARKERS[list(log.valid).index(curve.subset) % len(_MARKERS)]
    (line,) = axes.plot(
        [place(update) for update in curve.series], list(curve.series.values()),
        color=colour, linestyle=dashes, linewidth=1.5, marker=marker, markersize=4,
    )  # fmt: skip
    return line


def _mark_best(axes: Axes, curve: Curve, *, place: Place, colour: str) -> None:
    finite = {update: value for update, value in curve.series.items() if math.isfinite(value)}
    if finite:
        best = max(finite, key=lambda update: finite[update])
        axes.plot([place(best)], [finite[best]], color=colour, marker="*", markersize=11)
        axes.annotate(
            f"{finite[best]:.1f}", (place(best), finite[best]), (0, 6), textcoords="offset points",
            ha="center", color=colour, fontsize=9,
        )  # fmt: skip


def _axis(logs: Mapping[str, TrainingLog]) -> StageAxis:
    return StageAxis.of([log.last_update for log in logs.values()])


def _mark_stages(axes: Axes, names: list[str], stages: StageAxis) -> None:
    """Mark boundaries and names of stages."""
    starts = stages.starts
    for boundary in starts[1:-1]:
        axes.axvline(boundary, color=_GREY, linewidth=0.8, linestyle=":")
    shortest = min(end - start for start, end in itertools.pairwise(starts))
    lines = 2 if shortest < _SHORT_STAGE * starts[-1] else 1
    for number, (name, (start, end)) in enumerate(zip(names, itertools.pairwise(starts), strict=True)):
        axes.annotate(
            _literal(name), ((start + end) / 2, 1), (0, 3 + 12 * (number % lines)),
            xycoords=axes.get_xaxis_transform(), textcoords="offset points", ha="center", fontsize=9, color=_GREY,
        )  # fmt: skip


def _with_captions(
    width: float, height: float, logs: Mapping[str, TrainingLog], images: int, at: Sequence[int] | None
) -> tuple[Figure, Figure | SubFigure]:
    """A figure whose panels take so much room, in inches, and the part of it for them: captions stand below."""
    from matplotlib.figure import Figure  # without pyplot, which needs a window system and keeps figures

    fonts, lacking = fonts_for("\n".join(caption_lines(logs, images, at)))
    lines = list(caption_lines(logs, images, at, without=lacking))
    if not lines:
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure
    below = 0.25 + 0.19 * len(lines)
    figure = Figure(figsize=(width, height + below), layout="constrained")
    host, text = figure.subfigures(2, 1, height_ratios=[height, below], squeeze=False)[:, 0]
    shown = "\n".join(_literal(line) for line in lines)
    text.text(0.02, 1 - 0.1 / below, shown, va="top", ha="left", fontsize=9, linespacing=1.35, family=fonts)
    return figure, host


def caption_lines(
    logs: Mapping[str, TrainingLog],
    images: int,
    at: Sequence[int] | None,
    *,
    without: frozenset[str] = frozenset(),
) -> Iterator[str]:
    """What stands below the curves: for each log and image a heading, and a line per chosen validation.

    Lines with a character of *without* are left out, and with the heading its captions.
    """
    for name, log in logs.items():
        for subset, of_images in log.captions.items():
            for image, said in itertools.islice(of_images.items(), images):
                lines = []
                for update in _chosen(list(said), at):
                    text = said[update] or "(empty)"
                    lines.append(f"    {update:,}:  {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}")
                heading = f"{name}, image {image} of {subset}, after so many updates:"
                lines = [line for line in lines if without.isdisjoint(line)]
                if lines and without.isdisjoint(heading):
                    yield from [heading, *lines]


def _chosen(updates: list[int], at: Sequence[int] | None) -> list[int]:
    """Those of *updates* to show."""
    if at is not None:
        reached = [max((update for update in updates if update <= wanted), default=None) for wanted in at]
        return list(dict.fromkeys(update for update in reached if update is not None))
    if len(updates) <= _CAPTIONS:
        return updates
    return [updates[round(number * (len(updates) - 1) / (_CAPTIONS - 1))] for number in range(_CAPTIONS)]


def _dress(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(lambda updates, _: f"{updates:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # no "× 10⁻⁴" at the place of the stages' names
    axes.tick_params(labelsize=9)


def _styles(names: list[str]) -> dict[str, tuple[str, LineStyleType]]:
    """Colour and dashes for each of *names*: fixed for known names, the next free ones for others."""
    known = [name for name in _KNOWN if name in names]
    places = {name: _KNOWN.index(name) for name in known}
    free = [place for place in range(len(_COLOURS)) if place not in places.values()] or [0]
    others = [name for name in dict.fromkeys(names) if name not in known]
    places |= {name: free[number % len(free)] for number, name in enumerate(others)}
    return {name: (_COLOURS[place], _DASHES[place]) for name, place in places.items()}


def _label(curve: Curve, log: TrainingLog) -> str:
    return curve.what if curve.subset is None or len(log.valid) == 1 else f"{curve.what}, {curve.subset}"


def _literal(name: str) -> str:
    """Escape *name* for matplotlib, which would parse formulas between dollar signs."""
    return name.replace("$", r"\$")
