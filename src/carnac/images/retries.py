"""What `--retry` asks for once more: the states of URLs, by the four words of the command line."""

from __future__ import annotations

from typing import Literal, get_args

Retry = Literal["failed", "timeouts", "deferred", "all"]
RETRIES: tuple[Retry, ...] = get_args(Retry)
# What another try may change. Refusals (robots, opt-outs, addresses, what is no image) stay, but for `all`.
FAILURES = (
    *("timeout", "connection_failed", "tls_failed", "unknown_host", "bad_response", "bad_encoding", "fetch_failed"),
    *("empty", "truncated_image", "http_"),
)


def is_chosen(status: str, reason: str | None, retry: Retry) -> bool:
    """Say whether a URL of this state is asked for again under `--retry`."""
    if status == "kept":
        return False
    if retry == "all":
        return True
    if status in ("deferred", "moved"):
        return retry == "deferred"
    if retry == "timeouts":
        return reason == "timeout"
    return retry == "failed" and (reason or "").startswith(FAILURES)
