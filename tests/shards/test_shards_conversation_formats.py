from __future__ import annotations

from typing import Any

import pytest

from carnac.core.errors import RecordError
from carnac.shards.conversation_formats import (
    llava_conversation,
    messages_conversation,
    picture_conversations,
    question_of,
)
from carnac.shards.conversations import Picture
from carnac.shards.settings import QuestionListSettings


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


ANSWER = message("assistant", "a circle")
TEXT = {"type": "text", "text": "what?"}


def first_question(record: dict[str, Any]) -> list[str]:
    """Return the parts of the first question, pictures in angle brackets."""
    parts = messages_conversation(record).turns[0].parts
    return [f"<{part.name}>" if isinstance(part, Picture) else part for part in parts]


@pytest.mark.parametrize(
    ("content", "fields", "wanted"),
    [
        ("what?", {}, ["what?"]),
        ([TEXT, {"type": "text", "text": " now"}], {}, ["what? now"]),
        ([{"type": "image", "path": "a.png"}, TEXT], {}, ["<a.png>", "what?"]),
        ([TEXT, {"type": "image", "image": "a.png"}], {}, ["what?", "<a.png>"]),
        ([{"type": "image", "url": "a.png"}, TEXT], {}, ["<a.png>", "what?"]),
        ([{"type": "image_url", "image_url": {"url": "a.png"}}, TEXT], {}, ["<a.png>", "what?"]),
        ([{"type": "image"}, TEXT, {"type": "image"}], {"images": ["a.png", "b.png"]}, ["<a.png>", "what?", "<b.png>"]),
        ([{"type": "image"}, TEXT], {"images": [{"path": "a.png", "bytes": None}]}, ["<a.png>", "what?"]),
        ("<image>\nwhat <image> ?", {"images": ["a.png", "b.png"]}, ["<a.png>", "what", "<b.png>", "?"]),
        ("what?", {"images": ["a.png", "b.png"]}, ["<a.png>", "<b.png>", "what?"]),
        ([TEXT], {"image": "a.png"}, ["<a.png>", "what?"]),
        ("what does <image> do?", {}, ["what does <image> do?"]),  # of a page about HTML
        ([{"type": "image", "path": "a.png"}, {"type": "text", "text": "<image>"}], {}, ["<a.png>", "<image>"]),
    ],
)
def test_messages_name_their_pictures_in_any_of_the_usual_ways(
    content: Any, fields: dict[str, Any], wanted: list[str]
) -> None:
    assert first_question({"messages": [message("user", content), ANSWER], **fields}) == wanted


