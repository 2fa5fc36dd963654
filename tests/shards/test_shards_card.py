from __future__ import annotations

import json
from collections import Counter
from typing import Any

from carnac.shards.card import (
    MAX_SITES,
    Card,
    Counts,
    count_document,
    reservations_of,
    site_of,
    table_of,
    to_markdown,
    with_largest_sites,
)


def document(**facts: Any) -> dict[str, Any]:
    columns = ("language", "licence", "fetched_at", "published_at", "warc_file", "reservations", "url")
    return {**dict.fromkeys(columns), **facts}


def card(**facts: Any) -> Card:
    empty: dict[str, Any] = dict.fromkeys(Card.__slots__, ())
    given = {"source": "web", "version": "1", "read_from": {}, "splits": {}, "sites_are_all": True, "num_taken_down": 0}
    return Card(**{**empty, **given, **facts})


def counted(*documents: dict[str, Any]) -> Counts:
    counts: Counts = Counter()
    for each in documents:
        count_document(counts, each)
    return counts


def test_documents_are_counted_by_what_they_say_of_themselves() -> None:
    counts = counted(
        document(language="en", licence="CC-BY-4.0", fetched_at="2026-11-22T15:25:00Z", published_at="2019-05-01"),
        document(language="en", published_at="2019", url="https://A.example:8080/x", warc_file="a.warc.gz"),
        document(language="fr", reservations=["noai", "noimageai"], url="https://a.example/y"),
    )
    assert table_of(counts, "language") == (("en", 2), ("fr", 1))
    assert table_of(counts, "licence") == (("(not stated)", 2), ("CC-BY-4.0", 1))
    assert table_of(counts, "fetched", in_order=True) == (("(not stated)", 2), ("2026-11-22", 1))
    assert table_of(counts, "published", in_order=True) == (("(not stated)", 1), ("2019", 2))
    assert table_of(counts, "site") == (("a.example", 2), ("(not stated)", 1))
    counts["reserved_seen", "noai"] = 4
    assert reservations_of(counts) == (("noai", 4, 1),)


def test_an_address_with_a_wrong_bracket_has_no_site() -> None:
    assert site_of("http://[::1/x") == site_of(None) == "(not stated)"


def test_only_the_largest_sites_of_a_part_are_kept() -> None:
    counts: Counts = Counter({("site", f"s{n:04}.example"): 1 + (n % 7 == 0) for n in range(3 * MAX_SITES)})
    counts["language", "en"] = 9
    kept = with_largest_sites(counts)
    sites = table_of(kept, "site")
    assert len(sites) == MAX_SITES
    assert sites == table_of(counts, "site")[:MAX_SITES]
    assert kept["language", "en"] == 9


def test_the_card_tells_dates_consent_and_what_was_left_out() -> None:
    text = to_markdown(
        card(
            splits={"train": {"samples": 1200, "images": 7, "characters": 5}, "heldout": {"samples": 34}},
            fetched=(("(not stated)", 1), ("2026-11-20", 3), ("2026-11-22", 2)),
            reservations=(("noai", 12, 0), ("tdm-reservation", 5, 2)),
            dropped_documents=(("listed.domain", 8), ("document.num_words < 20", 3)),
            dropped_blocks=(("listed.sha256", 4), ("listed.domain", 1)),
            num_taken_down=3,
            masked=(("email", 17),),
        )
    )
    assert "1,234 samples" in text
    assert "Fetched from 2026-11-20 to 2026-11-22, on 2 days." in text
    assert "- 12 pages object to `noai`; none of them is in the shards." in text
    assert "- 5 pages object to `tdm-reservation`; 2 of them are in the shards." in text
    assert "- Left out as `listed.domain`: 8 documents, 1 blocks of others." in text
    assert "- Left out as `listed.sha256`: 0 documents, 4 blocks of others." in text
    assert "- 3 entries were taken down and are kept out." in text
    assert "masked in texts: 17 of kind email." in text
    assert "| `document.num_words < 20` | 3 |" in text


def test_names_from_the_web_stay_inside_their_cell() -> None:
    text = to_markdown(card(sites=(("a|b`c\n# <b>\x1b", 1),), languages=tuple((f"l{n}", 1) for n in range(40))))
    assert "| `a?b?c?# <b>?` | 1 |" in text
    assert "| 25 more | 25 |" in text


def test_a_card_is_written_as_json() -> None:
    written = json.loads(json.dumps(card(languages=(("en", 2),)).to_json()))
    assert written["languages"] == [["en", 2]]
    assert set(written) == set(Card.__slots__)
