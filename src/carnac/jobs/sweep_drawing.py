"""What the runs of a sweep came to -> a picture: how many break, and each measure, run by run."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from carnac.jobs.sweep_outcomes import SAID, Outcome, label_of, runs_of
from carnac.jobs.sweep_recipe import Measure, SweepRecipe
from carnac.train.drawing import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES = (4.4, 3.6)  # of a panel
WIDE = 20.0  # values that span more are drawn on a logarithmic scale


def draw_sweep(outcomes: Sequence[Outcome], recipe: SweepRecipe) -> bytes:
    """Return a PNG: a panel of what breaks where there is an axis, and a panel for each measure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with_axis = recipe.axis is not None
    panels = int(with_axis) + len(recipe.measures)
    figure = Figure(figsize=(INCHES[0] * panels, INCHES[1]), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for number in range(panels):
        axes = figure.add_subplot(1, panels, number + 1)
        if with_axis and number == 0:
            _draw_broken(axes, outcomes, recipe)
        elif with_axis:
            _draw_over_axis(axes, outcomes, recipe.measures[number - 1], recipe)
        else:
            _draw_side_by_side(axes, outcomes, recipe.measures[number], recipe)
        axes.grid(visible=True, color="#e3e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    with warnings.catch_warnings():  # a label in letters that its font has not is drawn all the same
        warnings.simplefilter("ignore", UserWarning)
        canvas.print_png(out)  # type: ignore[no-untyped-call] # matplotlib types no backends
    return out.getvalue()


def _draw_broken(axes: Axes, outcomes: Sequence[Outcome], recipe: SweepRecipe) -> None:
    for colour, variant in zip(COLOURS, recipe.variants, strict=False):
        broken = [sum(run.is_broken for run in runs_of(outcomes, variant.name, value)) for value in recipe.values]
        axes.plot(_values(recipe), broken, color=colour, marker="o", linewidth=1.8, label=variant.name)
    axes.set(title="Runs that break", xlabel=_label(recipe), ylabel=f"of {recipe.num_seeds} runs")
    axes.set_ylim(-0.05 * recipe.num_seeds, 1.05 * recipe.num_seeds)
    _scale(axes, recipe)
    axes.legend(frameon=False)


def _draw_over_axis(axes: Axes, outcomes: Sequence[Outcome], measure: Measure, recipe: SweepRecipe) -> None:
    """Draw each run that trains as a dot and the medians as a line; what breaks is in the first panel."""
    for colour, variant in zip(COLOURS, recipe.variants, strict=False):
        line = []
        for value in _values(recipe):
            found = _found(outcomes, variant.name, value, measure)
            axes.plot([value] * len(found), found, color=colour, marker="o", markersize=3.5, alpha=0.5, linestyle="")
            line += [(value, float(np.median(found)))] if found else []
        axes.plot([at for at, _ in line], [median for _, median in line], color=colour, linewidth=1.8)
    axes.set(title=SAID[measure][0].capitalize(), xlabel=_label(recipe), ylabel="nats per token")
    _scale(axes, recipe)


def _draw_side_by_side(axes: Axes, outcomes: Sequence[Outcome], measure: Measure, recipe: SweepRecipe) -> None:
    """Draw the runs of each variant as dots with their mean as a bar, those of one seed joined by a line."""
    names = [variant.name for variant in recipe.variants]
    points = [{run.seed: run for run in runs_of(outcomes, name, None) if not run.is_broken} for name in names]
    for seed in sorted({seed for runs in points for seed in runs}):
        path = [(x, runs[seed].measures[measure]) for x, runs in enumerate(points) if _has(runs, seed, measure)]
        axes.plot([x for x, _ in path], [y for _, y in path], color="#9aa5b1", linewidth=0.8)
    for x, (colour, name) in enumerate(zip(COLOURS, names, strict=False)):
        found = _found(outcomes, name, None, measure)
        axes.plot([x] * len(found), found, color=colour, marker="o", markersize=4, linestyle="")
        if found:
            axes.plot([x - 0.15, x + 0.15], [float(np.mean(found))] * 2, color=colour, linewidth=2.5)
    axes.set(title=SAID[measure][0].capitalize(), ylabel="nats per token")
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)


def _has(runs: dict[int, Outcome], seed: int, measure: Measure) -> bool:
    return seed in runs and measure in runs[seed].measures


def _found(outcomes: Sequence[Outcome], variant: str, value: float | None, measure: Measure) -> list[float]:
    runs = runs_of(outcomes, variant, value)
    return [run.measures[measure] for run in runs if not run.is_broken and measure in run.measures]


def _values(recipe: SweepRecipe) -> tuple[float, ...]:
    return () if recipe.axis is None else recipe.axis.values


def _label(recipe: SweepRecipe) -> str:
    return label_of(recipe).replace("$", r"\$")  # no formula


def _scale(axes: Axes, recipe: SweepRecipe) -> None:
    values = _values(recipe)
    if values[0] > 0 and values[-1] > WIDE * values[0]:
        axes.set_xscale("log")
