"""What is shown of a real run: of the job on loopback, and of the retry that the report has announced."""

from __future__ import annotations

from pathlib import Path

from jobs_image_web import ImageWeb, serve, write_documents
from story_runs import carnac

from carnac.report.images import Images, read_images
from carnac.report.images_rounds import Round
from carnac.report.story import read_story

RECIPE = """job = "images"
documents = "documents"
output = "images"
fetch = true

[http]
allow_private_addresses = true
addresses = {"*.test" = "127.0.0.1"}
delay_seconds = 0
retries = 0
rounds = 1
urls_per_unit = 10
"""


def seen(folder: Path) -> Images:
    (found,) = (each for each in read_story(folder).folders if each.stage == "images")
    return read_images(found)


def numbers(found: Round) -> tuple[int, int, int, int]:
    return found.num_urls, found.ends["kept"], found.ends["dropped"], found.ends["deferred"]


def test_the_report_of_a_run_announces_what_a_retry_then_asks_for(tmp_path: Path) -> None:
    (tmp_path / "images.toml").write_text(RECIPE)
    places = [f"{host}.test/{number}.png" for host in "abc" for number in range(6)]
    with serve(ImageWeb()) as web:
        web.answers |= dict.fromkeys(places[:2], 404) | {"c.test/robots.txt": 500}
        write_documents(tmp_path / "documents", {"docs": [[web.url(place) for place in places]]})
        carnac(tmp_path, "run", "images.toml")
        before = seen(tmp_path)
        assert before.fetching is not None
        assert [numbers(found) for found in before.fetching.rounds] == [(18, 10, 2, 6)]
        assert before.fetching.num_units == 3
        assert {state.reason: state.number for state in before.table.states} == {
            "": 10,
            "http_404": 2,
            "robots_unreachable": 6,
        }
        assert before.retries == {"failed": 2, "timeouts": 0, "deferred": 6, "all": 8}
        assert before.command.endswith("images/recipe.toml --retry")
        web.answers.clear()
        carnac(tmp_path, "run", "images.toml", "--retry", "failed")
        after = seen(tmp_path)
        assert after.fetching is not None
        again = after.fetching.rounds[-1]
        assert (again.retry, again.num_urls, again.ends["kept"]) == ("failed", before.retries["failed"], 2)
        assert after.retries == {"failed": 0, "timeouts": 0, "deferred": 6, "all": 6}
    shown = [folder.stage for folder in read_story(tmp_path).folders]
    assert shown == ["documents", "images"]
