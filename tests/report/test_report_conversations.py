"""Conversations with their pictures and roles, and what was answered to questions about pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_conversations import conversation, write_conversations, write_questions
from report_run import ESCAPE, PAGES, SCRIPT, picture, sample, write_stage
from selectolax.lexbor import LexborHTMLParser

from carnac.core.errors import InputError
from carnac.report import reading
from carnac.report.page import render
from carnac.report.story import read_story
from carnac.report.text import describe

# -- conversations


def test_a_conversation_is_told_turn_by_turn(tmp_path: Path) -> None:
    write_conversations(tmp_path, conversation("c0"))
    text = describe(tmp_path)
    assert text.endswith(
        "sample c0  talks.jsonl@c0\n"
        "  system: Be brief.\n"
        "  user: [image a.png]\n"
        "  user: question 0?\n"
        "  assistant: answer 0\n"
        "  user: question 1?\n"
        "  assistant: answer 1"
    )


def test_the_page_shows_pictures_in_the_turns_of_those_who_show_them(tmp_path: Path) -> None:
    write_conversations(tmp_path, conversation("c0"))
    tree = LexborHTMLParser(render(read_story(tmp_path)))
    assert [node.text() for node in tree.css("h1")] == ["Conversations"]
    turns = [
        (turn.attributes["class"], [node.tag for node in turn.css("img, p")])
        for turn in tree.css("div.conversation div.turn")
    ]
    assert turns == [
        ("turn r-system", ["p"]),
        ("turn r-user", ["img", "p"]),
        ("turn r-assistant", ["p"]),
        ("turn r-user", ["p"]),
        ("turn r-assistant", ["p"]),
    ]
    assert not tree.css("div.document")


def test_long_conversations_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_conversations(tmp_path, conversation("c0", turns=20))
    story = read_story(tmp_path)
    (shown,) = reading.readable_conversations(story, 1)
    assert len(shown["turns"]) == reading.MAX_TURNS + 1
    assert shown["turns"][-1] == ("", [("more", "the conversation goes on")])
    assert "..." in describe(tmp_path)
    monkeypatch.setattr(reading, "MAX_CHARACTERS", 420)
    (shown,) = reading.readable_conversations(story, 1)
    assert shown["turns"][-1] == ("", [("more", "the conversation goes on")])
    assert len(shown["turns"]) < reading.MAX_TURNS


def test_a_picture_that_does_not_decode_is_said_to_be_none(tmp_path: Path) -> None:
    write_conversations(tmp_path, conversation("c0", payload=b"no picture"))
    assert "a picture that does not decode" in render(read_story(tmp_path))


def test_documents_and_conversations_of_one_run_are_both_shown(tmp_path: Path) -> None:
    write_stage(tmp_path / "web" / "train", "shards", [sample(PAGES[0], picture())])
    write_conversations(tmp_path / "talks" / "train", conversation("c0"), conversation("c1"))
    tree = LexborHTMLParser(render(read_story(tmp_path)))
    assert len(tree.css("div.document")) == 1
    assert len(tree.css("div.conversation")) == 2
    text = describe(tmp_path)
    assert "sample d0" in text
    assert "sample c0" in text


def test_what_a_conversation_says_stays_text(tmp_path: Path) -> None:
    row = conversation("c0")
    row["texts"][0] = f"{SCRIPT} {ESCAPE}"
    write_conversations(tmp_path, row)
    html = render(read_story(tmp_path))
    assert "<script" not in html
    assert "\x1b" not in html + describe(tmp_path)


@pytest.mark.parametrize("metadata", ["", "null", "[]", "no json", '{"image_names": [], "image_urls": 3}'])
def test_samples_of_other_hands_need_no_metadata(tmp_path: Path, metadata: str) -> None:
    one, two = conversation("c0"), sample(PAGES[0], picture())
    write_conversations(tmp_path / "talks", {**one, "metadata": metadata})
    write_conversations(tmp_path / "web", {**two, "metadata": metadata})
    text = describe(tmp_path)
    assert "  user: [image a.png]" in text
    assert "sample d0" in text
    assert len(LexborHTMLParser(render(read_story(tmp_path))).css("div.document, div.conversation")) == 2


def test_a_lost_conversation_is_tried_again_by_its_own_recipe(tmp_path: Path) -> None:
    lost = [("talks.jsonl@7", "no_answer", "no question is answered")]
    write_stage(tmp_path / "train", "shards", [conversation("c0")], counts={"samples": 1}, lost=lost)
    (tmp_path / "recipe.toml").write_text('job = "conversations"\n')
    text = describe(tmp_path)
    assert "no_answer: 1 (50 %)" in text
    assert f"again: carnac run {tmp_path / 'recipe.toml'} --record talks.jsonl@7" in text


# -- questions


def test_the_accuracies_are_told_by_kind_beside_those_without_looking(tmp_path: Path) -> None:
    write_questions(tmp_path)
    text = describe(tmp_path)
    assert (
        "questions: 0.750 of 4 questions answered rightly (95 % interval [0.500, 1.000]); with other pictures 0.250"
        in text
    )
    table = [line.split() for line in text.splitlines() if line.startswith(("kind", "all", "yes/no", "red, blue"))]
    assert table[0] == ["kind", "questions", "its", "pictures", "others'", "pictures", "grey", "without", "looking"]
    assert table[1] == ["all", "4", "0.750", "[0.500,", "1.000]", "0.250", "0.250", "0.250"]
    assert table[2] == ["yes/no", "2", "1.000", "[1.000,", "1.000]", "0.500", "0.500", "0.500"]
    assert "An answer is right if it equals the reference" in text
    assert "what color is it?  blue: answered 'red' with its pictures" in text
    assert describe(tmp_path, brief=True).startswith("questions: 0.750 of 4")
    assert "kind" not in describe(tmp_path, brief=True)


def test_the_page_shows_table_confusions_and_answers_wrong_ones_first(tmp_path: Path) -> None:
    write_questions(tmp_path / "questions")
    write_conversations(tmp_path / "shards", conversation("p0"), conversation("p1"))
    tree = LexborHTMLParser(render(read_story(tmp_path)))
    assert [node.text() for node in tree.css("h1")] == ["Questions about pictures"]
    assert len(tree.css("div.scroll tr")) == 4
    assert [(node.attributes["src"] or "")[:22] for node in tree.css("img.plot")] == ["data:image/png;base64,"]
    answers = tree.css("div.answer")
    verdicts = [node.text() for answer in answers for node in answer.css("span.right, span.wrong")]
    assert verdicts == ["wrong", "right", "right", "right"]
    assert all(len(answer.css("img")) == 1 for answer in answers)
    assert "no is the answer; with its pictures: No" in answers[3].text()


def test_answers_alone_and_a_missing_picture_of_confusions_spoil_no_page(tmp_path: Path) -> None:
    write_questions(tmp_path, with_picture=False)
    tree = LexborHTMLParser(render(read_story(tmp_path)))
    assert not tree.css("img")
    assert len(tree.css("div.answer")) == 4


def test_each_of_several_models_has_its_table(tmp_path: Path) -> None:
    for seed in range(2):
        write_questions(tmp_path / f"seed{seed}")
    text = describe(tmp_path)
    assert "questions (seed0): 0.750" in text
    assert "questions (seed1): 0.750" in text
    assert len(LexborHTMLParser(render(read_story(tmp_path))).css("img.plot")) == 2


@pytest.mark.parametrize("table", [3, [3], [{"kind": "all"}], [{"kind": "all", "questions": "many"}]])
def test_a_table_that_is_damaged_is_a_sentence(tmp_path: Path, table: Any) -> None:
    write_questions(tmp_path, change={"table": table})
    with pytest.raises(InputError, match=r"questions\.json: damaged .* run its recipe again\."):
        describe(tmp_path)


def test_questions_that_are_not_finished_are_told_by_their_answers(tmp_path: Path) -> None:
    write_questions(tmp_path)
    (tmp_path / "questions.json").unlink()
    (tmp_path / "manifest.json").unlink()
    assert "questions  .       unfinished" in describe(tmp_path)
    assert "what color is it?  blue: answered 'red'" in describe(tmp_path)
