"""Other people's sets through the command, with the images that lie in them: OBELICS rows, image-text pairs."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_tars import tar
from story_runs import all_rows, carnac
from test_jobs_bad_input import picture

from carnac.core.errors import InputError, RecipeError, RecordError
from carnac.jobs.adopt import _rows
from carnac.jobs.adopt_documents import obelics_document
from carnac.jobs.recipes import load_checked

PAGE = "https://news.example/story"
GENERAL = {
    "url": PAGE,
    "warc_filename": "crawl-data/CC-MAIN-2021-04/segments/1/warc/CC-MAIN-1.warc.gz",
    "warc_record_offset": 12345,
    "warc_record_length": 999,
}
IMAGE = {
    "document_url": PAGE,
    "unformatted_src": "/mill.jpg",
    "src": "https://news.example/mill.jpg",
    "formatted_filename": "mill",
    "alt_text": "The mill",
    "original_width": 640,
    "original_height": 480,
    "format": "jpeg",
}
TEXT = "The old mill stands by the river.\n\nPeople walk along the water in the evening.\nThey look at its wheel."


def row(**changes: Any) -> dict[str, Any]:
    """Return a row as the published set has them: JSON in strings, one entry of metadata per place."""
    fields: dict[str, Any] = {
        "texts": [TEXT, None, "The end."],
        "images": [None, "https://news.example/mill.jpg", None],
        "metadata": json.dumps([None, IMAGE, None]),
        "general_metadata": json.dumps(GENERAL),
    }
    return fields | changes


def test_a_row_of_obelics_is_a_document() -> None:
    document = obelics_document(row(), "set.parquet", 7)
    assert (document.url, document.warc_file, document.warc_offset) == (PAGE, "CC-MAIN-1.warc.gz", 12345)
    first, second = TEXT.split("\n\n")
    assert document.texts == (first, second, None, "The end.")
    assert document.images == (None, None, "https://news.example/mill.jpg", None)
    assert document.kinds == ("paragraph", "paragraph", "image", "paragraph")
    assert document.image_nodes[2] is not None
    assert document.image_nodes[2].alt == "The mill"
    assert document.language == "en"
    assert obelics_document(row(), "set.parquet", 8).id == document.id
    bare = obelics_document(row(metadata=None, general_metadata=None, url=PAGE), "set.parquet", 7)
    assert (bare.warc_file, bare.warc_offset) == ("set.parquet", 7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"texts": None}, "bad_row"),
        ({"texts": ["a"]}, "bad_row"),
        ({"texts": ["a", None, None]}, "bad_row"),
        ({"texts": ["a", "b", "c"]}, "bad_row"),
        ({"metadata": "[null]"}, "bad_row"),
        ({"metadata": "{}"}, "bad_row"),
        ({"metadata": "["}, "bad_row"),
        ({"general_metadata": "{}"}, "bad_row"),
        ({"general_metadata": "[" * 100_000}, "bad_row"),
        ({"general_metadata": "[]"}, "bad_row"),
        ({"texts": [], "images": [], "metadata": "[]"}, "no_content"),
        ({"texts": [" \n\n "], "images": [None], "metadata": None}, "no_content"),
    ],
)
def test_a_bad_row_has_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError) as raised:
        obelics_document(row(**changes), "set.parquet", 0)
    assert raised.value.reason == reason


def test_obelics_through_the_command(tmp_path: Path) -> None:
    rows = [row(), row(texts=["a", None, None]), row(general_metadata=json.dumps(GENERAL | {"url": f"{PAGE}/2"}))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set-0.parquet", row_group_size=2)
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "set-1.parquet")
    (tmp_path / "adopt.toml").write_text('job = "adopt"\nobelics = ["set-*.parquet"]\noutput = "documents"\n')
    out = carnac(tmp_path, "run", "adopt.toml")
    assert "documents: 3 rows" in out
    assert "1 records lost (1 bad_row)" in out
    assert [document["url"] for document in all_rows(tmp_path / "documents")] == [PAGE, f"{PAGE}/2", PAGE]
    assert "all done before" in carnac(tmp_path, "run", "documents/recipe.toml")
    assert "documents: 2 rows" in carnac(tmp_path, "run", "adopt.toml", "--limit", "1")
    (tmp_path / "images.toml").write_text('job = "images"\ndocuments = "documents"\noutput = "images"\n')
    carnac(tmp_path, "run", "images.toml")
    (image,) = all_rows(tmp_path / "images")
    assert (image["url"], image["reason"]) == ("https://news.example/mill.jpg", "not_in_archive")


def test_pairs_with_their_images_through_the_command(tmp_path: Path) -> None:
    def pair(number: int, image: bytes, **facts: str) -> list[tuple[str, bytes]]:
        return [
            (f"{number:05}.png", image),
            (f"{number:05}.json", json.dumps({"caption": "A mill.", **facts}).encode()),
        ]

    told = "https://a.example/1.png"
    content = [*pair(1, picture("teal"), url=told), *pair(2, picture("red")), *pair(3, b"no image"), ("4.txt", b"x")]
    (tmp_path / "00000.tar").write_bytes(tar(content))
    (tmp_path / "adopt.toml").write_text('job = "adopt"\npairs = ["*.tar"]\noutput = "documents"\n')
    (tmp_path / "images.toml").write_text('job = "images"\ndocuments = "documents"\noutput = "images"\n')
    out = carnac(tmp_path, "run", "adopt.toml", "images.toml")
    assert "1 records lost (1 no_image)" in out
    documents = all_rows(tmp_path / "documents")
    urls = [told, "tar://00000.tar/00002.png", "tar://00000.tar/00003.png"]
    assert [document["images"] for document in documents] == [[url, None] for url in urls]
    assert [document["texts"] for document in documents] == [[None, "A mill."]] * 3
    rows = {row["url"]: row for row in all_rows(tmp_path / "images")}
    assert [rows[url]["reason"] for url in urls] == [None, None, "not_an_image"]
    assert {row["source"] for row in rows.values()} == {"pairs"}
    for url, colour in zip(urls[:2], ("teal", "red"), strict=True):
        pack = (tmp_path / "images" / "packs" / rows[url]["pack"]).read_bytes()
        start = rows[url]["offset"]
        assert pack[start : start + rows[url]["length"]] == picture(colour)
        assert rows[url]["sha256"] == hashlib.sha256(picture(colour)).hexdigest()
    assert "all done before" in carnac(tmp_path, "run", "adopt.toml", "images.toml")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"texts": [["a"]]}, "no column images, general_metadata"),
        ({"texts": [["a"]], "images": [[None]]}, "no column general_metadata"),
        (None, "cannot be read"),
    ],
)
def test_a_file_of_another_format_is_a_sentence(tmp_path: Path, table: Any, said: str) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 or not")
    if table is not None:
        pq.write_table(pa.table(table), out := io.BytesIO())
        (tmp_path / "x.parquet").write_bytes(out.getvalue())
    with pytest.raises(InputError, match=said):
        next(_rows(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "adopt.toml:1: job: says nothing of what to read. Wanted one of: obelics, pairs."),
        ('obelics = ["a"]\npairs = ["b"]', "adopt.toml:4: pairs: obelics is given too."),
    ],
)
def test_a_wrong_recipe_is_a_sentence(tmp_path: Path, settings: str, said: str) -> None:
    path = tmp_path / "adopt.toml"
    path.write_text(f'job = "adopt"\noutput = "documents"\n{settings}\n')
    with pytest.raises(RecipeError) as raised:
        load_checked([path], [])
    assert said in str(raised.value)
