from __future__ import annotations

import json
from pathlib import Path

from report_run import write_documents
from report_script import SLOW_SECONDS, finish_pages
from selectolax.lexbor import LexborHTMLParser

from carnac.report.page import render
from carnac.report.slowest import slowest
from carnac.report.story import read_story
from carnac.report.text import describe


def _set_seconds(folder: Path, **seconds: float) -> None:
    """Let the units have taken so long, whatever the load of this machine."""
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_bytes())
    for part in content["parts"]:
        part["seconds"] = seconds.get(part["unit"], 0.5)
    manifest.write_text(json.dumps(content))


def test_the_seconds_are_those_of_the_work(tmp_path: Path) -> None:
    finish_pages(tmp_path, "u0=a", "u1=b:slow,c:slow,d:slow")
    (folder,) = read_story(tmp_path).folders
    assert next(unit.seconds for unit in slowest(folder) if unit.unit == "u1") >= 3 * SLOW_SECONDS


def test_the_five_slowest_units_come_first_with_their_rates(tmp_path: Path) -> None:
    finish_pages(tmp_path, *(f"quick{number}=a{number}" for number in range(5)), "slow=b,c", "slower=d,e,f")
    _set_seconds(tmp_path, slow=4.0, slower=5.0)
    (folder,) = read_story(tmp_path).folders
    units = slowest(folder)
    assert [(unit.unit, unit.rate, unit.times) for unit in units] == [
        ("slower", "0.6", "10.0x"),
        ("slow", "0.5", "8.0x"),
        *((f"quick{number}", "2.0", "1.0x") for number in range(3)),
    ]
    table = describe(tmp_path).partition("slowest units")[2].partition("\n\n")[0].splitlines()
    assert [line.split() for line in table[1:3]] == [
        ["slower", "documents", "5.0", "10.0x", "3", "0.6"],
        ["slow", "documents", "4.0", "8.0x", "2", "0.5"],
    ]
    assert len(table) == 6
    tree = LexborHTMLParser(render(read_story(tmp_path)))
    assert "Slowest units" in [node.text() for node in tree.css("h2")]
    (shown,) = [table for table in tree.css("table") if "rows/s" in table.text()]
    assert [row.css("td")[1].text() for row in shown.css("tr")[1:]] == [unit.unit for unit in units]


def test_a_whole_run_shows_the_five_slowest_of_all_and_the_page_those_of_each_stage(tmp_path: Path) -> None:
    for name in ("first", "second"):
        finish_pages(tmp_path / name, *(f"u{number}={name}{number}" for number in range(6)))
    _set_seconds(tmp_path / "first", **{f"u{number}": 2.0 for number in range(6)})
    _set_seconds(tmp_path / "second", u3=1.0)
    table = describe(tmp_path).partition("slowest units")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[2] for line in table[1:]] == ["(first)"] * 5
    page = render(read_story(tmp_path))
    assert page.count("<td>documents (first)</td>") == page.count("<td>documents (second)</td>") == 5


def test_a_stage_of_one_unit_has_none(tmp_path: Path) -> None:
    write_documents(tmp_path)
    assert "slowest" not in describe(tmp_path)
    assert "Slowest units" not in render(read_story(tmp_path))


def test_units_that_took_no_time_have_no_rate(tmp_path: Path) -> None:
    finish_pages(tmp_path, "u0=a", "u1=b")
    _set_seconds(tmp_path, u0=0.0, u1=0.0)
    (folder,) = read_story(tmp_path).folders
    assert [(unit.rate, unit.times) for unit in slowest(folder)] == [("", ""), ("", "")]
    assert "u1" in describe(tmp_path)
