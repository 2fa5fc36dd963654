"""The rows of all runs -> what each came to, a table of kinds, and the sentences that follow from the numbers.

The same sentences whatever the numbers say: what breaks and where, and for each measure the difference to the first
variant with its interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from carnac.core.errors import InputError
from carnac.engine.manifest import PartEntry
from carnac.engine.tables import read_rows
from carnac.evaluate.bootstrap import Interval, paired_difference
from carnac.jobs.sweep_recipe import Measure, SweepRecipe

# What each measure is called; what it is, in nats per token.
SAID: Mapping[Measure, tuple[str, str]] = {
    "loss": ("training loss", "mean over the last tenth of the steps"),
    "heldout_loss": ("held-out loss", "mean over all labels of the held-out samples"),
    "image_gain": ("gain by its images", "loss after an image with those of other samples, less that with its own"),
    "earlier_change": (
        "change before an image",
        "how far the loss of a token before the first image moves when the images after it are exchanged",
    ),
    "earlier_gain": (
        "gain before an image",
        "what the images to come take off the loss of tokens before them, against those of other documents",
    ),
    "packed_change": (
        "change in packed rows",
        "how far the loss of a token that reads no image moves when the images of its row are exchanged",
    ),
}
LAST_SHARE = 10  # the loss of a run is that of its last tenth: one step's is noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to. A broken one has no measures to compare, but for its loss where that is finite."""

    variant: str
    value: float | None
    seed: int
    steps: int
    is_finite: bool
    is_broken: bool
    measures: Mapping[Measure, float]


Key = tuple[str, float | None, int]
Runs = tuple[str, float | None]  # those of a variant at a value


def outcomes_of(parts: Sequence[PartEntry], keys: Sequence[Key], broken_above: float | None) -> list[Outcome]:
    """Return the outcome of each part; `keys` names their variants, values and seeds in the same order."""
    return [outcome_of(list(read_rows(part.path)), key, broken_above) for part, key in zip(parts, keys, strict=True)]


def outcome_of(rows: Sequence[Mapping[str, Any]], key: Key, broken_above: float | None) -> Outcome:
    """Return what the rows of a run come to. Raises InputError for a run without a step."""
    if not rows:
        raise InputError(f"the run of {key[0]} with seed {key[2]} has no step; wanted at least one.")
    variant, value, seed = key
    last = rows[-1]
    is_finite = all(last[name] is not None for name in ("loss", "heldout_loss"))
    measures = dict(_measures(rows))
    loss = measures.get("loss", math.inf)
    return Outcome(
        variant=variant,
        value=value,
        seed=seed,
        steps=len(rows),
        is_finite=is_finite,
        is_broken=not is_finite or (broken_above is not None and loss > broken_above),
        measures=measures,
    )


