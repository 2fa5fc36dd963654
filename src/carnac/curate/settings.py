"""The passes of a recipe: what judges the documents, in the order of the recipe.

[[pass]]
name = "blocks"
kind = "rules"
rules = [
  { on = "text", signal = "num_words", min = 3, max = 1000, kinds = ["paragraph"] },
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

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from carnac.curate.catalogue import NAMES, Level
from carnac.recipe.settings import Settings

TextKind = Literal["paragraph", "heading", "list", "table", "code", "quote", "caption"]
RepeatKind = Literal["url", "text"]
Items = TypeVar("Items", bound="tuple[object, ...] | None")


def _not_empty(items: Items) -> Items:
    """Refuse an empty list. `min_length` would also complain of a list whose every entry is wrong."""
    if items is not None and not items:
        raise ValueError("an empty list: give at least one entry")
    return items


PassName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", description="Name of the pass and of its folder of masks.")]


class Rule(Settings):
    """A threshold on a signal: what lies outside [min, max] is dropped.

    On `document`, numbers of words, characters and images and ratios of them are taken over the blocks still kept;
    repetition is that of the whole page. An image without a kept file passes no rule on `image`: it is dropped with the
    reason `image_missing`.
    """

    on: Level = Field(description="What the rule judges: each text block, each image block, or the document.")
    signal: str = Field(description="Name of the signal, one of those known for `on`.")
    min: float | None = Field(default=None, description="Smallest value that is kept.")
    max: float | None = Field(default=None, description="Largest value that is kept.")
    kinds: Annotated[tuple[TextKind, ...] | None, AfterValidator(_not_empty)] = Field(
        default=None, description="On `text` only: judge blocks of these kinds and leave the others."
    )

    @field_validator("signal")
    @classmethod
    def _signal_is_known(cls, signal: str, info: ValidationInfo) -> str:
        level: Level | None = info.data.get("on")
        if level is None or signal in NAMES[level]:
            return signal
        known = ", ".join(NAMES[level])
        near = difflib.get_close_matches(signal, NAMES[level], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown signal {signal!r} on {level!r}: {hint}known are {known}")

    @field_validator("max")
    @classmethod
    def _range_is_not_empty(cls, max_: float | None, info: ValidationInfo) -> float | None:
        min_: float | None = info.data.get("min")
        if max_ is not None and min_ is not None and min_ > max_:
            raise ValueError(f"max {max_:g} is smaller than min {min_:g}: nothing would be kept")
        return max_

    @field_validator("kinds")
    @classmethod
    def _kinds_are_of_text(
        cls, kinds: tuple[TextKind, ...] | None, info: ValidationInfo
    ) -> tuple[TextKind, ...] | None:
        if kinds is not None and info.data.get("on") in ("image", "document"):
            raise ValueError(f"kinds belongs to rules on 'text', this one is on {info.data['on']!r}: leave it out")
        return kinds

    @model_validator(mode="after")
    def _has_a_threshold(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"the rule on {self.signal!r} has no threshold: give min, max or both")
        return self


class RulesPass(Settings):
    """Judge by thresholds: first every block by the rules on `text` and `image`, then the document by those on it.

    A document left without blocks is dropped (`no_blocks_left`), and so is one that could not be measured
    (`signals_failed`).
    """

    name: PassName
    kind: Literal["rules"] = Field(description="This pass applies rules to signals.")
    rules: Annotated[tuple[Rule, ...], AfterValidator(_not_empty)] = Field(
        description="The rules; the first that fails gives the reason."
    )


class RepeatsPass(Settings):
    """Keep one document of each set of equal ones: that of the smallest part name and row."""

    name: PassName
    kind: Literal["repeats"] = Field(description="This pass drops documents that repeat another.")
    by: Annotated[tuple[RepeatKind, ...], AfterValidator(_not_empty)] = Field(
        description="What makes two documents equal, applied in this order: their URL, their text."
    )

    @field_validator("by")
    @classmethod
    def _each_once(cls, by: tuple[RepeatKind, ...]) -> tuple[RepeatKind, ...]:
        if len(set(by)) < len(by):
            raise ValueError(f"by names a kind twice: {', '.join(by)}")
        return by


Pass = Annotated[RulesPass | RepeatsPass, Field(discriminator="kind")]


def _names_differ(passes: tuple[RulesPass | RepeatsPass, ...]) -> tuple[RulesPass | RepeatsPass, ...]:
    """Refuse a second pass of the same name, pointing at the second one's name."""
    seen: set[str] = set()
    mistakes: list[InitErrorDetails] = []
    for place, pass_ in enumerate(passes):
        if pass_.name in seen:
            twice = PydanticCustomError("name_twice", "two passes are named '{name}'", {"name": pass_.name})
            mistakes.append(InitErrorDetails(type=twice, loc=(place, "name"), input=pass_.name))
        seen.add(pass_.name)
    if mistakes:
        raise ValidationError.from_exception_data("passes", mistakes)
    return passes


Passes = Annotated[tuple[Pass, ...], AfterValidator(_names_differ)]
