"""The published tag rules of OBELICS, one by one, and as a whole against what its own code made of real pages."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import time
import timeit
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser
from web_pages import sample_pages

from carnac.web.charset import decode_page
from carnac.web.obelics import END_OF_DOCUMENT, read_page, resolve_against_host

URL = "http://a.example/docs/page.html"
UNWRAPPED = (
    "a abbr acronym b bdi bdo big cite code data dfn em font i ins kbd mark q s samp shadow small span strike strong"
    " sub sup time tt u var wbr"
)
REMOVED = (
    "li dt9x pre form svg header footer nav button label details fieldset menu noscript amp-img custom-tag b2"
    " script style template textarea select figure picture iframe object h-1"
)


def read(html: str, url: str = URL) -> list[str]:
    """The texts and URLs of the blocks."""
    return [block.text or block.url or "" for block in read_page(LexborHTMLParser(html), url)]


# Rules a to n.


def test_a_blank_lines_of_the_source_end_no_paragraph() -> None:
    assert read("<p>a\n\n\nb\n\tc</p>") == ["a b c"]


def test_b_spaces_collapse() -> None:
    assert read("<p>  a    b  </p>") == ["a b"]


def test_c_comments_vanish_and_the_text_around_them_is_one() -> None:
    assert read("<p>a<!-- <p>no</p>\n -->b</p>") == ["ab"]
    assert read("<p>x<br><!-- no --><br>y</p>") == ["x", "y"]


@pytest.mark.parametrize("tag", ["<br>", "<br/>", "<br />", "</br>", "<BR>"])
def test_d_line_break(tag: str) -> None:
    assert read(f"<p>a {tag} b</p>") == ["a\nb"]
    assert read(f"<p>a{tag}{tag}b</p>") == ["a", "b"]


def test_d_line_break_with_attributes_is_an_empty_element() -> None:
    assert read("<p>a<br clear=all>b</p>") == ["ab"]


def test_e_what_is_left_open_ends_where_the_standard_says() -> None:
    assert read("<p>a<p>b<div>c<h2>d") == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["footer", "site-info"])
def test_f_elements_of_the_class_vanish(name: str) -> None:
    assert read(f"<p>a</p><section class='x\n{name}'><p>no<img src=i.png></p></section><p>b</p>") == ["a", "b"]
    assert read(f"<p>a<span class={name}>no</span>b</p>") == ["ab"]
    assert read(f"<p class=my-{name}>a</p>") == ["a"]
    assert read(f"<html class={name}><p>a</p>") == ["a"]


@pytest.mark.parametrize("tag", ["a", "p", "li", "button", "div"])
def test_g_more_link_ends_a_document_in_a_paragraph_of_its_own(tag: str) -> None:
    assert read(f"<div>a <{tag} class='x more-link'>read <b>more</b></{tag}> b</div>") == ["a", END_OF_DOCUMENT, "b"]


def test_g_comes_after_f_and_before_the_rules_on_tags() -> None:
    assert read("<p>a<i class='more-link footer'>no</i>b</p><div id=nav class=more-link>no</div>") == [
        "ab",
        END_OF_DOCUMENT,
    ]
    assert read("<p>a</p><li><a class=more-link>no</a></li>") == ["a"]


@pytest.mark.parametrize("tag", UNWRAPPED.split())
def test_h_style_is_unwrapped(tag: str) -> None:
    inside = "" if tag == "wbr" else "b<img src=/i.png>c"
    expected = ["ad"] if tag == "wbr" else ["ab", "https://a.example/i.png", "cd"]
    assert read(f"<p>a<{tag}>{inside}</{tag}>d</p>") == expected


@pytest.mark.parametrize("tag", REMOVED.split())
def test_i_other_elements_vanish_with_their_content(tag: str) -> None:
    image = "" if tag == "svg" else "<img src=/i.png>"  # one in an <svg> would end it
    assert read(f"<div>a<{tag}>no{image}</{tag}>b</div>") == ["ab"]


def test_i_tables_and_the_head_vanish() -> None:
    html = "<title>no</title><p>a</p><table><caption>no</caption><tr><th>no<td>no<p>no</table><p>b</p>"
    assert read(html) == ["a", "b"]


@pytest.mark.parametrize("tag", ["h1", "h6", "h7", "h", "div2", "p3", "img2"])
def test_i_digits_do_not_count(tag: str) -> None:
    assert "kept" in read(f"<p>a</p><{tag}>kept</{tag}><p>b</p>")


@pytest.mark.parametrize("attribute", ["id", "class", "title"])
@pytest.mark.parametrize("name", ["footer", "header", "navigation", "nav", "navbar", "menu"])
def test_j_special_divs_vanish(attribute: str, name: str) -> None:
    assert read(f"<p>a</p><div {attribute}={name}><p>no</p></div>") == ["a"]
    assert read(f"<section {attribute}={name}x><p>a</p></section><div {attribute}={name}x><p>b</p></div>") == ["a", "b"]


def test_j_compares_the_whole_class_and_only_of_divs() -> None:
    assert read("<div class='menu x'>a</div><section id=nav>b</section><div id=Nav>c</div>") == ["a\nb\nc"]


def test_k_text_right_inside_a_date_vanishes() -> None:
    html = "<p>a</p><div class='validated x'>no <b>no</b><br><p>kept</p> no<div>kept too</div></div><p>b</p>"
    assert read(html) == ["a", "kept", "kept too", "b"]
    assert read("<p class=date>a</p>") == ["a"]


def test_l_empty_elements_do_not_split_a_text() -> None:
    assert read("<div>a<article> <section>\n<div></div></section>\xa0</article>b</div>") == ["ab"]


def test_l_a_medium_without_a_source_is_empty() -> None:
    for medium in ("<img alt=x>", "<img src='a b.png'>", "<video><source src=v.mp4></video>", "<figure>no</figure>"):
        assert read(f"<div>x<br><p>{medium}</p><br>y</div>") == ["x", "y"]


def test_l_a_medium_with_a_source_is_not() -> None:
    for medium in ("<img src=http://localhost/i.png>", "<video src=v.mp4>no</video>", "<audio src=v.mp3></audio>"):
        assert read(f"<div>x<br><p>{medium}</p><br>y</div>") == ["x\ny"]
        assert read(f"<div>x<br>{medium}<br>y</div>") == ["x\ny"]


def test_m_an_element_around_one_of_its_kind_is_replaced_by_it() -> None:
    assert read("<div>a<blink> <blink>x</blink> </blink>b</div>") == ["axb"]
    assert read("<div>a<blink> <blink>x</blink><blink>y</blink> </blink>b</div>") == ["a xy b"]
    assert read("<div>a<blink> <h7>x</h7> </blink>b</div>") == ["a x b"]


def test_n_texts_around_what_was_removed_are_one() -> None:
    assert read("<div>x<br><li>no</li><br>y</div>") == ["x", "y"]
    assert read("<div>x<br><blink>-</blink><br>y</div>") == ["x\n-\ny"]


# Images.

SOURCE_ATTRIBUTES = (
    "src data-src data-src-fg data-scroll-image srcset data-lateloadsrc data-img-src data-original data-gt-lazy-src"
    " data-lazy data-lazy-src src2"
)


@pytest.mark.parametrize("name", SOURCE_ATTRIBUTES.split())
def test_image_attribute(name: str) -> None:
    (block,) = read_page(LexborHTMLParser(f"<img {name}=http://b.example/i.png alt='an x' width=20 height=3%>"), URL)
    assert (block.kind, block.url, block.source_attribute) == ("image", "http://b.example/i.png", name)
    assert block.attributes == {name: "http://b.example/i.png", "alt": "an x", "width": "20", "height": "3%"}


def test_image_attributes_are_tried_in_their_order_without_comma_and_space() -> None:
    assert read("<img data-lazy=/4 srcset='/1 2x' data-src=/3,3 src='/2 2' data-original='/5' data-other='/6'>") == [
        "https://a.example/5"
    ]
    assert read("<img src='data:image/gif;base64,R0' data-unknown=/1>") == []


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("http://b.example/i.png", "http://b.example/i.png"),
        ("https://b.example", "https://b.example"),
        ("//b.example/i?q#f", "http://b.example/i?q#f"),
        ("/i.png", "https://a.example/i.png"),
        ("i.png", "https://a.example/i.png"),  # right: below /docs/
        ("./../x/../i.png", "https://a.example/x/i.png"),
        ("x./i.png", "https://a.example/xi.png"),
        ("HTTP://b.example/i.png", "https://a.example/HTTP://b.example/i.png"),
        ("http://localhost/i.png", None),
        ("http://127.0.0.1:80/i.png", None),
        ("http://127.0.0.1/i.png", None),
        ("http://-b.example/i.png", None),
        ("https://b.example/i\tj", None),
        ("httpx.png", None),
    ],
)
def test_image_url_as_published(link: str, url: str | None) -> None:
    assert resolve_against_host("a.example", link) == url


def test_image_url_ignores_base_and_needs_a_dotted_host_without_port() -> None:
    html = "<base href=http://c.example/x/><p><img src=i.png>"
    assert read(html) == ["https://a.example/i.png"]
    assert read(html, "http://a.example:8080/") == []
    assert read(html, "http://[bad/") == []


# From elements to texts.

SEPARATORS = {
    "\n\n": "blockquote dl h1 h2 h3 h4 h5 h6 ol p ul",
    "\n": "address article aside center dd div dt figcaption hgroup legend main marquee section summary",
    "": "blink title h h7",
}


@pytest.mark.parametrize(
    ("tag", "separator"), [(tag, separator) for separator, tags in SEPARATORS.items() for tag in tags.split()]
)
def test_separator_of_an_element(tag: str, separator: str) -> None:
    assert read(f"<body>a<{tag}>b</{tag}>c") == f"a{separator}b{separator}c".split("\n\n")


def test_the_strongest_separator_between_two_texts_wins() -> None:
    assert read("<div><p>a</p></div><section>b</section>") == ["a", "b"]
    assert read("<div>a</div><div><div><h2>b</h2></div></div>") == ["a", "b"]
    assert read("<p><b>a</b> <i>b</i></p>") == ["a b"]


def test_elements_that_ended_without_text_or_hold_both_texts_do_not_separate() -> None:
    assert read("<body>a<p><video src=v.mp4></video></p>b") == ["ab"]
    assert read("<p>a<blink>b</blink>c") == ["abc"]
    assert read("<body><p>a</p>b<blink>c</blink>") == ["a", "bc"]


def test_what_stands_at_the_seam_counts_as_a_separator() -> None:
    assert read("<div>a <blink>b</blink> c</div>") == ["a b c"]
    assert read("<div>a<br><blink>b</blink>c</div>") == ["a\nbc"]
    assert read("<div>a<br><br><blink>b</blink>c</div>") == ["a", "bc"]
    assert read("<p>a</p> <p> </p> <p>b</p>") == ["a", "b"]


def test_an_image_splits_the_text_at_its_place() -> None:
    assert read("<p>a <a href=x><img src=/i.png></a> b<p><img src=/j.png><img src=/j.png>c") == [
        "a",
        "https://a.example/i.png",
        "b",
        "https://a.example/j.png",
        "https://a.example/j.png",
        "c",
    ]


def test_images_of_figures_and_pictures_and_other_media_are_not_extracted() -> None:
    figure = "<figure><img src=/i.png><figcaption>no</figcaption></figure>"
    assert read(f"<p>a</p>{figure}<picture><img src=/i.png></picture><video src=v><img src=/i.png></video>b") == [
        "a",
        "b",
    ]


def test_a_paragraph_is_stripped_and_never_blank() -> None:
    assert read("<p>\xa0a\xa0</p><p>\xa0</p><br><br><p><br>\xa0<br></p><p>\u2003b") == ["a", "b"]
    assert read("<p>\xa0</p><br>") == read("") == read("<frameset><frame src=x>") == []


def test_the_tree_is_not_changed() -> None:
    parser = LexborHTMLParser("<div><p> </p>a<li>b<b>c</b><!-- d --><a class=more-link>e<figure><img src=f></figure>")
    before = parser.html
    assert read_page(parser, URL) == read_page(parser, URL)
    assert parser.html == before


# Whole pages.


@pytest.fixture(scope="module")
def sample_trees() -> dict[str, LexborHTMLParser]:
    return {
        url: LexborHTMLParser(decode_page(page.payload, page.charset)[0])
        for url, page in sorted(sample_pages().items())
    }


def test_real_pages_read_as_the_published_code_reads_them(sample_trees: dict[str, LexborHTMLParser]) -> None:
    """The digest is of the output of OBELICS's own code (selectolax 0.3.12, its texts cut into paragraphs)."""
    rows = [
        [url, [["image", block.url] if block.kind == "image" else ["text", block.text] for block in blocks]]
        for url, blocks in ((url, read_page(tree, url)) for url, tree in sample_trees.items())
    ]
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
    assert digest == "5e84dde0f4f8f477c42bad223a1a4a680e625624bd556fdc3317c8ccc75bfbd7"


