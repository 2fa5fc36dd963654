"""What of a page is its article: made pages of the size and furniture of real ones, a test per kind of furniture."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from carnac.web.blocks import Block
from carnac.web.extract import read_page
from carnac.web.settings import ExtractSettings

URL = "http://a.example/2019/05/mill.html"
_STORY = """
The mill at the lower ford was built in the dry summer of the year in which the old bridge fell. It was raised on
oak piles, driven into the gravel by a gang of eleven men, who sang as they hauled, and who drank what they earned
on the evening of every Saturday. Its wheel was wide and slow, and it turned with a sound like breathing.

Nobody now alive remembers the first miller, but his account book has come down to us, bound in calf and smelling
faintly of smoke. In it he set down, in a small upright hand, every sack that was brought to him, the name of the
farm, the state of the river, and very often a remark upon the weather, which seems never once to have pleased him.

From these pages one may learn that in a good year the stones ground rye from the end of August until the frosts,
and oats after them, and that barley was taken only from friends. A pair of stones lasted nine years. They came by
water from the quarries of the south, packed in straw, and each journey took the better part of a month.

The river itself was the chief difficulty. In spring it rose over the meadow and stood about the house for days, so
that flour had to be carried out by boat; in the height of summer it shrank to a string of pools, and the wheel hung
idle above them. Twice the weir was carried away, and twice the parish paid, grumbling, to have it laid again.

It was the second of these floods that brought the engineer. He was a young man, thin and cheerful, with a level and
a notebook, and he walked the valley for a fortnight before he said anything at all. Then he proposed a leat: a
narrow channel, cut along the foot of the hill, which would take water at the upper ford and lose only a yard of
height.

The farmers laughed, as farmers do, but the miller, who had lost a winter's trade, lent him sixty pounds and the use
of a cart. The digging began after harvest. They found clay, which was what he had hoped, and a seam of stone, which
he had not; and where the stone was, they burned brushwood against it and threw on water until it cracked.

By the following May the channel was full. People came from three villages to see it, and stood along the bank in
their best clothes, and when the sluice was lifted and the wheel, which had not moved since the autumn, groaned and
shook and began to turn, the band, it is said, forgot to play. The engineer was carried home on a hurdle.

What followed was a long quiet time. The mill passed from father to son, and then to a nephew, who put in a second
pair of stones and an iron shaft, and who lit the grinding floor with lamps. He was the first to keep a cat. Corn
came by the new road as well as by the river, and in the busiest week of the year they ground through the night.

The end, when it came, was not a flood or a fire, but a railway. The steam mills at the port could grind in an hour
what the lower ford ground in a week, and could sell it, carriage paid, for less. The nephew's son kept on with oats
for the horses, and with pig meal, and he mended clocks in the evenings; but the ledger grows thin, and at last it
stops.

The house is still there. The wheel has gone, all but the hub and a few of the spokes, on which ferns grow, and the
leat is a line of rushes across the pasture. If you kneel at the place where the sluice stood and put your ear to
the ground, you may hear water running below, in the dark, as it has done ever since the young man lifted his hand.

I went there first as a child, with my grandfather, who showed me the marks of the floods on the wall beside the
door: eight of them, each with a date, the highest well above his hat. He told me that the stones were under the
nettles, and so they were. We ate our bread upon them, and threw the crusts to the fish, and said very little.

