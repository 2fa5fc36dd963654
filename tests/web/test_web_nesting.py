"""Pages too costly to parse are refused beforehand; sound ones are not."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from web_pages import document, sample_pages

from carnac.core.errors import RecordError
from carnac.web import nesting
from carnac.web.nesting import check_nesting

MANY = 60_000


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * MANY,
        "<div>" * MANY + "</div>" * MANY,
        "<div></b>" * MANY,
        "<div><table></div></table>" * MANY,
        "<table><tr><td>" * MANY,
        "<ul><li>" * MANY,
        "<custom-tag>" * MANY,
        "<svg>" * MANY,
        "<p>" + "".join(f"<font size={n}>" for n in range(2000)) + "</p>" + "<p>x" * 2000,
        "<p " + " ".join(f"a{n}=1" for n in range(MANY)) + ">",
        "<p " + " ".join(f"a{n}=1" for n in range(MANY)),
    ],
    ids=lambda html: html[:24],
)
def test_refused(html: str) -> None:
    with pytest.raises(RecordError) as caught:
        document(html)
    assert caught.value.reason == "too_deep"


@pytest.mark.parametrize(
    "html",
    [
        "<p>x" * MANY,
        "<ul>" + "<li>x" * MANY,
        "<table>" + "<tr><td>x<td>y" * MANY,
        "<p>x</b></i>" * MANY,
        "<!-- <div> -->" * MANY + "x",
        "<script>" + "'<div>'" * MANY + "</script>x",
        "<svg>" + "<path d='M0'/>" * MANY + "</svg>x",
        "<p title='" + "<div>" * MANY + "'>x",
        "<p data-state='" + '{"a": 1} ' * MANY + "'>x",
        "<p>" + "a < b " * MANY,
        "<a href=x>x" * MANY,
        "<b>x" * 300 + "<p>y</p>" * 3000,
    ],
    ids=lambda html: html[:24],
)
def test_accepted(html: str) -> None:
    check_nesting(html.encode())


def test_deepest_accepted_page_is_walked() -> None:
    depth = 9000
    for tag in ("div", "span", "blockquote", "figure", "pre", "b"):
        assert document(f"<{tag}>" * depth + "x").texts == ("x",)


def test_real_pages_leave_nothing_open() -> None:
    """On well-formed pages the simulation is exact: it ends with no element open."""
    largest = sorted(sample_pages().values(), key=lambda page: len(page.payload))[-20:]
    for page in largest:
        simulation = nesting._Simulation()
        simulation.run(page.payload.decode())
        assert not simulation._open, page.url


def _seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


@pytest.mark.parametrize(
    "unit",
    [
        "<p>some text</p>",
        "<ul><li>a<img src=b></ul>",
        "<table><tr><td>a<td><img src=b></table>",
        "x<br>",
        "<figure><img src=a><figcaption>b</figcaption></figure>",
        "<!--",
        "<a b='",
        "<p style='display :'>x",
        "<img srcset='a 1x, b 2x'>",
    ],
)
def test_time_is_linear_in_the_page(unit: str) -> None:
    small, large = "<p>x</p>" + unit * 4000, "<p>x</p>" + unit * 16_000
    # In turns: other work on the machine then slows both alike.
    rounds = [(_seconds(lambda: document(small)), _seconds(lambda: document(large))) for _ in range(5)]
    ratio = min(seconds for _, seconds in rounds) / min(seconds for seconds, _ in rounds)
    assert ratio <= 8, f"four times the page took {ratio:.1f} times as long"