def test_blocks_of_real_pages_are_in_order_and_hold_something(sample_trees: dict[str, LexborHTMLParser]) -> None:
    num_images = 0
    for url, tree in sample_trees.items():
        page = _marks_of(tree)
        for block in read_page(tree, url):
            assert (block.kind == "image") == (block.text is None) == (block.url is not None)
            if block.url is not None:
                assert block.url.startswith(("http://", "https://"))
                num_images += 1
                marks: list[str] = [str(block.attributes[block.source_attribute])]
            else:
                assert block.text == (block.text or "").strip() != ""
                marks = [*"".join((block.text or "").split())]
            assert all(mark in page for mark in marks), (url, block)  # `in` reads on: each comes after the one before
    assert num_images == 411


def _marks_of(tree: LexborHTMLParser) -> Iterator[str]:
    """The visible characters of a page and the links of its images, in document order."""
    assert tree.root is not None
    for node in tree.root.traverse(include_text=True):
        if node.tag == "-text":
            yield from "".join((node.text_content or "").split())
        elif node.tag == "img":
            yield from (value for value in node.attributes.values() if value)


def test_nothing_kept_is_lost_or_out_of_order() -> None:
    """Numbered texts and images in random nests of kept elements come out once each, in their order."""
    chance = random.Random(7)
    kept = ["div", "section", "article", "blockquote", "center", "address", "span", "b", "a", "h7", "marquee"]
    for _ in range(200):
        numbers = itertools.count()
        html = _nest(chance, kept, numbers, 0)
        found = [
            word
            for block in read_page(LexborHTMLParser(html), URL)
            for word in ((block.text or "").replace(".", " ").split() or [(block.url or "").rpartition("/")[2]])
        ]
        assert found == [f"n{number}" for number in range(next(numbers))], html


