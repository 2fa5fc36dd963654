"""Settings of the image stage, and the media types that it knows how to decode."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from carnac.recipe.settings import Settings

MediaType = Literal["image/jpeg", "image/png", "image/webp", "image/gif"]
MEDIA_TYPES: tuple[MediaType, ...] = get_args(MediaType)
Store = Literal["original", "clean", "reencoded"]

PRINTABLE = r"^[!-~]([ -~]*[!-~])?$"  # goes into a header line: ASCII, no line break, no space at the ends


class ImageSettings(Settings):
    """What an image must be to be kept."""

    max_image_bytes: int = Field(
        default=20_000_000, gt=0, description="An image file longer than this is dropped (`too_many_bytes`)."
    )
    # 89,478,485 is where Pillow's own guard against decompression bombs starts; it stays on behind ours.
    max_pixels: int = Field(
        default=50_000_000,
        gt=0,
        le=89_478_485,
        description="An image whose header declares more pixels than this is dropped, undecoded (`too_many_pixels`).",
    )
    media_types: tuple[MediaType, ...] = Field(
        default=MEDIA_TYPES,
        min_length=1,
        description="Media types to keep, told from the bytes and never from a header or a file name.",
    )
    store: Store = Field(
        default="clean",
        description="What is kept of a file: its bytes as they came (`original`), the same picture without what its "
        "maker wrote beside it, turned upright (`clean`), or a new JPEG (`reencoded`).",
    )
    max_side_px: int | None = Field(
        default=None, ge=16, description="With `reencoded`: longer sides are scaled down to this."
    )
    quality: int = Field(default=90, ge=1, le=100, description="With `reencoded`: the quality of the JPEG.")
    decode: bool = Field(
        default=True,
        description="Decode every file whole. Without, only headers are read: cheaper, but a file that is cut or "
        "damaged is met later, there is no perceptual hash, and `store` must be `original`.",
    )

    @model_validator(mode="after")
    def _fits_store(self) -> Self:
        if not self.decode and self.store != "original":
            raise ValueError(
                f"store = {self.store!r} needs pixels, and decode = false reads none: "
                "set store = 'original', or leave decode out"
            )
        if self.max_side_px is not None and self.store != "reencoded":
            raise ValueError(
                f"max_side_px scales pictures that are encoded anew, and store = {self.store!r} does not: "
                "set store = 'reencoded', or leave max_side_px out"
            )
        return self


class ScoreSettings(Settings):
    """What kept pictures are scored by, once, from their packs: nothing is asked for again when this changes."""

    nsfw: bool = Field(
        default=False,
        description="Score how sure open_nsfw is that a picture is not safe for work, 0 to 1 (`nsfw_score`). Needs "
        "`carnac[safety]`.",
    )
    pdq: bool = Field(
        default=False,
        description="Take the PDQ hash of every picture, to be compared with block lists (`pdq`). Needs `carnac[pdq]`.",
    )

    def __bool__(self) -> bool:
        """Say whether anything is scored."""
        return self.nsfw or self.pdq


class FetchSettings(Settings):
    """How images are asked from the web, and how kindly."""

    timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Longest time for one request, from the name look-up to the last byte.",
    )
    idle_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Longest time to connect, and longest silence of a server."
    )
    max_redirects: int = Field(default=5, ge=0, description="Redirects followed for one URL.")
    num_connections: int = Field(default=32, gt=0, le=1000, description="URLs fetched at the same time by one worker.")
    num_connections_per_host: int = Field(
        default=2, gt=0, description="URLs of one host fetched at the same time, in the whole run."
    )
    delay_seconds: float = Field(
        default=0.2,
        ge=0,
        description="Shortest time between the starts of two requests to one host; a longer Crawl-delay is obeyed.",
    )
    retries: int = Field(
        default=2,
        ge=0,
        description="Further tries in a round after a timeout, a broken connection, 408, 429, 500, 502-504.",
    )
    backoff_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Wait before the first retry; doubled each time. A Retry-After is obeyed instead.",
    )
    host_failures: int = Field(
        default=5,
        ge=1,
        description="A host that could not be reached so many times in a row is left for a later round.",
    )
    rounds: int = Field(default=3, ge=1, description="Rounds in which a URL that was deferred is asked for again.")
    urls_per_unit: int = Field(
        default=1000, ge=1, description="URLs of one unit of work, and of one host in a round, at most."
    )
    unit_seconds: float = Field(
        default=900.0, gt=0, description="Time for one unit; what is left then is deferred to the next round."
    )
    robots: bool = Field(default=True, description="Obey robots.txt, asked for once per host and round.")
    opt_outs: tuple[str, ...] = Field(
        default=("noai", "noimageai", "noindex", "noimageindex", "none", "tdm-reservation", "train-ai=n"),
        description="Objections in the headers of an answer (X-Robots-Tag, TDM-Reservation, Content-Usage) that are "
        "obeyed: the image is not read and not kept.",
    )
    addresses: dict[str, str] = Field(
        default={},
        description='Addresses of hosts that no name server knows, as curl\'s --resolve: `name = "127.0.0.1"`; '
        "`*.name` stands for all names below. They are checked like any other.",
    )

    @field_validator("addresses")
    @classmethod
    def _check_addresses(cls, addresses: dict[str, str]) -> dict[str, str]:
        for name, address in addresses.items():
            if not re.fullmatch(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
                raise ValueError(f"{name!r}: wanted a host name in lower case, or `*.` and one; no scheme, no port")
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ValueError(f"{name}: got {address!r}, wanted an IPv4 or IPv6 address") from None
        return addresses

    user_agent: str = Field(
        default="carnac/0.1", pattern=PRINTABLE, description="How the fetcher names itself to servers."
    )
    contact: str | None = Field(
        default=None,
        pattern=PRINTABLE,
        description="Where you can be reached, appended to the user agent: address or page. Set it for a real crawl.",
    )
    allow_private_addresses: bool = Field(
        default=False,
        description="Allow private, loopback and link-local addresses. For tests on one machine; off for the web.",
    )
