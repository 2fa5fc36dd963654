from __future__ import annotations

import json

import pytest

from carnac.core.errors import RecordError
from carnac.core.schema import SAMPLES
from carnac.core.seeds import unit_interval
from carnac.shards.conversations import (
    Conversation,
    Picture,
    Role,
    Turn,
    conversation_of,
    conversation_row,
    root_of,
    sound_name,
)

SHAPE = Picture(name="a.png")


def turn(role: Role, *parts: str | Picture) -> Turn:
    return Turn(role=role, parts=parts)


USER, ANSWER = turn("user", SHAPE, "what?"), turn("assistant", "a circle")


def test_a_conversation_is_an_optional_system_turn_and_answered_questions() -> None:
    turns = [turn("system", "Be brief."), USER, ANSWER, turn("user", "sure?"), turn("assistant", "yes")]
    found = conversation_of("c", turns)
    assert found == Conversation(id="c", turns=tuple(turns))
    assert found.pictures == ("a.png",)


def test_a_last_question_without_an_answer_is_left_out() -> None:
    found = conversation_of("c", [USER, ANSWER, turn("user", "and now?")])
    assert (found.turns, found.num_unanswered) == ((USER, ANSWER), 1)


def test_texts_side_by_side_are_one_and_blank_ones_are_none() -> None:
    found = conversation_of("c", [turn("user", "", "wh", "at", SHAPE, " \n", SHAPE, "is", "it?"), ANSWER])
    assert found.turns[0].parts == ("what", SHAPE, SHAPE, "isit?")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no_answer"),
        ([USER], "no_answer"),
        ([turn("system", "Be brief.")], "no_answer"),
        ([turn("system", "Be brief."), USER], "no_answer"),
        ([ANSWER, USER], "answer_before_question"),
        ([turn("system", "Be brief."), ANSWER], "answer_before_question"),
        ([USER, ANSWER, turn("system", "Be brief."), USER, ANSWER], "late_system"),
        ([USER, USER, ANSWER], "roles_do_not_alternate"),
        ([USER, ANSWER, ANSWER], "roles_do_not_alternate"),
        ([turn("user", " "), ANSWER], "empty_turn"),
        ([USER, turn("assistant")], "empty_turn"),
        ([USER, turn("assistant", "so", SHAPE)], "picture_not_in_question"),
        ([turn("system", SHAPE), USER, ANSWER], "picture_not_in_question"),
    ],
)
def test_what_is_no_conversation_is_lost_with_its_reason(turns: list[Turn], reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        conversation_of("c", turns)
    assert caught.value.reason == reason


def test_a_row_has_a_role_for_every_block() -> None:
    conversation = conversation_of("c\ud800", [turn("system", "Be \ud800."), USER, ANSWER])
    row = conversation_row(conversation, {"a.png": (b"bytes", "f00.png")}, "shapes", {"url": None})
    assert list(row) == SAMPLES.names
    assert row["id"] == "c?"
    assert row["texts"] == ["Be ?.", None, "what?", "a circle"]
    assert row["images"] == [None, {"bytes": b"bytes", "path": "f00.png"}, None, None]
    assert row["roles"] == ["system", "user", "user", "assistant"]
    assert json.loads(row["metadata"]) == {"url": None, "image_names": ["a.png"]}


def test_what_decides_the_split_is_the_picture_and_without_one_the_text() -> None:
    digests = {"a.png": "aa", "b.png": "bb"}
    one = conversation_of("1", [USER, ANSWER])
    two = conversation_of("2", [turn("user", Picture(name="b.png"), SHAPE, "which?"), ANSWER])
    three = conversation_of("3", [turn("user", SHAPE, Picture(name="b.png"), "why?"), ANSWER])
    assert root_of(one, digests) == root_of(two, digests) == root_of(three, digests) == "aa"
    texts = [conversation_of(str(n), [turn("user", f"{n}?"), turn("assistant", "yes")]) for n in range(2000)]
    roots = {root_of(text, {}) for text in texts}
    assert len(roots) == 2000
    assert root_of(conversation_of("other", texts[0].turns), {}) == root_of(texts[0], {})
    assert 60 < sum(unit_interval(0, "split", root) < 0.05 for root in roots) < 140


@pytest.mark.parametrize(
    ("name", "plain"), [("a.png", "a.png"), ("./b//c.png", "b/c.png"), ("..a/b..png", "..a/b..png"), (" x", " x")]
)
def test_names_of_pictures_are_made_plain(name: str, plain: str) -> None:
    assert sound_name(name) == plain


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../a.png", "path_leaves_folder"),
        ("a/../../b.png", "path_leaves_folder"),
        ("/etc/passwd", "path_leaves_folder"),
        ("a\\..\\b.png", "path_leaves_folder"),
        ("a\0.png", "path_leaves_folder"),
        ("https://example.org/a.png", "image_by_url"),
        ("file:///etc/passwd", "image_by_url"),
        ("data:image/png;base64,AAAA", "image_by_url"),
        ("", "bad_record"),
        ("  ", "bad_record"),
        (None, "bad_record"),
        (7, "bad_record"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: object, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        sound_name(name)
    assert caught.value.reason == reason