def _nest(chance: random.Random, tags: list[str], numbers: Iterator[int], depth: int) -> str:
    parts = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.randint(0, 2 if depth < 6 else 1)
        if kind == 0:
            parts.append(f" n{next(numbers)}. ")
        elif kind == 1:
            parts.append(f"<img src=n{next(numbers)}>")
        else:
            tag = chance.choice(tags)
            parts.append(f"<{tag}>{_nest(chance, tags, numbers, depth + 1)}</{tag}>")
    return "".join(parts)


PIECES = (
    "<p> </p> <div\tclass=date> <div> </div> <h1> <table> <td> <svg> <a> </a> <br> <li> <figure> <template> <!-- -->"
    " <img\tsrc=i.png> <img\tsrcset='\n' <p\tclass> <html\tclass='more-link'> <frameset> &nbsp; \0 \x0c < > x"
)


@given(
    st.lists(st.sampled_from([*PIECES.split(" "), " "]) | st.text(max_size=5), max_size=40).map("".join),
    st.text(max_size=20) | st.just(URL),
)
@settings(max_examples=300, deadline=None)
def test_any_page_gives_stripped_paragraphs_and_absolute_images(html: str, url: str) -> None:
    for block in read_page(LexborHTMLParser(html), url):
        if block.url is None:
            assert block.text == (block.text or "").strip() != ""
            assert "\n\n" not in block.text
            assert block.kind == "paragraph"
        else:
            assert urlsplit(block.url).scheme in ("http", "https")
            assert urlsplit(block.url).hostname
            assert block.kind == "image"