def test_messages_without_an_id_are_called_by_their_digest() -> None:
    record = {"messages": [message("user", "what?"), ANSWER]}
    found = messages_conversation(record)
    assert len(found.id) == 32
    assert messages_conversation({**record, "more": 1}).id != found.id == messages_conversation(dict(record)).id
    assert messages_conversation({**record, "id": 7}).id == "7"
    assert messages_conversation({**record, "id": "seven"}).id == "seven"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "bad_record"),
        ([], "bad_record"),
        ({}, "bad_record"),
        ({"messages": []}, "bad_record"),
        ({"messages": "hello"}, "bad_record"),
        ({"messages": [7]}, "bad_record"),
        ({"messages": [{"role": "user"}]}, "bad_record"),
        ({"messages": [message("user", None)]}, "bad_record"),
        ({"messages": [message("tool", "42")]}, "unknown_role"),
        ({"messages": [message("human", "what?"), ANSWER]}, "unknown_role"),
        ({"messages": [message(["user"], "what?"), ANSWER]}, "unknown_role"),  # type: ignore[arg-type]
        ({"messages": [message("user", 7), ANSWER]}, "unsupported_content"),
        ({"messages": [message("user", [{"type": "video", "path": "a.mp4"}]), ANSWER]}, "unsupported_content"),
        ({"messages": [message("user", ["what?"]), ANSWER]}, "unsupported_content"),
        ({"messages": [message("user", [{"type": "image"}, TEXT]), ANSWER]}, "pictures_differ"),
        ({"messages": [message("user", [{"type": "image"}, TEXT]), ANSWER], "images": ["a", "b"]}, "pictures_differ"),
        ({"messages": [message("user", "<image> what?"), ANSWER], "images": ["a", "b"]}, "pictures_differ"),
        ({"messages": [message("user", "what?"), ANSWER], "images": ["../a"]}, "path_leaves_folder"),
        ({"messages": [message("user", "what?"), ANSWER], "images": [{"bytes": "AAAA"}]}, "bad_record"),
        ({"messages": [message("user", [{"type": "image", "url": "http://a/b"}]), ANSWER]}, "image_by_url"),
        ({"messages": [ANSWER]}, "answer_before_question"),
    ],
)
def test_bad_messages_are_lost_with_their_reason(record: Any, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        messages_conversation(record)
    assert caught.value.reason == reason


def said(speaker: str, text: Any) -> dict[str, Any]:
    return {"from": speaker, "value": text}


def test_a_record_of_llava_is_a_conversation() -> None:
    record = {
        "id": "000000033471",
        "image": "coco/000000033471.jpg",
        "conversations": [
            said("human", "<image>\nWhat are the colors of the bus?"),
            said("gpt", "White and red."),
            said("human", "What stands behind it?\nSay it in a word."),
            said("gpt", "<image> is a tag"),
        ],
    }
    with pytest.raises(RecordError, match=r"2 times <image>, 1 pictures listed"):
        llava_conversation(record)
    record["conversations"][-1] = said("gpt", "A tree.")  # type: ignore[index]
    found = llava_conversation(record)
    assert found.id == "000000033471"
    assert found.turns[0].parts == (Picture(name="coco/000000033471.jpg"), "What are the colors of the bus?")
    assert [turn.role for turn in found.turns] == ["user", "assistant"] * 2
    assert found.turns[2].parts == ("What stands behind it?\nSay it in a word.",)


def test_llava_takes_several_pictures_a_system_turn_and_texts_alone() -> None:
    turns = [said("system", "Be brief."), said("human", "this <image> or\n<image>"), said("gpt", "this")]
    found = llava_conversation({"image": ["a.png", "b.png"], "conversations": turns})
    assert found.turns[1].parts == ("this", Picture(name="a.png"), "or", Picture(name="b.png"))
    text = llava_conversation({"conversations": [said("human", "<image>?"), said("gpt", "a tag")]})
    assert text.turns[0].parts == ("<image>?",)
    unmarked = llava_conversation({"image": "a.png", "conversations": [said("human", "what?"), said("gpt", "this")]})
    assert unmarked.turns[0].parts == (Picture(name="a.png"), "what?")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([said("human", ["what?"]), said("gpt", "this")], "bad_record"),
        ([said("bing", "what?"), said("gpt", "this")], "unknown_role"),
        ([said("gpt", "this")], "answer_before_question"),
        ([{"from": "human"}], "bad_record"),
    ],
)
def test_bad_records_of_llava_are_lost_with_their_reason(turns: Any, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        llava_conversation({"conversations": turns})
    assert caught.value.reason == reason


def test_entries_of_a_list_are_question_answer_and_picture() -> None:
    assert question_of(["what?", "this", 7]) == ("what?", "this", "7")
    assert question_of(["what?", "this", "a"]) == ("what?", "this", "a")
    bad: Any
    for bad in (
        None,
        {},
        [],
        ["what?", "this"],
        ["what?", 1, 7],
        ["what?", "this", True],
        ["what?", "this", 1.5],
        ["", "this", 7],
        ["what?", " ", 7],
    ):
        with pytest.raises(RecordError, match="wanted"):
            question_of(bad)


QUESTIONS = [(f"question {number}?", f"answer {number}") for number in range(10)]


@pytest.mark.parametrize(("most", "sizes"), [(None, [10]), (20, [10]), (4, [4, 3, 3]), (1, [1] * 10), (9, [5, 5])])
def test_questions_about_a_picture_share_conversations_of_even_sizes(most: int | None, sizes: list[int]) -> None:
    settings = QuestionListSettings(questions_per_conversation=most)
    found = list(picture_conversations("7", QUESTIONS, settings))
    assert [len(one.turns) // 2 for one in found] == sizes
    assert [one.id for one in found] == [f"7-{number}" for number in range(len(sizes))]
    pairs = []
    for one in found:
        assert one.pictures == ("images/7.png",)
        assert one.turns[0].parts[0] == Picture(name="images/7.png")
        for asked, answered in zip(one.turns[::2], one.turns[1::2], strict=True):
            assert (asked.role, answered.role) == ("user", "assistant")
            pairs.append((asked.parts[-1], answered.parts[0]))
    assert sorted(pairs) == sorted(QUESTIONS)


def test_their_order_is_drawn_by_seed_and_picture() -> None:
    def order(picture: str, seed: int) -> list[Any]:
        (one,) = picture_conversations(picture, QUESTIONS, QuestionListSettings(seed=seed))
        return [turn.parts[-1] for turn in one.turns[::2]]

    assert order("7", 0) == order("7", 0) != order("7", 1)
    assert order("7", 0) != order("8", 0)
    assert order("7", 0) != [question for question, _ in QUESTIONS]


def test_a_picture_name_that_leaves_the_folder_is_refused() -> None:
    with pytest.raises(RecordError, match="path_leaves_folder"):
        list(picture_conversations("../../x", QUESTIONS, QuestionListSettings()))
    with pytest.raises(ValueError, match="every picture would be one file"):
        QuestionListSettings(picture_name="images/0.png")
