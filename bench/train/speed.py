"""Tokens per second of every way to train on the same pieces, in turns, beside a plain language model."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from turns import in_turns

from carnac.core.batch import Batch
from carnac.model.multimodal import MultimodalModel
from train.idefics2 import make_idefics2
from train.pinned import Size, make_ours, make_plain
from train.rows import Rows, dense_rows, draw_rows
from train.steps import Step, our_step, plain_step, their_step

PLAIN = "language model alone, dense rows"
PACKED, WHOLE_ROWS, PADDED = "carnac, packed", "carnac, packed, whole rows attended", "carnac, padded"
THEIRS_PACKED, THEIRS_PADDED = "transformers' Idefics2, packed", "transformers' Idefics2, padded"
# What is compared: as many times as fast.
COMPARED = (
    (PACKED, PLAIN),
    (WHOLE_ROWS, PLAIN),
    (THEIRS_PACKED, PLAIN),
    (PADDED, PLAIN),
    (THEIRS_PADDED, PLAIN),
    (PACKED, PADDED),
    (PACKED, THEIRS_PADDED),
    (PACKED, THEIRS_PACKED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to train on some batches once; `tokens` are those that are not padding."""

    run: Callable[[], float]
    tokens: int


def ways_of(size: Size, spread: float, batches: int) -> dict[str, Way]:
    """Return all ways to train on the same `batches` batches, and the plain model on as many of dense rows."""
    rows, ours = draw_rows(size, spread, batches), make_ours(size)
    packed, padded = [each.packed for each in rows], [each.padded for each in rows]
    tokens = sum(each.tokens for each in rows)
    dense = dense_rows(size, batches)
    plain = plain_step(make_plain(ours))
    masked = copy.deepcopy(ours)
    masked.language.set_attn_implementation("sdpa")
    found = {
        PLAIN: Way(run=lambda: statistics.fmean(plain(ids) for ids in dense), tokens=sum(ids.size for ids in dense))
    }
    for name, way, laid_out in (
        (PACKED, our_step(copy.deepcopy(ours)), packed),
        (WHOLE_ROWS, our_step(masked), packed),
        (PADDED, our_step(copy.deepcopy(ours)), padded),
        (THEIRS_PACKED, _theirs(ours, size, packed=True), packed),
        (THEIRS_PADDED, _theirs(ours, size, packed=False), padded),
    ):
        found[name] = Way(run=partial(_train, way, laid_out), tokens=tokens)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`rates`: tokens per CPU second of each way, round by round; `losses`: its mean loss the first time."""

    rates: dict[str, list[float]]
    losses: dict[str, float]


def measure(ways: Mapping[str, Way], rounds: int) -> Measured:
    """Time all ways in turns; one round before warms up."""
    losses: dict[str, float] = {}

    def run(name: str) -> None:
        loss = ways[name].run()
        losses.setdefault(name, loss)

    seconds = in_turns({name: partial(run, name) for name in ways}, rounds=rounds)
    rates = {name: [ways[name].tokens / time for time in times] for name, times in seconds.items()}
    return Measured(rates=rates, losses=losses)


def ratio(rates: Mapping[str, Sequence[float]], way: str, other: str) -> dict[str, float]:
    """Return how many times as fast a way is as another, round by round: median, quartiles, lowest and highest."""
    ratios = [mine / theirs for mine, theirs in zip(rates[way], rates[other], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return {
        "ratio": statistics.median(ratios),
        "quartile_low": low,
        "quartile_high": high,
        "lowest": min(ratios),
        "highest": max(ratios),
        "rounds": len(ratios),
    }


def line(what: str, facts: Mapping[str, float]) -> str:
    """Return a line of a report."""
    middle = f"{facts['quartile_low']:.3f} to {facts['quartile_high']:.3f}"
    return (
        f"{what:58} {facts['ratio']:6.3f} x   half within {middle}, all {facts['lowest']:.3f} to {facts['highest']:.3f}"
    )


def mean_fill(rows: Sequence[Rows], which: Callable[[Rows], Batch]) -> float:
    """Return the share of positions that are not padding, over all batches."""
    return sum(each.tokens for each in rows) / sum(which(each).segment.size for each in rows)


def _theirs(ours: MultimodalModel, size: Size, *, packed: bool) -> Step:
    return their_step(make_idefics2(ours, size), size.latents, packed=packed)


def _train(step: Step, batches: Sequence[Batch]) -> float:
    return statistics.fmean(step(batch) for batch in batches)
