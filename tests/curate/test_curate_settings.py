from __future__ import annotations

import json
import tomllib
from typing import Any, get_args

import pytest
from curate_pages import PASSES
from pydantic import ValidationError

from carnac.core.document import KINDS
from carnac.curate.settings import RepeatsPass, Rule, RulesPass, TextKind

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


def parse(passes: list[dict[str, Any]]) -> tuple[RulesPass | RepeatsPass, ...]:
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
    assert loc == (0, "rules", "rules", 1, "signal")
    assert "did you mean 'num_images'?" in message
    assert "stop_word_ratio" in message
    assert "width" not in message


@pytest.mark.parametrize(
    ("table", "place", "says"),
    [
        ({"on": "image", "signal": "num_words", "min": 3}, ("signal",), "known are width, height, aspect"),
        ({"on": "page", "signal": "num_words", "min": 3}, ("on",), "'text', 'image' or 'document'"),
        ({"on": "text", "signal": "num_words"}, (), "has no threshold: give min, max or both"),
        (WORDS | {"max": 2}, ("max",), "max 2 is smaller than min 3"),
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
    assert [loc for loc, _ in mistakes(passes)] == [place]


def test_every_mistake_is_told_at_once() -> None:
    wrong = rules({"on": "text", "signal": "num_word", "min": 1}, {"on": "image", "signal": "width"})
    assert len(mistakes([*wrong, {"name": "b", "kind": "repeats", "by": ["uri"]}])) == 3


def test_two_passes_of_one_name_are_a_mistake_at_the_second_name() -> None:
    again = {"name": "a", "kind": "repeats", "by": ["url"]}
    assert mistakes([*rules(WORDS), again]) == [((1, "name"), "two passes are named 'a'")]


def test_the_kinds_of_text_are_all_kinds_but_the_image() -> None:
    assert (*get_args(TextKind), "image") == KINDS


def test_every_setting_is_described() -> None:
    for model in (Rule, RulesPass, RepeatsPass):
        assert all(field.description for field in model.model_fields.values()), model