@pytest.mark.parametrize("tag", ["div", "p7", "span", "blockquote", "section", "a7", "li", "figure", "marquee"])
def test_five_thousand_levels_do_not_recurse(tag: str) -> None:
    expected = [] if tag in ("li", "figure", "a7") else ["x"]
    assert read(f"<{tag}> " * 5000 + "x") == expected
    assert read(f"<{tag}> " * 5000) == []


def _best_seconds(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, timer=time.process_time, number=1, repeat=4))


@pytest.mark.parametrize(
    ("unit", "times"),
    [
        ("<p>some text</p>x<br>", 3000),
        ("<br> <blink> </blink><blink>\xa0<br></blink>", 3000),
        ("<div id=nav><div class=menu>x</div></div>", 3000),
        ("<div><div> <div>x</div></div></div>", 3000),
        ("<div class=date>x<div class=footer>y</div></div><a class=more-link>x</a><li>x</li>y", 3000),
        ("<img src=i.png><img src=http://localhost/> ", 3000),
        ("<div> <div>x", 1000),
    ],
)
def test_time_is_linear_in_the_page_and_its_depth(unit: str, times: int) -> None:
    small, large = LexborHTMLParser(unit * times), LexborHTMLParser(unit * times * 4)
    ratio = _best_seconds(lambda: read_page(large, URL)) / _best_seconds(lambda: read_page(small, URL))
    assert ratio <= 8, f"four times the page took {ratio:.1f} times as long"
