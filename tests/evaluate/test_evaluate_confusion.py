from __future__ import annotations

import io

import numpy as np
from PIL import Image

from carnac.evaluate.confusion import ELSE, MAX_ANSWERS, confusions, draw_confusions

TRIPLES = [
    ("yes/no", "yes", "yes"),
    ("yes/no", "yes", "no"),
    ("yes/no", "no", "no"),
    ("yes/no", "no", "red"),
    ("colour", "red", "red"),
    ("colour", "blue", "blue"),
    ("colour", "blue", "teal"),
    ("single", "a", "b"),
]


def test_counts_are_by_reference_and_answer() -> None:
    found = confusions(TRIPLES)
    assert list(found) == ["yes/no", "colour"]  # of one answer nothing is drawn
    assert found["yes/no"] == {"answers": ["no", "yes"], "said": ["no", "yes", ELSE], "counts": [[1, 0, 1], [1, 1, 0]]}
    assert found["colour"]["counts"] == [[1, 0, 1], [0, 1, 0]]


def test_kinds_of_too_many_answers_are_left_out() -> None:
    triples = [("names", str(number), "1") for number in range(MAX_ANSWERS + 1)]
    assert confusions(triples) == {}
    assert list(confusions(triples[:-1])) == ["names"]


def drawn(found: dict[str, dict[str, object]]) -> Image.Image:
    with Image.open(io.BytesIO(draw_confusions(found, "What was answered"))) as image:
        return image.convert("RGB")


def test_the_picture_shows_what_was_confused() -> None:
    right = drawn(confusions([("k", name, name) for name in "abcd"]))
    wrong = drawn(confusions([("k", name, "a") for name in "abcd"]))
    assert right.size == wrong.size
    assert np.any(np.asarray(right) != np.asarray(wrong))
    names = ["cost: $x_{$", "", "a long answer that goes on and on", "\u5713\u5f62"]
    assert drawn(confusions([("k $", name, name) for name in names])).width > 300
    assert drawn({}).width > 300
