"""Recipes of real jobs: found, checked together, kept beside their output."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from carnac.core.errors import RecipeError
from carnac.jobs import RecipeModels
from carnac.jobs.recipes import find_recipes, keep_recipe, load_checked
from carnac.recipe.load import load_recipes

TINY = Path(__file__).parents[2] / "recipes" / "tiny"


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _complaints(*places: Path) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_checked(places, [])
    return [str(mistake) for mistake in caught.value.mistakes]


def test_a_folder_stands_for_its_recipes_in_order(tmp_path: Path) -> None:
    for name in ("10.toml", "02.toml", "x.txt"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "z.toml").touch()
    single = tmp_path / "below" / "z.toml"
    assert [path.name for path in find_recipes([tmp_path, single])] == ["02.toml", "10.toml", "z.toml"]


def test_a_folder_without_recipes_is_a_mistake(tmp_path: Path) -> None:
    assert _complaints(tmp_path) == [f"{tmp_path}: no *.toml recipe in this folder."]


def test_the_recipes_of_a_folder_fit_together_and_each_is_incomplete_alone() -> None:
    paths = find_recipes([TINY])
    assert len(load_checked([TINY], [])) == len(paths)
    for path in paths[1:]:
        assert all("no recipe before this one writes" in complaint for complaint in _complaints(path))


def test_one_mistake_in_the_first_recipe_is_one_message(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "tiny", ignore=shutil.ignore_patterns("data"))
    first = find_recipes([tmp_path / "tiny"])[0]
    text = first.read_text()
    first.write_text(text.replace("\noutput = ", "\nlimit = 0\noutput = "))
    (complaint,) = _complaints(tmp_path / "tiny")
    assert "limit: got 0, wanted greater than or equal to 1" in complaint


@pytest.mark.parametrize("place", range(7))
def test_a_kept_recipe_is_the_recipe_with_every_default(tmp_path: Path, place: int) -> None:
    recipe = load_checked([TINY], ["limit=3"])[place].settings
    keep_recipe(recipe, tmp_path)
    kept = tmp_path / "recipe.toml"
    before = kept.stat().st_mtime_ns
    (again,), mistakes = load_recipes([kept], RecipeModels(), {})
    assert mistakes == []
    assert again.settings == recipe
    keep_recipe(recipe, tmp_path)
    assert kept.stat().st_mtime_ns == before, "an equal one is left as it is"
    assert again.source.data["limit"] == 3
