"""Judge documents by thresholds on their signals.

In: stored signals as arrays and what is kept so far. Out: what is kept after a pass of rules, and what each of its
reasons would have taken by itself. No text and no image is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.document import KINDS
from carnac.curate.masks import IMAGE_MISSING, KEPT, NO_BLOCKS_LEFT, SIGNALS_FAILED, Masks, Reasons
from carnac.curate.settings import Rule, Side, Threshold
from carnac.curate.signals.catalogue import signals_on
from carnac.curate.signals.frame import Array, Frame
from carnac.curate.signals.signal import Level

Truths = npt.NDArray[np.bool_]
Values = Mapping[str, Array | pa.Array]  # of signals by name: float64, or words, one per block or document


# What each side of a threshold drops; NaN, what is not known, never.
DROPS: Mapping[Side, Callable[[Array, float], Truths]] = {
    "min": lambda values, at: values < at,
    "above": lambda values, at: values <= at,
    "max": lambda values, at: values > at,
    "below": lambda values, at: values >= at,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kills:
    """What a reason takes of what came to it, whatever other reasons of the pass say, in blocks or documents.

    `marginal` is what no other reason of the pass takes: what would be kept without this one.
    """

    own: int
    marginal: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What a pass of rules says: `kills` by reason, of blocks for rules on text and image, of documents otherwise."""

    masks: Masks
    kills: Mapping[str, Kills]


def judge_rules(frame: Frame, last: Masks, failed: Truths, rules: Sequence[Rule], reasons: Reasons) -> Judged:
    """Return what is kept after a pass of rules; `failed` (bool[d]) are documents that could not be measured.

    What is dropped stays dropped with its first reason, and nothing of a dropped document is judged again.
    """
    masks = last.drop_documents(failed, reasons.code(SIGNALS_FAILED))
    alive, is_image = masks.is_alive, frame.is_image
    on_text, on_image, on_document = ([rule for rule in rules if rule.on == on] for on in ("text", "image", "document"))
    fails = _failing(on_text, values_of(frame, on_text), alive & ~is_image, frame)
    fails |= _failing(on_image, values_of(frame, on_image), alive & is_image, frame)
    masks = masks.drop_coded_blocks(_first(fails, reasons, len(alive)))
    left = frame.with_kept(masks.keep_block)
    judged = judge_documents(values_of(left, on_document), masks, failed, on_document, reasons)
    return Judged(judged.masks, {**_kills(fails), **judged.kills})


def judge_documents(values: Values, last: Masks, failed: Truths, rules: Sequence[Rule], reasons: Reasons) -> Judged:
    """Return what is kept after rules on documents alone; `values` are those of their signals, one per document."""
    masks = last.drop_documents(failed, reasons.code(SIGNALS_FAILED)).drop_emptied(reasons.code(NO_BLOCKS_LEFT))
    fails = _failing(rules, values, masks.keep)
    masks = masks.drop_coded_documents(_first(fails, reasons, len(masks.reason)))
    return Judged(masks, _kills(fails))


def columns_read(rules: Sequence[Rule]) -> frozenset[str]:
    """Return the stored columns that rules need."""
    levels: tuple[Level, ...] = ("text", "image", "document")
    named = [signals_on(on)[name] for on in levels for name in signals_named([rule for rule in rules if rule.on == on])]
    return frozenset(column for signal in named for column in signal.columns)


def signals_named(rules: Sequence[Rule]) -> tuple[str, ...]:
    """Return the names of the signals that rules of one level name, each once, in their order."""
    return tuple(dict.fromkeys(each.signal for rule in rules for each in (rule, rule.when) if each is not None))


def values_of(frame: Frame, rules: Sequence[Rule]) -> Values:
    """Return the values of the signals that rules of one level name."""
    return {name: signals_on(rules[0].on)[name].value(frame) for name in signals_named(rules)}


def _failing(rules: Sequence[Rule], values: Values, alive: Truths, frame: Frame | None = None) -> dict[str, Truths]:
    """Return what each reason takes of what is alive, in the order in which they are tried.

    An image without a file goes where a rule asks for its file. `frame` is that of blocks, None for documents.
    """
    fails: dict[str, Truths] = {}
    for rule in rules:
        judged = meant_by(rule, values, alive, frame)
        if frame is not None and rule.known().needs_file:
            there = frame.flags("block_has_image")
            _add(fails, IMAGE_MISSING, judged & ~there)
            judged = judged & there
        for name, outside in zip(rule.reasons(), outside_of(values[rule.signal], rule), strict=True):
            if name is not None and outside is not None:
                _add(fails, name, judged & outside)
    return fails


def meant_by(rule: Rule, values: Values, alive: Truths, frame: Frame | None) -> Truths:
    """Return which of what is alive a rule looks at, by its `kinds` and `when`; `frame` is that of blocks, or None."""
    if frame is not None and rule.kinds is not None:
        alive = alive & np.isin(frame.kinds, [KINDS.index(kind) for kind in rule.kinds])
    return alive if rule.when is None else alive & _inside(values[rule.when.signal], rule.when)


def _add(fails: dict[str, Truths], name: str, which: Truths) -> None:
    fails[name] = fails[name] | which if name in fails else which


def _inside(value: Array | pa.Array, threshold: Threshold) -> Truths:
    """Return where a signal is known and inside a threshold."""
    inside = is_known(value)
    for outside in outside_of(value, threshold):
        inside = inside if outside is None else inside & ~outside
    return inside


def is_known(value: Array | pa.Array) -> Truths:
    """Return where a signal is known."""
    known: Truths = value.is_valid().to_numpy(zero_copy_only=False) if isinstance(value, pa.Array) else ~np.isnan(value)
    return known


def outside_of(value: Array | pa.Array, threshold: Threshold) -> tuple[Truths | None, Truths | None, Truths | None]:
    """Return where a signal is too small, too large, not one of the words; None where that side has no threshold."""
    if threshold.one_of is not None:
        known = pc.is_in(value, pa.array(threshold.one_of, pa.string()))
        other: Truths = pc.and_(pc.invert(known), pc.is_valid(value)).to_numpy(zero_copy_only=False)
        return None, None, other
    fails = {side: DROPS[side](value, at) for side, at in threshold.sides().items()}
    return fails.get("min", fails.get("above")), fails.get("max", fails.get("below")), None


def _first(fails: Mapping[str, Truths], reasons: Reasons, number: int) -> npt.NDArray[np.int16]:
    """Return the code of the first reason that takes each of `number` blocks or documents, `KEPT` where none does."""
    codes = np.full(number, KEPT, np.int16)
    for name, which in reversed(list(fails.items())):
        np.copyto(codes, np.int16(reasons.code(name)), where=which)
    return codes


def _kills(fails: Mapping[str, Truths]) -> dict[str, Kills]:
    how_many = np.zeros(len(next(iter(fails.values()), ())), np.uint16)
    for which in fails.values():
        how_many += which
    once = how_many == 1
    return {name: Kills(own=int(which.sum()), marginal=int((which & once).sum())) for name, which in fails.items()}
