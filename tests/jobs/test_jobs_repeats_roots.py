"""The root of a duplicate, as the shards ask for it: a cluster falls into one split."""

from __future__ import annotations

from pathlib import Path

from jobs_repeats import Crawl, Page, search, written

from carnac.core.schema import REPEATS
from carnac.engine.unit import Stage
from carnac.jobs.shards_choice import roots_of

STAGE = Stage(name="repeats", version=1, schema=REPEATS, work=None, rows_per_group=2)


def test_a_copy_by_text_of_a_copy_by_url_has_the_root_of_both(tmp_path: Path) -> None:
    crawl: Crawl = {
        "a": [Page("http://a.example/1", ("one",)), Page("http://a.example/2", ("two",))],
        "b": [Page("http://a.example/2", ("one",)), Page("http://a.example/3", ("two",))],
    }
    # By text b:0 is a copy of a:0; by URL nothing is left to copy. The other way round b:0 is a copy of a:1.
    by_text = search(tmp_path / "text", crawl, ["text", "url"])
    assert roots_of([entry.path for entry in by_text.parts]) == {"b:0": "a:0", "b:1": "a:1"}
    by_url = search(tmp_path / "url", crawl, ["url", "text"])
    assert roots_of([entry.path for entry in by_url.parts]) == {"b:0": "a:1", "b:1": "a:1"}


def test_roots_of_roots_are_followed_and_blocks_have_no_say(tmp_path: Path) -> None:
    def row(name: str, root: str | None, block: int | None = None) -> dict[str, object]:
        return {"id": name, "row": 0, "block": block, "reason": "repeat.url", "unit": "a", "kind": "url", "root": root}

    rows = {
        "url": [row("b", "a"), row("c", "b"), row("same", "same"), row("x", "y"), row("y", "x")],
        "blocks": [row("a", None, 3), row("d", "a", 0), row("b", "z", 1)],
        "text": [row("a", "e"), row("b", "not the first")],
    }
    manifest = written(tmp_path, STAGE, rows)
    roots = roots_of([entry.path for entry in manifest.parts])
    assert {name: roots[name] for name in "abc"} == {"a": "e", "b": "e", "c": "e"}
    assert set(roots) == {"a", "b", "c", "x", "y"}  # a circle ends
    assert roots_of([]) == {}
