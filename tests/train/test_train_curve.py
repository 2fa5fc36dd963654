"""Numbers of a run as arrays, and their drawings: every field, old and new, whole lines and cut ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from carnac.train.drawing import COLOURS, MAX_POINTS, Panel, thinned
from carnac.train.metrics import GroundingRecord, MetricsFile, SourceRecord, StepRecord
from carnac.train.panels import draw_panels
from carnac.train.series import Series, read_series, series_of

OLD_FIELDS = ("step", "loss", "learning_rate", "gradient_norm", "label_tokens", "tokens", "images", "pieces")


def record(step: int, **changes: Any) -> StepRecord:
    """A step of a mixture of two sources, one of them without labels in every third step."""
    web = SourceRecord(loss=4.0 - step / 50, label_tokens=60, tokens=80, images=1)
    pairs = SourceRecord(
        loss=None if step % 3 == 0 else 6.0, label_tokens=0 if step % 3 == 0 else 30, tokens=40, images=2
    )
    told: dict[str, Any] = {
        "step": step,
        "loss": 5.0 - step / 50,
        "learning_rate": 1e-3,
        "gradient_norm": 1.0 + step % 2,
        "label_tokens": 90,
        "tokens": 120,
        "images": 3,
        "pieces": 4,
        "seconds": 0.5,
        "waiting_seconds": 0.05,
        "z_loss": 0.01,
        "rows": 2,
        "sources": {"web": web, "pairs": pairs},
        "flops": 1e9,
        "mfu": 0.3,
        "grounding": GroundingRecord(right=3.0, other=3.0 + step / 100, label_tokens=40) if step % 10 == 0 else None,
        "evaluation": {"heldout_loss": 4.0, "accuracy": step / 100} if step % 20 == 19 else None,
    }
    return StepRecord(**(told | changes))


def rows(steps: int, **changes: Any) -> list[dict[str, Any]]:
    return [json.loads(record(step, **changes).to_json()) for step in range(steps)]


def drawn(*stages: Series, clip_norm: float | None = None) -> dict[str, Panel]:
    return {panel.name: panel for panel in draw_panels(stages, clip_norm=clip_norm)}


# -- arrays


def test_what_was_written_is_read_as_arrays_with_gaps_where_a_step_has_no_such_number(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        for step in range(25):
            metrics.append(record(step))
    series = read_series(path)
    assert series.steps.tolist() == list(range(25))
    assert series.there("loss")[1].tolist() == [5.0 - step / 50 for step in range(25)]
    assert series.there("grounding", "other")[0].tolist() == [0, 10, 20]
    assert series.there("evaluation", "accuracy")[1].tolist() == [0.19]
    assert series.below("sources") == ["web", "pairs"]
    assert series.below("evaluation") == ["heldout_loss", "accuracy"]
    assert len(series.whole("grounding", "right")) == len(series.whole("what", "nobody", "wrote")) == 25


def test_steps_without_labels_have_no_loss() -> None:
    series = series_of(rows(9))
    assert series.losses("sources", "pairs")[0].tolist() == [1, 2, 4, 5, 7, 8]
    assert set(series.losses("sources", "pairs")[1].tolist()) == {6.0}
    silent = series_of([*rows(2), *(dict(row, label_tokens=0, loss=0.0) for row in rows(1))])
    assert len(silent.losses()[0]) == 2
    assert len(silent) == 3


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"[1]",
        b'{"step": 1}',
        b'{"loss": 1.0}',
        b'{"step": 1, "loss": "low"}',
        b"\xff\x00",
        b'{"step":',
    ],
)
def test_a_damaged_line_costs_itself(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = [record(step).to_json().encode() for step in range(4)]
    path.write_bytes(b"\n".join([*whole[:2], line, *whole[2:]]) + b"\n")
    assert read_series(path).steps.tolist() == [0, 1, 2, 3]
    path.write_bytes(b"\n".join([*whole, line]))
    assert read_series(path).steps.tolist() == [0, 1, 2, 3]


def test_a_missing_file_has_no_steps(tmp_path: Path) -> None:
    series = read_series(tmp_path / "metrics.jsonl")
    assert len(series) == 0
    assert series.losses()[0].tolist() == []
    assert draw_panels([series]) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(st.dictionaries(st.sampled_from(["loss", "seconds", "sources", "x"]), JSON, max_size=4), max_size=6))
def test_whatever_lines_hold_each_column_is_as_long_as_the_steps(lines: list[dict[str, Any]]) -> None:
    series = series_of([{**line, "step": step} for step, line in enumerate(lines)])
    assert len(series) == len(lines)
    assert {len(values) for values in series.values.values()} <= {len(lines)}
    for name, values in series.values.items():
        for step, value in enumerate(values):
            found: Any = lines[step]
            for key in name:
                found = found.get(key) if isinstance(found, dict) else None
            is_number = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 2**63
            is_infinite = isinstance(found, float) and not np.isfinite(found)
            assert (value == found) if is_number else (is_infinite or np.isnan(value) or value == found)


# -- drawings


def test_a_run_of_today_has_all_drawings_and_one_of_before_those_of_its_fields() -> None:
    today = drawn(series_of(rows(40)))
    assert list(today) == [
        "loss",
        "sources",
        "grounding",
        "evaluation.heldout",
        "evaluation.accuracy",
        "learning_rate",
        "gradient_norm",
        "z_loss",
        "tokens",
        "waiting_seconds",
        "mfu",
    ]
    kept = (*OLD_FIELDS, "seconds", "waiting_seconds")
    before = drawn(series_of([{name: row[name] for name in kept} for row in rows(40)]))
    assert list(before) == ["loss", "learning_rate", "gradient_norm", "tokens", "waiting_seconds"]


def test_what_nobody_asked_for_is_not_drawn() -> None:
    """No z-loss, a device whose peak is not known, one source: nothing to compare."""
    plain = rows(12, z_loss=0.0, mfu=None, sources={"web": SourceRecord(loss=1.0, label_tokens=1, tokens=1, images=0)})
    assert not {"z_loss", "mfu", "sources"} & set(drawn(series_of(plain)))


def test_each_drawing_is_one_whole_svg_that_needs_nothing() -> None:
    for panel in draw_panels([series_of(rows(30))], clip_norm=1.0):
        text = panel.svg.decode()
        assert text.rstrip().endswith("</svg>")
        assert "<text" not in text  # letters are outlines: no font is needed
        tree = LexborHTMLParser(text)
        assert not tree.css("script, image, foreignObject")
        links = [link.attributes["xlink:href"] or "" for link in tree.css("use")]
        assert links
        assert all(link.startswith("#") for link in links)


def test_the_same_numbers_give_the_same_bytes() -> None:
    first, second = (draw_panels([series_of(rows(30))]) for _ in range(2))
    assert first == second


def test_names_that_a_user_chose_are_handed_back_not_drawn() -> None:
    """Matplotlib reads `$` as a formula, and hides what begins with `_`."""
    names = ["_hidden", "$\\frac{1$", "<b>"]
    source = SourceRecord(loss=2.0, label_tokens=5, tokens=9, images=0)
    series = series_of(rows(5, sources=dict.fromkeys(names, source), evaluation={"$x$": 1.0}))
    panels = drawn(series)
    assert [label for _, label in panels["sources"].legend] == names
    assert panels["evaluation.$x$"].title == "Evaluation: $x$"
    assert len({colour for colour, _ in panels["sources"].legend}) == 3


def test_of_many_sources_those_with_most_labels_are_drawn() -> None:
    sources = {
        f"source{number:02}": SourceRecord(loss=2.0, label_tokens=number, tokens=9, images=0) for number in range(12)
    }
    panel = drawn(series_of(rows(5, sources=sources)))["sources"]
    assert [label for _, label in panel.legend] == [f"source{number:02}" for number in range(11, 11 - len(COLOURS), -1)]


def test_stages_stand_one_after_the_other_and_are_numbered() -> None:
    one, two = series_of(rows(30)), series_of(rows(20))
    alone, both = drawn(one), drawn(one, series_of([]), two)
    assert list(both) == list(alone)
    # A dotted line for each stage; the axis of a single stage has none.
    assert (alone["loss"].svg.count(b"stroke-dasharray"), both["loss"].svg.count(b"stroke-dasharray")) == (0, 2)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_are_drawn(steps: int) -> None:
    assert "loss" in drawn(series_of(rows(steps)))


def test_numbers_that_are_none_and_zeros_spoil_no_drawing() -> None:
    odd = rows(6)
    odd[1]["loss"], odd[2]["loss"] = float("nan"), float("inf")
    odd[3]["gradient_norm"], odd[4]["seconds"] = 0.0, 0.0
    for row in odd:
        row["evaluation"] = {"loss": float("nan")}
    panels = drawn(series_of(odd), clip_norm=1.0)
    assert {"loss", "gradient_norm", "tokens"} <= set(panels)
    assert not {name for name in panels if name.startswith("evaluation")}
    assert b"nan" not in panels["loss"].svg
    flat = [{**row, "gradient_norm": 0.0, "label_tokens": 0} for row in rows(3)]
    assert not {"loss", "gradient_norm"} & set(drawn(series_of(flat)))


@pytest.mark.parametrize(("last", "is_straight"), [(0.01, True), (0.5, False)])
def test_a_loss_that_falls_to_a_twentieth_is_drawn_on_a_logarithmic_scale(last: float, is_straight: bool) -> None:
    losses = np.geomspace(6.0, last, 400)
    stage = series_of([row | {"loss": float(losses[row["step"]])} for row in rows(400)])
    paths = re.findall(rb'<path d="(M [^"Z]*)"', drawn(stage)["loss"].svg)
    points = np.array(re.findall(rb"([\d.]+) ([\d.]+)", max(paths, key=len)), dtype=float)
    first, middle, end = points[0, 1], np.interp(points[[0, -1], 0].mean(), points[:, 0], points[:, 1]), points[-1, 1]
    # An exponential fall is a straight line there, and far below one on an even scale.
    assert (abs(middle - (first + end) / 2) < 0.03 * abs(end - first)) == is_straight


@given(st.integers(1, 20_000), st.integers(0, 19_999))
def test_a_long_curve_is_thinned_and_keeps_its_ends_and_its_peaks(length: int, peak: int) -> None:
    values = np.sin(np.arange(length))
    values[peak % length] = 99.0
    steps, kept = thinned(np.arange(length), values)
    assert len(steps) == len(kept) <= max(MAX_POINTS + 2, 1)
    assert steps[0] == 0
    assert steps[-1] == length - 1
    assert (np.diff(steps) > 0).all()
    assert kept.max() == 99.0
    assert (values[steps] == kept).all()
    if length <= MAX_POINTS:
        assert len(steps) == length


def test_the_drawing_of_a_long_run_is_no_larger_than_that_of_a_short_one() -> None:
    short, long = (drawn(series_of(rows(steps)))["loss"] for steps in (700, 4000))
    assert len(long.svg) < 1.3 * len(short.svg)
