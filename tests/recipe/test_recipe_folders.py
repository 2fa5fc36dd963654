from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_models import load

from carnac.recipe.folders import check_folders

SOURCE = 'job = "source"\noutput = "out/documents"\n'
TOY = 'job = "toy"\n\noutput = "out/toys"\ndocuments = "out/documents"\n'
READER = 'job = "reader"\n\n\ntoys = "out/toys"\n'


def _mistakes(folder: Path, *texts: str, complete: bool = True) -> list[str]:
    paths = [folder / f"{place}.toml" for place in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    loaded, mistakes = load(paths)
    assert mistakes == []
    found = [str(mistake) for mistake in check_folders(loaded, complete=complete)]
    return [mistake.replace(f"{folder}/", "") for mistake in found]


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_chain_that_fits(tmp_path: Path) -> None:
    assert _mistakes(tmp_path, SOURCE, TOY, READER) == []


def test_folders_in_tables_are_read_too_and_a_mistake_stands_at_their_line(tmp_path: Path) -> None:
    table = '\n[[source]]\nname = "one"\ntoys = "out/toys"\n'
    mixed = f'job = "mixed"\n{table}{table.replace("toys = ", "toys =  ").replace("out/toys", "out/toes")}'
    assert _mistakes(tmp_path, SOURCE, TOY, mixed) == [
        (
            "2.toml:9: source.1.toys: out/toes: no recipe before this one writes toys there and none lie there. "
            "Did you mean 'out/toys'?"
        )
    ]


def test_what_none_writes_is_a_mistake_at_the_line_that_reads_it(tmp_path: Path) -> None:
    assert _mistakes(tmp_path, TOY) == [
        "0.toml:4: documents: out/documents: no recipe before this one writes documents there and none lie there."
    ]


def test_the_nearest_folder_is_offered(tmp_path: Path) -> None:
    (mistake,) = _mistakes(tmp_path, SOURCE, TOY.replace('"out/documents"', '"out/document"'))
    assert mistake.endswith("none lie there. Did you mean 'out/documents'?")


def test_a_recipe_that_comes_too_late_does_not_count(tmp_path: Path) -> None:
    (mistake,) = _mistakes(tmp_path, TOY, SOURCE)
    assert mistake.startswith("0.toml:4: documents: ")


def test_a_folder_of_another_stage_is_a_mistake(tmp_path: Path) -> None:
    assert _mistakes(tmp_path, SOURCE, READER.replace("out/toys", "out/documents")) == [
        "1.toml:4: toys: out/documents holds documents; wanted toys."
    ]


def test_two_keys_of_a_recipe_are_two_folders(tmp_path: Path) -> None:
    assert _mistakes(tmp_path, SOURCE, TOY + 'scraps = "out/scraps"\n') == []
    (mistake,) = _mistakes(tmp_path, SOURCE, TOY + 'scraps = "out/../out/toys"\n')
    assert mistake == "1.toml:5: scraps: out/../out/toys: output is this folder too. Give each a folder of its own."


def test_two_writers_of_one_folder_are_a_mistake(tmp_path: Path) -> None:
    assert _mistakes(tmp_path, SOURCE, TOY.replace("out/toys", "out/../out/documents")) == [
        "1.toml:3: output: out/../out/documents: an earlier recipe of this run writes there too.",
        "1.toml:3: output: out/../out/documents: the recipe reads this folder. Choose another output.",
    ]


@pytest.mark.parametrize(
    "spelling", ["./out/documents", "out//documents/", "out/x/../documents", "recipe://out/documents"]
)
def test_one_folder_may_be_spelt_in_many_ways(tmp_path: Path, spelling: str) -> None:
    assert _mistakes(tmp_path, SOURCE, TOY.replace('"out/documents"', f'"{spelling}"')) == []


def test_a_finished_folder_may_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "documents"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"stage": "documents"}))
    assert _mistakes(tmp_path, TOY) == []


@pytest.mark.parametrize("content", ['{"stage": "toys"}', "{", "[]", "3", "{}"])
def test_a_folder_that_holds_something_else_may_not(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "out" / "documents"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    assert len(_mistakes(tmp_path, TOY)) == 1


def test_what_a_broken_recipe_may_write_is_not_missed(tmp_path: Path) -> None:
    assert _mistakes(tmp_path, TOY, complete=False) == []
    assert len(_mistakes(tmp_path, SOURCE, READER.replace("out/toys", "out/documents"), complete=False)) == 1


def test_an_optional_folder_that_is_not_given_is_not_read(tmp_path: Path) -> None:
    assert _mistakes(tmp_path, 'job = "toy"\noutput = "out/toys"\n') == []
