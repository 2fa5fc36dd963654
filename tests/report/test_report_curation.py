"""The funnel page and the fate of documents, of real pages; the page is opened in a real browser."""

from __future__ import annotations

import copy
import json
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jobs_funnel import Curated, curate_sample
from report_run import BREAK_OUT, ESCAPE, SCRIPT, write_stage
from selectolax.lexbor import LexborHTMLParser

from carnac import jobs
from carnac.cli import cli
from carnac.core.schema import REPEATS
from carnac.engine.manifest import read_manifest
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage
from carnac.report.curation import funnel_table, samples_text
from carnac.report.curation_drawing import HEIGHT, MARGIN, WIDTH, draw_histogram
from carnac.report.curation_page import render_curation, waterfall
from carnac.report.curation_steps import STEPS_OF_CURATION
from carnac.report.fate_text import dropped_blocks
from carnac.report.looking import render_looking
from carnac.report.record import Found, describe_record, find_record
from carnac.report.stored_pages import stored_page

CHROMIUM = "/usr/bin/chromium"
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
MORE_FLAGS = "--disable-component-update --disable-sync"


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    here = curate_sample(tmp_path_factory.mktemp("curation"))
    here.draw(here.folder / "curated")
    return here


@pytest.fixture(scope="module")
def steps(curated: Curated) -> list[dict[str, Any]]:
    content = json.loads((curated.folder / "curated" / "funnel.json").read_bytes())
    found: list[dict[str, Any]] = content["steps"]
    return found


@pytest.fixture(scope="module")
def html(steps: list[dict[str, Any]]) -> str:
    return render_curation(steps, "out/curated")


def rules_of(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rule for step in steps for rule in step["rules"]]


# -- the page


def test_every_pass_reason_and_rule_is_on_the_page(html: str, steps: list[dict[str, Any]]) -> None:
    tree = LexborHTMLParser(html)
    assert [node.text() for node in tree.css("h2 code")] == [step["name"] for step in steps[1:]]
    reasons = [node.text() for node in tree.css("tr.taken > td:first-child > code")]
    assert reasons == [taken["reason"] for step in steps for taken in step["taken"]]
    names = [node.text(strip=True, separator=" ").split()[0] for node in tree.css("section.rule h3")]
    assert names == [f"{rule['on']}.{rule['signal']}" for rule in rules_of(steps)]
    assert len(tree.css("svg.histogram")) == len(rules_of(steps)) == 3
    assert [node.text() for node in tree.css("text.at")] == [
        "at least 3",
        "at most 0.6",
        "at least 100",
        "at most 2,000",
    ]


def test_bars_hold_all_that_a_rule_judged_and_stay_inside_the_drawing(steps: list[dict[str, Any]]) -> None:
    for rule in rules_of(steps):
        drawing = draw_histogram(rule)
        assert drawing is not None
        kept, dropped = (sum(numbers[side] for numbers in rule["bins"]) for side in (1, 2))
        heights = sum(bar.kept_height for bar in drawing.bars), sum(bar.dropped_height for bar in drawing.bars)
        assert heights == pytest.approx((HEIGHT * kept / drawing.most, HEIGHT * dropped / drawing.most))
        for bar in drawing.bars:
            assert bar.x >= 0
            assert bar.x + bar.width <= WIDTH + MARGIN + 1e-6
            assert bar.dropped_y >= -1e-6
        assert all(0 <= x <= WIDTH + MARGIN for x, _ in (*drawing.lines, *drawing.ticks))
        assert len(drawing.ticks) >= 2


def test_a_threshold_stands_between_what_it_keeps_and_what_it_drops(steps: list[dict[str, Any]]) -> None:
    drawing = draw_histogram(rules_of(steps)[2])
    assert drawing is not None
    (low, _), (high, _) = drawing.lines
    for bar in drawing.bars:
        if bar.x >= low and bar.x + bar.width <= high:
            assert bar.dropped_height == 0
        if bar.x + bar.width <= low or bar.x >= high:
            assert bar.kept_height == 0


def test_the_waterfall_falls_from_each_pass_to_the_next(steps: list[dict[str, Any]]) -> None:
    left = [100.0] * 4
    for row in waterfall(steps):
        for place, (_, edge, width) in enumerate(row.cells):
            if row.is_pass:
                assert edge == 0
                assert width == pytest.approx(left[place])
            else:
                assert edge + width == pytest.approx(left[place])
                left[place] = edge


