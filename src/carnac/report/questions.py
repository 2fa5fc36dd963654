"""What the job `ask` found: how many questions are answered rightly, by kind; some questions with their answers.

Flow in: `questions.json`, `confusion.png` and the answers of a folder. Flow out: tables and rows to be shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from carnac.core.errors import InputError
from carnac.core.places import Place, read_bytes
from carnac.engine.manifest import Manifest
from carnac.engine.tables import read_rows
from carnac.evaluate.questions import plain
from carnac.report.layout import figures_table, flat
from carnac.report.pictures import data_uri, thumbnail
from carnac.report.story import Story

CONFUSION = "confusion.png"
# The columns of the table, and what each is called.
WAYS = {"right": "its pictures", "shuffled": "others' pictures", "none": "grey", "without_looking": "without looking"}
MAX_LOOKED = 400  # answers among which some to show are chosen
MAX_ROWS = 5_000  # of a folder of shards looked through for a picture
SIDE_PX = 160


def questions_text(story: Story, *, brief: bool = False) -> str:
    """Return the verdict on each folder of answers, and unless it is to be brief the table and the rule."""
    return "\n\n".join("\n".join(_lines(name, found, len(story.questions), brief)) for name, found in story.questions)


def _lines(name: str, found: Mapping[str, Any], number: int, brief: bool) -> Iterator[str]:
    yield f"questions{f' ({name})' if number > 1 else ''}: {found['verdict']}"
    if brief:
        return
    yield figures_table(*accuracies(found))
    yield found["rule"]


def accuracies(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of accuracies; ways to answer that were not tried are left out.

    Raises InputError for a table that no `ask` wrote.
    """
    try:
        ways = [way for way in WAYS if any(row.get(way) for row in found["table"])]
        rows = [
            [str(row["kind"]), f"{row['questions']:,}", *(_share(row.get(way), way) for way in ways)]
            for row in found["table"]
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"questions.json: damaged (its table lacks {error}). Delete it and run its recipe again."
        ) from None
    return ["kind", "questions", *(WAYS[way] for way in ways)], rows


def _share(cell: Mapping[str, Any] | None, way: str) -> str:
    if not cell:
        return ""
    span = "" if way != "right" or cell["low"] is None else f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    return f"{cell['estimate']:.3f}{span}"


def confusion(folder: Place) -> str | None:
    """Return the picture of the confusions as a data URI, None where it is missing."""
    try:
        payload = read_bytes(folder / CONFUSION)
    except OSError:
        return None
    return data_uri(payload, "png")


def some_answers(story: Story, count: int) -> list[dict[str, Any]]:
    """Return some questions with what was answered, wrong answers first, with a picture where the shards are near."""
    found = [row for manifest in story.find("questions")[:1] for row in islice(_rows(manifest), MAX_LOOKED)]
    wrong = [row for row in found if not _is_right(row)]
    right = [row for row in found if _is_right(row)]
    num_wrong = max(min(len(wrong), count // 2), count - len(right))
    chosen = [*_spread(wrong, num_wrong), *_spread(right, count - num_wrong)]
    pictures = _pictures(story, {row["id"] for row in chosen})
    return [
        {
            "question": row["question"],
            "reference": row["reference"],
            "is_right": _is_right(row),
            "answers": [(WAYS[way], row[way]) for way in WAYS if row.get(way) is not None],
            "pictures": pictures.get(row["id"], []),
        }
        for row in chosen
    ]


def answers_text(story: Story, count: int) -> str:
    """Return some questions with what was answered, as lines."""
    return "\n".join(
        f"{flat(row['question'], 70)}  {flat(row['reference'], 30)}: answered "
        + ", ".join(f"{flat(said, 30)!r} with {way}" for way, said in row["answers"])
        for row in some_answers(story, count)
    )


def _is_right(row: Mapping[str, Any]) -> bool:
    return plain(row["right"] or "") == plain(row["reference"] or "")


def _spread(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return rows[:: max(1, len(rows) // max(1, count))][:count]


def _pictures(story: Story, ids: set[str]) -> dict[str, list[str]]:
    """Return thumbnails of the pictures of conversations, where shards that hold them are shown too."""
    pictures: dict[str, list[str]] = {}
    # Questions are asked of held-out shards, which come last.
    for manifest in reversed(story.find("shards")):
        for row in islice(_rows(manifest, ["id", "images"]), MAX_ROWS):
            if len(pictures) == len(ids):
                return pictures
            if row["id"] in ids and row["id"] not in pictures:
                shown = [thumbnail(image["bytes"], SIDE_PX) for image in row["images"] if image is not None]
                pictures[row["id"]] = [picture for picture in shown[:2] if picture]
    return pictures


def _rows(manifest: Manifest, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    for part in manifest.parts:
        yield from read_rows(part.path, columns)
