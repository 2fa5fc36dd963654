"""A model asked about held-out conversations: its answers, what is counted of them, what is lost."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from jobs_model import WORDS, DoneHere, document, picture, runner, write_shards
from PIL import Image

from carnac.core.errors import InputError
from carnac.engine.manifest import read_manifest
from carnac.engine.run import EarlyEnd
from carnac.engine.tables import read_rows
from carnac.evaluate.settings import QuestionSettings
from carnac.jobs import ask
from carnac.jobs.ask import AskRecipe, run
from carnac.jobs.ask_prompts import exchanges, rows_between
from carnac.jobs.models import OpenModel, open_model
from carnac.model.generation.generate import generate
from carnac.model.settings import GenerationSettings
from carnac.sequence.chat_template import Message
from carnac.sequence.conversation import stop_ids
from carnac.sequence.layout import lay_out_messages, sample_from_row
from carnac.sequence.pixels import grey_pixels, load_pixels

QUICK = QuestionSettings(resamples=200, max_new_tokens=5)


def talk(name: str, *turns: tuple[str, str | bytes]) -> dict[str, Any]:
    return {
        "id": name,
        "source": "test",
        "texts": [part if isinstance(part, str) else None for _, part in turns],
        "images": [{"bytes": part, "path": None} if isinstance(part, bytes) else None for _, part in turns],
        "roles": [role for role, _ in turns],
        "metadata": json.dumps({"url": None, "title": name, "image_names": []}),
    }


def about(number: int) -> dict[str, Any]:
    """Return a conversation of two questions about a picture."""
    shown: list[tuple[str, str | bytes]] = [("user", picture(number)), ("user", "old mill?"), ("assistant", "yes")]
    return talk(f"c{number}", *shown, ("user", "what colour?"), ("assistant", ("red", "blue")[number % 2]))


TALKS = [about(number) for number in range(4)]


def recipe(model: Path, shards: Path, **fields: Any) -> AskRecipe:
    values = {"questions": QUICK, "output": shards.parent / "answers", **fields}
    return AskRecipe(job="ask", model=model, shards=shards, **values)


def asked(model: Path, shards: Path, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Return questions.json, the rows and what was printed."""
    told, out = runner()
    run(recipe(model, shards, **fields), told)
    folder = shards.parent / "answers"
    rows = [line for entry in read_manifest(folder, "questions").parts for line in read_rows(entry.path)]
    return json.loads((folder / "questions.json").read_bytes()), rows, out.getvalue()


def by_hand(opened: OpenModel, *content: str | bytes, grey: bool = False, system: str | None = None) -> str:
    """Return the model's answer to one question, token by token and without a batch."""
    before = [] if system is None else [Message(role="system", content=(system,))]
    layout = lay_out_messages(
        [*before, Message(role="user", content=content)], opened.tokenizer, opened.inputs.pictures
    )
    (payload,) = [part for part in content if isinstance(part, bytes)]
    pixels = load_pixels(payload, opened.inputs.pictures)
    if grey:
        pixels = grey_pixels(opened.inputs.pictures)[None]
    settings = GenerationSettings(max_new_tokens=QUICK.max_new_tokens)
    found = generate(opened.model, layout.ids, layout.image_slots, pixels, settings, stop_ids(opened.tokenizer))
    return opened.tokenizer.decode(list(found))