def test_what_the_web_wrote_is_text_and_nothing_is_loaded(steps: list[dict[str, Any]]) -> None:
    hostile = copy.deepcopy(steps)
    evil = f"{SCRIPT}{BREAK_OUT}{ESCAPE}{{{{ 7 * 7 }}}}"
    for step in hostile:
        for taken in step["taken"]:
            taken["samples"] = [{"id": evil, "url": f"javascript:alert(1){evil}", "excerpt": evil, "value": 1.0}]
        for rule in step["rules"]:
            rule["words"], rule["unit"] = [[evil, 1, 2]], evil
            for bound in rule["bounds"]:
                bound["just_kept"] = hostile[1]["taken"][0]["samples"]
    hostile[1]["rules"][0]["bins"] = []
    page = render_curation(hostile, evil)
    tree = LexborHTMLParser(page)
    own = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "code",
        "div",
        "b",
        "i",
        "u",
    }
    own |= {"span", "table", "tbody", "tr", "th", "td", "svg", "g", "rect", "line", "text", "section", "details"}
    own |= {"summary", "br"}
    root = tree.root
    assert root is not None
    assert {node.tag for node in root.traverse(include_text=False)} <= own
    for node in root.traverse(include_text=False):
        assert not {name for name in node.attributes if name.startswith("on") or name in ("src", "href")}
    assert "\x1b" not in page
    assert "49" not in (tree.css_first("p.lead code") or root).text()
    assert "default-src 'none'" in page


def test_a_rule_to_which_nothing_came_says_so(steps: list[dict[str, Any]]) -> None:
    empty = copy.deepcopy(steps)
    empty[2]["rules"][0]["bins"] = []
    tree = LexborHTMLParser(render_curation(empty, "x"))
    assert len(tree.css("p.nothing")) == 1
    assert len(tree.css("svg.histogram")) == 2


def test_the_command_writes_the_page_of_a_curated_folder(curated: Curated, tmp_path: Path) -> None:
    out = tmp_path / "funnel.html"
    result = CliRunner().invoke(cli, ["show", str(curated.folder / "curated"), "--html", str(out)])
    assert result.exit_code == 0, result.output
    assert "The waterfall" in out.read_text()
    assert "nearly kept:" in result.output
    assert re.search(r"- text\.num_words < 3 \(paragraph\) +-\d+ +-\d+ +\d+ +\d+", result.output)
    assert "funnel_parts" not in result.output


def test_an_older_funnel_is_still_told() -> None:
    amount = {"documents": 1, "text_blocks": 2, "words": 3, "images": 4}
    taken: list[dict[str, Any]] = [{"reason": "signals_failed", "amount": amount, "samples": []}]
    steps: list[dict[str, Any]] = [
        {"name": "(input)", "kept": amount, "taken": []},
        {"name": "a", "kept": amount, "taken": taken},
    ]
    assert "own" not in funnel_table(steps)
    assert funnel_table([]) == samples_text(steps, 2) == ""
    assert "signals_failed" in render_curation(steps, "x")


def test_a_browser_shows_every_rule_and_draws_every_histogram(
    html: str, steps: list[dict[str, Any]], tmp_path: Path
) -> None:
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"no browser: {CHROMIUM} is not there (apt-get install chromium)")
    page_file = tmp_path / "funnel.html"
    page_file.write_text(html)
    asked: list[str] = []
    said: list[str] = []
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS.split(), *MORE_FLAGS.split()])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(page_file.as_uri())
        shown = page.eval_on_selector_all("section.rule h3", _BOXES)
        drawn = page.eval_on_selector_all("svg.histogram", _DRAWN)
        lines = page.eval_on_selector_all("line.threshold", _BOXES)
        page.locator("section.rule details summary").first.click()
        is_open = page.locator("section.rule details[open] td.excerpt").first.is_visible()
        width = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    rules = rules_of(steps)
    assert len(shown) == len(drawn) == len(rules)
    assert all(box["width"] > 0 and box["height"] > 0 for box in shown)
    assert len(lines) == sum(len(rule["bounds"]) for rule in rules)
    assert all(box["height"] > 20 for box in lines)
    for bars in drawn:
        assert bars["width"] > 200
        assert bars["tallest"] > 50
        assert bars["coloured"] == bars["bars"] >= 2
    assert is_open
    assert width <= 1280
    assert asked == [page_file.as_uri()]
    assert said == []


_BOXES = "nodes => nodes.map(node => node.getBoundingClientRect().toJSON())"
_DRAWN = """nodes => nodes.map(node => {
  const bars = [...node.querySelectorAll('rect')];
  const boxes = bars.map(bar => bar.getBoundingClientRect());
  return {
    width: node.getBoundingClientRect().width,
    bars: bars.length,
    coloured: bars.filter(bar => getComputedStyle(bar).fill.startsWith('rgb(') && bar.getBoundingClientRect().width > 0).length,
    tallest: Math.max(...boxes.map(box => box.height)),
  };
})"""  # noqa: E501 -- one expression


def test_inner_steps_of_the_jobs_are_known_by_name() -> None:
    names = ("curate_*", "repeats_*")
    files = sorted(file for name in names for file in Path(jobs.__path__[0]).glob(f"{name}.py"))
    modules = [import_module(f"carnac.jobs.{file.stem}") for file in files]
    stages = {value for module in modules for value in vars(module).values() if isinstance(value, Stage)}
    assert len(stages) > 10
    assert {stage.name for stage in stages if stage.is_step} <= {*STEPS_OF_CURATION, "repeats"}


