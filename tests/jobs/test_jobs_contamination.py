"""Documents that hold items of evaluation sets are found, and named with the set and the item; others are not."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_contamination import (
    Block,
    clean_pages,
    encoded,
    items,
    lines_file,
    pictures,
    planted,
    write_documents,
    write_masks,
)
from jobs_model import DoneHere, runner
from jobs_shards_inputs import write_parts
from PIL import Image

from carnac.core.document import KINDS, document_id
from carnac.core.errors import InputError, RunError
from carnac.curate.contamination.ngrams import hash_words
from carnac.curate.contamination.settings import DecontaminatePass
from carnac.curate.masks import Reasons
from carnac.curate.texts.split import split_words
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.images.inspect import take_image
from carnac.images.settings import ImageSettings
from carnac.jobs import curate_contamination
from carnac.jobs.curate_contamination import search_contamination
from carnac.jobs.curate_judge import Sources, judge


def step_of(*sets: dict[str, Any], **settings: Any) -> DecontaminatePass:
    return DecontaminatePass.model_validate({"name": "clean", "kind": "decontaminate", "set": sets, **settings})


def found_by(
    folder: Path,
    step: DecontaminatePass,
    pages: list[list[Block]],
    last: Manifest | None = None,
    here: Runner | None = None,
) -> tuple[Manifest, list[dict[str, Any]]]:
    documents, images = write_documents(folder, pages)
    manifest = search_contamination(here or runner()[0], step, documents, images, last, folder / "contaminated")
    # A row counts from its part's first: here from the first of all.
    rows = [
        {**row, "row": row["row"] + 300 * place}
        for place, entry in enumerate(manifest.parts)
        for row in read_rows(entry.path)
    ]
    return manifest, rows


def test_fifty_planted_documents_are_found_and_a_thousand_clean_ones_are_not(tmp_path: Path) -> None:
    pages = clean_pages(1050)
    expected = planted(pages)
    assert len(expected) == 50
    step = step_of({"name": "quiz", "texts": lines_file(tmp_path)})
    here = dataclasses.replace(runner()[0], workers=2)
    manifest, rows = found_by(tmp_path, step, pages, here=here)
    false_positives = {row["row"] for row in rows} - set(expected)
    assert len(false_positives) == 0
    assert {row["row"]: row["item"] for row in rows} == {
        place: f"quiz.txt:{number + 1}" for place, number in expected.items()
    }
    assert manifest.counts["contaminated.quiz"] == 50
    for row in rows:
        assert (row["reason"], row["set"], row["block"]) == ("contaminated.quiz", "quiz", None)
        assert row["id"] == document_id(f"http://stones.example/{row['row']}", b"")
        assert len(row["shared"].split()) == 13
        assert row["shared"] in " ".join(split_words(items()[expected[row["row"]]]))


def test_each_set_lists_what_it_was_found_in(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.parquet"
    first.write_text("".join(json.dumps({"q": {"text": item}, "url": "u"}) + "\n" for item in items()[:2]))
    pq.write_table(pa.table({"id": [1, 2], "question": [[items()[1]], [items()[2]]]}), second)
    step = step_of({"name": "a", "texts": first, "fields": ("q",)}, {"name": "b", "texts": second})
    manifest, rows = found_by(tmp_path, step, [[items()[number]] for number in range(4)])
    told = [(row["row"], row["reason"], row["item"]) for row in rows]
    assert told == [
        (0, "contaminated.a", "a.jsonl:1"),
        (1, "contaminated.a", "a.jsonl:2"),
        (1, "contaminated.b", "b.parquet:1"),
        (2, "contaminated.b", "b.parquet:2"),
    ]
    assert (manifest.counts["contaminated.a"], manifest.counts["contaminated.b"]) == (2, 2)


def test_packed_lines_and_arrays_of_json_are_read_too(tmp_path: Path) -> None:
    packed, array = tmp_path / "a.jsonl.gz", tmp_path / "b.json"
    packed.write_bytes(gzip.compress(b"\n" + json.dumps({"q": items()[0]}).encode() + b"\n"))
    array.write_text(json.dumps([{"q": items()[1]}, {"q": items()[2]}], indent=1))
    step = step_of({"name": "a", "texts": packed}, {"name": "b", "texts": array})
    _, rows = found_by(tmp_path, step, [[items()[number]] for number in range(4)])
    assert [(row["row"], row["item"]) for row in rows] == [(0, "a.jsonl.gz:1"), (1, "b.json:1"), (2, "b.json:2")]


def test_what_is_dropped_already_is_not_searched(tmp_path: Path) -> None:
    pages: list[list[Block]] = [[items()[0], "a short end"]] * 3
    last = write_masks(tmp_path, [[True, True], [False, True], [True, True]], [True, True, False])
    _, rows = found_by(tmp_path, step_of({"name": "quiz", "texts": lines_file(tmp_path)}), pages, last)
    assert [row["row"] for row in rows] == [0]


@pytest.mark.parametrize("drop_images", ["image", "document"])
def test_pictures_of_a_set_are_found_after_another_encoding(tmp_path: Path, drop_images: str) -> None:
    named = pictures()
    urls = sorted(named)
    folder = tmp_path / "pictures" / "below"
    folder.mkdir(parents=True)
    held = urls[::2]
    for number, url in enumerate(held):
        (folder / f"{number:02}.jpg").write_bytes(encoded(named[url], 0.75, 85))
    Image.new("RGB", (200, 200), "navy").save(folder / "flat.png")
    pages: list[list[Block]] = [
        ["a text", (url, take_image(named[url], ImageSettings()).facts.phash), "more text"] for url in urls
    ]
    pages.append([("http://a.example/flat", 1 << 63), ("http://a.example/unknown", None)])
    step = step_of({"name": "seen", "images": folder.parent}, drop_images=drop_images)
    manifest, rows = found_by(tmp_path, step, pages)
    assert len(held) > 15
    found = {row["image_url"]: row["item"] for row in rows}
    assert found == {url: f"below/{number:02}.jpg" for number, url in enumerate(held)}
    assert {row["block"] for row in rows} == ({1} if drop_images == "image" else {None})
    assert all(0 <= row["distance"] <= 4 and row["reason"] == "contaminated.seen" for row in rows)
    assert manifest.counts["contaminated.seen"] == len(held)
    sets = read_manifest(tmp_path / "contaminated/sets")
    assert (sets.counts["pictures"], sets.counts["flat"]) == (len(held) + 1, 1)


def test_neither_parts_nor_workers_change_what_is_found(tmp_path: Path) -> None:
    pages = clean_pages(330)
    planted(pages)
    step = step_of({"name": "quiz", "texts": lines_file(tmp_path)})
    _, expected = found_by(tmp_path / "alone", step, pages)
    documents, images = write_documents(tmp_path / "many", pages, rows_per_part=17)
    here = dataclasses.replace(runner()[0], workers=2)
    manifest = search_contamination(here, step, documents, images, None, tmp_path / "many" / "contaminated")
    rows = [
        {**row, "row": row["row"] + 17 * place}
        for place, entry in enumerate(manifest.parts)
        for row in read_rows(entry.path)
    ]
    assert len(rows) == 50
    assert rows == expected


def test_a_document_that_cannot_be_compared_goes(
    tmp_path: Path, done: DoneHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_dog(words: list[str]) -> Any:
        if "dog" in words:
            raise ValueError("no dogs")
        return hash_words(words)

    monkeypatch.setattr(curate_contamination, "hash_words", fail_on_dog)
    pages: list[list[Block]] = [["a cat"], ["a dog"], [items()[0]]]
    manifest, rows = found_by(tmp_path, step_of({"name": "quiz", "texts": lines_file(tmp_path)}), pages)
    assert [(row["row"], row["reason"]) for row in rows] == [(1, "signals_failed"), (2, "contaminated.quiz")]
    assert manifest.counts["lost.raised"] == 1


def test_masks_name_the_set_for_what_it_took(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    url, payload = next(iter(pictures().items()))
    (folder / "a.jpg").write_bytes(encoded(payload, 1, 90))
    phash = take_image(payload, ImageSettings()).facts.phash
    pages: list[list[Block]] = [["a text", (url, phash)], [items()[0]], ["a text"], [(url, phash)]]
    step = step_of(
        {"name": "quiz", "texts": lines_file(tmp_path)}, {"name": "seen", "images": folder}, drop_images="image"
    )
    hits, _ = found_by(tmp_path, step, pages)
    kinds = [[KINDS.index("paragraph" if isinstance(block, str) else "image") for block in page] for page in pages]
    ids = [document_id(f"http://stones.example/{number}", b"") for number in range(len(pages))]
    schema = pa.schema([("id", pa.string()), ("failed", pa.string()), ("block_kind", pa.list_(pa.int8()))])
    rows = [{"id": name, "failed": None, "block_kind": each} for name, each in zip(ids, kinds, strict=True)]
    write_parts(tmp_path / "signals", "signals", schema, {"p00000": rows})
    sources = Sources(signals=read_manifest(tmp_path / "signals"), images=None, kept=None, last=None, hits=hits)
    reasons = Reasons.of([step])
    masks = judge(runner()[0], sources, step, reasons, tmp_path / "judged")
    (entry,) = masks.parts
    told = [
        (
            row["reason"] if row["keep"] else reasons.names[row["reason"]],
            [None if code is None else reasons.names[code] for code in row["block_reason"]],
        )
        for row in read_rows(entry.path)
    ]
    assert told == [
        (None, [None, "contaminated.seen"]),
        ("contaminated.quiz", [None]),
        (None, [None]),
        ("no_blocks_left", ["contaminated.seen"]),
    ]


def test_a_second_run_searches_nothing_and_a_changed_set_everything(tmp_path: Path, done: DoneHere) -> None:
    pages: list[list[Block]] = [[items()[0]], ["nothing at all"]]
    file = lines_file(tmp_path)
    step = step_of({"name": "quiz", "texts": file})
    _, before = found_by(tmp_path, step, pages)
    assert len(done.units) == 2
    assert found_by(tmp_path, step, pages)[1] == before
    assert len(done.units) == 2
    file.write_text("another item of eight words or even more\n")
    assert found_by(tmp_path, step, pages)[1] == []
    assert len(done.units) == 4


@pytest.mark.parametrize(
    ("name", "content", "fields", "sentence"),
    [
        ("a.jsonl", '{"question": "Why?"}', ("question",), "no item has 8 words or more in question"),
        ("a.txt", "Why?", (), "no item has 8 words or more, so none can be searched for"),
        ("a.txt", "Why?", ("q",), r"a.txt: lines of plain text have no fields, and q are asked for. Wanted a name"),
        ("a.parquet", "no table", (), r"a.parquet: cannot be read \(.*\). Wanted JSON lines, Parquet or lines"),
        ("a.txt.gz", "not packed", (), r"a.txt.gz: cannot be read \(Not a gzipped file.*Wanted JSON lines"),
    ],
)
def test_a_file_without_items_stops_the_run_with_a_sentence(
    tmp_path: Path, name: str, content: str, fields: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / name).write_text(content)
    step = step_of({"name": "quiz", "texts": tmp_path / name, "fields": fields})
    with pytest.raises(RunError, match=sentence):
        found_by(tmp_path, step, [["a text"]])


def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": [items()[0]], "answer": ["b"]}), tmp_path / "a.parquet")
    step = step_of({"name": "quiz", "texts": tmp_path / "a.parquet", "fields": ("query",)})
    with pytest.raises(RunError, match=r"no column query. It has question, answer; mend `fields`"):
        found_by(tmp_path, step, [["a text"]])


def test_an_item_that_is_no_object_or_lacks_the_fields_is_lost_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{json.dumps({"q": items()[0]})}\n[1]\n{{"x": 1}}\n{{"q"\n')
    step = step_of({"name": "quiz", "texts": tmp_path / "a.jsonl", "fields": ("q",)})
    _, rows = found_by(tmp_path, step, [[items()[0]]])
    assert len(rows) == 1
    counts = read_manifest(tmp_path / "contaminated/sets").counts
    assert (counts["lost.no_object"], counts["lost.no_field"], counts["lost.bad_json"], counts["items"]) == (1, 1, 1, 4)


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.jsonl: cannot be read \(No such file or directory\)"):
        found_by(tmp_path, step_of({"name": "quiz", "texts": tmp_path / "gone.jsonl"}), [["a text"]])
    with pytest.raises(InputError, match=r"gone: no such folder. Wanted the folder of an evaluation set's pictures"):
        found_by(tmp_path, step_of({"name": "quiz", "images": tmp_path / "gone"}), [["a text"]])


def test_a_set_of_pictures_needs_the_images_of_the_documents(tmp_path: Path) -> None:
    documents, _ = write_documents(tmp_path, [["a text"]])
    step = step_of({"name": "seen", "images": tmp_path})
    with pytest.raises(InputError, match="pass 'clean' compares pictures of seen, but no images are known yet"):
        search_contamination(runner()[0], step, documents, None, None, tmp_path / "contaminated")
