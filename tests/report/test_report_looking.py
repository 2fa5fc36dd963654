"""The page of one record: real pages through real crawls, hostile and broken ones, and every way not to find one."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import CliRunner
from jobs_crawls import CRAWL, CommonCrawl, CrawlHere, write_warc
from report_run import BREAK_OUT, ESCAPE, SCRIPT
from selectolax.lexbor import LexborHTMLParser, LexborNode

from carnac.archive.zstd_frames import DICTIONARY_MAGIC
from carnac.cli import cli
from carnac.core.errors import InputError
from carnac.report.looking import render_looking, write_looking
from carnac.report.page_tree import MAX_LINES, MAX_NESTED, page_tree, trace
from carnac.report.record import find_record
from carnac.report.stored_pages import stored_page
from carnac.web.extract import parse_page, read_tree
from carnac.web.outline import PageFacts
from carnac.web.settings import ExtractSettings
from carnac.web.walk import Walk

DATA = Path(__file__).parents[2] / "recipes/tiny/data"
OWN_TAGS = {*"main h1 h2 details summary dl dt dd p div section pre code b span table tr th td tbody".split()}  # noqa: SIM905
TEXT = "The old mill stands by the river, and in the evening people walk along the water to look at its wheel. " * 3
ARTICLE = f"""<html><head><title>The old mill</title></head><body>
<nav><a href=/>Home</a> Navigation words</nav>
<div class="sidebar-related">Sidebar words</div>
<div style="display:none">Hidden words</div>
<article><h1>The old mill</h1><p>{TEXT}</p><p>{TEXT}</p>
<div class=links><ul>{"".join(f"<li><a href=/{n}>Linked words {n}</a></li>" for n in range(9))}</ul></div>
<p><img src=/mill.jpg alt="The wheel" width=640 height=480><img src=/count.gif width=1 height=1></p>
<p>{TEXT}</p><p>Advertisement</p></article>
<div><p><a href=/more>Words that nobody chose</a></p></div></body></html>"""


@pytest.fixture
def crawl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CrawlHere:
    here = CrawlHere(output=tmp_path / "out" / "documents")
    monkeypatch.setattr("carnac.engine.run.run_units", here.run_units)
    return here


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CrawlHere, list[dict[str, Any]]]]:
    """The first thirty pages of an archive of the shipped sample."""
    here = CrawlHere(output=tmp_path_factory.mktemp("sample") / "out" / "documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carnac.engine.run.run_units", here.run_units)
        yield here, here(warcs=[str(DATA / "skimage-00000.warc.gz")], limit=30)


def looked_at(folder: Path, wanted: str) -> LexborHTMLParser:
    found = find_record(folder, wanted)
    return LexborHTMLParser(render_looking(found, stored_page(found.manifest, found.sought)))


def crawl_pages(crawl: CrawlHere, folder: Path, **pages: str | bytes) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    for name, html in pages.items():
        (folder / f"{name}.html").write_bytes(html.encode() if isinstance(html, str) else html)
    return crawl(pages=[f"{folder}/**/*.html"], base_url="https://a.example/docs")


def text_of(page: LexborHTMLParser | LexborNode, query: str) -> str:
    node = page.css_first(query)
    assert node is not None
    return node.text()


def words(text: str) -> str:
    return " ".join(text.split())


def states(page: LexborHTMLParser) -> dict[str, str]:
    """Return each line of the tree with its state."""
    return {words(line.text()): line.attributes["class"] or "" for line in page.css(".tree p, .tree summary")}


def test_real_pages_stand_beside_their_tree_and_document(sample: tuple[CrawlHere, list[dict[str, Any]]]) -> None:
    crawl, rows = sample
    for row in rows[::3]:
        page = looked_at(crawl.output.parent, row["id"])
        raw, tree, document = page.css(".columns > .column")
        found = find_record(crawl.output, row["id"])
        payload = stored_page(found.manifest, found.sought).payload.decode()
        assert words(text_of(raw, "pre")) == words(payload[:300_000].replace("\r", ""))
        assert tree.css("summary.kept, p.kept")
        texts = [words(text or image) for text, image in zip(row["texts"], row["images"], strict=True)]
        assert [words(block.text()) for block in document.css(".block > div")] == texts
        assert not page.css(".note")


def test_what_is_marked_as_kept_is_what_the_document_holds(sample: tuple[CrawlHere, list[dict[str, Any]]]) -> None:
    crawl, rows = sample
    settings = ExtractSettings()
    for row in rows:
        found = find_record(crawl.output, row["id"])
        response = stored_page(found.manifest, found.sought)
        parser = parse_page(response.payload, response.charset, settings)
        tree = page_tree(parser, response.url, read_tree(parser, response.url, settings), settings)
        assert tree is not None
        assert tree.how.startswith("Read below <")  # the walk that made the outline was found again
        pictures = [line.text.split()[0] for line in tree.lines if line.label == "picture" and line.state == "kept"]
        assert pictures == [url for url in row["images"] if url is not None]
        assert sum(line.folds - line.is_end for line in tree.lines) == 0


def test_each_thing_left_out_says_why(crawl: CrawlHere, tmp_path: Path) -> None:
    (row,) = crawl_pages(crawl, tmp_path / "site", article=ARTICLE)
    page = looked_at(crawl.output, row["id"])
    lines = states(page)

    def said(start: str) -> tuple[str, str]:
        (line,) = (line for line in lines if line.startswith(start))
        return lines[line], line

    assert said("div.sidebar-related")[0] == "passed-over"
    assert "its names say no content" in said("div.sidebar-related")[1]
    assert "<nav> holds no content" in said("nav")[1]
    assert "hidden" in said("div passed over Hidden words")[1]
    assert "repeats the title" in said("h1")[1]
    state, line = said("div.links")
    assert state == "dropped"
    assert "100% of them linked, items 9" in line
    assert said("div not chosen")[0] == "not-chosen"
    assert said("picture dropped https://a.example/count.gif")[1].endswith("tracking pixel")
    assert [[words(cell.text()) for cell in found.css("td")] for found in page.css("table tr")[1:]] == [
        ["tracking pixel", "image", "https://a.example/count.gif"],
        ["button", "paragraph", "Advertisement"],
    ]
    picture = text_of(page, ".k-image")
    assert "alt: The wheel" in picture
    assert "declared: 640 x 480 px" in picture


def test_a_hostile_page_is_only_text(crawl: CrawlHere, tmp_path: Path) -> None:
    hostile = (
        f"<title>{SCRIPT}</title><body class='x{BREAK_OUT}'><p class=\"{SCRIPT}{{{{ 7 * 7 }}}}\">{TEXT * 3}"
        f"</pre></div></details>{BREAK_OUT}{ESCAPE}<img src='javascript:alert(2)'><img src='https://a.example/\"><b>.jpg'>"
        f"<!-- --></p><iframe srcdoc='{quote(SCRIPT)}'></iframe><script>alert(3)</script></textarea></style></pre>"
    )
    (row,) = crawl_pages(crawl, tmp_path / "site", hostile=hostile)
    found = find_record(crawl.output, row["id"])
    html = render_looking(found, stored_page(found.manifest, found.sought))
    page = LexborHTMLParser(html)
    plain = LexborHTMLParser(re.sub(r"\s", " ", html))
    assert not page.css("script, img, iframe, link, object, form, a, base, svg, [src], [href], [onerror]")
    assert {node.tag for node in plain.css("body *")} <= OWN_TAGS
    assert page.css("meta[http-equiv=Content-Security-Policy][content^=\"default-src 'none'\"]")
    assert "alert(3)" in text_of(page, "pre")
    assert "\x1b" not in html
    assert "{{ 7 * 7 }}" in page.text()


def test_a_page_that_gave_no_document_can_be_looked_at(crawl: CrawlHere, tmp_path: Path) -> None:
    empty = "<html><body><nav>Only navigation</nav><div hidden>Only hidden</div></body></html>"
    deep = "<html><body>" + "<div>" * 20_000
    crawl_pages(crawl, tmp_path / "site", article=ARTICLE, empty=empty, deep=deep)
    assert crawl.lost == {"empty.html": "no_content", "deep.html": "too_deep"}
    page = looked_at(crawl.output, "empty.html")
    assert "no_content" in text_of(page, ".note")
    assert "Only hidden" in text_of(page, "pre")
    assert "the record was lost" in page.text()
    assert "too_deep" in text_of(looked_at(crawl.output, "deep.html"), ".note")


def test_a_lost_record_of_an_archive_is_found_by_its_name(crawl: CrawlHere, tmp_path: Path) -> None:
    archive, places = write_warc(["https://a.example/0", "https://a.example/1"])
    (tmp_path / "a.warc.gz").write_bytes(archive)
    crawl(warcs=[str(tmp_path / "a.warc.gz")], extract={"max_page_bytes": 100})
    name = f"a.warc.gz@{places['https://a.example/1'][0]}"
    assert crawl.lost[name] == "page_too_large"
    page = looked_at(crawl.output, name)
    assert "page_too_large" in text_of(page, ".note")
    assert "This is https://a.example/1." in text_of(page, "pre")


def test_archives_however_they_are_packed(crawl: CrawlHere, tmp_path: Path) -> None:
    packed, _ = write_warc([f"https://a.example/{number}" for number in range(3)])
    plain = gzip.decompress(packed)
    records = [record for record in re.split(rb"(?=WARC/1\.0\r\n)", plain) if record]
    frames = {"plain.warc": plain, "whole.warc.gz": gzip.compress(plain)}
    frames["each.warc.zst"] = b"".join(zstandard.compress(record) for record in records)
    dictionary = zstandard.train_dictionary(3000, [b"%d %s" % (n, records[n % len(records)]) for n in range(300)])
    stored = DICTIONARY_MAGIC + len(dictionary.as_bytes()).to_bytes(4, "little") + dictionary.as_bytes()
    packer = zstandard.ZstdCompressor(dict_data=dictionary)
    frames["dictionary.warc.zst"] = stored + b"".join(packer.compress(record) for record in records)
    for name, content in frames.items():
        (tmp_path / name).write_bytes(content)
        rows = crawl(warcs=[str(tmp_path / name)])
        assert len(rows) == 3
        for row in rows:
            assert f"This is {row['url']}." in text_of(looked_at(crawl.output, row["id"]), "pre")


def test_a_crawl_by_name_and_pointers_lead_to_their_pages(crawl: CrawlHere, tmp_path: Path) -> None:
    crawled = CommonCrawl(num_archives=2, num_pages=2)
    crawled.write(tmp_path / "root")
    named = crawl(crawl=CRAWL, crawl_root=str(tmp_path / "root"))
    for row in named:
        assert row["url"] in text_of(looked_at(crawl.output, row["id"]), "pre")
    files, offsets, lengths = zip(*crawled.records.values(), strict=True)
    table = {"warc_filename": files, "warc_record_offset": offsets, "warc_record_length": lengths}
    pq.write_table(pa.table({name: list(column) for name, column in table.items()}), tmp_path / "wanted.parquet")
    pointed = crawl(pointers=str(tmp_path / "wanted.parquet"), crawl_root=str(tmp_path / "root"))
    assert {row["id"] for row in pointed} == {row["id"] for row in named}
    for row in pointed:
        assert row["url"] in text_of(looked_at(crawl.output, row["id"]), "pre")


def test_an_archive_that_moved_or_changed_is_a_sentence(crawl: CrawlHere, tmp_path: Path) -> None:
    archive = tmp_path / "a.warc"
    archive.write_bytes(gzip.decompress(write_warc(["https://a.example/0"])[0]))
    (row,) = crawl(warcs=[str(archive)])
    found = find_record(crawl.output, row["id"])
    archive.write_bytes(gzip.decompress(write_warc(["https://a.example/9"])[0]))
    with pytest.raises(InputError, match=r"a\.warc: holds no such page .* another page lies there now"):
        stored_page(found.manifest, found.sought)
    archive.write_bytes(b"x" * 100_000)
    with pytest.raises(
        InputError, match=r"byte [\d,]+: not_a_warc: neither a compressed nor a plain WARC record begins"
    ):
        stored_page(found.manifest, found.sought)
    archive.write_bytes(b"")
    with pytest.raises(InputError, match="holds no such page at byte"):
        stored_page(found.manifest, found.sought)
    archive.rename(tmp_path / "b.warc")
    with pytest.raises(InputError, match=r"a\.warc: no such file.*back in its place"):
        write_looking(found, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_changed_is_a_sentence(crawl: CrawlHere, tmp_path: Path) -> None:
    (row,) = crawl_pages(crawl, tmp_path / "site", article=ARTICLE)
    (tmp_path / "site" / "article.html").write_text("another")
    with pytest.raises(InputError, match=r"article\.html: not found as it was crawled.*working folder"):
        looked_at(crawl.output, row["id"])


def test_ids_are_found_by_their_beginning_or_url_and_wrong_ones_are_a_sentence(
    sample: tuple[CrawlHere, list[dict[str, Any]]],
) -> None:
    crawl, rows = sample
    row, folder = rows[5], crawl.output.parent
    for wanted in (row["id"], row["id"][:12], row["url"]):
        document = find_record(folder, wanted).document
        assert document is not None
        assert document.id == row["id"]
    wrong = row["id"][:20] + "z" + row["id"][21:]
    with pytest.raises(InputError, match=rf"none of its 30 documents has the id '{wrong}'.*Did you mean {row['id']}\?"):
        find_record(folder, wrong)
    with pytest.raises(InputError, match="none of its 30 documents"):
        find_record(folder, "")
    with pytest.raises(InputError, match="no such folder"):
        find_record(folder / "nowhere", row["id"])


def test_a_beginning_of_several_ids_is_a_sentence(
    sample: tuple[CrawlHere, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    crawl, rows = sample
    monkeypatch.setattr("carnac.report.record.MIN_BEGINNING", 1)
    first = max("0123456789abcdef", key=lambda digit: sum(row["id"].startswith(digit) for row in rows))
    with pytest.raises(InputError, match=rf"ids begin with {first}: .*Wanted one of them"):
        find_record(crawl.output, first)


def test_documents_without_pages_or_manifest_are_a_sentence(crawl: CrawlHere, tmp_path: Path) -> None:
    (row,) = crawl_pages(crawl, tmp_path / "site", article=ARTICLE)
    (crawl.output / "manifest.json").unlink()
    found = find_record(crawl.output, row["id"])
    with pytest.raises(InputError, match="has no manifest, which tells where its pages lie"):
        stored_page(found.manifest, found.sought)
    found.manifest.inputs["obelics"] = ["/data/obelics.parquet"]
    with pytest.raises(InputError, match="made from obelics, which hold documents and not pages"):
        stored_page(found.manifest, found.sought)


def test_settings_of_the_crawl_are_those_of_the_page(crawl: CrawlHere, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "a.html").write_text(ARTICLE)
    (row,) = crawl(pages=[f"{site}/*.html"], base_url="https://a.example/docs", extract={"scope": "page"})
    page = looked_at(crawl.output, row["id"])
    assert "rules of OBELICS" in page.css(".column")[1].text()
    assert not page.css(".note")


def test_a_monstrous_page_is_drawn_in_bounds(crawl: CrawlHere, tmp_path: Path) -> None:
    depth = 3000
    nested = "<div>" * depth + f"<p>{TEXT * 2}</p>" + "</div>" * depth
    many = "".join(f"<div><p>{n} {TEXT[:60]}</p><!-- {n} --><script>{n}</script></div>" for n in range(MAX_LINES // 2))
    rows = crawl_pages(crawl, tmp_path / "site", nested=f"<body>{nested}", many=f"<body>{many}")
    for row in rows:
        found = find_record(crawl.output, row["id"])
        html = render_looking(found, stored_page(found.manifest, found.sought))
        assert html.count("<details") <= MAX_LINES + 1
        assert html.count("<details") == html.count("</details>")
        opened = deepest = 0
        for mark in re.findall(r"</?details", html):
            opened += 1 if mark == "<details" else -1
            deepest = max(deepest, opened)
        assert deepest <= MAX_NESTED
        assert ("more lines are not drawn" in html) == ("many" in row["url"])


def test_a_trace_changes_no_outline(sample: tuple[CrawlHere, list[dict[str, Any]]]) -> None:
    crawl, rows = sample
    for row in rows[::5]:
        found = find_record(crawl.output, row["id"])
        parser = parse_page(stored_page(found.manifest, found.sought).payload, None, ExtractSettings())
        assert parser.body is not None
        bare = Walk(parser.body, PageFacts(base=row["url"]), strict=True).outline()
        traced, passed_over = trace(parser.body, PageFacts(base=row["url"]), is_strict=True)
        assert [event for event in bare.events if isinstance(event, str)] == [
            event for event in traced.events if isinstance(event, str)
        ]
        assert len(bare.events) == len(traced.events)
        assert "script" in {node.tag for _, node in passed_over}
        assert not {"img", "br", "p"} & {node.tag for _, node in passed_over}
        assert all(0 <= place <= len(traced.events) for place, _ in passed_over)


def test_the_command_prints_the_document_and_how_to_look(
    sample: tuple[CrawlHere, list[dict[str, Any]]], tmp_path: Path
) -> None:
    crawl, rows = sample
    run = CliRunner()
    out = run.invoke(cli, ["show", str(crawl.output), "--id", rows[0]["id"]])
    assert out.exit_code == 0
    assert f"url: {rows[0]['url']}" in out.output
    assert out.output.rstrip().endswith(f"carnac show {crawl.output} --id {rows[0]['id']} --html page.html")
    page = tmp_path / "page.html"
    out = run.invoke(cli, ["show", str(crawl.output), "--id", rows[0]["id"], "--html", str(page)])
    assert out.output.rstrip().endswith(f"Written: {page}")
    assert page.read_text("utf-8").startswith("<!doctype html>")
    out = run.invoke(cli, ["show", str(crawl.output), "--id", rows[0]["id"], "--html", str(tmp_path / "no" / "x.html")])
    assert isinstance(out.exception, InputError)
    assert run.invoke(cli, ["show", str(crawl.output), "--brief", "--id", "x"]).exit_code == 2
