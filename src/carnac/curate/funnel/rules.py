"""What a rule looks at, and what it says of each value, for drawing it: what `curate.rules` judges by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.curate.funnel.axis import Axis
from carnac.curate.rules import DROPS, is_known, meant_by, outside_of, values_of
from carnac.curate.settings import Rule, Side
from carnac.curate.signals.frame import Frame

Truths = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One threshold of a rule: the side, where it lies, and the reason it gives."""

    side: Side
    at: float
    reason: str

    def drops(self, values: Values) -> Truths:
        """Return which values it drops; none that is NaN."""
        return DROPS[self.side](values, self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a rule looked at: `judged` says at which blocks or documents, `fails` which of those it drops.

    One of `values` (NaN where not known) and `labels` is set.
    """

    judged: Truths
    fails: Truths
    is_known: Truths
    values: Values | None
    labels: pa.Array | None


def bounds_of(rule: Rule) -> list[Bound]:
    """Return the thresholds of a rule, lower before upper; none of a rule on words."""
    small, large, _ = rule.reasons()
    reasons = {"min": small, "above": small, "max": large, "below": large}
    return [Bound(side=side, at=at, reason=reasons[side] or "") for side, at in rule.sides().items()]


def axis_of(rule: Rule) -> Axis:
    """Return the axis on which the values of a rule are counted."""
    return Axis.of(rule.known(), [bound.at for bound in bounds_of(rule)])


def look(frame: Frame, rule: Rule, alive: Truths) -> Looked:
    """Return what a rule looks at of what is `alive` (bool, per block or per document as its level says)."""
    values, of_blocks = values_of(frame, [rule]), None if rule.on == "document" else frame
    if of_blocks is not None:
        alive = alive & (frame.is_image if rule.on == "image" else ~frame.is_image)
    judged = meant_by(rule, values, alive, of_blocks)
    if of_blocks is not None and rule.known().needs_file:
        judged = judged & frame.flags("block_has_image")
    value = values[rule.signal]
    fails = np.zeros(len(judged), np.bool_)
    for outside in outside_of(value, rule):
        fails |= False if outside is None else outside
    known, is_label = is_known(value), rule.known().is_label
    return Looked(
        judged=judged,
        fails=judged & fails,
        is_known=known,
        values=None if is_label else value,
        labels=value if is_label else None,
    )
