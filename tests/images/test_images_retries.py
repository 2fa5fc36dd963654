"""What each word of --retry asks for once more."""

from __future__ import annotations

import pytest

from carnac.images.retries import RETRIES, is_chosen


@pytest.mark.parametrize(
    ("status", "reason", "chosen"),
    [
        ("kept", None, []),
        ("dropped", "timeout", ["failed", "timeouts", "all"]),
        ("dropped", "http_404", ["failed", "all"]),
        ("dropped", "connection_failed", ["failed", "all"]),
        ("dropped", "truncated_image", ["failed", "all"]),
        ("dropped", "robots_forbidden", ["all"]),
        ("dropped", "opted_out", ["all"]),
        ("dropped", "refused_address", ["all"]),
        ("dropped", "not_an_image", ["all"]),
        ("deferred", "deadline", ["deferred", "all"]),
        ("moved", None, ["deferred", "all"]),
    ],
)
def test_a_retry_takes_what_it_says(status: str, reason: str | None, chosen: list[str]) -> None:
    assert [retry for retry in RETRIES if is_chosen(status, reason, retry)] == chosen
