"""Rounds of fetching, end to end on loopback: what is asked again, by whom, and what never is."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jobs_image_web import ImageWeb, serve, write_documents
from PIL import Image
from story_runs import all_rows, carnac, command, digests, kill_tree

RECIPE = """job = "images"
documents = "documents"
output = "images"
fetch = true

[http]
allow_private_addresses = true
addresses = {"*.test" = "127.0.0.1"}
delay_seconds = 0
backoff_seconds = 0.05
retries = 1
host_failures = 3
idle_timeout_seconds = 2
"""


@pytest.fixture
def web() -> Iterator[ImageWeb]:
    with serve(ImageWeb()) as web:
        yield web


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    (folder / "images.toml").write_text(RECIPE)
    return carnac(folder, "run", "images.toml", *arguments, code=code)


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the rows by place (`a.test/1.png`)."""
    rows = {}
    for row in all_rows(folder / "images"):
        host, _, path = row["url"].removeprefix("http://").partition("/")
        rows[f"{host.partition(':')[0]}/{path}"] = row
    return rows


def states(folder: Path) -> dict[str, tuple[str, str | None]]:
    return {place: (row["status"], row["reason"]) for place, row in rows_of(folder).items()}


def places(hosts: str, number: int) -> list[str]:
    return [f"{host}.test/{each}.png" for host in hosts for each in range(number)]


def has_asked(web: ImageWeb, number: int) -> bool:
    return len(web.times_asked()) >= number


def test_a_redirect_to_another_host_is_followed_by_its_own_unit_in_the_next_round(
    tmp_path: Path, web: ImageWeb
) -> None:
    web.answers = {"a.test/1.png": web.url("b.test/other.png"), "a.test/loop.png": web.url("c.test/loop.png")}
    web.answers["c.test/loop.png"] = web.url("a.test/loop.png")
    wanted = ["a.test/0.png", "a.test/1.png", "a.test/loop.png", "b.test/0.png"]
    write_documents(tmp_path / "documents", {"docs": [[web.url(place) for place in wanted]]})
    out = run(tmp_path)
    assert "images, round 1: 4 URLs asked for, 2 kept, 2 moved" in out
    rows = rows_of(tmp_path)
    assert rows["a.test/1.png"]["status"] == "kept"
    assert rows["a.test/1.png"]["location"] == web.url("b.test/other.png")
    assert states(tmp_path)["a.test/loop.png"] == ("dropped", "too_many_redirects")
    assert web.times_asked()["b.test/other.png"] == 1
    # Once per host and round in which the host was asked.
    assert Counter(web.asked)["b.test/robots.txt"] == 2


def test_a_retry_asks_for_what_it_names_and_nothing_else(tmp_path: Path, web: ImageWeb) -> None:
    broken = {"a.test/1.png": 500, "b.test/0.png": 404, "b.test/1.png": 403}
    web.answers = {**broken}
    write_documents(tmp_path / "documents", {"docs": [[web.url(place)] for place in places("ab", 4)]})
    run(tmp_path)
    assert {place: state[1] for place, state in states(tmp_path).items() if state[0] != "kept"} == {
        "a.test/1.png": "http_500", "b.test/0.png": "http_404", "b.test/1.png": "http_403"
    }  # fmt: skip
    web.asked.clear()
    assert "fetched: 8 rows" in run(tmp_path)
    assert not web.asked, "a run that is done asks nothing"
    assert "nothing to ask for again under --retry timeouts" in run(tmp_path, "--retry", "timeouts")
    assert not web.asked
    web.answers = {"b.test/1.png": 403}
    out = run(tmp_path, "--retry", "failed")
    assert "(--retry failed): 3 URLs asked for, 2 kept, 1 dropped" in out
    assert set(web.times_asked()) == set(broken)
    assert states(tmp_path)["b.test/1.png"] == ("dropped", "http_403")
    assert sum(state == ("kept", None) for state in states(tmp_path).values()) == 7
    web.asked.clear()
    run(tmp_path)
    assert not web.asked


def test_new_documents_cost_their_own_images_alone(tmp_path: Path, web: ImageWeb) -> None:
    old = [[web.url(place)] for place in places("ab", 3)]
    write_documents(tmp_path / "documents", {"docs": old})
    run(tmp_path)
    web.asked.clear()
    write_documents(tmp_path / "documents", {"docs": old, "more": [[web.url("b.test/9.png"), web.url("a.test/0.png")]]})
    run(tmp_path)
    assert set(web.times_asked()) == {"b.test/9.png"}
    found = {row["url"]: row for row in all_rows(tmp_path / "images/found")}
    assert len(found) == 7
    assert [(row["row"], row["block"]) for row in all_rows(tmp_path / "images/found")] == [
        *[(number, 1) for number in range(6)], (0, 1), (0, 2)
    ]  # fmt: skip


def test_how_one_asks_changes_nothing_and_what_one_keeps_begins_anew(tmp_path: Path, web: ImageWeb) -> None:
    write_documents(tmp_path / "documents", {"docs": [[web.url(place)] for place in places("ab", 3)]})
    run(tmp_path)
    before = digests(tmp_path / "images")
    web.asked.clear()
    run(tmp_path, "--set", "http.contact=me@example.org", "--set", "http.timeout_seconds=5.0")
    assert not web.asked
    assert digests(tmp_path / "images") == before
    run(tmp_path, "--set", "inspect.store=original")
    assert web.times_asked() == Counter(places("ab", 3))
    web.asked.clear()
    run(tmp_path)
    assert not web.asked, "the rounds of the first settings are still there"
    after = digests(tmp_path / "images")
    assert {name: after[name] for name in before} == before


