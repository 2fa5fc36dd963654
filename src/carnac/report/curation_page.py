"""The funnel as one self-contained page: a waterfall, every rule with its histogram, and what lies at its thresholds.

Flow in: the steps of funnel.json. Flow out: HTML that loads nothing and runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from carnac import __version__
from carnac.report.curation import AMOUNTS, Steps, amount_words
from carnac.report.curation_drawing import HEIGHT, MARGIN, WIDTH, draw_histogram, draw_words, write_number
from carnac.report.template import render_template


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """One row of the waterfall: what a reason took of each amount, as (number, left edge, width) in per cent."""

    name: str
    is_pass: bool
    cells: tuple[tuple[str, float, float], ...]


def render_curation(steps: Steps, folder: str) -> str:
    """Return the page as HTML. Everything that came from the web is escaped."""
    return render_template(
        "curation.html.j2",
        version=__version__,
        folder=folder,
        tiles=_tiles(steps),
        waterfall=list(waterfall(steps)),
        passes=[_pass(step) for step in steps[1:]],
        width=WIDTH + MARGIN,
        height=HEIGHT,
    )


def _tiles(steps: Steps) -> list[tuple[str, str]]:
    """Return the figures at the top: what is kept, of how much."""
    first, last = steps[0]["kept"], steps[-1]["kept"]
    return [
        (
            f"{last[name]:,}",
            f"of {first[name]:,} {name.replace('_', ' ')} ({100 * last[name] / max(first[name], 1):.3g} %)",
        )
        for name in AMOUNTS
    ]


def waterfall(steps: Steps) -> Iterator[Fall]:
    """Yield the rows: what came in, what each reason took where it took it, what each pass left."""
    whole = {name: max(steps[0]["kept"][name], 1) for name in AMOUNTS}
    left = dict(steps[0]["kept"])
    for step in steps:
        for taken in step["taken"]:
            amount = taken["amount"]
            if any(amount.values()):
                left = {name: left[name] - amount[name] for name in AMOUNTS}
                cells = zip(AMOUNTS, amount_words(amount, sign="-"), strict=True)
                yield Fall(
                    name=taken["reason"],
                    is_pass=False,
                    cells=tuple(
                        (said, 100 * left[name] / whole[name], 100 * amount[name] / whole[name]) for name, said in cells
                    ),
                )
        left = dict(step["kept"])
        cells = zip(AMOUNTS, amount_words(left), strict=True)
        yield Fall(
            name=step["name"],
            is_pass=True,
            cells=tuple((said, 0, 100 * left[name] / whole[name]) for name, said in cells),
        )


def _pass(step: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": step["name"],
        "kind": step.get("kind", ""),
        "taken": [
            {
                "reason": taken["reason"],
                "cells": amount_words(taken["amount"]),
                "kills": ["" if taken.get(name) is None else f"{taken[name]:,}" for name in ("own", "marginal")],
                "samples": taken["samples"],
            }
            for taken in step["taken"]
        ],
        "rules": [_rule(rule) for rule in step.get("rules", ())],
    }


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    judged = sum(kept + dropped for _, kept, dropped in (*rule["bins"], *rule["words"]))
    dropped = sum(dropped for _, _, dropped in (*rule["bins"], *rule["words"]))
    return {
        **rule,
        "what": {"text": "text blocks", "image": "images", "document": "documents"}[rule["on"]],
        "judged": judged,
        "dropped": dropped,
        "drawing": draw_histogram(rule),
        "word_bars": draw_words(rule["words"]),
        "sides": [
            {
                "reason": bound["reason"],
                "groups": [
                    (title, [(_value(sample), sample) for sample in bound[group]])
                    for group, title in (("just_dropped", "just dropped"), ("just_kept", "just kept"))
                ],
            }
            for bound in rule["bounds"]
        ],
    }


def _value(sample: Mapping[str, Any]) -> str:
    return "" if sample["value"] is None else write_number(sample["value"])
