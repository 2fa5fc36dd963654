"""`python -m carnac.web`, as a stranger runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PAGE = "<h1>Mill</h1><p>The mill stands by the river.</p><img src=mill.jpg><p>It was built of oak.</p>"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "carnac.web", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)


def test_one_page_is_a_list_of_items_and_several_an_object_by_path(tmp_path: Path) -> None:
    one, two = tmp_path / "one.html", tmp_path / "two.html"
    one.write_text(PAGE)
    two.write_text("<p>caf\u00e9</p>")
    alone = run(one, "--url", "http://a.example/b/")
    assert json.loads(alone.stdout) == [
        ["text", "Mill"],
        ["text", "The mill stands by the river."],
        ["image", "http://a.example/b/mill.jpg"],
        ["text", "It was built of oak."],
    ]
    both = json.loads(run(one, two).stdout)
    assert list(both) == [str(one), str(two)]
    assert both[str(two)] == [["text", "caf\u00e9"]]


def test_wrong_input_is_a_sentence(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGE)
    gone = run(tmp_path / "gone.html", page)
    assert gone.returncode == 1
    assert "gone.html: cannot be read (No such file or directory)" in gone.stderr
    assert len(json.loads(gone.stdout)[str(page)]) == 4, "the others are read"
    assert run(tmp_path).returncode == 1
    wrong = run(page, "--url", "page.html")
    assert wrong.returncode == 2
    assert "--url: got 'page.html', wanted an address" in wrong.stderr
    page.write_text("<div>" * 20_000)
    assert "too_deep" in run(page).stderr
