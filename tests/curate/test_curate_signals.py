from __future__ import annotations

import pyarrow as pa
import pytest
from curate_pages import page, sample_pages, signals_table

from carnac.curate.catalogue import DOCUMENT_SIGNALS, IMAGE_SIGNALS, NAMES, TEXT_SIGNALS
from carnac.curate.signals import SIGNALS, ImageMeasure, failed_row, measure_document

PAGE = page(
    ("heading", "The stones"),
    "They stand in lines, and no one knows why!",
    ("image", "http://stones.example/kept.png"),
    ("image", "http://stones.example/dropped.png"),
    ("image", "http://stones.example/unknown.png"),
)
IMAGES = {
    "http://stones.example/kept.png": ImageMeasure(width=300, height=100, kept=True),
    "http://stones.example/dropped.png": ImageMeasure(width=1, height=1, kept=False),
}


def test_a_row_holds_a_number_per_block() -> None:
    row = measure_document(PAGE, IMAGES)
    assert list(row) == SIGNALS.names
    assert row["id"] == PAGE.id
    assert row["failed"] is None
    assert row["num_characters"] == 10 + 42
    assert row["block_num_words"] == [2, 9, None, None, None]
    assert row["block_num_characters"] == [10, 42, None, None, None]
    assert row["block_num_special_characters"] == [1, 10, None, None, None]
    assert row["block_num_stop_words"] == [1, 6, None, None, None]  # the; they in and no one why
    assert row["block_character_repetition"] == [0.0, 0.0, None, None, None]
    assert row["block_width"] == [None, None, 300, None, None]
    assert row["block_height"] == [None, None, 100, None, None]
    assert row["block_has_image"] == [None, None, True, False, False]


def test_repetition_of_a_document_sees_across_its_blocks() -> None:
    row = measure_document(page("Accept all cookies now please", "Accept all cookies now please"), {})
    assert row["word_repetition"] == pytest.approx(2 / 6)
    assert row["block_word_repetition"] == [0.0, 0.0]


def test_pages_of_one_text_share_a_digest_and_pages_without_text_have_none() -> None:
    cut = measure_document(page("one two", "three"), {})
    whole = measure_document(page("One two three", ("image", "http://a.example/i.png"), url="http://b.example/"), {})
    pictures = measure_document(page(("image", "http://a.example/i.png")), {})
    assert cut["text_digest"] == whole["text_digest"] is not None
    assert cut["url_digest"] != whole["url_digest"]
    assert pictures["text_digest"] is None
    assert pictures["url_digest"] is not None


def test_a_page_without_blocks_is_measured() -> None:
    row = measure_document(page(), {})
    assert row["num_characters"] == 0
    assert row["block_num_words"] == []


def test_a_failed_row_is_nulls_with_lists_as_long_as_the_blocks() -> None:
    row = failed_row(PAGE, "too_deep: 10,000 levels")
    assert list(row) == SIGNALS.names
    assert (row["id"], row["failed"]) == (PAGE.id, "too_deep: 10,000 levels")
    assert row["text_digest"] is None
    assert row["block_num_words"] == row["block_has_image"] == [None] * 5
    assert pa.Table.from_pylist([row], schema=SIGNALS).num_rows == 1


def test_every_signal_of_the_catalogue_can_be_read_from_a_row() -> None:
    row = measure_document(PAGE, IMAGES)
    values: dict[str, dict[str, float | None]] = {
        "text": {name: signal.value(row, 1) for name, signal in TEXT_SIGNALS.items()},
        "image": {name: signal.value(row, 2) for name, signal in IMAGE_SIGNALS.items()},
        "document": {name: signal.value(row, [0, 1, 2]) for name, signal in DOCUMENT_SIGNALS.items()},
    }
    assert {level: tuple(named) for level, named in values.items()} == NAMES
    assert all(isinstance(value, int | float) for named in values.values() for value in named.values())


def test_sums_and_ratios_are_over_the_kept_blocks_and_repetition_over_the_page() -> None:
    row = measure_document(PAGE, IMAGES)
    assert DOCUMENT_SIGNALS["num_words"].value(row, [0, 1]) == 11
    assert DOCUMENT_SIGNALS["num_words"].value(row, [1, 3]) == 9
    assert DOCUMENT_SIGNALS["num_images"].value(row, [0, 2, 4]) == 2
    assert DOCUMENT_SIGNALS["stop_word_ratio"].value(row, [1]) == pytest.approx(6 / 9)
    assert DOCUMENT_SIGNALS["stop_word_ratio"].value(row, [2]) == 0.0
    assert IMAGE_SIGNALS["aspect"].value(row, 2) == 3.0
    assert IMAGE_SIGNALS["aspect"].value(row, 3) is None
    assert TEXT_SIGNALS["special_character_ratio"].value(row, 0) == pytest.approx(0.1)
    assert {name for name, signal in DOCUMENT_SIGNALS.items() if signal.over == "page"} == {
        "character_repetition",
        "word_repetition",
    }


def test_real_pages_look_like_english_prose() -> None:
    documents, images = sample_pages()
    table = signals_table(documents, images)
    assert table.schema == SIGNALS
    assert table.num_rows == len(documents) == 60
    for document, row in zip(documents, table.to_pylist(), strict=True):
        assert all(len(row[name]) == len(document.texts) for name in SIGNALS.names if name.startswith("block_"))
    words = sum(sum(filter(None, row)) for row in table["block_num_words"].to_pylist())
    stops = sum(sum(filter(None, row)) for row in table["block_num_stop_words"].to_pylist())
    assert words > 20_000
    assert 0.2 < stops / words < 0.5
    assert any(flag for row in table["block_has_image"].to_pylist() for flag in row)
