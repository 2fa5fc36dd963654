"""What is compared: the floor, a walk, carnac, and the extractors of others as their manuals say to call them.

A method makes of a page what its user gets, which is timed; `items_of` reads that for the scores, which is not.
Other extractors are imported only here, and left out with a sentence where they are not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal
from urllib.parse import urljoin

from selectolax.lexbor import LexborHTMLParser

from carnac.core.document import Document
from carnac.web.blocks import Block
from carnac.web.extract import extract_document, read_page
from carnac.web.settings import ExtractSettings
from extraction.pages import Page

Item = tuple[Literal["text", "image"], str]

INSTALL = "Install it with: .venv/bin/pip install -r bench/extraction/requirements.txt"
FLOOR = "lexbor parse"
RESILIPARSE = "resiliparse, main content"
READ_PAGE = "carnac"
DOCUMENT = "carnac, document with language"
_SETTINGS = ExtractSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to read a page. `items_of` gives its texts and pictures in reading order; without it nothing is scored."""

    name: str
    run: Callable[[Page], Any]
    items_of: Callable[[Any, Page], list[Item]] | None = None
    gives_images: bool = False


def own_methods() -> list[Method]:
    """Return the floor, what stands on nothing else, and carnac."""
    return [
        Method(name=FLOOR, run=lambda page: _drop(LexborHTMLParser(page.text))),
        Method(name="lexbor parse of bytes", run=lambda page: _drop(LexborHTMLParser(page.payload, encoding=True))),
        Method(name="lexbor parse and walk", run=_walk),
        Method(
            name=READ_PAGE,
            run=lambda page: read_page(page.payload, page.url, page.charset, _SETTINGS),
            items_of=_block_items,
            gives_images=True,
        ),
        Method(
            name=DOCUMENT,
            run=lambda page: extract_document(page.response, "bench", _SETTINGS),
            items_of=_document_items,
            gives_images=True,
        ),
    ]


def other_methods() -> tuple[list[Method], list[str]]:
    """Return the methods of others, and a sentence for each that is not installed."""
    methods: list[Method] = []
    left_out = []
    for make, package in ((_resiliparse, "resiliparse"), (_trafilatura, "trafilatura"), (_readability, "readability")):
        try:
            methods += make()
        except ImportError as error:
            left_out.append(f"{package} is left out: {error}. {INSTALL}")
    return methods, left_out


def _drop(_tree: LexborHTMLParser) -> None:
    """Return nothing: taking a tree apart belongs to its cost."""


def _walk(page: Page) -> int:
    root = LexborHTMLParser(page.text).root
    return 0 if root is None else sum(node.tag is not None for node in root.traverse(include_text=True))


def _block_items(blocks: list[Block], _page: Page) -> list[Item]:
    return [("image", block.url) if block.url is not None else ("text", block.text or "") for block in blocks]


def _document_items(document: Document, _page: Page) -> list[Item]:
    return [
        ("image", image) if image is not None else ("text", text or "")
        for text, image in zip(document.texts, document.images, strict=True)
    ]


def _plain_items(text: str | None, _page: Page) -> list[Item]:
    return [("text", text or "")]


def _resiliparse() -> list[Method]:
    extract = import_module("resiliparse.extract.html2text").extract_plain_text
    detect = import_module("resiliparse.parse.encoding").detect_encoding
    parse = import_module("resiliparse.parse.html").HTMLTree.parse_from_bytes

    def run(page: Page) -> Any:
        return extract(parse(page.payload, detect(page.payload, from_html_meta=True)), main_content=True)

    return [Method(name=RESILIPARSE, run=run, items_of=_plain_items)]


def _trafilatura() -> list[Method]:
    extract = import_module("trafilatura").extract
    parse = import_module("lxml.etree").fromstring

    def items_of(xml: str | None, page: Page) -> list[Item]:
        items: list[Item] = []
        for event, element in _events(parse(xml)) if xml else ():
            if event == "start" and element.tag == "graphic" and element.get("src"):
                items.append(("image", urljoin(page.url, element.get("src"))))
            items.append(("text", (element.text if event == "start" else element.tail) or ""))
        return items

    return [
        Method(name="trafilatura, text", run=lambda page: extract(page.payload, url=page.url), items_of=_plain_items),
        Method(
            name="trafilatura, with images",
            run=lambda page: extract(page.payload, url=page.url, include_images=True, output_format="xml"),
            items_of=items_of,
            gives_images=True,
        ),
    ]


def _events(tree: Any) -> Any:
    return import_module("lxml.etree").iterwalk(tree, events=("start", "end"))


def _readability() -> list[Method]:
    article = import_module("readability").Document

    def run(page: Page) -> Any:
        return article(page.payload, url=page.url).summary()

    return [
        Method(
            name="readability-lxml",
            run=run,
            items_of=lambda html, page: items_of_html(html, page.url),
            gives_images=True,
        )
    ]


def items_of_html(html: str | bytes, url: str) -> list[Item]:
    """Return all texts and pictures of a page, in order: what is known, or was found, to be its main content."""
    root = LexborHTMLParser(html).root
    items: list[Item] = []
    for node in root.traverse(include_text=True) if root is not None else ():
        if node.is_text_node:
            items.append(("text", node.text_content or ""))
        elif node.tag == "img":
            source = (node.attributes.get("src") or "").strip()
            if source and not source.startswith("data:"):
                items.append(("image", urljoin(url, source)))
    return items
