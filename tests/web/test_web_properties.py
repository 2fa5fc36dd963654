"""What holds for the extraction whatever the bytes: no exception, a well-formed result, the order of the page.

10,000 inputs in all: 1,500 soups of tags, 500 of bytes, 500 of image attributes (hypothesis), 7,500 mutated real pages.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from html import escape
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_pages import sample_pages

from carnac.core.document import KINDS
from carnac.core.errors import RecordError
from carnac.web.blocks import Block
from carnac.web.extract import read_page
from carnac.web.settings import ExtractSettings

URL = "http://a.example/docs/page.html"
SETTINGS = ExtractSettings()
_IN_A_URL = re.compile(r"[\x00-\x20\x7f]")  # what no URL may hold, by RFC 3986 and by browsers


def read(payload: bytes | str, charset: str | None = None, url: str = URL) -> Sequence[Block]:
    return read_page(payload.encode() if isinstance(payload, str) else payload, url, charset, SETTINGS)


def check_blocks(blocks: Sequence[Block]) -> None:
    """Assert what the contract says of block lists."""
    for block in blocks:
        assert block.kind in KINDS
        assert (block.text is None) != (block.url is None)
        assert (block.kind == "image") == (block.url is not None)
        if block.text is not None:
            assert block.text.strip()
            assert "\0" not in block.text
            block.text.encode()  # no lone surrogate
        if block.url is not None:
            check_url(block.url)


def check_url(url: str) -> None:
    parts = urlsplit(url)
    assert parts.scheme in ("http", "https"), url
    assert parts.hostname, url
    assert not re.search(r"[\s%<>\"\\]", parts.hostname), url
    assert parts.port is None or 0 <= parts.port < 1 << 16, url
    assert not parts.fragment, url
    assert not _IN_A_URL.search(url), url


def check(payload: bytes, charset: str | None = None) -> None:
    try:
        blocks = read(payload, charset)
    except RecordError:
        return
    check_blocks(blocks)


# Soups: pieces of markup in any order, most of them never closed.

_TAGS = """
a abbr address amp-img article aside b base blockquote body br button caption center cite code dd details div dl
dt em figcaption figure font footer form frameset h1 h2 h3 head header hr html i iframe img input li link main
math meta nav noscript object ol option p param picture plaintext pre q ruby s script section select source span
strong style sub summary svg table tbody td template textarea tfoot th thead title tr tt u ul video wbr x-own
"""
TAGS = _TAGS.split()
_ATTRIBUTES = """
alt aria-hidden class data-original data-src data-srcset datatable height hidden href id itemid itemprop role
src srcset style summary width
"""
ATTRIBUTES = _ATTRIBUTES.split()
_NAMES = """
a.jpg /b.png http://c.example/d.webp //e.example/f.gif data:image/gif;base64,R0lG http:// http://[::1 http://x:99999/
http://x:y/ http://../a javascript:void(0) mailto:a@b # ?q=1 ../../g.avif 1x1.gif true presentation none main navigation
article content sidebar comment share author byline lazy lineno fallback-image 1 0 100% 640px -5 99999999999
"""
_SETS = (
    "a.jpg 1x, b.jpg 2x",
    "a,b.jpg 320w,c d 640w",
    ",,,",
    "display: none",
    "http://a b/c.png",
    "\u00a0c.png",
    " x.jpg ",
    "",
)
_ODD = ("http://c.example/\u00e9\u2028.png", "http://\u2603.example/a.png", "a\tb\nc.jpg")
VALUES = st.one_of(st.sampled_from((*_NAMES.split(), *_SETS, *_ODD)), st.text(max_size=12))
_SENTENCE = "A sentence, of some length, that ends here. "
_TEXTS = ("word ", _SENTENCE, _SENTENCE * 20, "\u6587\u7ae0\u3002", "By A. Person", "May 3, 2020", "Comments", "12:30")
_MARKS = (
    "\u00a0",
    "\u200b",
    "&nbsp;",
    "&#0;",
    "&#xD800;",
    "&bogus;",
    "\r\n",
    "<",
    ">",
    "&",
    '"',
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?a?>",
)
WORDS = st.one_of(st.sampled_from(_TEXTS + _MARKS), st.text(max_size=20))


@st.composite
def start_tags(draw: st.DrawFn) -> str:
    tag = draw(st.sampled_from(TAGS))
    attributes = draw(st.lists(st.tuples(st.sampled_from(ATTRIBUTES), VALUES), max_size=3))
    quote = draw(st.sampled_from(('"', "'", "")))
    return f"<{tag}{''.join(f' {name}={quote}{value}{quote}' for name, value in attributes)}>"


PIECES = st.one_of(start_tags(), st.sampled_from(TAGS).map("</{}>".format), WORDS)
SOUPS = st.lists(PIECES, max_size=40).map("".join)


@settings(max_examples=1500, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(SOUPS)
def test_a_soup_of_tags_gives_well_formed_blocks(soup: str) -> None:
    check(soup.encode("utf_8", "surrogatepass"))


@settings(max_examples=500, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(st.binary(max_size=300), st.sampled_from((None, "utf-8", "utf-16", "shift_jis", "big5", "utf-7", "no such", "")))
def test_any_bytes_under_any_charset_give_well_formed_blocks(payload: bytes, charset: str | None) -> None:
    check(payload, charset)


@settings(max_examples=500, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(VALUES, st.sampled_from(("src", "srcset", "data-src", "data-srcset", "data-any")), VALUES)
def test_image_urls_are_absolute_whatever_page_base_and_attribute_say(value: str, attribute: str, base: str) -> None:
    html = f'<base href="{escape(base)}"><p>text<img {attribute}="{escape(value)}">'
    check(html.encode("utf_8", "surrogatepass"))


# Mutations of real pages.


def cut(rng: random.Random, page: bytes, _other: bytes) -> bytes:
    start, stop = sorted(rng.randrange(len(page) + 1) for _ in range(2))
    return page[:start] if rng.random() < 0.5 else page[start:stop]


def splice(rng: random.Random, page: bytes, other: bytes) -> bytes:
    return page[: rng.randrange(len(page))] + other[rng.randrange(len(other)) :]


def flip(rng: random.Random, page: bytes, _other: bytes) -> bytes:
    changed = bytearray(page)
    for _ in range(rng.choice((1, 10, 300))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


_TAG = re.compile(rb"<[^<>]*>")


def remove_tags(rng: random.Random, page: bytes, _other: bytes) -> bytes:
    share = rng.choice((0.01, 0.1, 0.5))
    return _TAG.sub(lambda tag: b"" if rng.random() < share else tag[0], page)


def double_tags(rng: random.Random, page: bytes, _other: bytes) -> bytes:
    share = rng.choice((0.01, 0.1, 0.5))
    return _TAG.sub(lambda tag: tag[0] * (2 if rng.random() < share else 1), page)


def swap_tags(rng: random.Random, page: bytes, _other: bytes) -> bytes:
    tags = _TAG.findall(page)
    return _TAG.sub(lambda tag: rng.choice(tags) if rng.random() < 0.1 else tag[0], page)


Mutation = Callable[[random.Random, bytes, bytes], bytes]
MUTATIONS: tuple[Mutation, ...] = (cut, splice, flip, remove_tags, double_tags, swap_tags)
MAX_SEED_BYTES = 24_000  # a window of the page: 7,500 whole ones would take minutes


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_mutated_real_page_gives_well_formed_blocks(mutate: Mutation) -> None:
    pages = [response.payload for response in sample_pages().values()]
    for seed in range(1250):
        rng = random.Random(seed)
        page, other = rng.choice(pages), rng.choice(pages)
        start = rng.randrange(max(1, len(page) - MAX_SEED_BYTES)) if seed % 4 else 0
        payload = mutate(rng, page[start : start + MAX_SEED_BYTES // 3], other[-MAX_SEED_BYTES // 3 :])
        try:
            check(payload)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


# Order.

_PARAGRAPH = (
    "{} and the mill by the river, turning, grinds the corn of the whole valley, all day long, as it did of old."
)
_CONTAINERS: tuple[str, ...] = (
    "<p>{}</p>",
    "<h2>{}</h2>",
    "<ul><li>{}</li></ul>",
    "<blockquote><p>{}</p></blockquote>",
    "<pre>{}</pre>",
    "<div>{}</div>",
    "<section><h3>{}</h3></section>",
    "<table><tr><td>{}</td><td>and a second cell</td></tr></table>",
    "<figure><img src='/{}.jpg'><figcaption>a caption of it</figcaption></figure>",
    "<p><img src='/{}.jpg'></p>",
    "{}<br><br>",
)


@settings(max_examples=300, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(_CONTAINERS), st.booleans()), min_size=2, max_size=40))
def test_what_is_planted_in_a_page_comes_out_ascending(parts: list[tuple[str, bool]]) -> None:
    body = ""
    for number, (container, is_long) in enumerate(parts):
        word = f"planted{number}x"
        is_picture = "src=" in container
        body += container.format(word if is_picture or not is_long else _PARAGRAPH.format(word))
    found = [
        int(number)
        for block in read(f"<article>{body}</article>")
        for number in re.findall(r"planted(\d+)x", block.text or block.url or "")
    ]
    assert found == sorted(found)
    assert len(found) == len(set(found))


# What was extracted, written as a page, is extracted unchanged.


def render(blocks: Sequence[Block]) -> str:
    """Return HTML that says what `blocks` say, as plainly as it can be said."""
    return "\n".join(_ELEMENT[block.kind](block) for block in blocks)


def _lines(block: Block) -> str:
    return escape(block.text or "").replace("\n", "<br>")


def _image(block: Block) -> str:
    alt = (block.attributes.get("alt") or "") if block.attributes else ""
    return f'<img src="{escape(block.url or "")}" alt="{escape(alt)}">'


def _list(block: Block) -> str:
    """Lists as they are written out: an item per "- ", nested by two spaces, other lines belong to the item before."""
    html: list[str] = []
    depth = 0
    for line in (block.text or "").split("\n"):
        content = line.lstrip(" ")
        is_item = content.startswith("- ")
        level = (len(line) - len(content)) // 2 + is_item
        while depth < max(level, 1):
            html.append("<ul>")
            depth += 1
        while depth > max(level, 1):
            html.append("</ul>")
            depth -= 1
        html.append(f"<li>{escape(content[2:])}" if is_item else f"<br>{escape(content)}")
    return "".join(html) + "</ul>" * depth


def _table(block: Block) -> str:
    rows = [line.split(" | ") for line in (block.text or "").split("\n")]
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


_ELEMENT: dict[str, Callable[[Block], str]] = {
    "paragraph": lambda block: f"<p>{_lines(block)}</p>",
    "heading": lambda block: f"<h2>{_lines(block)}</h2>",
    "list": _list,
    "table": _table,
    "code": lambda block: f"<pre>\n{escape(block.text or '')}</pre>",
    "quote": lambda block: f"<blockquote>{_lines(block)}</blockquote>",
    "caption": lambda block: f"<figure><figcaption>{_lines(block)}</figcaption></figure>",
    "image": _image,
}


def contents(blocks: Sequence[Block]) -> list[str]:
    """Return texts and URLs. Without the indentation of lists: what is left of an item that a listing split has one of
    its own, which no list can be written to give."""
    return [
        re.sub("^ +", "", block.text or "", flags=re.MULTILINE)
        if block.kind == "list"
        else block.text or block.url or ""
        for block in blocks
    ]


@pytest.mark.parametrize("element", ["main", "article"])
def test_the_rendering_of_a_real_page_is_extracted_unchanged(element: str) -> None:
    changed = []
    for url, response in sample_pages().items():
        blocks = read(response.payload, response.charset, url)
        again = read(f"<{element}>{render(blocks)}</{element}>", url=url)
        if contents(again) != contents(blocks):
            changed.append(url)
    # Lists of running times (a line and a table), a page of headings and listings,
    # the front page: one table or list outweighs the rest.
    assert len(changed) <= 5, changed
