from __future__ import annotations

import json
import tomllib
from typing import Any, get_args

import pytest
from curate_pages import PASSES
from pydantic import ValidationError

from carnac.core.document import KINDS
from carnac.curate.repeats.settings import RepeatsPass
from carnac.curate.settings import Rule, RulesPass, TextKind, Threshold, write_number
from carnac.jobs.curate_passes import AnyPass

RECIPE = """
[[pass]]
name = "blocks"
kind = "rules"
rules = [
  { on = "text", signal = "num_words", min = 3, max = 1000, kinds = ["paragraph"] },
  { on = "image", signal = "aspect", max = 3.0 },
]
[[pass]]
name = "repeats"
kind = "repeats"
by = ["url", "text"]
"""
WORDS = {"on": "text", "signal": "num_words", "min": 3}


def parse(passes: list[dict[str, Any]]) -> tuple[AnyPass, ...]:
    return PASSES.validate_json(json.dumps(passes), strict=True)


def mistakes(passes: list[dict[str, Any]]) -> list[tuple[tuple[Any, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        parse(passes)
    return [(error["loc"], error["msg"]) for error in caught.value.errors()]


def rules(*tables: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "a", "kind": "rules", "rules": list(tables)}]


def test_the_passes_of_a_recipe_are_read() -> None:
    blocks, repeats = parse(tomllib.loads(RECIPE)["pass"])
    assert isinstance(blocks, RulesPass)
    assert blocks.rules[0] == Rule(on="text", signal="num_words", min=3, max=1000, kinds=("paragraph",))
    assert blocks.rules[1].min is None
    assert isinstance(repeats, RepeatsPass)
    assert repeats.by == ("url", "text")


def test_an_unknown_signal_is_answered_with_the_near_one_and_the_known_ones() -> None:
    ((loc, message),) = mistakes(rules(WORDS, {"on": "document", "signal": "num_image", "min": 1}))
    assert loc == (0, "rules", "rules", 1)
    assert "did you mean 'num_images'?" in message
    assert "stop_word_ratio" in message
    assert "alt_words" not in message


@pytest.mark.parametrize(
    ("table", "place", "says"),
    [
        ({"on": "image", "signal": "num_words", "min": 3}, (), "unknown signal 'num_words' on 'image'"),
        ({"on": "page", "signal": "num_words", "min": 3}, ("on",), "'text', 'image' or 'document'"),
        (
            {"on": "text", "signal": "num_words"},
            (),
            "has no threshold: give min, max, above, below or, for words, one_of",
        ),
        (WORDS | {"max": 2}, (), "from 3 to 2 there is nothing"),
        (WORDS | {"below": 3}, (), "from 3 to 3 there is nothing"),
        (WORDS | {"above": 2}, (), "two thresholds on one side of 'num_words'"),
        (WORDS | {"one_of": ["en"]}, (), "is a number: give min, max, above or below"),
        ({"on": "image", "signal": "media_type", "min": 3}, (), "is a word: give one_of"),
        ({"on": "image", "signal": "media_type", "one_of": []}, ("one_of",), "at least one entry"),
        (WORDS | {"when": {"signal": "num_word", "min": 1}}, (), "did you mean 'num_words'?"),
        (WORDS | {"when": {"signal": "num_words"}}, ("when",), "has no threshold"),
        (WORDS | {"min": "3"}, ("min",), "valid number"),
        (WORDS | {"kinds": []}, ("kinds",), "at least one entry"),
        (WORDS | {"kinds": ["image"]}, ("kinds", 0), "'paragraph', 'heading'"),
        ({"on": "image", "signal": "width", "min": 3, "kinds": ["list"]}, ("kinds",), "belongs to rules on 'text'"),
        (WORDS | {"minimum": 2}, ("minimum",), "not permitted"),
    ],
)
def test_a_wrong_rule_is_one_mistake_at_its_place(table: dict[str, Any], place: tuple[Any, ...], says: str) -> None:
    ((loc, message),) = mistakes(rules(table))
    assert loc == (0, "rules", "rules", 0, *place)
    assert says in message


@pytest.mark.parametrize(
    ("passes", "place"),
    [
        ([{"name": "A b", "kind": "repeats", "by": ["url"]}], (0, "repeats", "name")),
        ([{"name": "a", "kind": "repeats", "by": []}], (0, "repeats", "by")),
        ([{"name": "a", "kind": "repeats", "by": ["url", "url"]}], (0, "repeats", "by")),
        ([{"name": "a", "kind": "repeats", "by": ["image"]}], (0, "repeats", "by", 0)),
        ([{"name": "a", "kind": "rule", "by": ["url"]}], (0,)),
        ([{"name": "a", "kind": "rules", "rules": []}], (0, "rules", "rules")),
    ],
)
def test_a_wrong_pass_is_one_mistake_at_its_place(passes: list[dict[str, Any]], place: tuple[Any, ...]) -> None:
    assert {loc[: len(place)] for loc, _ in mistakes(passes)} == {place}


def test_every_mistake_is_told_at_once() -> None:
    wrong = rules({"on": "text", "signal": "num_word", "min": 1}, {"on": "image", "signal": "width"})
    places = {loc[:4] for loc, _ in mistakes([*wrong, {"name": "b", "kind": "repeats", "by": ["uri"]}])}
    assert places == {(0, "rules", "rules", 0), (0, "rules", "rules", 1), (1, "repeats", "by", 0)}


def test_two_passes_of_one_name_are_a_mistake_at_the_second_name() -> None:
    again = {"name": "a", "kind": "repeats", "by": ["url"]}
    assert mistakes([*rules(WORDS), again]) == [((1, "name"), "two passes are named 'a'")]


def test_the_kinds_of_text_are_all_kinds_but_the_image() -> None:
    assert (*get_args(TextKind), "image") == KINDS


def test_one_value_may_be_asked_for() -> None:
    assert Threshold(signal="num_words", min=3, max=3).max == 3


def test_a_rule_on_words_and_one_with_a_condition_are_read() -> None:
    words = {"on": "image", "signal": "media_type", "one_of": ["image/png"]}
    when = {"on": "text", "signal": "punctuation_ratio", "min": 0.001, "when": {"signal": "num_words", "min": 12}}
    (step,) = parse(rules(words, when))
    assert isinstance(step, RulesPass)
    assert step.rules[0].one_of == ("image/png",)
    assert step.rules[1].when == Threshold(signal="num_words", min=12)
    assert step.reasons() == (
        "signals_failed",
        "image_missing",
        "image.media_type not in image/png",
        "text.punctuation_ratio < 0.001 (num_words >= 12)",
        "no_blocks_left",
    )


@pytest.mark.parametrize(("value", "text"), [(3.0, "3"), (0.1, "0.1"), (20000.0, "20000"), (1e-05, "1e-05")])
def test_numbers_are_written_as_in_the_recipe(value: float, text: str) -> None:
    assert write_number(value) == text


def test_every_setting_is_described() -> None:
    for model in (Threshold, Rule, RulesPass, RepeatsPass):
        assert all(field.description for field in model.model_fields.values()), model
