"""Metrics rows -> a picture of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carnac.engine.storage import temporary_path

# Colours that stay apart in print and for the colour-blind (Okabe and Ito 2008).
BLUE, GREY = "#0072b2", "#9aa5b1"


def draw_loss(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "Training loss") -> None:
    """Write a PNG of 1,200 x 675 pixels: the loss of each step as points, the mean around each as a line.

    Steps without labels have no loss and are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kept = [row for row in rows if row["label_tokens"]]
    steps = np.array([row["step"] for row in kept], dtype=np.int64)
    losses = np.array([row["loss"] for row in kept], dtype=np.float64)
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(steps, losses, s=9, color=GREY, linewidths=0, label="each step")
    axes.plot(steps, smooth(losses), color=BLUE, linewidth=2, label="mean of the steps around")
    if len(losses):
        # The last value alone is noise: the number shown is the mean of the last twentieth.
        final = float(losses[-max(1, len(losses) // 20) :].mean())
        axes.annotate(
            f"{final:.2f}",
            (steps[-1], final),
            xytext=(0, 10),
            textcoords="offset points",
            color=BLUE,
            ha="right",
        )
    axes.set(title=title, xlabel="step", ylabel="cross entropy per text token (nats)")
    axes.grid(visible=True, color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    partial = temporary_path(path)
    canvas.print_png(partial)  # type: ignore[no-untyped-call] # matplotlib types no backends
    partial.replace(path)


def smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean around each value, over a fortieth of all on either side, where there are so many.

    Centred: a mean of the values before lies above a falling curve for as long as it falls.
    """
    places, reach = np.arange(len(values)), len(values) // 40
    starts, ends = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), dtype=np.float64)
