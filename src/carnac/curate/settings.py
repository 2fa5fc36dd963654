"""The passes of a recipe: what judges the documents, in the order of the recipe.

[[pass]]
name = "blocks"
kind = "rules"
rules = [
  { on = "text", signal = "num_words", min = 3, max = 1000, kinds = ["paragraph"] },
  { on = "text", signal = "punctuation_ratio", min = 0.001, when = { signal = "num_words", min = 12 } },
  { on = "image", signal = "width", min = 64 },
]

[[pass]]
name = "repeats"
kind = "repeats"
by = ["url", "text"]
"""

from __future__ import annotations

import difflib
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from carnac.curate.masks import IMAGE_MISSING, NO_BLOCKS_LEFT, SIGNALS_FAILED, names_of
from carnac.curate.signals.catalogue import signals_on
from carnac.curate.signals.signal import Level, Signal
from carnac.recipe.settings import Settings

TextKind = Literal["paragraph", "heading", "list", "table", "code", "quote", "caption"]
Side = Literal["min", "above", "max", "below"]
Items = TypeVar("Items", bound="tuple[object, ...] | None")


def not_empty(items: Items) -> Items:
    """Refuse an empty list. `min_length` would also complain of a list whose every entry is wrong."""
    if items is not None and not items:
        raise ValueError("an empty list: give at least one entry")
    return items


PassName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", description="Name of the pass and of its folder of masks.")]


class Threshold(Settings):
    """What is compared: a signal inside [min, max], inside (above, below), or one of some words."""

    signal: str = Field(description="Name of the signal, one of those known for `on`.")
    min: float | None = Field(default=None, description="Smallest value that is kept.")
    max: float | None = Field(default=None, description="Largest value that is kept.")
    above: float | None = Field(default=None, description="Only larger values are kept.")
    below: float | None = Field(default=None, description="Only smaller values are kept.")
    one_of: Annotated[tuple[str, ...] | None, AfterValidator(not_empty)] = Field(
        default=None, description="For signals that are words: those that are kept."
    )

    def sides(self) -> dict[Side, float]:
        """Return the thresholds that are given, lower before upper."""
        sides: dict[Side, float | None] = {"min": self.min, "above": self.above, "max": self.max, "below": self.below}
        return {side: at for side, at in sides.items() if at is not None}

    @model_validator(mode="after")
    def _has_a_threshold(self) -> Self:
        numbers = (self.min, self.max, self.above, self.below)
        if all(number is None for number in numbers) and self.one_of is None:
            raise ValueError(
                f"the rule on {self.signal!r} has no threshold: give min, max, above, below or, for words, one_of"
            )
        if (self.min is not None and self.above is not None) or (self.max is not None and self.below is not None):
            raise ValueError(f"two thresholds on one side of {self.signal!r}: give min or above, max or below")
        low, high = self.min if self.above is None else self.above, self.max if self.below is None else self.below
        if (
            low is not None
            and high is not None
            and (low > high or (low == high and (self.min is None or self.max is None)))
        ):
            raise ValueError(f"from {low:g} to {high:g} there is nothing: nothing would be kept")
        return self


class Rule(Threshold):
    """A threshold on a signal: what lies outside is dropped. What is not known is kept.

    On `document`, what adds up (words, characters, images, ratios of them) is taken over the blocks still kept. A rule
    on what only an image's file tells drops images without a kept file, with the reason `image_missing`.
    """

    on: Level = Field(description="What the rule judges: each text block, each image block, or the document.")
    kinds: Annotated[tuple[TextKind, ...] | None, AfterValidator(not_empty)] = Field(
        default=None, description="On `text` only: judge blocks of these kinds and leave the others."
    )
    when: Threshold | None = Field(
        default=None,
        description="Judge only where another signal of the same level is known and inside this threshold.",
    )

    @field_validator("kinds")
    @classmethod
    def _kinds_are_of_text(
        cls, kinds: tuple[TextKind, ...] | None, info: ValidationInfo
    ) -> tuple[TextKind, ...] | None:
        if kinds is not None and info.data.get("on") in ("image", "document"):
            raise ValueError(f"kinds belongs to rules on 'text', this one is on {info.data['on']!r}: leave it out")
        return kinds

    @model_validator(mode="after")
    def _signals_are_known(self) -> Self:
        for threshold in (self, self.when):
            if threshold is not None:
                _check_signal(threshold, self.on)
        return self

    def known(self) -> Signal:
        """Return the signal that is judged."""
        return signals_on(self.on)[self.signal]

    def reasons(self) -> tuple[str | None, str | None, str | None]:
        """Return the names of the ways to fail: too small, too large, not one of; None where it cannot be failed so."""
        subject, where = f"{self.on}.{self.signal}", _where(self)
        low = _named(subject, (("<", self.min), ("<=", self.above)))
        high = _named(subject, ((">", self.max), (">=", self.below)))
        other = None if self.one_of is None else f"{subject} not in {', '.join(self.one_of)}"
        small, large, word = (None if name is None else name + where for name in (low, high, other))
        return small, large, word


def _check_signal(threshold: Threshold, on: Level) -> None:
    """Refuse a signal that is not known on a level, or a threshold of the wrong sort."""
    known = signals_on(on)
    name = threshold.signal
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown signal {name!r} on {on!r}: {hint}known are {', '.join(known)}")
    if known[name].is_label != (threshold.one_of is not None):
        wanted = "one_of" if known[name].is_label else "min, max, above or below"
        raise ValueError(f"{name!r} on {on!r} is a {'word' if known[name].is_label else 'number'}: give {wanted}")


def _where(rule: Rule) -> str:
    kinds = [", ".join(rule.kinds)] if rule.kinds else []
    when = rule.when
    if when is not None:
        sides = ((">=", when.min), (">", when.above), ("<=", when.max), ("<", when.below))
        kinds += [f"{when.signal} {sign} {write_number(side)}" for sign, side in sides if side is not None]
        kinds += [] if when.one_of is None else [f"{when.signal} in {', '.join(when.one_of)}"]
    return f" ({'; '.join(kinds)})" if kinds else ""


def _named(subject: str, sides: tuple[tuple[str, float | None], ...]) -> str | None:
    return next((f"{subject} {sign} {write_number(side)}" for sign, side in sides if side is not None), None)


def write_number(value: float) -> str:
    """Write a threshold as in the recipe: 3, 0.1, 20000."""
    return repr(int(value)) if value.is_integer() else repr(value)


class RulesPass(Settings):
    """Judge by thresholds: first every block by the rules on `text` and `image`, then the document by those on it.

    A document left without blocks is dropped (`no_blocks_left`), and so is one that could not be measured
    (`signals_failed`).
    """

    name: PassName
    kind: Literal["rules"] = Field(description="This pass applies rules to signals.")
    rules: Annotated[tuple[Rule, ...], AfterValidator(not_empty)] = Field(
        description="The rules; the first that fails gives the reason."
    )

    def reasons(self) -> tuple[str, ...]:
        """Return the names of the reasons, in the order in which they are tried."""
        blocks = [name for rule in self.rules if rule.on != "document" for name in rule.reasons()]
        documents = [name for rule in self.rules if rule.on == "document" for name in rule.reasons()]
        missing = IMAGE_MISSING if any(rule.known().needs_file for rule in self.rules) else None
        return names_of([SIGNALS_FAILED, missing, *blocks, NO_BLOCKS_LEFT, *documents])
