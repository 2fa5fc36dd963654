"""Settings of the image stage, and the media types that it knows how to decode."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from carnac.recipe.settings import Settings

MediaType = Literal["image/jpeg", "image/png", "image/webp", "image/gif"]
MEDIA_TYPES: tuple[MediaType, ...] = get_args(MediaType)

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


class FetchSettings(Settings):
    """How images are asked from the web."""

    timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Longest time for one URL, from the name look-up to the last byte, redirects in.",
    )
    idle_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Longest time to connect, and longest silence of a server."
    )
    max_redirects: int = Field(default=5, ge=0, description="Redirects followed for one URL.")
    num_connections: int = Field(default=32, gt=0, le=1000, description="URLs fetched at the same time.")
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
