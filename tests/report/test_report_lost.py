"""Records lost: by reason, with samples, and a command that really tries one again, whatever its name is."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_run import ESCAPE, write_run, write_stage
from report_script import finish_pages
from selectolax.lexbor import LexborHTMLParser

from carnac.core.places import Place
from carnac.engine.ledger import Ledger, read_ledger
from carnac.report.layout import shell_word
from carnac.report.page import render
from carnac.report.story import read_story
from carnac.report.text import describe
from carnac.serve.terminal import printable

ROOT = Path(__file__).parents[2]
WARC = ROOT / "recipes" / "tiny" / "data" / "skimage-00000.warc.gz"


def test_reasons_have_counts_shares_and_three_samples(tmp_path: Path) -> None:
    finish_pages(tmp_path, "u0=a,b:refused,c,d:refused", "u1=e,f,g", "u2=h:refused,i:refused,j:refused,k")
    lines = describe(tmp_path).splitlines()
    first = lines.index("documents: 5 records lost of 11 tried (45.5 %)")
    assert lines[first + 1 : first + 6] == [
        "  page_refused: 5 (45.5 %)",
        *(f"    {name}  \ufffd[31m{name} is not wanted" for name in ("b", "d", "h")),
        "    again: carnac run RECIPE --record b",
    ]
    assert lines[first + 6] == ""


def test_a_whole_run_shows_one_sample_of_each_reason(tmp_path: Path) -> None:
    write_run(tmp_path)
    finish_pages(tmp_path / "more", "u0=a,b:refused,c,d:refused")
    text = describe(tmp_path)
    assert "documents: 1 records lost of 4 tried (25 %)\n  page_too_large: 1 (25 %)\n    a.warc.gz@99  10 MB" in text
    assert "images: 1 records lost\n  second_record_of_url: 1\n    a@1  again\n" in text
    assert "documents (more): 2 records lost of 4 tried (50 %)\n  page_refused: 2 (50 %)\n    b" in text
    assert "d is not wanted" not in text
    tree = LexborHTMLParser(render(read_story(tmp_path)))
    assert "carnac run RECIPE --record a.warc.gz@99" in [node.text() for node in tree.css("td code")]


def test_few_footers_are_read_for_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not replaced: a stage of 10,000 parts, each with a loss, must not cost 10,000 files."""
    finish_pages(tmp_path, *(f"u{number}=r{number}:refused,s{number}" for number in range(9)))
    read = []

    def count_read(part: Place) -> Ledger:
        read.append(part.name)
        return read_ledger(part)

    monkeypatch.setattr("carnac.report.lost.read_ledger", count_read)
    (lost,) = read_story(tmp_path).lost
    assert (lost.number, len(lost.reasons[0].samples), len(read)) == (9, 3, 3)


def test_a_damaged_note_of_culprits_is_none(tmp_path: Path) -> None:
    finish_pages(tmp_path, "u0=a")
    (tmp_path / f".u1-{'0' * 16}.culprits.json").write_bytes(b"{")
    assert read_story(tmp_path).lost == ()


def test_a_note_of_culprits_whose_unit_is_committed_is_old(tmp_path: Path) -> None:
    finish_pages(tmp_path, "u0=a,b:refused")
    (part,) = tmp_path.glob("*.parquet")
    note = '[{"record": "b", "reason": "crashed", "detail": ""}]'
    (tmp_path / f".{part.stem}.culprits.json").write_text(note)
    assert "not committed" not in describe(tmp_path)
    (tmp_path / f".u1{part.stem[2:]}.culprits.json").write_text(note)
    assert "crashed: 1, not committed yet (unit u1)" in describe(tmp_path)


# -- the recipe as run


def test_the_recipe_is_that_of_the_job_beside_or_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path)
    masks = tmp_path / "curated" / "masks" / "z_first"
    write_stage(masks, "masks", [], lost=[("d1", "odd", "")])
    (tmp_path / "recipe.toml").write_text('job = "crawl"\n')
    (tmp_path / "curated" / "recipe.toml").write_text('job = "curate"\n')
    (tmp_path / "images" / "recipe.toml").write_bytes(b"\xff no toml")
    text = describe(tmp_path)
    assert f"carnac run {tmp_path}/recipe.toml --record a.warc.gz@99" in text
    assert f"carnac run {tmp_path}/curated/recipe.toml --record d1" in text
    assert "carnac run RECIPE --record a@1" in text
    monkeypatch.chdir(masks)
    assert "carnac run ../../recipe.toml --record d1" in describe(Path())
    monkeypatch.chdir(tmp_path)
    assert "carnac run curated/recipe.toml --record d1" in describe(Path("curated"))


def test_a_recipe_elsewhere_in_the_run_counts_if_it_is_the_only_one_of_its_job(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_stage(tmp_path / "plan" / "pieces", "pieces", [], lost=[("s@1", "odd", "")])
    (tmp_path / "model" / "recipe.toml").write_text('job = "train"\n')
    assert f"carnac run {tmp_path}/model/recipe.toml --record s@1" in describe(tmp_path)
    (tmp_path / "evaluation" / "recipe.toml").write_text('job = "train"\n')
    assert "carnac run RECIPE --record s@1" in describe(tmp_path)


def test_the_command_shown_tries_the_record_again(tmp_path: Path) -> None:
    """A real crawl with a page that is too large, in a folder whose name a shell would take apart."""
    output = tmp_path / "it's out; rm -rf" / "documents"
    recipe = tmp_path / "crawl.toml"
    recipe.write_text(
        f'job = "crawl"\nlimit = 12\nwarcs = ["{WARC}"]\noutput = "{output}"\n[extract]\nmax_page_bytes = 150000\n'
    )
    carnac = [sys.executable, "-m", "carnac"]
    subprocess.run([*carnac, "run", str(recipe), "--workers", "1"], check=True, capture_output=True, cwd=tmp_path)
    shown = subprocess.run([*carnac, "show", str(output)], check=True, capture_output=True, text=True).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("    again: ")]
    command = line.partition(": ")[2]
    assert str(output / "recipe.toml") in shlex.split(command)
    assert shlex.split(command)[-1].startswith("skimage-00000.warc.gz@")
    script = f'carnac() {{ {shlex.quote(sys.executable)} -m carnac "$@"; }}; {command}'
    again = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "lost again after" in again.stderr
    assert "page_too_large" in again.stderr


HOSTILE = ["a", "it's", "$(touch owned)", "`touch owned`", "-x", "a\\b'c", "two words", "a\nb", "\t", ESCAPE, "\u202e",
           "~rest", "#", "", "\u00e9\u4e16", "!!", "a;b&c|d>e", "$'x'"]  # fmt: skip


def _read_by_a_shell(words: list[str], folder: Path) -> list[str]:
    command = f"printf '%s\\0' {' '.join(map(shell_word, words))}"
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(["bash", "-c", command], check=True, capture_output=True, cwd=folder, env=environment)
    return done.stdout.decode().split("\0")[:-1]


def test_hostile_names_are_one_word_of_a_shell_and_steer_no_terminal(tmp_path: Path) -> None:
    assert _read_by_a_shell(HOSTILE, tmp_path) == HOSTILE
    assert list(tmp_path.iterdir()) == []
    assert all(printable(shell_word(word)) == shell_word(word) for word in HOSTILE)
    assert all("\n" not in shell_word(word) for word in HOSTILE)


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_any_name_is_one_word_of_a_shell(words: list[str]) -> None:
    assert _read_by_a_shell(words, ROOT) == words
