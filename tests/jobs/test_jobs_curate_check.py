"""Mistakes between the tables of a curate recipe are named, with their place, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from story_runs import carnac

HEAD = 'job = "curate"\ndocuments = "documents"\noutput = "curated"\n'
FETCH = '[[pass]]\nname = "images"\nkind = "fetch"\nimages = "images"\n'
WIDTH = '[[pass]]\nname = "pictures"\nkind = "rules"\nrules = [{ on = "image", signal = "width", min = 64 }]\n'


def check(folder: Path, text: str, code: int = 2) -> str:
    """Return what `carnac check` says of a recipe; what it says of the missing documents is not looked at."""
    (folder / "recipe.toml").write_text(text)
    return carnac(folder, "check", "recipe.toml", code=code)


def test_a_rule_on_image_files_before_they_are_known_is_named_with_its_line(tmp_path: Path) -> None:
    out = check(tmp_path, HEAD + WIDTH + FETCH)
    assert "the rule on image.width needs image files, and none are known here" in out
    assert "recipe.toml:7" in out


def test_the_same_rule_after_the_images_are_fetched_is_right(tmp_path: Path) -> None:
    assert "needs image files" not in check(tmp_path, HEAD + FETCH + WIDTH)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('kind = "repeats"\nby = ["url", "image_phash"]', "the search by image_phash"),
        ('kind = "lists"\nimage_sha256 = ["list.txt"]', "the list of image_sha256"),
        ('kind = "decontaminate"\nset = [{ name = "mmlu", images = "pictures" }]', "the search for pictures of mmlu"),
    ],
)
def test_searches_that_need_image_files_are_named_too(tmp_path: Path, body: str, what: str) -> None:
    assert f"{what} needs image files" in check(tmp_path, f'{HEAD}[[pass]]\nname = "early"\n{body}\n')


def test_images_are_got_once(tmp_path: Path) -> None:
    again = FETCH.replace('"images"', '"again"')
    assert "the images are known before this pass" in check(tmp_path, HEAD + FETCH + again)
    given = HEAD.replace("output", 'images = "there"\noutput')
    assert "the images are known before this pass" in check(tmp_path, given + FETCH)


def test_a_rule_on_what_must_be_measured_again_stands_in_a_pass_of_its_own(tmp_path: Path) -> None:
    text = '{ on = "text", signal = "num_words", min = 3 }'
    document = '{ on = "document", signal = "word_repetition", max = 0.2 }'
    head = HEAD + '[[pass]]\nname = "blocks"\nkind = "rules"\n'
    assert "put this rule into a pass of its own after it" in check(tmp_path, f"{head}rules = [{text}, {document}]\n")
    apart = f'{head}rules = [{text}]\n[[pass]]\nname = "documents"\nkind = "rules"\nrules = [{document}]\n'
    assert "pass of its own" not in check(tmp_path, apart)


def test_a_cap_on_the_search_above_the_cap_on_its_worker_is_named(tmp_path: Path) -> None:
    body = '[[pass]]\nname = "repeats"\nkind = "repeats"\nby = ["url"]\n[limits]\nmemory_mb = 500\n'
    assert "a worker may take 500 MB, but the search for repeats takes" in check(tmp_path, HEAD + body)


def test_a_rule_on_scores_that_no_picture_is_given_is_named(tmp_path: Path) -> None:
    rule = '[[pass]]\nname = "safety"\nkind = "rules"\nrules = [{ on = "image", signal = "nsfw_score", max = 0.8 }]\n'
    assert "drops pictures that were not scored, and none are" in check(tmp_path, HEAD + FETCH + rule)
    assert "not scored" not in check(tmp_path, HEAD + FETCH + "scores = { nsfw = true }\n" + rule)


def test_files_that_are_named_and_not_there_are_found_before_any_work(tmp_path: Path) -> None:
    lists = '[[pass]]\nname = "lists"\nkind = "lists"\nurls = ["there.txt", "gone.txt"]\n'
    sets = '[[pass]]\nname = "sets"\nkind = "decontaminate"\nset = [{ name = "mmlu", texts = "gone.jsonl" }]\n'
    (tmp_path / "there.txt").write_text("https://example.org/\n")
    out = check(tmp_path, HEAD + lists + sets)
    assert "pass.0.urls.1: gone.txt is not there" in out
    assert "there.txt is" not in out
    assert "texts: gone.jsonl is not there" in out


def test_wrong_passes_are_named_each_and_not_called_an_empty_list_too(tmp_path: Path) -> None:
    out = check(tmp_path, HEAD + '[[pass]]\nname = "wish"\nkind = "wishes"\n')
    assert "pass.0.kind: got 'wishes'" in out
    assert "at least" not in out
    assert "an empty list" in check(tmp_path, HEAD + "pass = []\n")
