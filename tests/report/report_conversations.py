"""Folders of conversations and of answers for the tests of their pages, written by what writes real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report_run import picture, write_stage

from carnac.evaluate.confusion import confusions, draw_confusions
from carnac.evaluate.questions import Asked, summarise_questions
from carnac.evaluate.settings import QuestionSettings
from carnac.jobs.ask import ANSWERS
from carnac.shards.conversations import Conversation, Picture, Turn, conversation_row

ASKED = [
    # (picture, question, reference, answers with its picture, with another, with none)
    ("p0", "what color is it?", "red", ("red", "blue", "grey")),
    ("p0", "is it red?", "yes", ("yes", "no", "no")),
    ("p1", "what color is it?", "blue", ("red", "red", "grey")),
    ("p1", "is it red?", "no", ("No ", "no", "no")),
]


def conversation(name: str, turns: int = 2, payload: bytes | None = None) -> dict[str, Any]:
    said = [
        Turn(role="system", parts=("Be brief.",)),
        *(
            turn
            for number in range(turns)
            for turn in (
                Turn(role="user", parts=(*((Picture(name="a.png"),) if number == 0 else ()), f"question {number}?")),
                Turn(role="assistant", parts=(f"answer {number}",)),
            )
        ),
    ]
    pictures = {"a.png": (picture() if payload is None else payload, "a.png")}
    facts = {"title": f"talks.jsonl@{name}", "url": None}
    return conversation_row(Conversation(id=name, turns=tuple(said)), pictures, "talks", facts)


def write_conversations(folder: Path, *rows: dict[str, Any]) -> None:
    write_stage(folder, "shards", rows, counts={"samples": len(rows)})


def write_questions(folder: Path, *, with_picture: bool = True, change: dict[str, Any] | None = None) -> None:
    """Write what the job `ask` leaves, of the answers above."""
    rows: list[dict[str, Any]] = [
        {"id": where, "number": 0, "picture": where, "question": question, "reference": reference}
        | dict(zip(("right", "shuffled", "none"), answers, strict=True))
        for where, question, reference, answers in ASKED
    ]
    write_stage(folder, "questions", rows, counts={"questions": len(rows)}, schema=ANSWERS)
    asked = [
        Asked(
            picture=row["picture"],
            question=row["question"],
            reference=row["reference"],
            answers={"right": row["right"], "shuffled": row["shuffled"], "none": row["none"]},
        )
        for row in rows
    ]
    summary = summarise_questions(asked, QuestionSettings(), [("is it red?", "no")])
    (folder / "questions.json").write_text(json.dumps(summary | (change or {})))
    if with_picture:
        drawn = draw_confusions(confusions([("yes/no", "yes", "yes"), ("yes/no", "no", "yes")]), "title")
        (folder / "confusion.png").write_bytes(drawn)
