from __future__ import annotations

from pathlib import Path

import pytest
from images_samples import encoded
from images_site import served
from multidict import CIMultiDict, CIMultiDictProxy

from carnac.engine.spool import Spool
from carnac.images.fetch import Ask, fetch_images
from carnac.images.opt_outs import objection
from carnac.images.settings import FetchSettings

OPT_OUTS = FetchSettings().opt_outs
ROBOTS, TDM, USAGE = "X-Robots-Tag", "TDM-Reservation", "Content-Usage"


def found(*headers: tuple[str, str]) -> str | None:
    return objection(CIMultiDictProxy(CIMultiDict(headers)), "carnac", OPT_OUTS)


@pytest.mark.parametrize(
    ("header", "value", "word"),
    [
        (ROBOTS, "noai", "noai"),
        (ROBOTS, "NoImageAI", "noimageai"),
        (ROBOTS, "noindex", "noindex"),
        (ROBOTS, "none", "none"),
        (ROBOTS, "nofollow, noimageindex", "noimageindex"),
        (ROBOTS, "nofollow noai", "noai"),
        (ROBOTS, "carnac: noai", "noai"),
        (ROBOTS, "Carnac/0.1: noai", "noai"),
        (ROBOTS, "*: noai", "noai"),
        (ROBOTS, "robots: noindex", "noindex"),
        (ROBOTS, "otherbot: noindex, carnac: noai", "noai"),
        (ROBOTS, "max-image-preview: large, noai", "noai"),
        (ROBOTS, "unavailable_after: 25 Jun 2010 15:00:00 PST, noai", "noai"),
        ("x-robots-tag", "noai", "noai"),
        (TDM, "1", "tdm-reservation"),
        (TDM, " 1 ", "tdm-reservation"),
        (USAGE, "train-ai=n", "train-ai=n"),
        (USAGE, "bots=y, Train-AI = n;exception=x", "train-ai=n"),
    ],
)
def test_an_objection(header: str, value: str, word: str) -> None:
    assert found(("Content-Type", "image/png"), (header, value)) == word


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (ROBOTS, "all"),
        (ROBOTS, ""),
        (ROBOTS, "nofollow, noarchive"),
        (ROBOTS, "otherbot: noai, noindex"),
        (ROBOTS, "notcarnac: noai"),
        (ROBOTS, "carnac-news: noai"),
        (ROBOTS, "carnac: all, otherbot: noindex"),
        (ROBOTS, "noairline"),
        (TDM, "0"),
        (TDM, "11"),
        (USAGE, "train-ai=y"),
        (USAGE, "search=n"),
        ("X-Other", "noai"),
    ],
)
def test_no_objection_to_us(header: str, value: str) -> None:
    assert found((header, value)) is None


def test_every_line_of_a_header_is_read() -> None:
    assert found((ROBOTS, "otherbot: noindex"), (ROBOTS, "all"), (ROBOTS, "noai")) == "noai"


@pytest.mark.parametrize(
    "path", ["X-Robots-Tag/noimageai", "X-Robots-Tag/all|carnac: noai", "TDM-Reservation/1", "Content-Usage/train-ai=n"]
)
def test_what_its_owner_objects_to_is_not_read(tmp_path: Path, path: str) -> None:
    picture = encoded()["jpeg"]
    settings = FetchSettings(allow_private_addresses=True, addresses={"*.test": "127.0.0.1"}, delay_seconds=0.0)
    with served(picture + bytes(1_000_000)) as site, Spool(tmp_path / "spool") as spool:
        url = site.url(f"/header/{path}", host="own.test")
        (fetched,) = (one for one in fetch_images([Ask(url)], settings, 2_000_000, spool) if one is not None)
        assert (fetched.status, fetched.reason, fetched.received_bytes) == ("refused", "opted_out", 0)
        assert fetched.detail in path.lower()
        ignoring = settings.model_copy(update={"opt_outs": ()})
        again = fetch_images([Ask(url + "?2")], ignoring, 2_000_000, spool)
        assert [one.status for one in again if one is not None] == ["received"]
