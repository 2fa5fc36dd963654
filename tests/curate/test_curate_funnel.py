from __future__ import annotations

import json
import random
from itertools import pairwise

import pyarrow as pa
import pytest
from curate_pages import PASSES, Block, documents_table, page, sample_pages, signals_table

from carnac.core.document import Document
from carnac.core.errors import InputError
from carnac.core.schema import REPEATS
from carnac.curate.funnel import Amount, Funnel, FunnelStep
from carnac.curate.repeats import judge_repeats_part
from carnac.curate.rules import judge_part
from carnac.curate.settings import RepeatKind, RepeatsPass, RulesPass
from carnac.curate.signals import SIGNALS, ImageMeasure, failed_row, measure_document
from carnac.curate.verdicts import Reasons

MIN_IMAGES = 3  # half of the real pages have as many
RECIPE = PASSES.validate_python(
    [
        {
            "name": "blocks",
            "kind": "rules",
            "rules": ({"on": "text", "signal": "num_words", "min": 3}, {"on": "image", "signal": "width", "min": 64}),
        },
        {"name": "pages", "kind": "rules", "rules": ({"on": "document", "signal": "num_images", "min": MIN_IMAGES},)},
        {"name": "repeats", "kind": "repeats", "by": ("url", "text")},
    ]
)
IMAGES = {"http://a.example/i.png": ImageMeasure(width=100, height=100, kept=True)}
PICTURE: Block = ("image", "http://a.example/i.png")
GOOD = page("The stones stand in lines.", "Next", PICTURE, PICTURE, PICTURE)
Parts = list[tuple[pa.Table, pa.Table, list[pa.Table]]]


def judged(
    documents: list[Document], signals: pa.Table, repeats: pa.Table
) -> tuple[pa.Table, pa.Table, list[pa.Table]]:
    table, masks = documents_table(documents), []
    last = None
    for count, pass_ in enumerate(RECIPE, start=1):
        reasons = Reasons.of(RECIPE[:count])
        if isinstance(pass_, RulesPass):
            last = judge_part(table, signals, last, pass_.rules, reasons)
        else:
            assert isinstance(pass_, RepeatsPass)
            mine: dict[int, RepeatKind] = dict(
                zip(repeats["row"].to_pylist(), repeats["kind"].to_pylist(), strict=True)
            )
            last = judge_repeats_part(table, signals, last, mine, reasons)
        masks.append(last)
    return table, signals, masks


def poured(parts: Parts, max_samples: int = 5) -> list[FunnelStep]:
    funnel = Funnel(RECIPE, max_samples=max_samples)
    for part in parts:
        funnel.add_part(*part)
    return funnel.steps()


def hand_made() -> tuple[pa.Table, pa.Table, list[pa.Table]]:
    documents = [GOOD, page("Words enough, but no picture."), page("Home"), page("never measured"), GOOD]
    rows = [measure_document(document, IMAGES) for document in documents]
    rows[3] = failed_row(documents[3], "too_deep")
    repeat = {"kind": "url", "key": "k", "id": GOOD.id, "unit": "a", "row": 4, "root": GOOD.id}
    repeats = pa.Table.from_pylist([repeat], schema=REPEATS)
    return judged(documents, pa.Table.from_pylist(rows, schema=SIGNALS), repeats)


def amount(documents: int, text_blocks: int, words: int, images: int) -> Amount:
    return Amount(documents=documents, text_blocks=text_blocks, words=words, images=images)


def test_each_pass_tells_what_is_left_and_each_reason_what_it_took() -> None:
    came, blocks, pages, repeats = poured([hand_made()])
    assert (came.name, came.kept, came.taken) == ("(input)", amount(5, 7, 18, 6), ())
    assert (blocks.name, blocks.kept) == ("blocks", amount(3, 3, 15, 6))
    assert {taken.reason: taken.amount for taken in blocks.taken} == {
        "signals_failed": amount(1, 1, 0, 0),
        "image_missing": amount(0, 0, 0, 0),
        "text.num_words < 3": amount(0, 3, 3, 0),
        "image.width < 64": amount(0, 0, 0, 0),
        "no_blocks_left": amount(1, 0, 0, 0),
    }
    assert pages.kept == amount(2, 2, 10, 6)
    assert {taken.reason: taken.amount for taken in pages.taken}["document.num_images < 3"] == amount(1, 1, 5, 0)
    assert repeats.kept == amount(1, 1, 5, 3)
    assert [(taken.reason, taken.amount) for taken in repeats.taken] == [
        ("signals_failed", amount(0, 0, 0, 0)),
        ("repeat.url", amount(1, 1, 5, 3)),
        ("repeat.text", amount(0, 0, 0, 0)),
    ]


