"""What a page tells of its images: alternative text, caption, place, address, declared size."""

from __future__ import annotations

import numpy as np
import pytest
from curate_pages import Block, frame_of, page, sample_pages

from carnac.core.document import Document, ImageNode
from carnac.curate.signals.catalogue import signals_on
from carnac.curate.signals.of_pages import BANNED_URL_WORDS, PAGE_COLUMNS, measure_images_of_page

STONES = "http://a.example/stones.png"


def of_image(document: Document, name: str) -> list[float]:
    """Return the values of a signal of the images of a page."""
    frame = frame_of(document)
    values: list[float] = signals_on("image")[name].value(frame)[frame.is_image].tolist()
    return values


def told(alt: str | None = None, caption: str | None = None, width: int | None = None) -> dict[str, ImageNode]:
    return {STONES: ImageNode(alt=alt, caption=caption, declared_width=width, declared_height=None)}


def test_alternative_text_and_caption_are_counted() -> None:
    document = page(("image", STONES), nodes=told(" The long stones! ", "A row", width=300))
    assert of_image(document, "alt_characters") == [16]
    assert of_image(document, "alt_words") == [3]
    assert of_image(document, "caption_words") == [2]
    assert of_image(document, "declared_width") == [300]
    assert np.isnan(of_image(document, "declared_height")).all()


def test_a_page_without_alternative_text_says_0_and_one_that_was_not_looked_at_nothing() -> None:
    silent = page(("image", STONES))
    assert of_image(silent, "alt_words") == of_image(silent, "caption_words") == [0]
    unknown = Document(**{**{n: getattr(silent, n) for n in Document.__slots__}, "image_nodes": (None,)})
    assert np.isnan(of_image(unknown, "alt_words")).all()
    assert of_image(unknown, "banned_url_words") == [0]  # its address is known


def test_words_of_alternative_text_are_looked_for_in_the_nearest_texts_only() -> None:
    nodes = told("Rows of stones near Carnac")
    around = page("of Carnac", "Old stones", ("image", STONES), "They stand in ROWS.", "near", nodes=nodes)
    assert of_image(around, "caption_overlap") == [pytest.approx(2 / 5)]  # stones, rows
    assert of_image(page(("image", STONES), "stones", nodes=nodes), "caption_overlap") == [pytest.approx(1 / 5)]
    assert of_image(page(("image", STONES), nodes=nodes), "caption_overlap") == [0]
    assert np.isnan(of_image(page("text", ("image", STONES)), "caption_overlap")).all()


def test_a_caption_beside_its_picture_is_no_neighbour() -> None:
    nodes = told("standing stones", "standing stones")
    document = page("Old stones.", ("image", STONES), ("caption", "standing stones"), "Bye.", nodes=nodes)
    assert of_image(document, "caption_overlap") == [0.5]


def test_the_position_runs_from_the_first_block_to_the_last() -> None:
    picture: Block = ("image", STONES)
    assert of_image(page(picture, "a", picture, "b", picture), "position") == [0, 0.5, 1]
    assert of_image(page(picture), "position") == [0]


@pytest.mark.parametrize("word", BANNED_URL_WORDS)
def test_every_word_of_obelics_is_found_anywhere_in_the_address(word: str) -> None:
    assert of_image(page(("image", f"http://a.example/x{word.upper()}s/1.png")), "banned_url_words") == [1]
    assert of_image(page(("image", f"http://{word}.example/logos/button.png")), "banned_url_words")[0] >= 2
    assert of_image(page(("image", "http://a.example/l-ogo/stones.png")), "banned_url_words") == [0]


def test_every_column_has_an_entry_per_block_and_none_for_texts() -> None:
    documents, _ = sample_pages()
    for document in documents:
        measured = measure_images_of_page(document)
        assert list(measured) == [column.name for column in PAGE_COLUMNS]
        for values in measured.values():
            assert len(values) == len(document.kinds)
            assert all(value is None for value, kind in zip(values, document.kinds, strict=True) if kind != "image")


def test_a_text_beside_many_images_is_split_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from carnac.curate.signals import of_pages as signals_of_pages

    split: list[str] = []

    def counting(text: str) -> list[str]:
        split.append(text)
        return text.split()

    monkeypatch.setattr(signals_of_pages, "split_words", counting)
    pictures: list[Block] = [("image", STONES)] * 500
    measure_images_of_page(page("a long text before", *pictures, "and one after", nodes=told("alt")))
    assert split.count("a long text before") == split.count("and one after") == 1
