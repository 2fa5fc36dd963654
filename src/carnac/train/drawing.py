"""Lines over steps -> one drawing for a page.

A drawing is an SVG with its letters as outlines: it needs no font and no other file. Words that a user chose (names of
sources and of evaluations) are not drawn but handed back, so that nothing in them is read as a formula.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carnac.train.curve import BLUE, GREY
from carnac.train.series import Floats, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that stay apart in print and for the colour-blind (Okabe and Ito 2008), without their yellow.
COLOURS = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
MAX_POINTS = 600  # of a line: twice as many as a panel has pixels across, at any length of a run
PALE, SOFT = "#9fc3cf", "#5b6875"

Curve = tuple[npt.NDArray[np.int64], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One drawing. `legend` has the colour and the name of each line, where there are several."""

    name: str
    title: str
    what: str
    svg: bytes
    is_wide: bool = False
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve per stage: with `raw` every step pale beneath it, with `has_marks` a dot at each measurement."""

    label: str
    curves: Sequence[Curve]
    raw: Sequence[Curve] = ()
    has_marks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is around the lines: `level` is drawn across."""

    name: str
    title: str
    what: str
    is_wide: bool = False
    is_log: bool = False
    is_from_0: bool = False
    level: float | None = None


def draw(frame: Frame, lines: Sequence[Line], stages: Sequence[Series]) -> Panel | None:
    """Return the drawing of lines over stages that follow one another; None where no line has a point."""
    lines = [line for line in lines if any(len(steps) for steps, _ in line.curves)]
    if not lines:
        return None
    coloured = list(zip(COLOURS, lines, strict=False))
    *starts, end = np.cumsum([0, *(int(stage.steps[-1]) + 1 for stage in stages)]).tolist()

    def fill(axes: Axes) -> None:
        if frame.is_log:
            axes.set_yscale("log")
        if frame.level is not None:
            axes.axhline(frame.level, color=GREY, linewidth=1)
        for number, start in enumerate(starts if len(starts) > 1 else (), start=1):
            _mark_stage(axes, number, start)
        for colour, line in coloured:
            for (steps, values), start in zip(line.raw, starts, strict=False):
                axes.plot(*thinned(steps + start, values), color=PALE, linewidth=0.8)
            for (steps, values), start in zip(line.curves, starts, strict=False):
                marker = "o" if line.has_marks or len(steps) == 1 else ""
                axes.plot(*thinned(steps + start, values), color=colour, linewidth=1.8, marker=marker, markersize=3.5)
        # The same steps in every drawing, also where something was measured in some of them only.
        axes.set_xlim(-0.02 * end, 1.02 * end)
        _set_ticks(axes, frame)

    return Panel(
        name=frame.name,
        title=frame.title,
        what=frame.what,
        svg=_svg(fill, (9.2, 3.0) if frame.is_wide else (4.5, 2.3)),
        is_wide=frame.is_wide,
        legend=tuple((colour, line.label) for colour, line in coloured) if len(lines) > 1 else (),
    )


def _set_ticks(axes: Axes, frame: Frame) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.xaxis.set_major_locator(MaxNLocator(10 if frame.is_wide else 5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: _step_text(step)))
    low, high = axes.get_ylim()
    if frame.is_from_0:
        axes.set_ylim(0, 1.05 * max(high, 1e-9))
    if frame.is_log:
        # Plain numbers, at 1, 2 and 5 too where there is room: a gradient's length seldom spans two powers of ten.
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 50 else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _step_text(step: float) -> str:
    return f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}"


def _mark_stage(axes: Axes, number: int, start: int) -> None:
    axes.axvline(start, color=GREY, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.annotate(
        f"{number}",
        (start, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -9),
        textcoords="offset points",
        color=SOFT,
        fontsize=8,
    )


def thinned(steps: npt.NDArray[Any], values: Floats) -> tuple[npt.NDArray[Any], Floats]:
    """Return a long curve as the least and the greatest value of each of `MAX_POINTS` / 2 stretches: peaks stay."""
    if len(steps) <= MAX_POINTS:
        return steps, values
    bounds = np.linspace(0, len(steps), MAX_POINTS // 2 + 1).astype(int)
    kept = {0, len(steps) - 1}
    for first, stop in itertools.pairwise(bounds):
        kept |= {first + int(values[first:stop].argmin()), first + int(values[first:stop].argmax())}
    chosen = np.array(sorted(kept))
    return steps[chosen], values[chosen]


def _svg(fill: Callable[[Axes], None], inches: tuple[float, float]) -> bytes:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    canvas = FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    fill(axes)
    axes.set_xlabel("step", color=SOFT, fontsize=8)
    axes.tick_params(colors=SOFT, labelsize=8)
    axes.grid(visible=True, color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#dde3ea")
    out = io.BytesIO()
    canvas.print_svg(out, metadata={"Date": None})  # type: ignore[no-untyped-call] # matplotlib types no backends
    return out.getvalue()