# -- one document's fate


def found_with(curated: Curated, reason: str) -> Found:
    """Return a document that a reason dropped."""
    for step in curated.steps:
        masks = read_manifest(curated.folder / "curated" / "masks" / step.name)
        for part in masks.parts:
            names = masks.settings["reasons"]
            for row in read_rows(part.path):
                if row["reason"] is not None and names[row["reason"]] == reason:
                    return find_record(curated.folder, row["id"])
    raise AssertionError(reason)


def test_a_documents_fate_is_told_through_every_pass(curated: Curated) -> None:
    found = found_with(curated, "document.num_words < 100")
    blocks, pages, repeats = found.fate
    assert (blocks.state, pages.state, repeats.state) == ("kept", "dropped", "gone")
    assert pages.reason == "document.num_words < 100"
    assert int(dict(pages.values)["num_words"]) < 100
    assert not repeats.blocks
    assert not repeats.values
    text = describe_record(curated.folder, found)
    assert f"pages: dropped: document.num_words < 100\n    num_words {dict(pages.values)['num_words']}" in text
    assert "repeats: not judged: dropped before" in text


def test_dropped_blocks_are_marked_with_the_value_that_decided(curated: Curated) -> None:
    reason = "text.num_words < 3 (paragraph)"
    masks = read_manifest(curated.folder / "curated" / "masks" / "blocks")
    code = masks.settings["reasons"].index(reason)
    row = next(row for part in masks.parts for row in read_rows(part.path) if code in row["block_reason"])
    found = find_record(curated.folder, row["id"])
    assert found.document is not None
    gone = {number for number, each in enumerate(row["block_reason"]) if each is not None}
    assert set(dropped_blocks(found.fate)) == gone
    number = row["block_reason"].index(code)
    (fate,) = [block for block in found.fate[0].blocks if block.block == number]
    assert (fate.reason, fate.value) == (reason, str(len((found.document.texts[number] or "").split())))
    tree = LexborHTMLParser(render_looking(found, stored_page(found.manifest, found.sought)))
    assert len(tree.css("div.block.gone")) == len(gone)
    assert [node.text() for node in tree.css("section.fate td.name")] == [
        "blocks rules",
        "pages rules",
        "repeats repeats",
    ]


def test_the_fate_is_told_from_the_curated_folder_too(curated: Curated) -> None:
    found = found_with(curated, "document.num_words < 100")
    assert find_record(curated.folder / "curated", found.name).fate == found.fate
    assert find_record(curated.folder / "documents", found.name).fate == ()


def test_a_repeat_names_its_root(curated: Curated, tmp_path: Path) -> None:
    shutil.copytree(curated.folder, tmp_path / "run")
    folder = tmp_path / "run" / "curated"
    manifest = read_manifest(folder / "masks" / "repeats")
    part = manifest.parts[0]
    row, kept = next((number, row) for number, row in enumerate(read_rows(part.path)) if row["keep"])
    names = manifest.settings["reasons"]
    rows = [
        {**each, "keep": False, "reason": names.index("repeat.text")} if number == row else each
        for number, each in enumerate(read_rows(part.path))
    ]
    shutil.rmtree(folder / "masks" / "repeats")
    shutil.rmtree(folder / "repeats" / "repeats")
    write_named(folder / "masks" / "repeats", "masks", rows, part.unit, manifest.settings)
    hit = {"id": kept["id"], "row": row, "block": None, "reason": "repeat.text", "unit": part.unit}
    hit |= {"kind": "text", "key": "abc", "root": "0123456789"}
    write_stage(folder / "repeats" / "repeats", "repeats", [hit], schema=REPEATS)
    fate = find_record(tmp_path / "run", kept["id"]).fate[-1]
    assert (fate.state, fate.reason) == ("dropped", "repeat.text")
    assert fate.why == "kind text, key abc, root 0123456789"


def write_named(folder: Path, stage: str, rows: list[dict[str, Any]], unit: str, settings: dict[str, Any]) -> None:
    """Write a finished stage of one part with a name and the reasons that masks carry."""
    from carnac.core.schema import MASKS
    from carnac.curate.masks import Reasons
    from carnac.engine.manifest import Manifest, collect_parts, write_manifest
    from carnac.engine.part import Part

    schema = MASKS.with_metadata(Reasons(tuple(settings["reasons"])).to_metadata())
    kind = Stage(name=stage, version=1, schema=schema, work=None)
    one = kind.unit(unit, None, settings={}, inputs=[])
    folder.mkdir(parents=True)
    with Part(kind, one, folder) as part:
        for row in rows:
            part.write(row)
    parts = collect_parts(folder, [one])
    write_manifest(Manifest(folder=folder, stage=stage, version=1, settings=settings, inputs={}, parts=parts))
