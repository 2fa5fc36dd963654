"""Responses to documents: real pages against stored ones, titles, main content, bad input."""

from __future__ import annotations

import contextlib
import gc
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_pages import DATA, document, response, sample_pages

from carnac.archive.records import read_responses
from carnac.core.document import Document, document_id
from carnac.core.errors import RecordError
from carnac.core.schema import document_to_row
from carnac.web.extract import extract_document, is_page
from carnac.web.settings import ExtractSettings

GOLDEN = Path(__file__).parent / "golden"
DOCS = "https://scikit-image.org/docs/0.19.x/"


@pytest.mark.parametrize("page", ["auto_examples/features_detection/plot_haar.html", "user_guide/numpy_images.html"])
def test_golden(page: str) -> None:
    """A change of output must be meant: then raise STAGE_VERSION and store the new blocks."""
    read = extract_document(sample_pages()[DOCS + page], "skimage.warc.gz", ExtractSettings())
    row = document_to_row(read)
    got = {name: row[name] for name in ("id", "title", "language", "kinds", "texts", "images", "image_nodes")}
    path = GOLDEN / (Path(page).stem + ".json")
    assert got == json.loads(path.read_text()), path


@pytest.fixture(scope="module")
def sample_documents() -> list[Document]:
    return [extract_document(page, "x", ExtractSettings()) for page in sample_pages().values()]


def test_sample_as_a_whole(sample_documents: list[Document]) -> None:
    assert len(sample_documents) == 198
    assert all(read.title for read in sample_documents)
    assert sum(read.language == "en" for read in sample_documents) >= 197
    texts = [text for read in sample_documents for text in read.texts if text is not None]
    assert len(texts) > 4000
    assert not [text for text in texts if "\u00b6" in text or "<span" in text or not text.strip()]


def test_sample_links_its_own_pictures(sample_documents: list[Document]) -> None:
    stored = {
        record.url
        for path in DATA.glob("*.warc.gz")
        for record in read_responses(path, max_payload_bytes=10_000_000)
        if record.url is not None and record.url not in sample_pages()
    }
    linked = {image for read in sample_documents for image in read.images if image is not None}
    # The rest are the logo and the thumbnails of lists of links.
    assert {url.rpartition("/")[2] for url in stored - linked if "_thumb" not in url} == {"logo.png", "minus.png"}


def test_facts_of_the_record() -> None:
    read = document("<title> A\n page </title><p>The text of this page is in English.")
    assert (read.url, read.warc_file, read.warc_offset) == ("http://a.example/docs/page.html", "x.warc.gz", 7)
    assert (read.fetched_at, read.title, read.language) == ("2026-01-02T03:04:05Z", "A page", "en")
    payload = b"<title> A\n page </title><p>The text of this page is in English."
    assert read.id == document_id(read.url, payload)


@pytest.mark.parametrize(
    ("html", "title"),
    [
        ("<h1>Head <b>line</b><a href='#x'>\u00b6</a></h1>x", "Head line"),
        ("<title> </title><h1>Head</h1>x", "Head"),
        ("<p>x<svg><title>no</title></svg>", None),
        ("<title>a &amp; b</title>x", "a & b"),
    ],
)
def test_title(html: str, title: str | None) -> None:
    assert document(html).title == title


@pytest.mark.parametrize(
    ("html", "texts"),
    [
        ("<p>out<main><p>in</main><p>out", ["in"]),
        ("out<div role=main>in</div><article>no</article>", ["in"]),
        ("out<article>in</article>", ["in"]),
        ("out<article>in</article><article>too</article>", ["out", "in", "too"]),
        ("out<main>a</main><main>b</main><article>in</article>", ["in"]),
        ("<p>out</p><main><script>x</script></main>", ["out"]),
    ],
)
def test_main_content(html: str, texts: list[str]) -> None:
    assert list(document(html).texts) == texts


@pytest.mark.parametrize(
    ("media_type", "payload", "status", "expected"),
    [
        ("text/html", b"", 200, True),
        ("application/xhtml+xml", b"", 203, True),
        ("text/html", b"", 404, False),
        ("text/html", b"", 301, False),
        ("image/png", b"<html>", 200, False),
        ("", b"\xef\xbb\xbf\n<!DOCTYPE html><html>", 200, True),
        ("application/octet-stream", b"<?xml version='1.0'?><!-- x --><HTML lang=en>", 200, True),
        ("", b"<htmlx>", 200, False),
        ("", b"\x89PNG\r\n<html>", 200, False),
        ("text/plain", b"<html>", 200, False),
    ],
)
def test_is_page(media_type: str, payload: bytes, status: int, expected: bool) -> None:
    assert is_page(response(payload, media_type=media_type, status=status)) is expected


def test_large_page_is_refused() -> None:
    """50 MB of nested tags, and the same just below the bound."""
    for payload, reason in ((b"<div>" * 10_000_000, "page_too_large"), (b"<div>" * 1_999_999, "too_deep")):
        with pytest.raises(RecordError) as caught:
            document(payload)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    "html", ["", "<script>x</script>", "<nav>menu</nav>", "\0", "<frameset><frame src=x></frameset>"]
)
def test_page_without_content_is_refused(html: str) -> None:
    with pytest.raises(RecordError) as caught:
        document(html)
    assert caught.value.reason == "no_content"


def test_wrong_charset_is_repaired() -> None:
    page = "<p>" + "Caf\u00e9s d\u00e9j\u00e0 ferm\u00e9s en \u00e9t\u00e9. " * 5
    for payload, declared in ((page.encode(), "iso-8859-1"), (page.encode("cp1252"), "utf-8")):
        assert document(payload, charset=declared).texts == (page[3:].strip(),)


def test_mutated_real_pages_give_documents_or_reasons() -> None:
    payload = sample_pages()[DOCS + "user_guide/numpy_images.html"].payload
    for cut in range(0, len(payload), len(payload) // 60):
        for damaged in (payload[:cut], payload[cut:], payload[:cut] + b"\xff<" + payload[cut + 7 :]):
            try:
                read = document(damaged)
            except RecordError as error:
                assert error.reason == "no_content"  # noqa: PT017 - either outcome is right
            else:
                assert read.texts


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_give_a_document(payload: bytes) -> None:
    assert document(payload + b" <p>word</p>" if b"<" not in payload else b"<p>word</p>" + payload).texts


@pytest.mark.parametrize("is_enabled", [True, False])
@pytest.mark.parametrize("html", ["<p>text", "<div>" * 60_000])
def test_the_collector_is_left_as_it_was(html: str, is_enabled: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if is_enabled else gc.disable)()
        with contextlib.suppress(RecordError):
            document(html)
        assert gc.isenabled() is is_enabled
    finally:
        (gc.enable if was else gc.disable)()
