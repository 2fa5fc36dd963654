"""Headers of an answer -> whether its owner objects to the image being collected.

Three ways to say so in HTTP: `X-Robots-Tag` (Google's, with the words of others: `noai`, `noimageai`), the TDM
Reservation Protocol's `TDM-Reservation: 1` (W3C Community Group report), and `Content-Usage: train-ai=n` (IETF draft of
the working group AI Preferences). Which objections count is a setting.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from multidict import CIMultiDictProxy

from carnac.core.robots_tag import EVERYONE, directives

HEADERS = ("TDM-Reservation", "X-Robots-Tag", "Content-Usage")


def objection(headers: CIMultiDictProxy[str], product: str, opt_outs: Collection[str]) -> str | None:
    """Return the first of `opt_outs` (lower case) that the headers of an answer state for all robots or for `product`.

    `product` is the fetcher's name in lower case; what is addressed to other robots does not count.
    """
    if headers.keys().isdisjoint(HEADERS):  # as nearly always
        return None
    return next((word for word in _stated(headers, product) if word in opt_outs), None)


def _stated(headers: CIMultiDictProxy[str], product: str) -> Iterator[str]:
    for value in headers.getall("TDM-Reservation", ()):
        if value.strip() == "1":
            yield "tdm-reservation"
    for value in headers.getall("X-Robots-Tag", ()):
        yield from (word for robot, word in directives(value) if robot in EVERYONE or robot == product)
    for value in headers.getall("Content-Usage", ()):
        for preference in value.lower().split(","):
            yield "".join(preference.partition(";")[0].split())
