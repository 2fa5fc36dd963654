"""What is left of a row: of samples of documents and conversations, of what a chat shows, of other tables."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from carnac.core.schema import SAMPLES
from carnac.core.taken_down import MARK, TakenDown
from carnac.jobs.takedown_rows import Victims, counts_of, rule_of

IMAGE = b"an image"
SHA256 = hashlib.sha256(IMAGE).hexdigest()
VICTIMS = Victims(
    taken_down=TakenDown.of(urls=["http://a.test/1.jpg"], domains=["evil.test"], images=[SHA256]),
    page_ids=frozenset({"page"}),
)


def sample(places: list[str], **changes: Any) -> dict[str, Any]:
    """Return a sample: `t` is a text, `x` an image that goes, `k` one that stays."""
    bytes_of = {"x": IMAGE, "k": b"another"}
    images = [
        {"bytes": bytes_of[place], "path": f"{hashlib.sha256(bytes_of[place]).hexdigest()}.png"}
        if place != "t"
        else None
        for place in places
    ]
    urls = [None if image is None else f"http://b.test/{number}.png" for number, image in enumerate(images)]
    return {
        "id": "1",
        "source": "web",
        "texts": [f"text {number}" if place == "t" else None for number, place in enumerate(places)],
        "images": images,
        "roles": [None] * len(places),
        "metadata": json.dumps({"url": "http://b.test/", "image_urls": urls}),
        **changes,
    }


def left_of(row: dict[str, Any]) -> dict[str, Any] | None:
    return rule_of("shards", frozenset(SAMPLES.names))(row, VICTIMS)


@pytest.mark.parametrize(
    ("places", "left"),
    [
        ("txt", ["text 0\n\ntext 2"]),
        ("xtxxt", ["text 1\n\ntext 4"]),
        ("tkxt", ["text 0", None, "text 3"]),
        ("xk", [None]),
        ("txkxt", ["text 0", None, "text 4"]),
        ("tx", ["text 0"]),
        ("x", None),
        ("xx", None),
    ],
)
def test_texts_around_an_image_that_goes_are_merged(places: str, left: list[str | None] | None) -> None:
    row = left_of(sample(list(places)))
    if left is None:
        assert row is None
        return
    assert row is not None
    assert row["texts"] == left
    assert [image is not None for image in row["images"]] == [text is None for text in left]
    urls = json.loads(row["metadata"])["image_urls"]
    assert [url is not None for url in urls] == [text is None for text in left]


def test_an_image_goes_by_its_url_too() -> None:
    metadata = json.dumps({"url": "http://b.test/", "image_urls": [None, "https://a.test/1.jpg"]})
    row = left_of(sample(["t", "k"], metadata=metadata))
    assert row is not None
    assert row["texts"] == ["text 0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "page"},
        {"metadata": json.dumps({"url": "https://www.evil.test/page"})},
        {"roles": ["user", "assistant", None]},
    ],
)
def test_samples_of_pages_and_conversations_about_an_image_go(changes: dict[str, Any]) -> None:
    assert left_of(sample(["t", "t", "x"], **changes)) is None


@pytest.mark.parametrize("metadata", [None, "", "{", "[1]", '{"image_urls": [null]}', '{"image_urls": 7}'])
def test_metadata_of_any_form_are_no_obstacle(metadata: str | None) -> None:
    row = left_of(sample(["t", "x", "t"], metadata=metadata))
    assert row is not None
    assert row["texts"] == ["text 0\n\ntext 2"]


def test_a_sample_without_any_of_it_stays_as_it_is() -> None:
    row = sample(["t", "k", "t"])
    assert left_of(row) == row


def test_what_a_chat_shows_of_it_goes() -> None:
    columns = frozenset({"id", "image", "prompt", "continuation", "reference"})
    rule = rule_of("chat", columns)
    shown = {"id": "1", "image": b"another", "prompt": "", "continuation": "see evil.test", "reference": None}
    assert rule(shown, VICTIMS) == {**shown, "continuation": f"see {MARK}"}
    assert rule({**shown, "image": IMAGE}, VICTIMS) is None
    assert rule({**shown, "id": "page"}, VICTIMS) is None


def test_other_tables_lose_mentions_at_any_depth() -> None:
    row = {"id": "1", "notes": [{"where": "http://a.test/1.jpg", "n": 3}, None], "when": 4.5}
    assert rule_of("notes", frozenset(row))(row, VICTIMS) == {**row, "notes": [{"where": MARK, "n": 3}, None]}


def test_steps_lose_rows_and_the_table_of_images_keeps_them() -> None:
    row = {"url": "http://b.test/2", "status": "kept", "reason": None, "sha256": "0" * 64, "received_sha256": SHA256}
    assert rule_of("fetched", frozenset(row))(row, VICTIMS) is None
    left = rule_of("images", frozenset(row))(row, VICTIMS)
    assert left == {**dict.fromkeys(row), "url": MARK, "status": "dropped", "reason": "taken_down"}
    assert counts_of("images", row) == {"kept": 1}
    assert counts_of("images", left) == {"dropped.taken_down": 1}
    other = {**row, "received_sha256": None}
    assert rule_of("images", frozenset(row))(other, VICTIMS) == other
