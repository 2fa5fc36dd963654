"""What the record of a take-down knows again, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carnac.core.errors import InputError
from carnac.core.taken_down import MARK, NOTHING, RECORD, TakenDown, host_key, url_key

SHA256 = "0123456789abcdef" * 4
RECORD_OF_ALL = TakenDown.of(
    urls=["http://a.test/x.jpg", "https://B.test:443/p?q=1&r=2", "http://localhost:8000/x(1).png"],
    domains=["evil.test", "*.münchen.test"],
    images=[SHA256.upper()],
)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.test/x.jpg",
        "https://a.test/x.jpg",
        "HTTP://A.TEST:80/x.jpg#top",
        "http://user@a.test./x.jpg",
        "http://a.test/%78.jpg",
        "https://b.test/p?q=1&r=2",
        "http://localhost:8000/x(1).png",
        "http://evil.test",
        "https://very.deep.evil.test/any/thing",
        "http://xn--mnchen-3ya.test/",
        "http://www.MÜNCHEN.test/",
        "https://proxy.test/300x200/http://a.test/x.jpg",
        "https://proxy.test/?url=https%3A%2F%2Fa.test%2Fx.jpg&width=3",
        "https://proxy.test/evil.test/picture.jpg",
    ],
)
def test_a_url_is_known_however_it_is_written(url: str) -> None:
    assert RECORD_OF_ALL.has_url(url)
    assert RECORD_OF_ALL.scrubbed(f'see "{url}", or not') == f'see "{MARK}", or not'


@pytest.mark.parametrize(
    "url",
    [
        "http://a.test/x.jpg2",
        "http://a.test/x.jpg?size=2",
        "http://a.test/X.jpg",
        "http://a.test:8080/x.jpg",
        "http://www.a.test/x.jpg",
        "http://b.test/p?r=2&q=1",
        "http://evil.test.org/",
        "http://nevil.test/",
        "https://proxy.test/nevil.test/picture.jpg",
        "http://test/",
        MARK,
        "data:image/png;base64,evil.test",
        "",
    ],
)
def test_another_url_is_another(url: str) -> None:
    assert not RECORD_OF_ALL.has_url(url)


def test_texts_lose_what_they_name_and_nothing_else() -> None:
    text = f"(http://a.test/x.jpg), evil.test. Not nevil.test! joe@evil.test; {SHA256} and {SHA256}0 [x](http://a.test/x.jpg)."
    assert RECORD_OF_ALL.scrubbed(text) == (
        f"({MARK}), {MARK}. Not nevil.test! joe@{MARK}; {MARK} and {SHA256}0 [x]({MARK})."
    )
    plain = "A sentence with e.g. 3.14 and www.example.org in it: nothing of it was taken down."
    assert RECORD_OF_ALL.scrubbed(plain) == plain


@pytest.mark.parametrize("text", ["a" * 1_000_000, "a." * 300_000, "http://" * 100_000, "x.y/%41&" * 50_000])
def test_no_text_takes_more_time_than_its_length(text: str) -> None:
    assert RECORD_OF_ALL.scrubbed(text) == text  # a quadratic search would take hours


def test_images_are_known_by_the_hash_of_their_bytes() -> None:
    assert RECORD_OF_ALL.has_image(None, SHA256)
    assert RECORD_OF_ALL.has_image(SHA256.upper())
    assert not RECORD_OF_ALL.has_image(SHA256[::-1], None)


def test_a_record_holds_no_entry_and_comes_back_from_its_file(tmp_path: Path) -> None:
    content = RECORD_OF_ALL.to_json()
    assert not any(entry.encode() in content for entry in ("a.test", "evil", "x.jpg", SHA256, SHA256[:16]))
    (tmp_path / RECORD).write_bytes(content)
    read = TakenDown.read([tmp_path])
    assert read == RECORD_OF_ALL
    assert read.digest == RECORD_OF_ALL.digest != ""


def test_a_record_counts_for_all_folders_below_its_own(tmp_path: Path) -> None:
    below = tmp_path / "run/shards/train"
    below.mkdir(parents=True)
    (tmp_path / RECORD).write_bytes(TakenDown.of(domains=["evil.test"]).to_json())
    (below / RECORD).write_bytes(TakenDown.of(urls=["http://a.test/x.jpg"]).to_json())
    record = TakenDown.read([below, tmp_path / "none/yet"])
    assert record.has_url("http://evil.test/")
    assert record.has_url("http://a.test/x.jpg")
    assert not TakenDown.read([tmp_path / "run"]).has_url("http://a.test/x.jpg")


def test_without_a_record_nothing_is_taken_down(tmp_path: Path) -> None:
    assert TakenDown.read([tmp_path]) == NOTHING
    assert not NOTHING
    assert NOTHING.digest == ""
    assert NOTHING.scrubbed("evil.test") == "evil.test"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"version": 1, "urls": ["zz"], "domains": [], "images": []}'])
def test_a_damaged_record_stops_a_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RECORD).write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        TakenDown.read([tmp_path])


def test_a_record_of_a_later_version_stops_a_run(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(json.dumps({**json.loads(NOTHING.to_json()), "version": 2}))
    with pytest.raises(InputError, match="version 2, wanted 1"):
        TakenDown.read([tmp_path])


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://A.test", "a.test/"),
        ("//a.test/b", "a.test/b"),
        ("http://[::1]:8080/x", "[::1]:8080/x"),
        ("http://[::1]/x", "[::1]/x"),
        ("http://a.test?x=1", "a.test/?x=1"),
        ("https://a.test/é", "a.test/%C3%A9"),
        ("https://a.test/%c3%a9", "a.test/%C3%A9"),
        ("http://a.test/%2F%7e", "a.test/%2F~"),
    ],
)
def test_equal_urls_have_one_key(url: str, key: str) -> None:
    assert url_key(url) == key
    assert url_key(key) == key


def test_equal_hosts_have_one_key() -> None:
    assert {host_key(name) for name in ("A.Test", "a.test.", "*.a.test", ".a.test", " a.test ")} == {"a.test"}