def _measures(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Measure, float]]:
    last = rows[-1]
    if last["loss"] is not None:
        kept = rows[-max(1, len(rows) // LAST_SHARE) :]
        labels = sum(row["label_tokens"] for row in kept)
        yield "loss", sum(row["loss"] * row["label_tokens"] for row in kept) / max(1, labels)
    if last["heldout_loss"] is not None:
        yield "heldout_loss", last["heldout_loss"]
    if None not in (last["heldout_right_images"], last["heldout_shuffled_images"]):
        yield "image_gain", last["heldout_shuffled_images"] - last["heldout_right_images"]
    if None not in (last["earlier_change"], last["earlier_loss"], last["earlier_loss_other"]):
        yield "earlier_change", last["earlier_change"]
        yield "earlier_gain", last["earlier_loss_other"] - last["earlier_loss"]
    if last["packed_change"] is not None:
        yield "packed_change", last["packed_change"]


def summarise(outcomes: Sequence[Outcome], recipe: SweepRecipe) -> dict[str, Any]:
    """Return the content of `sweep.json`: the rule, the table, the differences, the verdict in sentences."""
    names = [variant.name for variant in recipe.variants]
    cells = [_cell(names[0], variant, value, outcomes, recipe) for variant in names for value in recipe.values]
    return {
        "rule": _rule(recipe),
        "axis": None if recipe.axis is None else {"key": recipe.axis.key, "label": label_of(recipe)},
        "variants": {variant.name: variant.changes for variant in recipe.variants},
        "measures": {name: ", ".join(SAID[name]) for name in recipe.measures},
        "table": cells,
        "shown": shown(cells, recipe),
        "verdict": [*_breaking(outcomes, recipe), *_differences(outcomes, recipe)],
    }


def label_of(recipe: SweepRecipe) -> str:
    """Return what figure and sentences call the axis."""
    return "" if recipe.axis is None else recipe.axis.label or recipe.axis.key


def runs_of(outcomes: Sequence[Outcome], variant: str, value: float | None) -> list[Outcome]:
    """Return the runs of a kind, by seed."""
    return [each for each in outcomes if (each.variant, each.value) == (variant, value)]


def _rule(recipe: SweepRecipe) -> str:
    bound = "" if recipe.broken_above is None else (
        f" or, over the last tenth of its steps, above {recipe.broken_above:g} nats per token"
    )  # fmt: skip
    return (
        f"A run is broken where its loss is not finite{bound}. Runs of one seed begin with the same random numbers and "
        "see the same batches. Differences are means over seeds, with 95 % intervals by a paired bootstrap over seeds; "
        "broken runs have none."
    )


def _cell(
    first: str, variant: str, value: float | None, outcomes: Sequence[Outcome], recipe: SweepRecipe
) -> dict[str, Any]:
    runs = runs_of(outcomes, variant, value)
    sound = [run for run in runs if not run.is_broken]
    measures = {}
    for name in recipe.measures:
        found = [run.measures[name] for run in sound if name in run.measures]
        if found:
            span = None if variant == first else difference(outcomes, name, (first, value), (variant, value))
            measures[name] = {
                "median": float(np.median(found)),
                "least": min(found),
                "most": max(found),
                "difference": None if span is None else [span.estimate, span.low, span.high],
            }
    return {
        "variant": variant,
        "value": value,
        "runs": len(runs),
        "broken": len(runs) - len(sound),
        "not_finite": sum(not run.is_finite for run in runs),
        "measures": measures,
    }


def shown(cells: Sequence[Mapping[str, Any]], recipe: SweepRecipe) -> dict[str, Any]:
    """Return the table in words: what breaks, and of the others each measure's median and range."""
    head = ["variant", *([] if recipe.axis is None else [label_of(recipe)]), "broken"]
    for name in recipe.measures:
        head += [SAID[name][0], "to the first"] if len(recipe.variants) > 1 else [SAID[name][0]]
    return {"head": head, "rows": [_row(cell, recipe) for cell in cells]}


def _row(cell: Mapping[str, Any], recipe: SweepRecipe) -> list[str]:
    pairs = [_texts(cell["measures"].get(name)) for name in recipe.measures]
    return [
        cell["variant"],
        *([] if recipe.axis is None else [f"{cell['value']:g}"]),
        f"{cell['broken']} of {cell['runs']}",
        *(text for pair in pairs for text in pair[: len(recipe.variants)]),
    ]


def _texts(found: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return a measure's median and range, and its difference to the first variant."""
    if found is None:
        return "", ""
    middle, span = f"{found['median']:.4g} ({found['least']:.4g} to {found['most']:.4g})", found["difference"]
    return middle, "" if span is None else f"{span[0]:+.4f} [{span[1]:+.4f}, {span[2]:+.4f}]"


def difference(outcomes: Sequence[Outcome], measure: Measure, first: Runs, second: Runs) -> Interval | None:
    """Return second - first over the seeds at which both are sound; None for fewer than two."""
    one, other = ({run.seed: run for run in runs_of(outcomes, *kind) if not run.is_broken} for kind in (first, second))
    seeds = [
        seed for seed in one if seed in other and measure in one[seed].measures and measure in other[seed].measures
    ]
    if len(seeds) < 2:
        return None
    sides = [np.array([runs[seed].measures[measure] for seed in seeds]) for runs in (one, other)]
    return paired_difference(sides[0], sides[1], np.ones(len(seeds)), seed=0)


def _breaking(outcomes: Sequence[Outcome], recipe: SweepRecipe) -> Iterator[str]:
    """Yield where each variant breaks, and how that differs from where the first does."""
    names, values = [variant.name for variant in recipe.variants], recipe.values
    broken = {
        name: [sum(run.is_broken for run in runs_of(outcomes, name, value)) for value in values] for name in names
    }
    for name in names:
        yield _breaks(name, broken[name], recipe)
    if recipe.axis is None:
        return
    held = {name: next((place for place, number in enumerate(broken[name]) if number), len(values)) for name in names}
    for name in names[1:]:
        if any(broken[names[0]]) or any(broken[name]):
            yield _holds(names[0], name, (held[names[0]], held[name]), recipe)


def _breaks(name: str, broken: Sequence[int], recipe: SweepRecipe) -> str:
    runs, label = recipe.num_seeds, label_of(recipe)
    if recipe.axis is None:
        return f"{name}: {broken[0]} of {runs} runs break."
    values = recipe.axis.values
    if not any(broken):
        return f"{name}: none of {runs} runs breaks at any {label} tried, {values[0]:g} to {values[-1]:g}."
    at = ", ".join(f"{value:g} ({number} of {runs})" for value, number in zip(values, broken, strict=True) if number)
    sound = next(place for place, number in enumerate(broken) if number)
    below = f"; up to {values[sound - 1]:g} every run trains" if sound else ""
    return f"{name}: runs break at {label} {at}{below}. In all {sum(broken)} of {runs * len(values)} break."


def _holds(first: str, second: str, held: tuple[int, int], recipe: SweepRecipe) -> str:
    """Say which of two variants trains to higher values; `held` counts the values from the least on that hold."""
    assert recipe.axis is not None
    values, label = recipe.axis.values, label_of(recipe)
    if held[0] == held[1]:
        return f"{second} begins to break where {first} does, among the values of {label} tried."
    (low, lower), (high, higher) = sorted(zip(held, (first, second), strict=True))
    reach = f"up to {values[high - 1]:g}"
    if not low:
        return f"Every run of {higher} trains {reach}; {lower} breaks at the least value tried, {values[0]:g}."
    ratio = values[high - 1] / values[low - 1]
    return (
        f"Every run of {higher} trains {reach}, of {lower} up to {values[low - 1]:g}: among the values tried, {higher} "
        f"stands {ratio:.3g} times the {label}."
    )


def _differences(outcomes: Sequence[Outcome], recipe: SweepRecipe) -> Iterator[str]:
    """Yield for each measure how each variant differs from the first: at the best value of each, and at the highest."""
    first, *others = [variant.name for variant in recipe.variants]
    one = _best(outcomes, first, recipe)
    for measure in recipe.measures:
        for name in others:
            other = _best(outcomes, name, recipe)
            if one is None or other is None:
                yield f"{SAID[measure][0]}: nothing to compare, {first if one is None else name} breaks everywhere."
                continue
            yield f"{_differs(outcomes, measure, one, other)}."
            highest = _highest(outcomes, (first, name), recipe)
            if highest is not None and (one[1], other[1]) != (highest, highest):
                found = _differs(outcomes, measure, (first, highest), (name, highest))
                yield f"At {highest:g}, the highest at which both train: {found}."


def _best(outcomes: Sequence[Outcome], variant: str, recipe: SweepRecipe) -> Runs | None:
    """Return the runs of a variant with the least median held-out loss; None where some break at every value."""
    medians = {}
    for value in recipe.values:
        runs = runs_of(outcomes, variant, value)
        if not any(run.is_broken for run in runs):
            medians[value] = float(np.median([run.measures["heldout_loss"] for run in runs]))
    return (variant, min(medians, key=lambda value: medians[value])) if medians else None


def _highest(outcomes: Sequence[Outcome], names: tuple[str, str], recipe: SweepRecipe) -> float | None:
    """Return the highest value at which no run of either variant breaks."""
    sound = [
        value
        for value in recipe.values
        if value is not None and not any(run.is_broken for name in names for run in runs_of(outcomes, name, value))
    ]
    return max(sound, default=None)


def _differs(outcomes: Sequence[Outcome], measure: Measure, first: Runs, second: Runs) -> str:
    text = f"{SAID[measure][0]} (nats per token): {_mean(outcomes, measure, first)}, "
    text += _mean(outcomes, measure, second)
    span = difference(outcomes, measure, first, second)
    if span is None:
        return f"{text}; too few runs for an interval"
    if span.excludes_zero:
        told = f"{second[0]} is {'higher' if span.estimate > 0 else 'lower'}"
    elif span.low == span.high == 0:
        told = "they are equal"
    else:
        told = "the interval holds zero, these runs tell no difference"
    return f"{text}; difference {span.estimate:+.4f} [{span.low:+.4f}, {span.high:+.4f}]: {told}"


def _mean(outcomes: Sequence[Outcome], measure: Measure, kind: Runs) -> str:
    found = [run.measures[measure] for run in runs_of(outcomes, *kind) if measure in run.measures]
    at = "" if kind[1] is None else f" at {kind[1]:g}"
    return f"{kind[0]} {np.mean(found):.4g}{at}" if found else f"{kind[0]} none{at}"