def test_a_host_with_more_urls_than_a_unit_may_ask_for_takes_rounds(tmp_path: Path, web: ImageWeb) -> None:
    wanted = [*places("a", 25), *places("b", 5)]
    write_documents(tmp_path / "documents", {"docs": [[web.url(place) for place in wanted]]})
    out = run(tmp_path, "--set", "http.urls_per_unit=10")
    assert "round 1: 15 URLs asked for, 15 kept, 15 left for later rounds" in out
    assert "round 2: 10 URLs asked for" in out
    assert "round 3: 5 URLs asked for" in out
    assert web.times_asked() == Counter(wanted)
    assert set(states(tmp_path).values()) == {("kept", None)}


def test_a_host_that_is_down_is_put_off_and_a_retry_finds_it_up_again(tmp_path: Path, web: ImageWeb) -> None:
    web.answers = {f"b.test/{name}": 503 for name in ("robots.txt", *(f"{number}.png" for number in range(4)))}
    write_documents(tmp_path / "documents", {"docs": [[web.url(place) for place in places("ab", 4)]]})
    run(tmp_path)
    ended = states(tmp_path)
    assert {ended[place][0] for place in places("a", 4)} == {"kept"}
    assert {ended[place] for place in places("b", 4)} == {("deferred", "robots_unreachable")}
    assert not [place for place in web.times_asked() if place.startswith("b.test")]
    web.answers.clear()
    run(tmp_path, "--retry", "deferred")
    assert set(states(tmp_path).values()) == {("kept", None)}
    assert set(web.times_asked().values()) == {1}


@pytest.mark.timeout(300)
def test_a_run_killed_again_and_again_asks_for_nothing_twice_but_what_was_in_flight(
    tmp_path: Path, web: ImageWeb
) -> None:
    wanted = places("abcdefgh", 30)
    web.seconds_per_image = 0.02
    write_documents(tmp_path / "documents", {"docs": [[web.url(place)] for place in wanted]})
    (tmp_path / "images.toml").write_text(RECIPE)
    arguments = ("run", "images.toml", "--workers", "2", "--set", "http.urls_per_unit=60")
    kills = 0
    for share in (0.2, 0.5, 0.8):
        enough = partial(has_asked, web, int(share * len(wanted)))
        kills += kill_tree(command(tmp_path, *arguments), enough)
    assert kills == 3
    time.sleep(0.2)
    carnac(tmp_path, *arguments)
    assert set(states(tmp_path).values()) == {("kept", None)}
    repeated = sum(web.times_asked().values()) - len(wanted)
    in_flight = kills * 2 * 16  # two workers, each with eight hosts at most and two connections to each
    assert repeated <= in_flight, f"{repeated} asked for twice"
    # The same rows and packs as a run that nobody disturbed.
    disturbed = digests(tmp_path / "images")
    (tmp_path / "images").rename(tmp_path / "disturbed")
    carnac(tmp_path, *arguments)
    assert digests(tmp_path / "images") == disturbed
    for pack in sorted((tmp_path / "images/packs").iterdir()):
        assert pack.read_bytes() == (tmp_path / "disturbed/packs" / pack.name).read_bytes()
    assert not list((tmp_path / "images").glob(".*.spool"))


def test_an_image_that_ends_its_process_costs_itself_and_no_further_request(tmp_path: Path, web: ImageWeb) -> None:
    Image.effect_noise((7000, 7000), 80).save(heavy := io.BytesIO(), "PNG", compress_level=1)
    web.pictures["a.test/3.png"] = heavy.getvalue()
    wanted = places("ab", 6)
    write_documents(tmp_path / "documents", {"docs": [[web.url(place) for place in wanted]]})
    # A quarter of a second of CPU or more, where the others take a hundredth.
    settings = ("--set", "limits.cpu_seconds=0.1", "--set", "inspect.max_image_bytes=100_000_000")
    run(tmp_path, *settings)
    assert web.times_asked() == Counter(wanted)
    ended = states(tmp_path)
    assert ended.pop("a.test/3.png") == ("dropped", "not_inspected")
    assert set(ended.values()) == {("kept", None)}
    manifest = json.loads((tmp_path / "images/manifest.json").read_bytes())
    assert manifest["counts"]["lost.too_slow"] == 1
    assert [part["unit"] for part in manifest["parts"]] == ["images-p0000"]
    assert [part["unit"] for part in manifest["steps"]] == ["r0001-p0000-u0000"]
    assert manifest["steps"][0]["counts"]["requests"] == len(wanted)
    assert manifest["steps"][0]["counts"]["robots_requests"] == 2
    # Tried again by its name it is fetched alone: its bytes are nowhere any more.
    web.asked.clear()
    out = run(tmp_path, "--record", web.url("a.test/3.png"), "--set", "inspect.max_image_bytes=100_000_000")
    assert "too_slow" in out
    assert set(web.times_asked()) == {"a.test/3.png"}


def test_a_retry_without_an_images_recipe_that_fetches_is_a_sentence(tmp_path: Path, web: ImageWeb) -> None:
    write_documents(tmp_path / "documents", {"docs": [[web.url("a.test/0.png")]]})
    out = run(tmp_path, "--set", "fetch=false", "--retry", "failed", code=2)
    assert "--retry goes with an images recipe that fetches" in out
    assert not (tmp_path / "images").exists()