def test_the_grave_shows_what_was_taken() -> None:
    _, blocks, pages, _ = poured([hand_made()])
    graves = {taken.reason: [sample.excerpt for sample in taken.samples] for taken in (*pages.taken, *blocks.taken)}
    assert set(graves["text.num_words < 3"]) == {"Next", "Home"}
    assert graves["no_blocks_left"] == ["Home"]
    assert graves["signals_failed"] == ["never measured"]
    assert graves["document.num_images < 3"] == ["Words enough, but no picture."]
    assert graves["image_missing"] == []


def test_the_grave_holds_one_sample_of_each_excerpt_of_the_smallest_ids() -> None:
    documents = [page("Next", f"Page number {n} has enough words.", url=f"http://a.example/{n}") for n in range(30)]
    part = judged(documents, signals_table(documents), REPEATS.empty_table())
    _, blocks, pages, _ = poured([part], max_samples=4)
    first = sorted(documents, key=lambda document: document.id)
    nexts, (few,) = blocks.taken[2].samples, [taken.samples for taken in pages.taken if taken.samples]
    assert [(sample.id, sample.excerpt) for sample in nexts] == [(first[0].id, "Next")]
    assert [(sample.url, sample.excerpt) for sample in few] == [(each.url, each.texts[1]) for each in first[:4]]


def real_parts() -> Parts:
    documents, images = sample_pages()
    parts = []
    for start in range(0, len(documents), 7):
        part = list(documents[start : start + 7])
        parts.append(judged(part, signals_table(part, images), REPEATS.empty_table()))
    return parts


def total(amounts: list[Amount]) -> list[int]:
    columns = [(each.documents, each.text_blocks, each.words, each.images) for each in amounts]
    return [sum(column) for column in zip(*columns, strict=True)]


def test_on_real_pages_what_went_in_is_what_was_taken_and_what_came_out() -> None:
    steps = poured(real_parts())
    assert steps[0].kept.documents == 60
    assert 0 < steps[-1].kept.documents < 60
    for before, after in pairwise(steps):
        assert total([before.kept]) == total([after.kept, *(taken.amount for taken in after.taken)])
        for taken in after.taken:
            hit = taken.amount.documents + taken.amount.text_blocks + taken.amount.images > 0
            assert bool(taken.samples) == hit, taken.reason
            assert len(taken.samples) <= 5


def test_the_order_and_the_size_of_units_change_nothing() -> None:
    parts = real_parts()
    steps = poured(parts, max_samples=3)
    random.Random(5).shuffle(parts)
    assert poured(parts, max_samples=3) == steps
    documents, images = sample_pages()
    whole = judged(list(documents), signals_table(documents, images), REPEATS.empty_table())
    assert poured([whole], max_samples=3) == steps


def test_steps_are_written_as_json() -> None:
    written = json.loads(json.dumps([step.to_json() for step in poured([hand_made()])]))
    assert written[1]["kept"] == {"documents": 3, "text_blocks": 3, "words": 15, "images": 6}
    assert written[3]["taken"][1]["reason"] == "repeat.url"
    assert written[3]["taken"][1]["samples"][0]["url"] == "http://stones.example/"


def test_an_empty_unit_counts_nothing() -> None:
    empty = judged([], SIGNALS.empty_table(), REPEATS.empty_table())
    assert poured([empty, hand_made()]) == poured([hand_made()])
    assert poured([])[0].kept == amount(0, 0, 0, 0)


def test_units_of_other_documents_are_refused() -> None:
    documents, signals, masks = hand_made()
    with pytest.raises(InputError, match="different documents"):
        Funnel(RECIPE).add_part(documents.slice(1), signals, masks)