When I came back, forty years afterwards, a family from the town had bought the place. They had cleared the nettles
and set the two stones upright, like gateposts, and they were kind enough to let me in. The account book lay under
glass on the table. Somebody had opened it at the day of the lifting of the sluice, and there, for once, the weather
was fine.
"""
PROSE = tuple(" ".join(paragraph.split()) for paragraph in _STORY.strip().split("\n\n"))
ARTICLE = "".join(f"<p>{text}</p>\n" for text in PROSE)
NAV = "<nav><ul><li><a href='/'>Home</a></li><li><a href='/walks'>Walks</a></li></ul></nav>"
FOOTER = "<footer><p>Copyright 2019 The Valley Courier. All rights reserved.</p><a href=/privacy>Privacy</a></footer>"


def links(what: str, count: int = 8) -> str:
    return (
        "<ul>"
        + "".join(
            f"<li><a href='/{what}/{n}'>Another {what} of the valley, the {n}th of them</a></li>" for n in range(count)
        )
        + "</ul>"
    )


def page(inside: str, *, before: str = "", after: str = "", title: str = "The mill at the lower ford") -> str:
    """Return a page as a template of the last decade makes it: no `main`, an article in nested boxes."""
    return (
        f"<!doctype html><html lang=en><head><title>{title} | The Valley Courier</title></head><body>"
        f"<div id=page><div class=top>{NAV}</div><div class=wrap><div class=columns>{before}"
        f"<div class='entry-content'>{inside}</div>{after}</div></div>{FOOTER}</div></body></html>"
    )


def read(html: str) -> Sequence[Block]:
    return read_page(html.encode(), URL, None, ExtractSettings())


def texts(html: str) -> list[str]:
    return [block.text for block in read(html) if block.text is not None]


def urls(html: str) -> list[str]:
    return [block.url for block in read(html) if block.url is not None]


def of_kind(html: str, kind: str) -> list[str]:
    return [block.text or block.url or "" for block in read(html) if block.kind == kind]


def between(inserted: str, place: int = 6) -> str:
    """Return the article with something between two of its paragraphs."""
    return (
        "".join(f"<p>{text}</p>" for text in PROSE[:place]) + inserted + "".join(f"<p>{t}</p>" for t in PROSE[place:])
    )


# What is no article.

BOILERPLATE = {
    "sidebar of links": f"<div class=sidebar><h3>Latest</h3>{links('story')}</div>",
    "nameless column of links": f"<div class=c2><h3>Latest</h3>{links('story')}</div>",
    "aside": f"<aside><h3>Latest</h3>{links('story')}<p>A word of the editor, who has much to say.</p></aside>",
    "related posts": f"<div class=related-posts><h3>You may also like</h3>{links('post', 4)}</div>",
    "related cards": "<div class=related>"
    + "".join(
        f"<div class=card><a href=/c/{n}><img src=/c/{n}.jpg><h4>Card number {n} of them</h4></a></div>"
        for n in range(4)
    )
    + "</div>",
    "share bar": "<div class=share><a href='https://x.example'>Tweet</a><a href='https://f.example'>Share</a></div>",
    "share list": "<ul class=sharing><li><a href=//x.example>Tweet</a></li><li><a href=//f.example>Email</a></li></ul>",
    "cookie banner": "<div id=cookie-consent><p>We use cookies, and other means, to give you the best of it."
    " By going on you agree.</p><button>Accept all</button></div>",
    "newsletter box": "<div class=newsletter-signup><h3>Get our newsletter</h3><p>The best of the valley,"
    " every week, in your inbox.</p><form><input type=email><button>Subscribe</button></form></div>",
    "form without a name": "<form action=/join><p>Address</p><input name=a><input name=b><input type=submit></form>",
    "comments": "<div id=comments><h3>3 comments</h3>"
    + "".join(
        f"<div class=comment><p>Reader {n}: I knew that mill well, and I can say, it was wider than that.</p></div>"
        for n in range(3)
    )
    + "</div>",
    "pagination": "<div class=pagination><a href='?p=1'>1</a> <a href='?p=2'>2</a> <a href='?p=3'>Next page</a></div>",
    "breadcrumbs": "<div class=breadcrumbs><a href=/>Home</a> / <a href=/walks>Walks</a> / Mills</div>",
    "advertisement": "<div class=ad-slot><p>Advertisement</p></div>",
    "hidden box": "<div style='display: none'><p>A hidden text, of some length, for nobody's eyes at all.</p></div>",
    "dialog": "<div role=dialog><p>Are you still there? Please, sign in, or leave us now, as you like.</p></div>",
    "script and style": "<script>var a = 'script text';</script><style>.a { color: red }</style>",
}


@pytest.mark.parametrize("kind", BOILERPLATE)
@pytest.mark.parametrize("place", ["before", "after", "inside"])
def test_boilerplate_is_dropped_and_the_article_is_whole(kind: str, place: str) -> None:
    extra = BOILERPLATE[kind]
    if place == "inside":
        html = page(between(extra))
    else:
        html = page(ARTICLE, before=extra if place == "before" else "", after=extra if place == "after" else "")
    assert texts(html) == list(PROSE)
    assert urls(html) == []


def test_the_line_of_the_author_and_the_date_is_dropped() -> None:
    html = page("<h1>The mill</h1><div class=byline>By Anna Miller</div><p class=date>May 3, 2019</p>" + ARTICLE)
    assert [text for text in texts(html) if text != "The mill"] == list(PROSE)


@pytest.mark.parametrize(
    "first",
    ["By noon the rain had stopped.", "By the river we sat down.", "Di rigori armato il seno.", "On May 3, 1801."],
)
def test_a_first_sentence_that_looks_like_an_author_or_a_date_is_kept(first: str) -> None:
    assert first in texts(page(f"<p>{first}</p>{ARTICLE}"))


def test_the_title_is_not_said_twice() -> None:
    found = texts(page(f"<h1>The mill at the lower ford</h1>{ARTICLE}"))
    assert found[-len(PROSE) :] == list(PROSE)
    assert len(found) <= len(PROSE) + 1


# What is.


@pytest.mark.parametrize(
    ("inserted", "kind", "expected"),
    [
        ("<h2>The leat</h2>", "heading", "The leat"),
        ("<h3>Comments of the miller</h3>", "heading", "Comments of the miller"),
        ("<h2>Loading</h2>", "heading", "Loading"),
        ("<ul><li>rye</li><li>oats</li></ul>", "list", "- rye\n- oats"),
        ("<ol><li>dig</li><li>line with clay</li></ol>", "list", "- dig\n- line with clay"),
        ("<ul><li><a href=/a>The weir</a></li><li><a href=/b>The sluice</a></li></ul>", "list",
         "- The weir\n- The sluice"),
        ("<pre><code>for sack in sacks:\n    grind(sack)</code></pre>", "code", "for sack in sacks:\n    grind(sack)"),
        ("<div class=highlight><pre>grind 1\n  grind 2</pre></div>", "code", "grind 1\n  grind 2"),
        ("<blockquote><p>It rains again, and I am tired of it.</p></blockquote>", "quote",
         "It rains again, and I am tired of it."),
        ("<table><tr><th>Year</th><th>Sacks</th></tr><tr><td>1801</td><td>412</td></tr></table>", "table",
         "Year | Sacks\n1801 | 412"),
        ("<div class=table-wrap><table><tr><th>Year</th><th>Sacks</th></tr><tr><td>1801</td><td>412</td></table></div>",
         "table", "Year | Sacks\n1801 | 412"),
        ("<div class=note><p>Note: the <a href=/w>weir</a> is private, so please do not cross it in spring.</p></div>",
         "paragraph", "Note: the weir is private, so please do not cross it in spring."),
        ("<p>Press <kbd>G</kbd> to grind<sup><a href='#fn1'>1</a></sup>.</p>", "paragraph", "Press G to grind1."),
        ("<p>Yes.</p>", "paragraph", "Yes."),
        ("<details><summary>The answer</summary><p>It was the clay, as anyone would have told him.</p></details>",
         "paragraph", "It was the clay, as anyone would have told him."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("wrap", ["div", "article", "main", "body"])
def test_what_stands_between_paragraphs_keeps_its_place_and_kind(
    inserted: str, kind: str, expected: str, wrap: str
) -> None:
    html = page(between(inserted)) if wrap == "div" else f"<html><{wrap}>{between(inserted)}</{wrap}></html>"
    blocks = read(html)
    at = next((n for n, block in enumerate(blocks) if block.text == PROSE[5]), -1)
    following = [(block.kind, block.text) for block in blocks[at + 1 : at + 3]]
    assert (kind, expected) in following
    assert [block.text for block in blocks if block.text in PROSE] == list(PROSE)


@pytest.mark.parametrize("box", ["blockquote", "section", "details", "ul", "div"])
@pytest.mark.parametrize("wrap", ["main", "article", "body", "div"])
def test_a_long_box_does_not_take_the_place_of_the_article_around_it(box: str, wrap: str) -> None:
    told = "A long tale, told by the miller to whoever came by, of the flood, the wheel, and the cat. " * 9
    inner = f"<li><p>{told}</p></li>" if box == "ul" else f"<p>{told}</p>"
    rest = "<h2>The leat</h2><img src=leat.jpg><ul><li>rye</li><li>oats</li></ul><pre>grind(1)</pre>"
    html = f"<{wrap}>{between(rest)}<{box}>{inner}</{box}></{wrap}>"
    kinds = [block.kind for block in read(html)]
    assert {"heading", "image", "code", "list"} <= set(kinds)
    assert any(told.strip() in text for text in texts(html))


def test_lines_said_again_and_again_are_kept() -> None:
    refrain = "<p>And the wheel turns.</p>"
    html = page(between(refrain, 3) + f"{refrain}<p>Then.</p>{refrain}<p>It ended.</p>")
    assert texts(html).count("And the wheel turns.") == 3


def test_an_article_in_several_sections_is_whole() -> None:
    parts = [PROSE[:4], PROSE[4:8], PROSE[8:]]
    body = "".join(
        f"<section class=part><h2>Part {n}</h2>{''.join(f'<p>{t}</p>' for t in part)}</section>"
        for n, part in enumerate(parts)
    )
    found = texts(page("", after=f"<div>{body}</div>"))
    assert [text for text in found if text in PROSE] == list(PROSE)
    assert [text for text in found if text.startswith("Part")] == ["Part 0", "Part 1", "Part 2"]


def test_of_a_page_that_declares_main_only_that_is_read() -> None:
    teasers = "".join(f"<div><h3>Teaser {n}</h3><p>{PROSE[n]}</p></div>" for n in range(5))
    told = "".join(f"<p>{text}</p>" for text in PROSE[5:])
    html = f"<body><div class=promo>{teasers}</div><main><h1>Leat</h1>{told}</main></body>"
    assert [text for text in texts(html) if text in PROSE] == list(PROSE[5:])


def test_a_short_page_is_kept_whole() -> None:
    html = "<body><h1>Closed</h1><p>The mill is closed today.</p><img src=sign.jpg><p>Come back in May.</p></body>"
    assert [block.text or block.url for block in read(html)] == [
        "Closed",
        "The mill is closed today.",
        "http://a.example/2019/05/sign.jpg",
        "Come back in May.",
    ]


def test_a_page_of_links_alone_is_read_without_an_error() -> None:
    assert all(block.text for block in read(f"<body>{links('story', 200)}</body>"))


@pytest.mark.parametrize("line", ["<div>{}</div>", "<p>{}</p>", "{}<br>", "<li>{}</li>"])
def test_a_page_of_short_lines_is_kept(line: str) -> None:
    lines = [f"line {n} of a log, with a few words in it that say little" for n in range(60)]
    found = "\n".join(texts(f"<body>{''.join(line.format(text) for text in lines)}</body>"))
    assert sum(text in found for text in lines) == len(lines)


def test_all_posts_of_a_forum_are_kept_in_order() -> None:
    posts = "".join(
        f"<div class=message><div class=who><a href=/u/{n}>miller{n}</a></div><div class=what>{text}</div></div>"
        for n, text in enumerate(PROSE)
    )
    html = f"<body>{NAV}<div id=thread>{posts}</div>{FOOTER}</body>"
    assert [text for text in texts(html) if text in PROSE] == list(PROSE)


CHINESE = (
    "\u4e0b\u6e38\u6e21\u53e3\u7684\u78e8\u574a\u5efa\u4e8e\u65e7\u6865\u5012\u584c\u7684\u90a3\u4e2a\u5e72\u65f1"
    "\u590f\u5929\uff0c\u6c34\u8f6e\u5bbd\u800c\u6162\uff0c\u8f6c\u52a8\u65f6\u53d1\u51fa\u547c\u5438\u4e00\u822c"
    "\u7684\u58f0\u97f3\u3002"
)
ARABIC = (
    "\u0628\u0646\u064a\u062a \u0627\u0644\u0637\u0627\u062d\u0648\u0646\u0629 \u0639\u0646\u062f "
    "\u0627\u0644\u0645\u062e\u0627\u0636\u0629 \u0627\u0644\u0633\u0641\u0644\u0649\u060c \u0641\u064a"
    " \u0635\u064a\u0641 \u062c\u0627\u0641\u060c \u0648\u0643\u0627\u0646\u062a \u0639\u062c"
    "\u0644\u062a\u0647\u0627 \u062a\u062f\u0648\u0631 \u0628\u0628\u0637\u0621\u061f"
)


@pytest.mark.parametrize("text", [CHINESE, ARABIC], ids=["Chinese", "Arabic"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_an_article_in_another_script_is_found(text: str, place: str) -> None:
    paragraphs = [f"{n}{text * 3}" for n in range(14)]
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    side = f"<div>{links('story', 12)}</div>"
    assert texts(page(body, **{place: side})) == paragraphs


@pytest.mark.parametrize(
    "last",
    [
        "\u8f6c\u52a8\u3002",
        "It turned!",
        "Did it turn?",
        "\u0647\u0644 \u062f\u0627\u0631\u062a\u061f",
        "He said \u201cno.\u201d",
    ],
)
def test_a_short_last_paragraph_beside_the_article_is_kept_whatever_ends_it(last: str) -> None:
    html = f"<body>{NAV}<div id=a><div class=text>{ARTICLE}</div><p>{last}</p></div>{FOOTER}</body>"
    assert texts(html) == [*PROSE, last]


def test_a_page_laid_out_by_a_table_is_read_as_text() -> None:
    html = (
        f"<body><table width=100%><tr><td colspan=2>{NAV}</td></tr><tr><td>{links('story')}</td>"
        f"<td>{ARTICLE}</td></tr></table></body>"
    )
    assert [text for text in texts(html) if text in PROSE] == list(PROSE)
    assert of_kind(html, "table") == []


@pytest.mark.parametrize("tag", ["div", "section", "footer"])
def test_footnotes_are_kept(tag: str) -> None:
    notes = "<ol><li>The book is in the museum. <a href='#r1'>^</a></li><li>In pounds of the time.</li></ol>"
    found = "\n".join(texts(page(f"<article>{ARTICLE}<{tag} class=footnotes>{notes}</{tag}></article>")))
    assert "The book is in the museum." in found
    assert "In pounds of the time." in found


# Pictures.

HOST = "http://a.example/2019/05/"


def test_pictures_are_kept_in_order_with_alt_and_caption() -> None:
    first = "<figure><img src=wheel.jpg alt='The wheel'><figcaption>The wheel, in 1890</figcaption></figure>"
    second = "<p><img src=book.jpg alt='A book'></p>"
    blocks = read(page(between(first, 2) + second))
    pictures = [block for block in blocks if block.url is not None]
    assert [(one.url, one.attributes.get("alt"), one.caption) for one in pictures] == [
        (HOST + "wheel.jpg", "The wheel", "The wheel, in 1890"),
        (HOST + "book.jpg", "A book", None),
    ]
    at = blocks.index(pictures[0])
    assert blocks[at - 1].text == PROSE[1]
    assert (blocks[at + 1].kind, blocks[at + 1].text) == ("caption", "The wheel, in 1890")
    assert blocks[at + 2].text == PROSE[2]


FIGURES = "".join(
    f"<figure><img src={n}.jpg><figcaption>The mill from the weir, view {n}</figcaption></figure>" for n in range(3)
)
PICTURES = {
    "between paragraphs": ("<img src=0.jpg>", 1),
    "in a div": ("<div><img src=0.jpg></div>", 1),
    "in a link": ("<p><a href=big.html><img src=0.jpg></a></p>", 1),
    "captioned by a div": ("<div class=wp-caption><img src=0.jpg><p class=wp-caption-text>A view</p></div>", 1),
    "figures in a gallery": (f"<div class=gallery>{FIGURES}</div>", 3),
    "a list of pictures": ("<ul><li><img src=0.jpg></li><li><img src=1.jpg></li></ul>", 2),
    "late, src missing": ("<img data-src=0.jpg>", 1),
    "late, src a placeholder": ("<img src='data:image/gif;base64,R0lG' data-src=0.jpg>", 1),
    "late, src a blank file": ("<img src=/img/blank.gif data-original=0.jpg>", 1),
    "late, with a copy": ("<img src='data:,' data-src=0.jpg><noscript><img src=0.jpg></noscript>", 1),
    "only in noscript": ("<noscript><img src=0.jpg></noscript>", 1),
    "followed by a counter": ("<img src=0.jpg><noscript><img src='http://b.example/p?c1=2&c2=3'></noscript>", 1),
    "picture and source": ("<picture><source srcset=0.jpg><img alt=x></picture>", 1),
    "amp": ("<amp-img src=0.jpg><noscript><img src=0.jpg></noscript></amp-img>", 1),
    "named by its figure": ("<figure itemid=0.jpg itemtype='http://schema.org/ImageObject'></figure>", 1),
    "in a table of layout": ("<table><tr><td><img src=0.jpg></td></tr><tr><td>A view</td></tr></table>", 1),
}  # fmt: skip


@pytest.mark.parametrize("way", PICTURES)
def test_pictures_of_an_article_are_kept_however_they_are_written(way: str) -> None:
    html, number = PICTURES[way]
    blocks = read(page(between(html)))
    assert [block.url for block in blocks if block.url] == [f"{HOST}{n}.jpg" for n in range(number)]
    assert [block.text for block in blocks if block.text in PROSE] == list(PROSE)


@pytest.mark.parametrize(
    "name",
    ["plot_pixel_graphs_001.png", "clear_sky.jpg", "grey-wolf.jpg", "dot-product.png", "empty_nest.jpg",
     "loading-dock.jpg", "iconostasis.jpg", "logotherapy.jpg", "silicon-valley.jpg"],
)  # fmt: skip
def test_a_picture_whose_name_holds_the_word_of_a_placeholder_is_kept(name: str) -> None:
    assert urls(page(between(f"<p><img src={name}></p>"))) == [HOST + name]


@pytest.mark.parametrize(
    "image",
    ["<img src=t.gif width=1 height=1>", "<img src='data:image/gif;base64,R0lG'>", "<img src=/img/spacer.gif>",
     "<img src=/blank.png>", "<img src=x.jpg hidden>", "<img>"],
)  # fmt: skip
def test_what_only_looks_like_a_picture_is_dropped(image: str) -> None:
    assert urls(page(between(f"<p>Here it {image} stood.</p>"))) == []


@pytest.mark.parametrize(
    "lead",
    [
        "<figure class=lead><img src=lead.jpg><figcaption>The mill today</figcaption></figure><div class=text>{}</div>",
        "<img src=lead.jpg><div class=text>{}</div>",
    ],
)
def test_the_picture_above_the_text_is_kept(lead: str) -> None:
    html = f"<body>{NAV}<article class=post>{lead.format(ARTICLE)}</article>{FOOTER}</body>"
    assert urls(html) == [HOST + "lead.jpg"]
    assert [text for text in texts(html) if text in PROSE] == list(PROSE)
