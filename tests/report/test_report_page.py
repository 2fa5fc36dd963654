"""The page: whole, self-contained, and deaf to what the web tries to say in it."""

from __future__ import annotations

import base64
import io
import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_run import BREAK_OUT, PAGES, SCRIPT, picture, sample, write_documents, write_run, write_shards, write_stage
from selectolax.lexbor import LexborHTMLParser, LexborNode

from carnac.core.errors import InputError
from carnac.report import reading
from carnac.report.page import render, write_page
from carnac.report.pictures import thumbnail
from carnac.report.story import read_story


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return render(read_story(run))


@pytest.fixture(scope="module")
def tree(html: str) -> LexborHTMLParser:
    return LexborHTMLParser(html)


def texts(tree: LexborHTMLParser, selector: str) -> list[str]:
    return [node.text(strip=True) for node in tree.css(selector)]


def elements(tree: LexborHTMLParser) -> list[LexborNode]:
    root = tree.root
    assert root is not None
    return list(root.traverse(include_text=False))


# -- what it tells


def test_every_chapter_and_card_is_there(tree: LexborHTMLParser) -> None:
    assert texts(tree, "h2") == [
        "1. Pages in",
        "2. Pictures",
        "3. What each rule took",
        "Records lost",
        "4. Documents, as a reader sees them",
        "5. Training",
        "6. Does it look at its images?",
        "7. Chat",
        "Where to look next",
    ]
    # strips, thumbnails, images (figures, states, two tables of hosts, two drawings of sizes, samples), 3 steps of the
    # funnel, lost records, 2 documents, training (its figures, 5 drawings, the last steps), evaluation, 2 chats, the
    # last word
    assert len(tree.css("div.card")) == 26
    assert len(tree.css("div.document")) == 2
    assert len(tree.css("div.chat")) == 2
    assert len(tree.css("div.strip")) == 3
    assert len(tree.css("div.strip i")) == sum(len(page.kinds) for page in PAGES)
    assert len(tree.css("div.thumbs img")) == 2
    assert texts(tree, "div.panels h3") == [
        "Loss",
        "Learning rate",
        "Gradient norm",
        "Tokens per second",
        "Waiting for data",
    ]


def test_the_figures_are_those_of_the_files(tree: LexborHTMLParser) -> None:
    tiles = dict(zip(texts(tree, ".tile span"), texts(tree, ".tile b"), strict=True))
    assert tiles == {
        "pages read": "4",
        "documents": "3",
        "images kept": "2",
        "samples, train": "2",
        "samples, heldout": "1",
        "parameters": "1.2 M",
        "steps": "9",
        "training loss": "5.00 \u2192 3.00",
    }
    leads = texts(tree, "p.lead")
    assert any(lead.startswith("Addresses of images: 2 kept, 2 dropped: not in archive.") for lead in leads)
    assert any(lead.startswith("The model looks at its images") for lead in leads)
    assert texts(tree, "details summary code") == ["dropped not_in_archive", "text.num_words < 3 [paragraph]"]
    assert texts(tree, "summary span.small")[1] == "took 1 text blocks, 1 words"
    assert texts(tree, "div.card > div.small").count("It took nothing.") == 1
    # states, two tables of hosts, lost records
    assert [len(row.css("td")) for row in tree.css("table tr")][:11] == [0, 6, 6, 0, 7, 7, 0, 7, 0, 4, 4]
    widths = [node.attributes["style"] or "" for node in tree.css("div.card > div.bar b")][2:]
    assert widths[:3] == ["width:100.0%"] * 3
    assert widths[6].startswith("width:66.6")


def test_documents_read_like_pages(tree: LexborHTMLParser) -> None:
    documents = {node.css("h3")[0].text(): node for node in tree.css("div.document")}
    mill = documents["The mill"]
    shown = [(node.tag, node.text()) for node in mill.css("h4, p, pre, blockquote, img")]
    assert shown == [
        ("h4", "The old mill"),
        ("p", "It turns in the evening."),
        ("img", ""),
        ("pre", "for day in week:\n    turn()"),
        ("blockquote", "Water is patient."),
    ]


def test_one_dot_for_each_document_that_was_measured(tree: LexborHTMLParser) -> None:
    dots = tree.css("div.axis i")
    assert len(dots) == 2  # the third has no token after an image
    assert all(
        50 < float((dot.attributes["style"] or "").removeprefix("left:").removesuffix("%")) <= 98 for dot in dots
    )


# -- what it must not do


