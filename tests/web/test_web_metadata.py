"""What pages say of themselves: a rule per test, real heads, and heads that are damaged in every way."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser
from web_pages import sample_pages

from carnac.core.document import Document
from carnac.web.charset import decode_page
from carnac.web.dates import parse_date
from carnac.web.licences import name_licence
from carnac.web.metadata import Metadata, read_metadata
from carnac.web.sources import resolve

URL = "https://stones.example/blog/menhirs.html"
BY, BY_SA = "https://creativecommons.org/licenses/by/4.0/", "http://creativecommons.org/licenses/by-sa/3.0/"


def read(html: str | bytes, *, url: str = URL, **headers: str) -> Metadata:
    return read_metadata(
        LexborHTMLParser(html), url, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def linked(*objects: object) -> str:
    return f'<script type="application/ld+json">{json.dumps(objects[0] if len(objects) == 1 else objects)}</script>'


def article(**properties: object) -> dict[str, object]:
    return {"@context": "https://schema.org", "@type": "NewsArticle", **properties}


def test_a_page_that_says_nothing_has_no_metadata() -> None:
    assert read("<p>Published on 3 May 2024 by Ann Stone, CC BY.") == Metadata(base_url=URL)
    assert read("") == Metadata(base_url=URL)


def test_the_fields_are_those_of_a_document() -> None:
    assert {field.name for field in fields(Metadata)} - {"base_url"} <= {field.name for field in fields(Document)}


# Real pages.


@cache
def sample() -> dict[str, Metadata]:
    return {url: read(page.payload, url=url) for url, page in sample_pages().items()}


def test_titles_of_the_sample_lose_the_name_of_the_site() -> None:
    docs = "https://scikit-image.org/docs/0.19.x/"
    found = sample()[docs + "auto_examples/features_detection/plot_haar.html"]
    assert found == Metadata(
        title="Haar-like feature descriptor",
        base_url=docs + "auto_examples/features_detection/plot_haar.html",
        canonical_url=found.canonical_url,
    )
    assert sample()[docs + "user_guide/numpy_images.html"].title == "A crash course on NumPy for images"
    assert all(metadata.title for metadata in sample().values())
    assert not [title for metadata in sample().values() if "skimage v0" in (title := metadata.title or "")]


def test_a_sample_head_with_all_that_a_page_can_say() -> None:
    page = sample_pages()["https://scikit-image.org/docs/0.19.x/user_guide/numpy_images.html"].payload.decode()
    assert "<head>" in page
    data = linked(
        article(
            headline="A crash course on NumPy for images | Guide",
            author={"name": "Ann Stone"},
            datePublished="2022-03-04",
            license=BY,
        )
    )
    found = read(page.replace("<head>", f'<head><meta name="robots" content="noai">{data}'), url=URL)
    assert found.title == "A crash course on NumPy for images"
    assert (found.author, found.published_at) == ("Ann Stone", "2022-03-04")
    assert (found.licence, found.licence_url, found.reservations) == ("CC-BY-4.0", BY, ("noai",))


def test_what_a_page_does_not_spell_is_not_looked_for_and_nothing_is_missed() -> None:
    by_entity = '<h1>x</h1><script type="application/ld&#43;json">{"@type": "Article", "author": "Ann"}</script>'
    shouted = (
        '<TIME PUBDATE DATETIME=2024></TIME><p ITEMPROP=x><A HREF="https://creativecommons.org/licenses/by/4.0/">y</A>'
    )
    made = [
        "<h1>x</h1><time pubdate datetime=2024></time>" + linked(article(author="Ann")),
        *("<p>nothing", by_entity, shouted),
    ]
    pages = [*(page.encode() for page in made), shouted.encode("utf-16")]
    for page in [*pages, *(page.payload for page in list(sample_pages().values())[:40])]:
        parser = LexborHTMLParser(decode_page(page, None)[0])
        assert read_metadata(parser, URL, {}, page) == read_metadata(parser, URL, {})
    assert read_metadata(LexborHTMLParser(by_entity), URL, {}, by_entity.encode()).author == "Ann"


# Addresses.


@pytest.mark.parametrize(
    ("head", "canonical"),
    [
        ("<link rel=canonical href='https://a.example/x'>", "https://a.example/x"),
        ("<link rel='Shortlink CANONICAL' href='../x?a=1#top'>", "https://stones.example/x?a=1"),
        ("<base href='https://b.example/y/'><link rel=canonical href=x>", "https://b.example/y/x"),
        ("<meta property=og:url content='//a.example/x'>", "https://a.example/x"),
        (
            "<meta property=og:url content='http://o.example/'><link rel=canonical href='http://c.example/'>",
            "http://c.example/",
        ),
        (
            "<link rel=canonical href='file:///x'><meta property=og:url content='http://o.example/'>",
            "http://o.example/",
        ),
        ("<link rel=canonical href='ftp://a.example/x'>", None),
        ("<link rel=canonical href='http://['>", None),
        ("<link rel=canonical>", None),
        (f"<link rel=canonical href='http://a.example/{'x' * 5000}'>", None),
    ],
)
def test_the_canonical_url_is_absolute_http_or_none(head: str, canonical: str | None) -> None:
    assert read(head).canonical_url == canonical


def test_the_base_is_the_first_that_has_an_address() -> None:
    assert read("<base target=_top><base href='/a/'><base href='/b/'>").base_url == "https://stones.example/a/"
    assert read("<base href='data:x'>").base_url == URL


# Titles.


@pytest.mark.parametrize(
    ("html", "title"),
    [
        ("<title> Rows \n of stones </title>", "Rows of stones"),
        ("<h1>Rows of <b>stones</b><a href=#x>\u00b6</a></h1>", "Rows of stones"),
        ("<title>Rows of stones - Carnac Weekly</title><h1>Rows of stones</h1>", "Rows of stones"),
        ("<title>Carnac Weekly: Rows of stones</title><h1>Rows of stones</h1>", "Rows of stones"),
        ("<title>Rows - of stones - Carnac Weekly</title><h1>Rows - of stones</h1>", "Rows - of stones"),
        ("<title>Rows of stones - Carnac Weekly</title>", "Rows of stones - Carnac Weekly"),
        ("<title>Rows of stones | Carnac Weekly</title>", "Rows of stones"),
        ("<title>Rows | The weekly of the coast</title>", "Rows | The weekly of the coast"),
        ("<title>Rows of stones \u2014 Stones</title>", "Rows of stones"),  # an address says so: stones.example
        ("<title>Stones: an introduction</title>", "Stones: an introduction"),
        ("<meta property=og:site_name content=Stones><title>Stones: an introduction</title>", "an introduction"),
        ("<meta property=og:site_name content='Carnac'><title>Rows - North - Carnac</title>", "Rows - North"),
        ("<title>Carnac Weekly - Rows</title><h1>Stones</h1><h1>Rows</h1>", "Rows"),  # the first heading is the logo
        ("<title>Self-made rows</title><h1>made</h1>", "Self-made rows"),
        ("<title>x</title><meta property=og:title content='Rows of stones - Stones'>", "Rows of stones"),
        ("<meta property=og:title content='Rows of sto\u2026'><title>Rows of stones</title>", "Rows of stones"),
        ("<meta property='x:title dc:title' content='Rows'><title>x</title>", "Rows"),
        ("<meta property=og:title content=''><title>Rows</title>", "Rows"),
        ("<title>Stones</title>", "Stones"),
        ("<svg><title>icon</title></svg>", None),
        ("<title>Tom &amp;amp; Ann&amp;#8217;s</title>", "Tom & Ann\u2019s"),
        (f"<title>never closed {'x ' * 1000}", None),
    ],
)
def test_the_title_is_the_articles(html: str, title: str | None) -> None:
    assert read(html).title == title


def test_the_headline_of_an_article_comes_before_other_titles_and_that_of_a_web_page_does_not() -> None:
    rest = "<meta property=og:title content='Open graph'>"
    assert read(linked(article(headline="Rows &amp; stones")) + rest).title == "Rows & stones"
    assert read(linked({"@type": "WebPage", "name": "Page"}) + rest).title == "Open graph"


# Dates.


@pytest.mark.parametrize(
    ("given", "date"),
    [
        ("2024", "2024"),
        ("2024-05", "2024-05"),
        ("2024-05-31", "2024-05-31"),
        (" 2024/5/1 ", "2024-05-01"),
        ("20240531", "2024-05-31"),
        ("2024-05-31T17:30", "2024-05-31T17:30:00"),
        ("2024-05-31 17:30:09", "2024-05-31T17:30:09"),
        ("2024-05-31T17:30:09.123Z", "2024-05-31T17:30:09+00:00"),
        ("2024-05-31T17:30:09+0230", "2024-05-31T17:30:09+02:30"),
        ("2024-05-31T17:30:09-05", "2024-05-31T17:30:09-05:00"),
        ("Fri, 31 May 2024 17:30:09 GMT", "2024-05-31T17:30:09+00:00"),
        ("2024-13-01", None),
        ("2023-02-29", None),
        ("2024-05-31T25:00", None),
        ("2024-05-31T17:30:09+99:00", None),
        ("03/04/2024", None),
        ("May 31, 2024 by Ann", None),
        ("0001-01-01T00:00:00", None),
        ("1970-01-01T00:00:00Z", None),
        ("1970-01-01", None),
        ("\u0662\u0660\u0662\u0664", None),
        ("", None),
        ("9" * 10_000, None),
    ],
)
def test_dates_are_iso_8601_as_exact_as_given(given: str, date: str | None) -> None:
    assert parse_date(given) == date


@settings(deadline=None)
@given(st.text() | st.from_regex(r"[0-9]{1,5}[-/. ]?[0-9]{0,3}[-/.]?[0-9]{0,3}[T ]?[0-9:Z+-]*", fullmatch=True))
def test_no_text_makes_a_date_raise_and_a_date_is_one_again(text: str) -> None:
    date = parse_date(text)
    assert date is None or parse_date(date) == date


@pytest.mark.parametrize(
    ("html", "date"),
    [
        (
            "<meta property=article:published_time content=2024-05-31>" + linked(article(datePublished="2020")),
            "2024-05-31",
        ),
        ("<meta property=article:published_time content=soon>" + linked(article(datePublished="2020")), "2020"),
        ("<meta name=DC.date.issued content=2019-01><meta name=date content=2001>", "2019-01"),
        ("<meta itemprop=datePublished content=2019-01-02>", "2019-01-02"),
        (
            "<p itemscope itemtype='http://schema.org/BlogPosting'><time itemprop=datePublished datetime=2018-01-02>",
            "2018-01-02",
        ),
        ("<time pubdate datetime=2017-01-02>", "2017-01-02"),
        (
            "<time class='entry-date published' datetime=2017-01-02><time class=updated datetime=2018-01-02>",
            "2017-01-02",
        ),
        ("<article><header><time datetime=2016-01-02>2 January</time>", "2016-01-02"),
        ("<meta property=article:modified_time content=2024-05-31>", None),
        ("<p><time datetime=2016-01-02>the meeting</time>", None),
        ("<article><time datetime=2016-01-02></time><time datetime=2016-01-03></time>", None),
        ("<time class=published datetime=2016-01-02></time><time class=published datetime=2016-01-03>", None),
    ],
)
def test_the_date_is_that_of_publication(html: str, date: str | None) -> None:
    assert read(html).published_at == date


# Authors and sites.


@pytest.mark.parametrize(
    ("html", "author"),
    [
        ("<meta name=author content=' By  Ann\n Stone '>", "Ann Stone"),
        (
            "<meta name=citation_author content='Stone, Ann'><meta name=citation_author content='Row, Tom'>",
            "Stone, Ann; Row, Tom",
        ),
        ("<meta name=author content=Ann><meta name=author content=Ann>", "Ann"),
        ("<meta name=author content=x><meta name=DC.creator content=Ann>", "Ann"),
        ("<meta property=article:author content='https://social.example/ann'>", None),
        ("<meta property=article:author content='Ann'>", "Ann"),
        (f"<meta name=author content='{'long ' * 50}'>", None),
        (linked(article(author="Ann")) + "<meta name=author content=admin>", "Ann"),
        (linked(article(author=[{"@type": "Person", "name": "Ann"}, "Tom", 3, None])), "Ann; Tom"),
        (linked({"@graph": [article(author={"@id": "#a"}), {"@id": "#a", "@type": "Person", "name": "Ann"}]}), "Ann"),
        ("<div itemscope itemtype=Article><p itemprop=author itemscope>by <b itemprop=name>Ann</b> at noon", "Ann"),
        ("<div itemscope itemtype=Article><i itemscope itemtype=Comment><b itemprop=author>Tom</b></i>", None),
        ("<div itemscope itemtype=Article><b itemprop=author>A</b></div><div itemscope itemtype=Article>", "A"),
        (2 * "<div itemscope itemtype=Article><b itemprop=author>A</b></div>", None),  # a list of articles
    ],
)
def test_authors_are_those_of_the_page(html: str, author: str | None) -> None:
    assert read(html).author == author


def test_the_name_of_the_site_is_never_taken_from_the_title() -> None:
    publisher = linked(article(publisher={"name": "Stone Press"}))
    assert read("<title>Rows | Stones</title>").site is None
    assert read(publisher).site == "Stone Press"
    assert read(publisher + "<meta name=application-name content=App>").site == "App"
    assert read(publisher + linked({"@type": "WebSite", "name": "Stones"})).site == "Stones"
    assert (
        read(linked({"@type": "WebSite", "name": "x"}) + "<meta property=og:site_name content=Stones>").site == "Stones"
    )


# JSON-LD.


@pytest.mark.parametrize(
    "script",
    [
        '{"@type": "Article", "headline": "Rows"}',
        '[[], 3, {"@type": ["Thing", "Article"], "headline": "Rows"}]',
        '<!-- {"@type": "Article", "headline": "Rows"} -->',
        '/* <![CDATA[ */ {"@type": "Article", "headline": "Rows"}; /* ]]> */',
        '//<![CDATA[\n{"@type": "https://schema.org/Article", "headline": ["Rows"]}\n//]]>',
        '{"@graph": [{"@type": "WebPage", "name": "x"}, {"@type": "BlogPosting", "headline": {"@value": "Ro\nws"}}]}',
        '{"@type": "WebPage", "mainEntity": {"@type": "Article", "headline": "Rows"}}',
    ],
)
def test_json_ld_is_read_in_all_its_wrappings(script: str) -> None:
    assert read(f"<div><script type='application/LD+json'>{script}</script></div>").title in ("Rows", "Ro ws")


@pytest.mark.parametrize(
    "script",
    [
        "",
        "null",
        "{",
        '{"@type": 3, "@graph": 4, "headline": {"@value": {}}, "author": {"name": {"name": 1}}, "license": [[{}]]}',
        '{"@type": "Article", "headline": 1, "datePublished": {"a": []}, "publisher": [null], "author": {"@id": []}}',
        "[" * 100_000,
        '{"@graph":' * 50_000,
        '{"a":' * 900 + "1" + "}" * 900,
        '{"@type": "Article", "headline": ' + "1" * 5000 + "}",
        '{"@type": "Article", "headline": "' + "x" * 1_000_000 + '"}',
        '{"@id": "a", "@type": "Article", "author": {"@id": "a"}}',
        "alert(document.cookie)",
    ],
)
def test_what_is_no_json_ld_says_nothing(script: str) -> None:
    assert read(f"<script type='application/ld+json'>{script}</script>") == Metadata(base_url=URL)


def test_of_several_articles_the_one_at_the_address_of_the_page_counts() -> None:
    one, two = article(headline="One", url="https://stones.example/1"), article(headline="Two", url=URL)
    assert read(linked(one, two)).title == "Two"
    assert read(linked(one, two), url="https://stones.example/").title is None
    assert read(linked(one, two) + "<link rel=canonical href=/1>", url="https://stones.example/?p=1").title == "One"
    assert read(linked(one) + linked(one)).title == "One"


def test_what_a_table_cannot_hold_is_left_out() -> None:
    found = read(r'<script type="application/ld+json">{"@type":"Article","headline":"Ro\ud800ws\u0000"}</script>')
    assert found.title == "Ro ws"


# Licences.


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (BY, "CC-BY-4.0"),
        (BY_SA, "CC-BY-SA-3.0"),
        ("//www.creativecommons.org/licenses/by-nc-nd/4.0/deed.fr", "CC-BY-NC-ND-4.0"),
        ("https://creativecommons.org/licenses/by-nd-nc/1.0", "CC-BY-NC-ND-1.0"),
        ("https://creativecommons.org/licenses/by/3.0/us/", "CC-BY-3.0-US"),
        ("https://creativecommons.org/licenses/by/4.0/legalcode", "CC-BY-4.0"),
        ("https://creativecommons.org/licenses/by-sa/", "CC-BY-SA"),
        ("HTTPS://CreativeCommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("https://creativecommons.org/licenses/publicdomain/", "CC-PDDC"),
        ("https://creativecommons.org/licenses/", None),
        ("https://creativecommons.org/licenses/by-xx/4.0/", None),
        ("https://creativecommons.org/about/", None),
        ("https://notcreativecommons.org/licenses/by/4.0/", None),
        ("https://evil.example/?u=https://creativecommons.org/licenses/by/4.0/", None),
    ],
)
def test_a_licence_is_named_as_spdx_names_it(url: str, name: str | None) -> None:
    assert name_licence(url) == name


@pytest.mark.parametrize(
    ("html", "licence", "url"),
    [
        (f"<link rel=license href='{BY}'>", "CC-BY-4.0", BY),
        (f"<link rel='License' href='{BY}'>", "CC-BY-4.0", BY),
        (f"<p><a rel='nofollow license' href='{BY}'>licence</a>", "CC-BY-4.0", BY),
        (f"<meta name=DC.rights content='Under {BY}.'>", "CC-BY-4.0", BY),
        (f"<meta name=copyright content='{BY}'>", "CC-BY-4.0", BY),
        (linked(article(license=BY)), "CC-BY-4.0", BY),
        (linked(article(license={"@id": BY})), "CC-BY-4.0", BY),
        (f"<div itemscope itemtype=Article><a itemprop=license href='{BY}'>", "CC-BY-4.0", BY),
        (f"<footer><p><a href='{BY}'>CC BY</a>", "CC-BY-4.0", BY),
        (f"<div id=site-footer><p><a href='{BY}'>CC BY</a>", "CC-BY-4.0", BY),
        (f"<p class=copyright><a href='{BY}'>CC BY</a>", "CC-BY-4.0", BY),
        # One said twice is one; a picture's does not count beside the page's.
        (f"<link rel=license href='{BY}'><footer><a href='{BY}deed.fr'>CC BY</a>", "CC-BY-4.0", BY),
        (f"<link rel=license href='{BY}'><p><a href='{BY_SA}'>CC BY-SA</a>", "CC-BY-4.0", BY),
        (f"<link rel=license href='/terms'><footer><a href='{BY}'>CC BY</a>", "CC-BY-4.0", BY),
        # Several: the parts of the page have different ones.
        (f"<a rel=license href='{BY_SA}'>x</a><a rel=license href='{BY}'>y</a>", "CC-BY-4.0 AND CC-BY-SA-3.0", None),
        # Of a part, or of something else than a page.
        (f"<p>Photo: Tom, <a href='{BY}'>CC BY</a>", None, BY),
        (f"<figure><img src=x><figcaption><a rel=license href='{BY}'>CC BY</a></figcaption></figure>", None, BY),
        (f"<footer><div class=photo-credit><a href='{BY}'>CC BY</a>", None, BY),
        (f"<p><a href='{BY}'>a</a> <a href='{BY_SA}'>b</a>", None, None),
        (linked({"@type": "ImageObject", "license": BY}), None, None),
        ("<link rel=license href='/terms'>", None, "https://stones.example/terms"),
        ("<meta name=copyright content='All rights reserved'>", None, None),
        ("<a href='https://creativecommons.org/'>CC</a>", None, None),
        ("<a rel=license href='javascript:x(\"creativecommons.org/\")'>", None, None),
    ],
)
def test_a_licence_is_that_of_the_whole_page(html: str, licence: str | None, url: str | None) -> None:
    found = read(html)
    assert (found.licence, found.licence_url) == (licence, url)


# Reservations.


@pytest.mark.parametrize(
    ("head", "facts"),
    [
        ("<meta name=robots content='NoAI, noimageai; index follow'>", ["noai", "noimageai"]),
        ("<meta name=robots content='index, follow, max-snippet:-1, max-image-preview:large'>", []),
        ("<meta name=robots content=none>", ["noindex"]),
        (
            "<meta name=GPTBot content='noindex'><meta name=googlebot content='noarchive noindex'>",
            ["googlebot:noarchive", "googlebot:noindex", "gptbot:noindex"],
        ),
        ("<meta name=pinterest content=nopin>", ["pinterest:nopin"]),
        ("<meta name=description content=noai><meta name=robots>", []),
        ("<meta name=tdm-reservation content=1>", ["tdm-reservation"]),
        ("<meta name=tdm-reservation content=0>", []),
        ("<meta name=tdm-policy content='/tdm.json'>", ["tdm-policy:https://stones.example/tdm.json"]),
        ("<meta name=tdm-policy content='javascript:x'>", []),
        # A picture ends the head; what follows is in the body.
        ("<head><noscript><img src=x></noscript><meta name=robots content=noai><title>x</title></head>", ["noai"]),
    ],
)
def test_reservations_of_the_head(head: str, facts: list[str]) -> None:
    assert list(read(head).reservations) == facts


@pytest.mark.parametrize(
    ("header", "value", "facts"),
    [
        ("x_robots_tag", "noai, noimageai", ["noai", "noimageai"]),
        ("x_robots_tag", "otherbot: noindex, nofollow, noarchive", ["otherbot:noarchive", "otherbot:noindex"]),
        ("x_robots_tag", "googlebot: nofollow\nnoindex", ["noindex"]),  # two headers: the robot is that of the first
        ("x_robots_tag", "unavailable_after: 25 Jun 2010 15:00:00 PST, noindex", ["noindex"]),
        ("tdm_reservation", " 1 ", ["tdm-reservation"]),
        ("tdm_reservation", "0", []),
        ("tdm_policy", "https://stones.example/tdm", ["tdm-policy:https://stones.example/tdm"]),
        ("content_usage", "train-ai=n, search=y", ["content-usage:train-ai=n"]),
    ],
)
def test_reservations_of_the_headers(header: str, value: str, facts: list[str]) -> None:
    assert list(read("<p>x", **{header: value}).reservations) == facts


def test_reservations_are_sorted_and_each_is_once() -> None:
    found = read("<meta name=robots content='noindex,noai'>", x_robots_tag="noai\nnoai, noarchive", tdm_reservation="1")
    assert found.reservations == ("noai", "noarchive", "noindex", "tdm-reservation")


# Whatever a page holds.

PIECES = [
    *(
        "<meta name=robots content='",
        "<meta property=og:title content='a | b'>",
        "<link rel=canonical href='",
        "'>",
        ">",
        "<",
    ),
    *(
        linked(article(headline="x", author=[{"name": "y"}], datePublished="2024")),
        '<script type="application/ld+json">{"',
    ),
    *(
        "</script>",
        "<title>",
        "</title>",
        "<h1>",
        "<div itemscope itemtype=Article>",
        "<b itemprop='author name'>",
        "</div>",
    ),
    *(
        f"<a rel=license href='{BY}'>",
        "<a href='//creativecommons.org/licenses/",
        "<time pubdate datetime='",
        "2024-02-3",
    ),
    *(
        "<noscript><img></noscript>",
        "<body>",
        "<svg>",
        "<template>",
        "<head>",
        "<base href='http://[",
        "&#xd800;",
        "\0",
    ),
]


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12),
    st.binary(max_size=10),
    st.dictionaries(
        st.sampled_from(["x-robots-tag", "tdm-policy", "tdm-reservation", "content-usage"]), st.text(max_size=30)
    ),
    st.sampled_from([URL, "", "http://[", "x:y"]),
)
def test_no_head_makes_it_raise_and_what_it_says_can_be_stored(
    pieces: list[str], rest: bytes, headers: dict[str, str], url: str
) -> None:
    html = "".join(pieces).encode("utf-8", "surrogatepass") + rest
    check(read_metadata(LexborHTMLParser(html), url, headers), url)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_no_damaged_real_head_makes_it_raise(data: st.DataObject) -> None:
    pages = list(sample_pages().values())
    page = bytearray(pages[data.draw(st.integers(0, len(pages) - 1))].payload[:6000])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(page) - 1))
        page[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=6))
    check(read(bytes(page)), URL)


def check(found: Metadata, url: str) -> None:
    for field in fields(found):
        value = getattr(found, field.name)
        for text in value if isinstance(value, tuple) else [value]:
            assert text is None or text.encode() is not None
            assert field.name == "base_url" or text is None or " ".join(text.split()) == text != ""
    assert found.canonical_url is None or resolve(url, found.canonical_url) == found.canonical_url
    assert found.reservations == tuple(sorted(set(found.reservations)))


HUGE = {
    "metas": "<meta name=robots content=noai>",
    "separators": "<meta property=og:title content='" + " - a" * 100 + "'>",
    "headings": "<h1>x",
    "properties": "<b itemprop=author>x",
    "items": "<div itemscope itemtype=Article><b itemprop='author name'>x</b>",
    "licences": f"<a href='{BY}'>x</a><div>",
    "scripts": linked(article(headline="x", author=[{"name": "y"}] * 20)),
    "people": "<div itemscope itemtype=Article><p itemscope itemprop=author>x<div itemscope itemprop=author>x",
    "times": "<time datetime=2024-01-01>x</time>",
    "sites": "<title>x | y</title><link rel=license href='/x'>",
}


@pytest.mark.parametrize("name", HUGE)
def test_time_is_linear_in_the_size_of_the_page(name: str) -> None:
    def seconds(times: int) -> float:
        parser = LexborHTMLParser(HUGE[name] * times)
        began = time.process_time()
        read_metadata(parser, URL, {})
        return time.process_time() - began

    small, large = 500, 4000
    ratios = [seconds(large) / seconds(small) for _ in range(3)]
    assert min(ratios) < 4 * large / small, ratios  # 8 if linear, 64 if quadratic
