"""URLs of pictures, and what the page says about them."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_pages import document

from carnac.web.extract import read_page
from carnac.web.settings import ExtractSettings
from carnac.web.sources import describe_image, image_source, parse_srcset, resolve

BASE = "https://a.example/docs/page.html"
DATA = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("i.png", "https://a.example/docs/i.png"),
        ("../i.png#top", "https://a.example/i.png"),
        ("/i.png", "https://a.example/i.png"),
        ("//cdn.example/i.png?w=1,2", "https://cdn.example/i.png?w=1,2"),
        (" http://b.example/a b.png\n", "http://b.example/a%20b.png"),
        ("http://b.example/a\nb.png", "http://b.example/ab.png"),
        ("?v=2", "https://a.example/docs/page.html?v=2"),
        ("", None),
        ("#x", None),
        (DATA, None),
        ("javascript:void(0)", None),
        ("file:///etc/passwd", None),
        ("about:blank", None),
        ("http://", None),
        ("http://[broken/i.png", None),
        ("http://b.example:port/i.png", None),
    ],
)
def test_links_are_resolved(link: str, expected: str | None) -> None:
    assert resolve(BASE, link) == expected


@given(st.text())
def test_resolved_links_are_absolute(link: str) -> None:
    url = resolve(BASE, link)
    if url is not None:
        parts = urlsplit(url)
        assert parts.scheme in ("http", "https")
        assert parts.hostname
        assert not set(url) & set(" \t\r\n#")


@pytest.mark.parametrize(
    ("srcset", "expected"),
    [
        ("a.png", [("a.png", 1.0, "x")]),
        ("a.png 1x, b.png 2.5x", [("a.png", 1.0, "x"), ("b.png", 2.5, "x")]),
        ("a.png 100w,b.png 200w", [("a.png", 100.0, "w"), ("b.png", 200.0, "w")]),
        ("a.png, b.png 2x", [("a.png", 1.0, "x"), ("b.png", 2.0, "x")]),
        ("https://c.example/w_1,h_2/a.png 640w", [("https://c.example/w_1,h_2/a.png", 640.0, "w")]),
        (f"{DATA} 1w, a.png 2w", [("a.png", 2.0, "w")]),
        ("a.png 100w 50h , , b.png nonsense", [("a.png", 100.0, "w"), ("b.png", 1.0, "x")]),
        (" , ", []),
    ],
)
def test_srcset(srcset: str, expected: list[tuple[str, float, str]]) -> None:
    assert list(parse_srcset(srcset)) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"src": "a", "data-src": "b"}, ("a", "src")),
        ({"src": DATA, "data-src": "b"}, ("b", "data-src")),
        ({"src": "", "data-original": "b"}, ("b", "data-original")),
        ({"src": None, "srcset": "a 1x, b 3x, c 2x"}, ("b", "srcset")),
        ({"data-srcset": "a 300w, b 200w"}, ("a", "data-srcset")),
        ({"src": DATA}, None),
        ({}, None),
    ],
)
def test_source_of_an_image(attributes: dict[str, str | None], expected: tuple[str, str] | None) -> None:
    found = image_source(attributes, "http://a.example/")
    assert found == (None if expected is None else ("http://a.example/" + expected[0], expected[1]))


def test_description_of_an_image() -> None:
    node = describe_image({"alt": " a \n cat ", "width": "320px", "height": "50%"}, "src", "A cap")
    assert (node.alt, node.declared_width, node.declared_height) == ("a cat", 320, None)
    assert (node.caption, node.source_attribute) == ("A cap", "src")
    assert describe_image({"alt": "", "width": "99999999999"}, "src", None).declared_width is None


def test_base_element_moves_links() -> None:
    assert document("<base href=/img/><img src=a.png>x").images[0] == "http://a.example/img/a.png"
    assert document("<base href='javascript:x'><base href='//b.example'><img src=a.png>").images == (
        "http://b.example/a.png",
    )


@pytest.mark.parametrize(
    ("html", "names"),
    [
        (f"<img src='{DATA}'><noscript><img src=a></noscript>", ["a"]),
        ("<img src=s data-src=a><noscript><img src=a></noscript>", ["a"]),
        ("<img data-src=a>\n<noscript><img src=b></noscript>", ["b"]),
        ("x<noscript><img src=a></noscript> <img data-src=a>", ["a"]),
        ("<img src=a><p>text</p><noscript><img src=b></noscript>", ["a", "b"]),
        ("<div><img src=a></div><div><noscript><img src=b></noscript></div>", ["a", "b"]),
        ("<div><img data-src=a></div><noscript><img src=a></noscript>", ["a"]),
        ("x<noscript><img src=a width=1 height=1></noscript><img src=b>", ["b"]),
        ("<amp-img src=a></amp-img>", ["a"]),
        ("<picture><source srcset=b><img src=a></picture>", ["a"]),
    ],
)
def test_one_copy_of_each_lazy_image(html: str, names: list[str]) -> None:
    images = [image for image in document(html).images if image is not None]
    assert images == [f"http://a.example/docs/{name}" for name in names]


WIDE = """<picture><source srcset="w800.webp 800w, w1600.webp 1600w"><source media=print srcset="p.webp 2x">
<img src=own.jpg srcset="w400.jpg 400w, w1200.jpg 1200w" alt=x></picture>"""


@pytest.mark.parametrize(
    ("max_width", "expected"),
    [(None, "own.jpg"), (5000, "w1600.webp"), (1200, "w1200.jpg"), (1000, "w800.webp"), (300, "w400.jpg")],
)
def test_the_widest_picture_within_a_limit(max_width: int | None, expected: str) -> None:
    settings = ExtractSettings(max_source_width_px=max_width)
    blocks = read_page(f"<p>{'Words of an article. ' * 40}<p>{WIDE}".encode(), BASE, None, settings)
    assert [block.url for block in blocks if block.url] == [resolve(BASE, expected)]


def test_a_limit_leaves_pictures_without_widths_alone() -> None:
    html = f"<p>{'Words of an article. ' * 40}<p><img src=own.jpg srcset='double.jpg 2x'><img src=other.jpg>"
    blocks = read_page(html.encode(), BASE, None, ExtractSettings(max_source_width_px=800))
    assert [block.url for block in blocks if block.url] == [resolve(BASE, "own.jpg"), resolve(BASE, "other.jpg")]
