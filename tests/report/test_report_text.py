from __future__ import annotations

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from report_run import ESCAPE, SCRIPT, write_chat, write_run, write_stage

from carnac.report import columns
from carnac.report.columns import column_facts, some_rows
from carnac.report.story import read_story
from carnac.report.text import describe

STAGES = {
    "documents": [
        "documents=3 pages=4",
        "page_too_large: 1",
        "language",
        "en 3",
        "sample d0  https://example.org/mill",
    ],
    "images": ["kept=2", "dropped 2, kept 2", "not_in_archive 2", "60 to 61, median 60.5", "second_record_of_url: 1"],
    "curated/masks/z_first": ["True 2, False 1", "document.num_images < 1 1", "text.num_words < 3 [paragraph] 1"],
    "curated/repeats/repeats": ["url 2", "kind url, key k, root d0", "root d0"],
    "shards/train": ["samples=2", "test 2", "sample d1  javascript:alert(1)", "[image https://example.org/mill.png]"],
    "plan/tokenizer": ["0 to 299", "id 0, token t0", "id 299, token t299"],
    "plan/pieces": ["50 to 50", "source test, shard 00000-a"],
    "plan/rows": ["fill_per_mille=700", "40 to 40, median 40"],
    "model": ["3 to 5, median 4", "model: siglip_vision_model", "training: 9 steps"],
    "evaluation": [
        "evaluation on 2 held-out documents, 30 tokens",
        "+0.0100 [+0.0010, +0.0200]",
        "looks at its images",
    ],
    "chat": ["prompts=2", "prompt: What is shown?", "goes on: A mill.", f"prompt: {SCRIPT}"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_alone_says_what_it_holds(run: Path, stage: str) -> None:
    text = describe(run / stage)
    for words in STAGES[stage]:
        assert words in text
    assert text.startswith("stage")
    assert max(map(len, text.splitlines())) <= 260
    assert len(text.splitlines()) > 4


def test_a_whole_run_is_told_from_the_stages_to_the_chat(run: Path) -> None:
    text = describe(run)
    places = [
        text.index(words)
        for words in ("stage ", "funnel ", "model: ", "training: ", "evaluation on", "sample d0", "prompt: ")
    ]
    assert places == sorted(places)
    assert "column " not in text
    assert text.count("prompt: ") == 1


def test_brief_leaves_out_stages_and_samples(run: Path) -> None:
    text = describe(run, brief=True)
    assert text.startswith("funnel")
    assert "sample d0" not in text
    assert "goes on: A mill." in text
    assert describe(run / "documents", brief=True) == f"{run / 'documents'}: nothing to sum up yet."


def test_names_in_brackets_and_colons_are_no_styles(run: Path) -> None:
    assert "  - text.num_words < 3 [paragraph]" in describe(run / "curated")
    assert ":smile:" in describe(run / "documents")


@pytest.mark.parametrize("stage", ["", *STAGES])
def test_nothing_from_the_web_steers_the_terminal(run: Path, stage: str) -> None:
    text = describe(run / stage)
    assert {character for character in text if unicodedata.category(character) == "Cc"} == {"\n"}


def test_the_escape_is_really_in_what_is_shown(run: Path) -> None:
    assert ESCAPE.startswith("\x1b")
    assert "\ufffd]0;owned" in describe(run / "documents")


def test_an_evaluation_without_numbers_is_its_sentence(tmp_path: Path) -> None:
    write_stage(tmp_path, "evaluation", [])
    sentence = "Not measured: fewer than two."
    (tmp_path / "evaluation.json").write_text(f'{{"documents": 0, "losses": null, "verdict": "{sentence}"}}')
    assert f"evaluation: {sentence}" in describe(tmp_path)


def test_empty_stages_are_told(tmp_path: Path) -> None:
    for stage in ("documents", "images", "shards", "masks", "chat"):
        write_stage(tmp_path / stage, stage, [])
        assert describe(tmp_path / stage).splitlines()[1].split()[:3] == [stage, ".", "0"]
    assert len(describe(tmp_path).splitlines()) == 6


# -- the command


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nope://bucket/folder"], 2, "wanted a path, or a URL such as s3://bucket/folder"),
        (["gone"], 1, "carnac: gone: no such folder. Wanted a folder that a run wrote"),
        ([], 2, "Missing argument 'FOLDER'"),
    ],
)
def test_a_folder_that_cannot_be_is_a_sentence(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    command = [sys.executable, "-m", "carnac", "show", *arguments]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_prints_the_text_and_writes_the_page(run: Path) -> None:
    command = [sys.executable, "-m", "carnac", "show", ".", "--brief", "--html", "page.html"]
    done = subprocess.run(command, cwd=run, check=True, capture_output=True, text=True)
    assert done.stdout == f"{describe(run, brief=True)}\n\nWritten: page.html\n"
    assert (run / "page.html").read_text().startswith("<!doctype html>")


# -- columns


def test_columns_of_names_and_contents_are_left_out(tmp_path: Path) -> None:
    write_chat(tmp_path)
    (manifest,) = read_story(tmp_path).stages
    assert list(column_facts(manifest)) == [("reference", 2, f"{SCRIPT} 2")]
    assert some_rows(manifest, 5)[0].startswith("id d0, image <")


def test_numbers_and_words_and_lists(run: Path) -> None:
    (manifest,) = read_story(run / "curated" / "masks" / "z_first").stages
    assert list(column_facts(manifest)) == [
        ("keep", 3, "True 2, False 1"),
        ("reason", 1, "document.num_images < 1 1"),
        ("keep_block", 10, "True 9, False 1"),
        ("block_reason", 1, "text.num_words < 3 [paragraph] 1"),
    ]


def test_a_large_stage_is_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MAX_ROWS", 400)
    monkeypatch.setattr("carnac.report.text.MAX_ROWS", 400)
    write_stage(tmp_path, "tokenizer", [{"id": n, "token": str(n)} for n in range(1000)])
    text = describe(tmp_path)
    assert "in the first 400 rows" in text
    assert "0 to 399, median 199.5" in text
    assert "id 200, token 200" in text
