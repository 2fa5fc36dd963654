"""The chapter on pictures of a run's page: figures, what was not kept, thumbnails by the rule that took them."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_images import HOSTILE, RULES, write_found, write_table
from report_run import BREAK_OUT, write_stage
from selectolax.lexbor import LexborHTMLParser, LexborNode

from carnac.core.schema import MASKS
from carnac.engine.tables import read_rows
from carnac.report import images_thumbnails
from carnac.report.images_thumbnails import kept_thumbnails, taken_by_rules
from carnac.report.page import render
from carnac.report.story import read_story
from carnac.serve.terminal import printable


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    write_found(run, write_table(run / "images")[:20])
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "run")


def card(folder: Path, title: str) -> LexborNode:
    tree = LexborHTMLParser(render(read_story(folder)))
    (found,) = (node for node in tree.css("div.card") if [head.text() for head in node.css("h3")] == [title])
    return found


def all_rows(folder: Path, status: str) -> list[dict[str, Any]]:
    (manifest,) = read_story(folder).find("images")
    return [row for part in manifest.parts for row in read_rows(part.path) if row["status"] == status]


def colour(uri: str) -> tuple[int, ...]:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return tuple(image.convert("RGB").resize((1, 1)).tobytes())


def test_the_page_has_the_same_figures_as_the_text(whole: Path) -> None:
    rows = [[cell.text() for cell in row.css("td")] for row in card(whole, "States").css("tr")]
    assert rows[1][:3] == ["kept", "20", "52.6 %"]
    assert rows[2][5] == "failed"
    assert len(card(whole, "Hosts with most URLs").css("tr")) == 11
    assert len(card(whole, "Rounds of fetching").css("tr")) == 3
    html = render(read_story(whole))
    assert "Addresses of images: 20 kept, 6 dropped: http 404, 4 deferred: retry after, 3 dropped: timeout" in html
    assert "failed 10, timeouts 3, deferred 4, all 16 URLs" in html


def test_sizes_are_bars(whole: Path) -> None:
    bars = card(whole, "Shorter side, px")
    assert [node.text() for node in bars.css("div.small")] == ["64 to 127: 5", "128 to 255: 5", "256 to 511: 10"]
    assert [node.attributes["style"] for node in bars.css("b")] == ["width:50.0%", "width:50.0%", "width:100.0%"]


def test_what_was_not_kept_is_shown_by_reason(whole: Path) -> None:
    found = card(whole, "Not kept, such as")
    assert [node.text() for node in found.css("summary code")][:2] == ["dropped http_404", "dropped timeout"]
    graves = [node.text() for node in found.css("p.grave")]
    assert "http://slow.example/timeout0.pngno byte for 10 s" in graves
    # What the web wrote is text and nothing else.
    assert any(grave.startswith(printable(HOSTILE)) for grave in graves)
    assert not found.css("script")
    assert not found.css("img")


def test_images_that_a_rule_took_are_shown_under_its_name(whole: Path) -> None:
    story = read_story(whole)
    wide, flat = taken_by_rules(story)
    assert [(taken.reason, taken.number, len(taken.thumbnails)) for taken in (wide, flat)] == [
        (RULES[0], 5, 5),
        (RULES[1], 1, 1),
    ]
    # The first image of every other document: numbers 0, 4, 8 ... of the photographs, each of its own colour.
    for place, (uri, what) in enumerate(wide.thumbnails):
        number = 4 * place
        wanted = ((37 * number) % 256, (91 * number) % 256, 128)
        assert max(abs(one - other) for one, other in zip(colour(uri), wanted, strict=True)) <= 4
        assert what == f"http://h{number % 5}.example:8080/{number}.jpg 200 x 100 px"
    assert len(card(whole, "Taken by rules").css("div.thumbs img")) == 6


def test_an_image_on_many_pages_is_shown_once(run: Path) -> None:
    shutil.rmtree(run / "images" / "found")
    (kept, *_) = all_rows(run / "images", status="kept")
    write_found(run, [kept] * 20)
    wide, flat = taken_by_rules(read_story(run))
    assert [(taken.number, len(taken.thumbnails)) for taken in (wide, flat)] == [(5, 1), (1, 1)]


def test_only_so_many_verdicts_are_looked_at(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_thumbnails, "MAX_LOOKED", 5)
    monkeypatch.setattr(images_thumbnails, "NUM_TAKEN", 1)
    assert [(taken.number, len(taken.thumbnails)) for taken in taken_by_rules(read_story(whole))] == [(2, 1), (1, 1)]


def test_some_kept_images_stand_in_for_shards_that_are_not_there_yet(whole: Path) -> None:
    assert len(kept_thumbnails(read_story(whole), 48)) == 20
    assert len(kept_thumbnails(read_story(whole), 3)) == 3
    assert "Below, some that were kept." in render(read_story(whole))


def test_a_pack_that_is_gone_costs_its_thumbnails_alone(run: Path) -> None:
    (run / "images" / "packs" / "a.tar").unlink()
    story = read_story(run)
    assert kept_thumbnails(story, 48) == []
    assert [(taken.number, taken.thumbnails) for taken in taken_by_rules(story)] == [(5, []), (1, [])]
    assert "States" in render(story)


def test_an_image_that_was_taken_down_has_no_thumbnail(run: Path) -> None:
    pack = run / "images" / "packs" / "a.tar"
    content = pack.read_bytes()
    pack.write_bytes(content[:512] + bytes(1024) + content[1536:])
    assert [len(taken.thumbnails) for taken in taken_by_rules(read_story(run))] == [4, 1]


def test_masks_of_other_documents_take_nothing(run: Path) -> None:
    folder = run / "curated" / "masks" / "rules"
    shutil.rmtree(folder)
    rows = [{"id": f"other{n}", "keep": True, "keep_block": [True], "block_reason": [None]} for n in range(10)]
    reasons = MASKS.with_metadata({b"carnac.reasons": json.dumps(RULES).encode()})
    write_stage(folder, "masks", rows, schema=reasons)
    story = read_story(run)
    assert taken_by_rules(story) == []
    assert "Taken by rules" not in render(story)


def test_a_folder_of_images_alone_has_a_page(whole: Path) -> None:
    tree = LexborHTMLParser(render(read_story(whole / "images")))
    assert next(node.text() for node in tree.css("h2")) == "2. Pictures"
    assert len(tree.css("div.thumbs img")) == 20
    assert BREAK_OUT.partition(">")[2] not in "".join(node.html or "" for node in tree.css("img"))