def test_the_page_needs_nothing_but_itself(html: str, tree: LexborHTMLParser) -> None:
    (policy,) = tree.css("meta[http-equiv]")
    assert policy.attributes["http-equiv"] == "Content-Security-Policy"
    assert policy.attributes["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for node in elements(tree):
        for name, value in node.attributes.items():
            assert name not in ("href", "srcset", "action", "formaction", "poster", "data", "background")
            if name == "src":
                kind = "svg+xml" if node.attributes.get("class") == "plot" else "webp"
                assert (value or "").startswith(f"data:image/{kind};base64,")
            assert "url(" not in (value or "")
    assert "url(" not in html
    assert "@import" not in html


def test_what_the_web_wrote_stays_text(html: str, tree: LexborHTMLParser) -> None:
    tags = {node.tag for node in elements(tree)}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base", "link", "a"}
    handlers = {name for node in elements(tree) for name in node.attributes if name.startswith("on")}
    assert handlers == set()
    assert "<script" not in html
    assert f"{SCRIPT}{BREAK_OUT}" in texts(tree, "div.document h3")
    assert SCRIPT in texts(tree, "div.document h4")
    assert SCRIPT in texts(tree, "div.chat div.prompt")
    assert SCRIPT in texts(tree, "div.chat div.truth")
    assert "javascript:alert(1)" in texts(tree, "div.document div.small")
    assert tree.css("div.strip span")[1].attributes["title"] == "javascript:alert(1)"
    assert "{{ 7 * 7 }}" in html  # data are never templates


def test_no_control_characters(html: str) -> None:
    assert {character for character in html if unicodedata.category(character) == "Cc"} <= {"\n", "\t"}


def test_it_is_well_formed(html: str) -> None:
    """Every element that is opened is closed, in order: nothing of the web broke out."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    assert body.startswith('<!doctype html>\n<html lang="en">')
    open_tags: list[str] = []
    for closing, name, rest in re.findall(r"<(/?)([a-z][a-z0-9]*)((?:[^>\"]|\"[^\"]*\")*)>", body):
        if closing:
            assert open_tags.pop() == name
        elif name not in ("meta", "img", "br") and not rest.endswith("/"):
            open_tags.append(name)
    assert open_tags == []
    paragraphs = re.findall(r"<p[ >](?:(?!</p>).)*<(?:div|table|p|pre|h[1-6])[ >]", body, flags=re.DOTALL)
    assert paragraphs == []


# -- writing it


def test_it_is_written_whole(run: Path, tmp_path: Path, html: str) -> None:
    out = tmp_path / "page.html"
    write_page(run, out)
    assert out.read_text(encoding="utf-8") == html
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_missing_folder_for_the_page_is_a_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"page\.html: its folder does not exist\. Create .+gone or choose"):
        write_page(run, tmp_path / "gone" / "page.html")


@pytest.mark.parametrize("stage", ["documents", "images", "curated", "shards", "plan", "model", "evaluation", "chat"])
def test_a_page_of_each_stage_alone(run: Path, stage: str) -> None:
    tree = LexborHTMLParser(render(read_story(run / stage)))
    assert len(tree.css("h2")) >= (1 if stage == "plan" else 2)


# -- documents to read


def test_masks_of_other_pages_cost_the_headings_only(tmp_path: Path) -> None:
    """Crawled anew after the masks were made: other units, other rows."""
    write_run(tmp_path)
    manifest = tmp_path / "curated" / "masks" / "a_last" / "manifest.json"
    content = json.loads(manifest.read_bytes())
    content["parts"][0]["unit"] = "00000-of-before"
    manifest.write_text(json.dumps(content))
    tree = LexborHTMLParser(render(read_story(tmp_path)))
    assert len(tree.css("div.document")) == 2
    assert not tree.css("div.document h4")
    assert len(tree.css("div.document img")) == 2


def test_long_documents_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_CHARACTERS", 30)
    monkeypatch.setattr(reading, "PICTURE_CHARACTERS", 10)
    write_shards(tmp_path)
    (first, *_) = reading.readable_documents(read_story(tmp_path), 2)
    kinds = [kind for kind, _ in first["blocks"]]
    assert kinds[-1] == "more"
    assert first["blocks"][-2][1].endswith(" ...")
    assert sum(len(text) for kind, text in first["blocks"] if kind == "paragraph") < 40
    monkeypatch.setattr(reading, "PICTURE_CHARACTERS", 30)
    few = reading.readable_documents(read_story(tmp_path), 2)
    assert all(document["blocks"][-1][0] == "more" for document in few)


def test_a_picture_that_does_not_decode_leaves_a_gap(tmp_path: Path) -> None:
    write_stage(tmp_path, "shards", [sample(PAGES[0], picture()[:50]), sample(PAGES[1], picture())])
    documents = reading.readable_documents(read_story(tmp_path), 2)
    assert sorted(sum(kind == "image" for kind, _ in document["blocks"]) for document in documents) == [0, 1]
    assert len(LexborHTMLParser(render(read_story(tmp_path))).css("div.thumbs img")) == 1


def test_strips_without_a_title_show_the_address(tmp_path: Path) -> None:
    write_documents(tmp_path)
    tree = LexborHTMLParser(render(read_story(tmp_path)))
    assert texts(tree, "div.strip > span")[2] == "https://example.org/text"


# -- pictures


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("L", "WEBP"), ("I;16", "PNG"), ("1", "PNG")],
)
def test_thumbnails_of_any_kind_fit_and_open(mode: str, form: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (300, 200)).save(out, form)
    found = thumbnail(out.getvalue(), 96)
    assert found is not None
    with Image.open(io.BytesIO(base64.b64decode(found.removeprefix("data:image/webp;base64,")))) as small:
        assert (small.mode, small.size) == ("RGB", (96, 64))


@given(st.integers(0, 200), st.binary(max_size=8))
def test_damaged_pictures_are_none_or_a_thumbnail(length: int, noise: bytes) -> None:
    payload = picture()
    found = thumbnail(payload[:length] + noise + payload[length + len(noise) :][: 40 + length], 32)
    assert found is None or found.startswith("data:image/webp;base64,")
