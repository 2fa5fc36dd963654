"""What becomes of which element, in which order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_pages import blocks, document

from carnac.core.document import KINDS
from carnac.core.errors import RecordError
from carnac.web.extract import read_page
from carnac.web.settings import ExtractSettings
from carnac.web.tags import SKIPPED, STRUCTURE

HOST = "http://a.example/docs/"


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>one\n  <b>t</b>wo&nbsp; three<p>four", [("paragraph", "one two three"), ("paragraph", "four")]),
        ("bare <i>text</i><div>in</div>between", [("paragraph", s) for s in ("bare text", "in", "between")]),
        ("<p>a<br>b<br/> c</p>", [("paragraph", "a\nb\nc")]),
        ("a<br> <br>b<br><br><br>c", [("paragraph", "a"), ("paragraph", "b"), ("paragraph", "c")]),
        ("<h2>Big <br>news</h2>x", [("heading", "Big news"), ("paragraph", "x")]),
        ("<h2>A<a href='#a'>\u00b6</a></h2><p>In <a href='/x'>#</a>", [("heading", "A"), ("paragraph", "In #")]),
        ("<p>x <span>y</span><wbr>z<custom-tag>w</custom-tag>", [("paragraph", "x yzw")]),
        ("<details><summary>s</summary>d</details>", [("paragraph", "s"), ("paragraph", "d")]),
        ("<p>a<!-- no -->b<script>no</script><style>no</style><template>no</template><svg><text>no</text></svg>c",
         [("paragraph", "abc")]),
    ],
)  # fmt: skip
def test_text(html: str, expected: list[tuple[str, str]]) -> None:
    assert blocks(html) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<ul><li>a<li>b <b>c</b></ul>", [("list", "- a\n- b c")]),
        ("<ol><li>a<ul><li>b<li>c</ul><li>d</ol>", [("list", "- a\n  - b\n  - c\n- d")]),
        ("<ul><li><p>a</p><p>b</p><li>c<br>d</ul>", [("list", "- a\n  b\n- c\n  d")]),
        (
            "<dl><dt>term<dd>meaning<dt>x<span class=classifier>int</span></dl>",
            [("list", "- term\n  meaning\n- x : int")],
        ),
        ("<ul><li></li><li> </li><li>a</ul>", [("list", "- a")]),
        ("<ul><li>a<pre>code</pre>b<li>c</ul>", [("list", "- a"), ("code", "code"), ("list", "  b\n- c")]),
        ("<ul><li><h3>t</h3>text</ul>", [("heading", "t"), ("list", "text")]),
        ("<ul><li>a<img src=i.png>b</ul>", [("list", "- a"), ("image", HOST + "i.png"), ("list", "b")]),
        ("<blockquote><p>a<p>b</blockquote>c", [("quote", "a\nb"), ("paragraph", "c")]),
        ("<blockquote><ul><li>a</ul></blockquote>", [("list", "- a")]),
        ("<blockquote>a<ul><li>b</ul></blockquote>", [("quote", "a\n- b")]),
        ("<ul><li>a<blockquote>b</blockquote></ul>", [("list", "- a\n  b")]),
    ],
)
def test_lists_and_quotes(html: str, expected: list[tuple[str, str]]) -> None:
    assert blocks(html) == expected


LONG = "long words " * 40


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<table><tr><th>a<th>b<tr><td>c<td>d e</table>", [("table", "a | b\nc | d e")]),
        ("<table><tr><td>a<td><td>b<tr><td><td>c</table>", [("table", "a |  | b\nc")]),
        ("<table><caption>t</caption><tr><td>a<td>b</table>", [("caption", "t"), ("table", "a | b")]),
        ("<table><tr><td>a<br>b<p>c</p><ul><li>d</ul><td>e</table>", [("table", "a b c d | e")]),
        ("<table><tr><td>a<tr><td>b</table>", [("paragraph", "a"), ("paragraph", "b")]),
        ("<table><tr><td>a<td><img src=i><td>b<tr><td>c<td>d</table>",
         [("table", "a |  | b"), ("image", HOST + "i"), ("table", "c | d")]),
        ("<table><tr><td>a<td>b<tr><td>c<td><table><tr><td>1<td>2</table>d</table>",
         [("table", "a | b"), ("paragraph", "c"), ("table", "1 | 2"), ("paragraph", "d")]),
        ("<table><tr><td>a<td><h2>b</h2><ul><li>c</ul></table>",
         [("paragraph", "a"), ("heading", "b"), ("list", "- c")]),
        (f"<table><tr><td>a<td><p>{LONG}<p>{LONG}</table>",
         [("paragraph", "a"), ("paragraph", LONG.strip()), ("paragraph", LONG.strip())]),
        ("<ul><li>a<table><tr><td>1<td>2</table>b</ul>", [("list", "- a"), ("table", "1 | 2"), ("list", "b")]),
    ],
)  # fmt: skip
def test_tables(html: str, expected: list[tuple[str, str]]) -> None:
    assert blocks(html) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<pre>\n\n  a\n    <b>b</b>  c\n</pre>", "  a\n    b  c"),
        ("<pre>a<br>b<div>c</div><div>d</div></pre>", "a\nb\nc\nd"),
        ("<pre><span></span><span class=linenos>1 </span>x = 1\n<span class=linenos>2 </span>y</pre>", "x = 1\ny"),
        ("<pre>x<a href='#x'>\u00b6</a><button>Copy</button></pre>", "x"),
        ("<table class=highlight><tr><td><pre>1\n2</pre><td><pre>a\nb</pre></table>", "a\nb"),
        ("<pre>42</pre>", "42"),
        ("<div><pre>a <pre>b</pre> c</pre></div>", "a b c"),
    ],
)
def test_code_keeps_its_white_space(html: str, expected: str) -> None:
    assert blocks(html) == [("code", expected)]


def test_picture_in_code_follows_it() -> None:
    assert blocks("<pre>a<img src=i>b</pre>") == [("code", "ab"), ("image", HOST + "i")]


def test_picture_splits_its_paragraph_at_its_place() -> None:
    found = blocks("<p>before <a href=x><img src=i></a> after</p>")
    assert found == [("paragraph", "before"), ("image", HOST + "i"), ("paragraph", "after")]


def test_figure_gives_its_caption_to_all_its_pictures() -> None:
    page = "<figure><img src=1><img src=2><figcaption>Two <b>views</b><p>more</figcaption></figure><img src=3>"
    assert [kind for kind, _ in blocks(page)] == ["image", "image", "caption", "image"]
    nodes = [node for node in document(page).image_nodes if node is not None]
    assert [node.caption for node in nodes] == ["Two views\nmore", "Two views\nmore", None]


def test_captions_stay_with_the_innermost_figure() -> None:
    inner = "<figure><img src=1><figcaption>in</figcaption></figure>"
    page = f"<figure>{inner}<img src=2><figcaption>out</figcaption></figure>"
    assert blocks(page)[1] == ("caption", "in")
    assert [node.caption for node in document(page).image_nodes if node is not None] == ["in", "out"]


@pytest.mark.parametrize(
    "html",
    [
        "<nav>no</nav>",
        "<aside>no</aside>",
        "<header>no</header>",
        "<div><footer>no</footer></div>",
        "<div hidden>no</div>",
        "<div aria-hidden=true>no</div>",
        "<p style='color:red; DISPLAY : none'>no</p>",
        "<div role=navigation>no</div>",
        "<form><button>no</button><select><option>no</select><textarea>no</textarea></form>",
        "<label>no</label><input value=no>",
        "<iframe src=x>no</iframe><video>no</video><object>no</object><noscript>no</noscript>",
        "<img src=no hidden><img src='data:image/png;base64,no'><img alt=no>",
    ],
)
def test_what_is_not_content_is_skipped(html: str) -> None:
    assert blocks(html + "<p>yes") == [("paragraph", "yes")]
    with pytest.raises(RecordError) as caught:
        document(html)
    assert caught.value.reason == "no_content"


def test_header_of_an_article_is_content() -> None:
    page = "<header>no</header><article><header><h1>T</h1></header>x<footer>end</footer></article><article>y</article>"
    assert [text for _, text in blocks(page)] == ["T", "x", "end", "y"]


TAGS = [*STRUCTURE, *sorted(SKIPPED), "span", "a", "b", "img", "br", "noscript", "picture", "x-y"]
PIECES = st.one_of(
    st.sampled_from([f"<{tag}>" for tag in TAGS]),
    st.sampled_from([f"</{tag}>" for tag in TAGS]),
    st.sampled_from(
        ["<img src=a.png>", "<img data-src=b.png>", "<td>x", "text ", " ", "\n", "<!--", "-->", "<", "&amp;", "\0"]
    ),
    st.text(max_size=8),
)


@given(st.lists(PIECES, max_size=60))
@settings(max_examples=400, deadline=None)
def test_soup_gives_consistent_blocks(pieces: list[str]) -> None:
    soup = "".join(piece.encode("utf-8", "replace").decode() for piece in pieces)
    found = blocks("<p>start" + soup)
    for kind, value in found:
        assert kind in KINDS
        assert value
        if kind == "image":
            assert value in (HOST + "a.png", HOST + "b.png")
        elif kind != "code":
            assert value.strip() == value or kind in ("list", "quote")
            assert "\0" not in value


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["p", "h2", "li", "td", "blockquote", "pre", "figcaption", "img", "dd"]), st.booleans()
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_order_is_that_of_the_page(elements: list[tuple[str, bool]]) -> None:
    """Numbered words and pictures come out in order; but a table's pictures wait for the end of their row."""
    wrappers = {"li": "ul", "td": "table", "figcaption": "figure", "dd": "dl"}
    parts = ["<p>w0"]
    for number, (tag, is_wrapped) in enumerate(elements, 1):
        inner = f"<img src=w{number}>" if tag == "img" else f"<{tag}>w{number}</{tag}>"
        wrapper = wrappers.get(tag)
        parts.append(f"<{wrapper}>{inner}</{wrapper}>" if wrapper and (is_wrapped or tag == "td") else inner)
    words = [word for _, value in blocks("".join(parts)) for word in value.replace(HOST, " ").split() if word[0] == "w"]
    assert words == [f"w{number}" for number in range(len(elements) + 1)]


def test_plain_lists_and_tables_have_no_marks() -> None:
    html = f"""<p>{"Words of an article. " * 40}<ul><li>one<ul><li>two<br>lines</ul><li>- three</ul>
        <table><tr><th>a<th>b<tr><td><td>c<tr><td>d<td>e</table><blockquote>said</blockquote><h2>Head</h2><p>End."""
    blocks = read_page(html.encode(), "http://a.example/", None, ExtractSettings(plain=True))
    assert [(block.kind, block.text) for block in blocks[1:4]] == [
        ("list", "one\ntwo\nlines\n- three"),
        ("table", "a\tb\nc\nd\te"),
        ("quote", "said"),
    ]