def test_answers_are_the_models_to_each_question_alone(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shown: list[tuple[str, str | bytes]] = [("user", picture(0)), ("user", "old mill?"), ("assistant", "yes")]
    first = talk("s", ("system", "be brief"), *shown, ("user", "what colour?"), ("assistant", "red"))
    found, rows, printed = asked(model, write_shards(tmp_path / "heldout", [first, *TALKS[1:3]], TALKS[3:]))
    assert [(row["id"], row["number"]) for row in rows] == [
        (name, n) for name in ("s", "c1", "c2", "c3") for n in (0, 1)
    ]
    assert [row["reference"] for row in rows[:4]] == ["yes", "red", "yes", "blue"]
    assert [row["question"] for row in rows[:2]] == ["old mill?", "what colour?"]
    assert len({row["picture"] for row in rows}) == 4
    opened = open_model(model)
    others = [picture(number) for number in range(4)]
    for row in rows:
        number, system = (0, "be brief") if row["id"] == "s" else (int(row["id"][1]), None)
        assert row["right"] == by_hand(opened, picture(number), row["question"], system=system)
        assert row["none"] == by_hand(opened, picture(number), row["question"], system=system, grey=True)
        wrong = {by_hand(opened, other, row["question"], system=system) for other in others if other != picture(number)}
        assert row["shuffled"] in wrong
    assert (found["questions"], found["pictures"]) == (8, 4)
    assert found["verdict"] in printed
    assert "  yes/no (4): right" in printed


def test_a_question_is_asked_with_the_pictures_shown_before_it_and_the_systems_turn() -> None:
    sample = sample_from_row(
        talk("x", ("system", "brief"), ("user", "this?"), ("user", picture(1)), ("assistant", "yes"),
             ("user", picture(2)), ("user", "and this?"), ("assistant", "no"), ("user", "sure?"), ("assistant", "no"))
    )  # fmt: skip
    found = list(exchanges(sample))
    assert [one.question for one in found] == ["this?", "and this?", "sure?"]
    assert [one.reference for one in found] == ["yes", "no", "no"]
    assert all(one.messages[0] == Message(role="system", content=("brief",)) for one in found)
    assert [one.messages[1].content for one in found] == [
        ("this?", picture(1)),
        (picture(1), picture(2), "and this?"),
        (picture(1), picture(2), "sure?"),
    ]


def test_slices_give_what_one_gives_and_what_is_done_is_not_done_again(
    model: Path, tmp_path: Path, done: DoneHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_shards(tmp_path / "heldout", TALKS[:3], TALKS[3:])
    found, rows, _ = asked(model, shards)
    assert done.units == ["questions/00000-a-00000000", "questions/00001-a-00000000"]
    monkeypatch.setattr(ask, "CONVERSATIONS_PER_UNIT", 2)
    done.units.clear()
    assert asked(model, shards)[:2] == (found, rows)
    assert done.units == ["questions/00000-a-00000000", "questions/00000-a-00000002"]
    done.units.clear()
    again = QuestionSettings(resamples=300, max_new_tokens=5, prompts_at_once=4, kinds={"hue": ("red", "blue")})
    counted, same, _ = asked(model, shards, questions=again)
    assert (same, done.units) == (rows, [])  # counted otherwise, not asked again
    assert [row["kind"] for row in counted["table"]] == ["all", "hue", "yes/no"]
    asked(model, shards, questions=QuestionSettings(max_new_tokens=4))
    assert len(done.units) == 3


def test_rows_are_read_from_their_row_groups(tmp_path: Path) -> None:
    rows = [about(number) for number in range(7)]
    shards = write_shards(tmp_path / "heldout", rows)
    (part,) = read_manifest(shards, "shards").parts
    for first, stop in ((0, 7), (2, 5), (6, 7), (3, 3), (5, 99)):
        assert [row["id"] for row in rows_between(part.path, first, stop)] == [f"c{n}" for n in range(7)][first:stop]


def test_what_cannot_be_asked_is_lost_with_its_reason(model: Path, tmp_path: Path, done: DoneHere) -> None:
    broken = talk("broken", ("user", b"no picture"), ("user", "what?"), ("assistant", "a mill"))
    endless = talk("endless", ("user", picture(9)), ("user", WORDS * 40), ("assistant", "yes"))
    shards = write_shards(tmp_path / "heldout", [broken, *TALKS[:2], document(1), endless])
    found, rows, _ = asked(model, shards)
    assert found["questions"] == len(rows) == 4
    manifest = read_manifest(tmp_path / "answers")
    lost = {entry.record: entry.reason for ledger in manifest.ledgers() for entry in ledger.quarantine}
    assert lost == {"00000-a@0": "image_does_not_decode", "00000-a@3": "no_conversation", "00000-a@4": "too_long"}
    assert (manifest.counts["conversations"], manifest.counts["questions"]) == (2, 4)


def test_without_a_picture_there_is_one_condition(model: Path, tmp_path: Path, done: DoneHere) -> None:
    text = talk("text", ("user", "old mill?"), ("assistant", "yes"))
    _, rows, _ = asked(model, write_shards(tmp_path / "heldout", [text, TALKS[0]]))
    assert (rows[0]["picture"], rows[0]["shuffled"], rows[0]["none"]) == ("text", None, None)
    assert rows[1]["none"] is not None
    assert rows[1]["shuffled"] is None  # there is no other picture


def test_the_best_answer_without_looking_comes_from_the_training_shards(
    model: Path, tmp_path: Path, done: DoneHere
) -> None:
    shards = write_shards(tmp_path / "heldout", TALKS)
    training = write_shards(
        tmp_path / "train", [about(1), about(3), talk("t", ("user", "old mill?"), ("assistant", "no"))]
    )
    found, _, _ = asked(model, shards, training=training)
    assert "training shards" in found["prior"]
    prior = {row["kind"]: row["without_looking"]["estimate"] for row in found["table"]}
    assert prior == {"all": 0.75, "yes/no": 1.0, "blue, red": 0.5}
    with Image.open(io.BytesIO((tmp_path / "answers" / "confusion.png").read_bytes())) as image:
        assert image.format == "PNG"
    assert found["confusion"]["blue, red"]["answers"] == ["blue", "red"]
    assert sum(found["confusion"]["blue, red"]["counts"][0]) == 2


def test_a_limit_asks_about_the_first_conversations(model: Path, tmp_path: Path, done: DoneHere) -> None:
    _, rows, _ = asked(model, write_shards(tmp_path / "heldout", TALKS[:2], TALKS[2:]), limit=3)
    assert [row["id"] for row in rows] == ["c0", "c0", "c1", "c1", "c2", "c2"]


def test_wrong_folders_and_documents_are_sentences(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", [document(1)])
    with pytest.raises(InputError, match=r"shards: .*heldout holds documents.* Wanted conversations"):
        run(recipe(model, shards), runner()[0])
    with pytest.raises(InputError, match="holds stage 'shards'; wanted the finished folder of stage 'model'"):
        run(recipe(shards, shards), runner()[0])
    talks, done.units[:] = write_shards(tmp_path / "talks", TALKS), []
    with pytest.raises(InputError, match=r"training: .*heldout holds documents.* Wanted conversations"):
        run(recipe(model, talks, training=shards), runner()[0])
    assert done.units == []  # nothing is asked in vain


def test_a_dry_run_says_and_writes_nothing(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", TALKS)
    dry, out = runner(dry_run=True)
    with pytest.raises(EarlyEnd):
        run(recipe(model, shards), dry)
    assert "questions: 1 units, 0 done, 1 to do" in out.getvalue()
    assert not (tmp_path / "answers").exists()
