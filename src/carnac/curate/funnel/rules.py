"""What a rule looks at, and what it says of each value, for drawing it: the same that `rules` judges by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.document import KINDS
from carnac.curate.funnel.axis import Axis
from carnac.curate.settings import Rule, Threshold
from carnac.curate.signals.catalogue import signals_on
from carnac.curate.signals.frame import Frame
from carnac.curate.signals.signal import Level

Truths = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Side = Literal["min", "above", "max", "below"]
_DROPS: dict[Side, Callable[[Values, float], Truths]] = {
    "min": lambda values, at: values < at,
    "above": lambda values, at: values <= at,
    "max": lambda values, at: values > at,
    "below": lambda values, at: values >= at,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One threshold of a rule: the side, where it lies, and the reason it gives."""

    side: Side
    at: float
    reason: str

    def drops(self, values: Values) -> Truths:
        """Return which values it drops; none that is NaN."""
        return _DROPS[self.side](values, self.at)


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
    sides: tuple[tuple[Side, float | None, str | None], ...] = (
        ("min", rule.min, small),
        ("above", rule.above, small),
        ("max", rule.max, large),
        ("below", rule.below, large),
    )
    return [Bound(side=side, at=at, reason=reason) for side, at, reason in sides if at is not None and reason]


def axis_of(rule: Rule) -> Axis:
    """Return the axis on which the values of a rule are counted."""
    return Axis.of(rule.known(), [bound.at for bound in bounds_of(rule)])


def look(frame: Frame, rule: Rule, alive: Truths) -> Looked:
    """Return what a rule looks at of what is `alive` (bool, per block or per document as its level says)."""
    judged = alive & _is_meant(frame, rule)
    signal = rule.known()
    if signal.needs_file and rule.on == "image":
        judged = judged & frame.flags("block_has_image")
    value = signal.value(frame)
    fails = judged & ~_is_inside(value, rule)
    if signal.is_label:
        return Looked(judged=judged, fails=fails, is_known=_is_known(value), values=None, labels=value)
    return Looked(judged=judged, fails=fails, is_known=_is_known(value), values=value, labels=None)


def _is_meant(frame: Frame, rule: Rule) -> Truths:
    if rule.on == "document":
        meant: Truths = np.ones(frame.num_documents, np.bool_)
    elif rule.on == "image":
        meant = frame.is_image
    elif rule.kinds is None:
        meant = ~frame.is_image
    else:
        meant = np.isin(frame.kinds, [KINDS.index(kind) for kind in rule.kinds])
    if rule.when is None:
        return meant
    value = _value(frame, rule.when, rule.on)
    return meant & _is_known(value) & _is_inside(value, rule.when)


def _value(frame: Frame, threshold: Threshold, on: Level) -> Values | pa.Array:
    value: Values | pa.Array = signals_on(on)[threshold.signal].value(frame)
    return value


def _is_inside(value: Values | pa.Array, threshold: Threshold) -> Truths:
    """Return what lies inside a threshold, and what is not known."""
    if threshold.one_of is not None:
        known = pc.is_in(value, pa.array(threshold.one_of, pa.string())).to_numpy(zero_copy_only=False)
        inside: Truths = known | ~_is_known(value)
        return inside
    inside = np.ones(len(value), np.bool_)
    sides: tuple[tuple[Side, float | None], ...] = (
        ("min", threshold.min),
        ("above", threshold.above),
        ("max", threshold.max),
        ("below", threshold.below),
    )
    for side, at in sides:
        if at is not None:
            inside &= ~_DROPS[side](value, at)
    return inside


def _is_known(value: Values | pa.Array) -> Truths:
    known: Truths = value.is_valid().to_numpy(zero_copy_only=False) if isinstance(value, pa.Array) else ~np.isnan(value)
    return known
