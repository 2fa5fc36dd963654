"""Pages made to cost much: whatever has ever made an extractor quadratic, each between one and eight megabytes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from random import Random

from extraction.pages import Page, page_of

URL = "https://example.org/adversarial/page.html"
_PROSE = "The river rose again last night, and the lower road, which nobody had mended, was under water by noon. "
_ARTICLE = "".join(f"<p>{_PROSE * 6}</p>" for _ in range(6))
_DATA = base64.b64encode(Random(0).randbytes(3_000_000)).decode()  # noqa: S311 -- no secret
MEGABYTE = 1_000_000


def _fill(piece: str, num_bytes: int = 3 * MEGABYTE) -> str:
    return piece * (num_bytes // len(piece.encode()))


def _numbered(piece: str, number: int) -> str:
    return "".join(piece.replace("#", str(at)) for at in range(number))


def _nested(begin: str, inner: str, end: str, depth: int) -> str:
    return begin * depth + inner + end * depth


def _many_attributes(number: int) -> str:
    return "<div " + " ".join(f'data-a{at}="{at}"' for at in range(number)) + ">text</div>"


def _srcset(number: int) -> str:
    return ", ".join(f"https://example.org/pictures/{at},w_{at}.jpg {at + 1}w" for at in range(number))


def _table(rows: int, columns: int, cell: str = "<td>cell 12</td>") -> str:
    return "<table>" + ("<tr>" + cell * columns + "</tr>") * rows + "</table>"


def _mixed() -> str:
    """Return fragments in an order drawn by chance: end tags that end nothing, tables in lists, text in between."""
    pieces = [
        *("<div>", "</div>", "<p>", "</p>", "<ul><li>", "</li></ul>", "<table><tr><td>", "</td></tr></table>"),
        *("<b>", "</b>", "<a href='/x'>", "</a>", "<blockquote>", "</blockquote>", "<pre>", "</pre>", "<br>"),
        *("<figure><img src=/a.jpg>", "<figcaption>seen</figcaption></figure>", "&amp;", "<!-- -->", "<h2>At</h2>"),
        *(
            _PROSE,
            "word ",
            "<script>x()</script>",
            "<section>",
            "</section>",
            "</article>",
            "<noscript>",
            "</noscript>",
        ),
    ]
    draw = Random(1)  # noqa: S311 -- no secret
    return "".join(draw.choices(pieces, k=20_000)) * 4


# What stands in the body, after an article of 4 kB unless it begins with "<html" or is bytes.
_BODIES: dict[str, Callable[[], str | bytes]] = {
    "div nested 100,000 deep": lambda: _nested("<div>", "deep", "</div>", 100_000),
    "div nested 9,000 deep": lambda: _nested("<div>", _PROSE, "</div>", 9_000),
    "div nested 1,900 deep, no end tags": lambda: "<div>" * 1_900 + _fill(f"<p>{_PROSE}</p>", MEGABYTE),
    "div nested 500 deep, 200 times": lambda: _nested("<div>", _PROSE, "</div>", 500) * 200,
    "span nested 500 deep, 200 times": lambda: _nested("<span>", _PROSE, "</span>", 500) * 200,
    "font without end tags": lambda: "<font>" * 2_500 + "<p>text" * 2_500,
    "font without end tags, all different": lambda: _numbered("<font size=#>", 900) + "<p>text" * 900,
    "a million siblings": lambda: "<i></i>" * 1_000_000,
    "a million texts and siblings": lambda: "a<i></i>" * 1_000_000,
    "300,000 paragraphs of a word": lambda: "<p>word</p>" * 300_000,
    "300,000 paragraphs without end tags": lambda: "<p>word" * 300_000,
    "200,000 empty div": lambda: "<div></div>" * 200_000,
    "30,000 paragraphs of prose": lambda: f"<p>{_PROSE}</p>" * 30_000,
    "100,000 headings": lambda: "<h2>Heading</h2>" * 100_000,
    "one script of 8 MB": lambda: "<script>" + _fill("if (a < b && c > d) { f('<p>') } ", 8 * MEGABYTE) + "</script>",
    "100,000 scripts": lambda: "<script>var a = 1;</script>" * 100_000,
    "a script without end": lambda: "<script>" + _fill("f('<p>text</p>'); "),
    "one style of 5 MB": lambda: "<style>" + _fill(".a > .b { color: red } ", 5 * MEGABYTE) + "</style>",
    "an inline picture of 4 MB": lambda: f'<img src="data:image/png;base64,{_DATA}">',
    "4,000 inline pictures of 1 kB": lambda: "".join(
        f'<img src="data:image/png;base64,{_DATA[at * 900 :][:900]}">' for at in range(4_000)
    ),
    "linked data of 4 MB": lambda: (
        '<script type="application/ld+json">[' + _fill('{"@type":"Thing","name":"a"},', 4 * MEGABYTE) + "{}]</script>"
    ),
    "linked data nested 100,000 deep": lambda: (
        '<script type="application/ld+json">' + _nested('{"a":[', "1", "]}", 100_000) + "</script>"
    ),
    "a table of 1,000 x 200": lambda: _table(1_000, 200),
    "a table of 100,000 x 2": lambda: _table(100_000, 2),
    "a table of one row": lambda: _table(1, 200_000),
    "a table without end tags": lambda: "<table>" + "<tr><td>cell" * 200_000,
    "a table with text where none may be": lambda: "<table>" + "<tr>astray<td>cell</td></tr>" * 100_000,
    "tables nested 300 deep": lambda: _nested("<table><tr><td>", _PROSE, "</td></tr></table>", 300) * 100,
    "a list of 200,000": lambda: "<ul>" + "<li>item 12</li>" * 200_000 + "</ul>",
    "a list without end tags": lambda: "<ul>" + "<li>item 12" * 200_000,
    "lists nested 300 deep": lambda: _nested("<ul><li>item", _PROSE, "</li></ul>", 300) * 100,
    "lists and quotes nested 300 deep": lambda: (
        _nested("<ul><li>item<blockquote>said", _PROSE, "</blockquote></li></ul>", 300) * 50
    ),
    "quotes nested 300 deep": lambda: _nested("<blockquote>said", _PROSE, "</blockquote>", 300) * 100,
    "100,000 terms": lambda: "<dl>" + "<dt>term</dt><dd>meaning</dd>" * 100_000 + "</dl>",
    "100,000 links": lambda: _numbered('<a href="/page/#">page #</a> ', 100_000),
    "100,000 links without end tags": lambda: _numbered('<a href="/page/#">page # ', 100_000),
    "one attribute of 4 MB": lambda: f'<div class="{_fill("word ", 4 * MEGABYTE)}">text</div>',
    "1,000 elements with 300 attributes": lambda: _many_attributes(300) * 1_000,
    "20 elements with 4,900 attributes": lambda: _many_attributes(4_900) * 20,
    "100,000 attributes of one element": lambda: _many_attributes(100_000),
    "a style attribute of 3 MB": lambda: f'<p style="{_fill("color: red; ")}">text</p>',
    "a srcset of 50,000": lambda: f'<img srcset="{_srcset(50_000)}">',
    "2,000 srcsets of 20": lambda: f'<img srcset="{_srcset(20)}">' * 2_000,
    "a srcset of commas": lambda: f'<img srcset="{_fill(",")}">',
    "20,000 figures": lambda: _numbered(
        "<figure><img src=/p#.jpg alt='a view'><figcaption>View #</figcaption></figure>", 20_000
    ),
    "one figure of 50,000 pictures": lambda: (
        "<figure>" + _numbered("<img src=/p#.jpg>", 50_000) + "<figcaption>All</figcaption></figure>"
    ),
    "50,000 pictures in one paragraph": lambda: "<p>" + _numbered("word <img src=/p#.jpg> ", 50_000) + "</p>",
    "30,000 pictures, each with its copy": lambda: _numbered(
        "<img data-src=/p#.jpg><noscript><img src=/p#.jpg></noscript>", 30_000
    ),
    "100,000 noscript": lambda: "<noscript><p>text</p></noscript>" * 100_000,
    "500,000 br": lambda: "word<br>" * 500_000,
    "a million br in a row": lambda: "<br>" * 1_000_000,
    "entities": lambda: _fill("&amp;&eacute;&#8212; "),
    "entities that are none": lambda: _fill("&amp&nosuch&#x;&"),
    "one paragraph of 5 MB": lambda: f"<p>{_fill(_PROSE, 5 * MEGABYTE)}</p>",
    "one word of 5 MB": lambda: f"<p>{_fill('word', 5 * MEGABYTE)}</p>",
    "5 MB of white space": lambda: f"<p>{_fill(' ' * 99 + chr(10), 5 * MEGABYTE)}</p>",
    "spaces between tags": lambda: _fill("<b> </b>\n \n"),
    "a listing of 3 MB": lambda: "<pre>" + _fill("    return value  # and so on\n") + "</pre>",
    "a listing of spans": lambda: "<pre>" + "<span class=k>return</span> <span>x</span>\n" * 70_000 + "</pre>",
    "200,000 comments": lambda: "<!-- comment -->" * 200_000,
    "a comment without end": lambda: "<!-- " + _fill("<p>text</p> "),
    "nothing but <": lambda: _fill("< ", MEGABYTE),
    "nothing but <a": lambda: _fill("<a ", MEGABYTE),
    "nothing but </": lambda: _fill("</p>", MEGABYTE),
    "200,000 options": lambda: "<select>" + "<option>choice</option>" * 200_000 + "</select>",
    "100,000 articles": lambda: "<article><p>Short piece.</p></article>" * 100_000,
    "100,000 asides": lambda: "<aside class='share social'>Share this</aside>" * 100_000,
    "100,000 words of microdata": lambda: "<span itemscope><b itemprop=name>a</b></span>" * 100_000,
    "an svg of 3 MB": lambda: "<svg>" + _fill("<path d='M0 0 L1 1'/>") + "</svg>",
    "Chinese prose": lambda: _fill("<p>\u6cb3\u6c34\u6628\u591c\u53c8\u6da8\u4e86\uff0c\u8def\u6df9\u4e86\u3002</p>"),
    "Cyrillic, no charset said": lambda: _fill("<p>\u0420\u0435\u043a\u0430 \u0441\u043d\u043e\u0432\u0430</p>").encode(
        "cp1251"
    ),
    "UTF-16": lambda: f"\ufeff<html><body>{_fill(f'<p>{_PROSE}</p>', MEGABYTE)}".encode("utf_16_le"),
    "NUL bytes": lambda: _fill("a\0b"),
    "bytes by chance": lambda: Random(2).randbytes(3 * MEGABYTE),  # noqa: S311 -- no secret
    "a head of 100,000 meta": lambda: (
        "<html><head>" + "<meta name=author content=Nobody>" * 100_000 + "</head><body>" + _ARTICLE
    ),
    "a head of 50,000 base": lambda: "<html><head>" + "<base href=/a/>" * 50_000 + "</head><body>" + _ARTICLE,
    "a title of 3 MB": lambda: f"<html><head><title>{_fill(_PROSE)}</title></head><body>" + _ARTICLE,
    "mixed": _mixed,
}


def adversarial_pages() -> Iterator[Page]:
    """Yield the pages, each made when it is asked for."""
    for name, make in _BODIES.items():
        body = make()
        if isinstance(body, str):
            whole = body if body.startswith("<html") else f"<html><head><title>{name}</title></head><body>"
            body = (whole if whole is body else f"{whole}{_ARTICLE}{body}").encode()
        yield page_of(name, body, URL)
