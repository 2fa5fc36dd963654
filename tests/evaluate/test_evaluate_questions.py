from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from carnac.core.seeds import generator
from carnac.evaluate.grounding import Condition
from carnac.evaluate.questions import Asked, commonest_answers, plain, summarise_questions
from carnac.evaluate.settings import QuestionSettings

QUICK = QuestionSettings(resamples=200)


def asked(picture: str, question: str, reference: str, right: str, **others: str) -> Asked:
    answers: dict[Condition, str] = {"right": right}
    for name, answer in others.items():
        answers["shuffled" if name == "shuffled" else "none"] = answer
    return Asked(picture=picture, question=question, reference=reference, answers=answers)


def row(summary: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [one for one in summary["table"] if one["kind"] == kind]
    return found


def some() -> Iterator[Asked]:
    """Yield a colour and a yes-or-no question for each of 40 pictures; one colour in four is answered wrongly."""
    for number in range(40):
        colour = ("red", "blue")[number % 2]
        said = "green" if number % 4 == 3 else colour
        yield asked(f"p{number}", "what color?", colour, f" {said.upper()}\n", shuffled="red", none="blue")
        yield asked(f"p{number}", "is it red?", "yes" if colour == "red" else "no", "yes", shuffled="no", none="no")


def test_accuracies_are_shares_of_questions_by_kind_and_condition() -> None:
    found = summarise_questions(list(some()), QUICK)
    assert (found["questions"], found["pictures"]) == (80, 40)
    assert [one["kind"] for one in found["table"]] == ["all", "blue, red", "yes/no"]
    shares = {
        one["kind"]: [one[name]["estimate"] for name in ("right", "shuffled", "none", "without_looking")]
        for one in found["table"]
    }
    assert shares["blue, red"] == [0.75, 0.5, 0.5, 0.5]
    assert shares["yes/no"] == [0.5, 0.5, 0.5, 0.5]
    assert shares["all"] == [0.625, 0.5, 0.5, 0.5]
    colours = row(found, "blue, red")
    assert colours["gains"]["shuffled"]["estimate"] == 0.25
    assert colours["right"]["low"] < 0.75 < colours["right"]["high"]
    assert "0.625 of 80 questions answered rightly (95 % interval [" in found["verdict"]
    assert "with other pictures 0.500, with grey ones 0.500, best without looking 0.500." in found["verdict"]
    assert "case of letters aside" in found["rule"]
    json.dumps(found, allow_nan=False)


def test_the_questions_about_a_picture_are_drawn_together() -> None:
    """Ten equal questions per picture say no more than one: the interval is that of the pictures."""
    single = [asked(str(number), "what?", "a", "a" if number % 2 else "b") for number in range(30)]
    tenfold = [one for one in single for _ in range(10)]
    assert (
        summarise_questions(single, QUICK)["table"][0]["right"]
        == summarise_questions(tenfold, QUICK)["table"][0]["right"]
    )
    apart = [
        asked(str(number), one.question, one.reference, one.answers["right"]) for number, one in enumerate(tenfold)
    ]
    wide, narrow = (summarise_questions(each, QUICK)["table"][0]["right"] for each in (tenfold, apart))
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for number in range(100):
        random = generator(number, "truth")
        share = random.beta(7, 3, 40)  # of right answers about each picture
        questions = [
            asked(str(picture), "what?", "a", "a" if random.random() < share[picture] else "b")
            for picture in range(40)
            for _ in range(5)
        ]
        right = summarise_questions(questions, QUICK)["table"][0]["right"]
        held += right["low"] <= 0.7 <= right["high"]
    assert 89 <= held <= 100


def test_the_best_answer_without_looking_is_learnt_where_training_shards_are_given() -> None:
    questions = [asked(str(number), "Is it red? ", "no", "no") for number in range(4)]
    questions += [asked(str(number), "what is new?", "yes", "no") for number in range(4)]
    trained = [("is it red?", "no"), ("is it red?", "no"), ("is it red?", "yes"), *[("else?", "yes")] * 9]
    learnt, hindsight = summarise_questions(questions, QUICK, trained), summarise_questions(questions, QUICK)
    assert row(learnt, "all")["without_looking"]["estimate"] == 1.0  # a new question: the commonest answer of all
    assert "training shards" in learnt["prior"]
    assert "in hindsight" in hindsight["prior"]
    assert commonest_answers([("q", "b"), ("Q ", "a"), ("q", "A"), ("q", "b")]) == ({"q": "a"}, "a")
    assert commonest_answers([]) == ({}, "")


def test_questions_without_a_picture_count_where_they_were_asked() -> None:
    questions = [asked("text", "what?", "a", "a"), *[asked(str(n), "what?", "a", "b", none="a") for n in range(3)]]
    all_of_them = summarise_questions(questions, QUICK)["table"][0]
    assert all_of_them["right"]["estimate"] == 0.25
    assert all_of_them["none"]["estimate"] == 1.0
    assert all_of_them["gains"]["none"]["estimate"] == -1.0
    assert (all_of_them["shuffled"], all_of_them["gains"]["shuffled"]) == (None, None)


def test_one_picture_has_no_interval() -> None:
    found = summarise_questions([asked("p", "what?", "a", "a", none="b")], QUICK)
    assert found["table"][0]["right"] == {"estimate": 1.0, "low": None, "high": None}
    assert found["verdict"].startswith("1.000 of 1 questions answered rightly; with grey ones 0.000")


def test_kinds_can_be_given() -> None:
    settings = QuestionSettings(resamples=200, kinds={"warm": ("Red ",), "cold": ("blue",)})
    found = summarise_questions(list(some()), settings)
    assert [one["kind"] for one in found["table"]] == ["all", "yes/no", "cold", "warm"]


@pytest.mark.parametrize(
    ("kinds", "message"),
    [({"a": ("x",), "b": ("X ",)}, "stands in two of them"), ({"all": ("x",)}, "wanted another name")],
)
def test_kinds_that_overlap_are_a_mistake(kinds: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuestionSettings(kinds=kinds)


def test_plain_is_strip_and_lower_and_no_more() -> None:
    assert plain(" A  Red\n") == "a  red"
    assert plain("red.") != plain("red")
