"""Which answers are taken for which: counts by kind of question, and their picture."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ELSE = "(other)"  # an answer that no question of the kind has
MIN_ANSWERS, MAX_ANSWERS = 2, 20  # of a kind that is drawn: one is no confusion, more cannot be read
MAX_PANELS = 6
INCHES = 3.4  # of a panel's side


def confusions(triples: Sequence[tuple[str, str, str]]) -> dict[str, dict[str, Any]]:
    """Return by kind {answers, said, counts} of (kind, reference, answer), plain; the kind with most questions first.

    `counts[i][j]`: so often reference `answers[i]` was answered with `said[j]`; the last column is `ELSE`. Kinds of one
    answer, and of more than fit into a picture, are left out.
    """
    sizes = Counter(kind for kind, _, _ in triples)
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted(sizes, key=lambda one: (-sizes[one], one)):
        pairs = Counter((reference, answer) for one, reference, answer in triples if one == kind)
        answers = sorted({reference for reference, _ in pairs})
        if not MIN_ANSWERS <= len(answers) <= MAX_ANSWERS:
            continue
        columns = {answer: place for place, answer in enumerate(answers)}
        counts = np.zeros((len(answers), len(answers) + 1), dtype=np.int64)
        for (reference, answer), number in pairs.items():
            counts[columns[reference], columns.get(answer, len(answers))] += number
        found[kind] = {"answers": answers, "said": [*answers, ELSE], "counts": counts.tolist()}
    return found


def draw_confusions(found: Mapping[str, Mapping[str, Any]], title: str) -> bytes:
    """Return a PNG: a square for each kind, references as rows, the model's answers as columns, shares as shades."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = list(found)[:MAX_PANELS]
    columns = min(3, max(1, len(kinds)))
    rows = max(1, -(-len(kinds) // columns))
    figure = Figure(figsize=(INCHES * columns, (INCHES + 0.4) * rows), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    for number, kind in enumerate(kinds):
        _panel(figure.add_subplot(rows, columns, number + 1), kind, found[kind])
    out = io.BytesIO()
    with warnings.catch_warnings():  # its font has no Chinese, and long names leave no room: it is drawn all the same
        warnings.simplefilter("ignore", UserWarning)
        canvas.print_png(out)  # type: ignore[no-untyped-call] # matplotlib types no backends
    return out.getvalue()


def _panel(axes: Any, kind: str, one: Mapping[str, Any]) -> None:
    counts = np.asarray(one["counts"], dtype=np.float64)
    said = list(one["said"])
    if not counts[:, -1].any():  # every answer was one of the kind's own
        counts, said = counts[:, :-1], said[:-1]
    shares = counts / np.maximum(1, np.asarray(one["counts"]).sum(1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(said)), [_short(answer) for answer in said], rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(one["answers"])), [_short(answer) for answer in one["answers"]], fontsize=7)
    axes.set_title(_short(kind, 40), fontsize=9)
    axes.set_xlabel("answered", fontsize=8)
    axes.set_ylabel("reference", fontsize=8)
    axes.tick_params(length=0)
    for row, column in np.argwhere(counts):
        shade = "white" if shares[row, column] > 0.5 else "#33404d"
        axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", fontsize=6, color=shade)


def _short(text: str, length: int = 14) -> str:
    # Matplotlib takes what stands between dollar signs for a formula.
    cut = text if len(text) <= length else f"{text[: length - 1]}~"
    return cut.replace("$", r"\$") or '""'
