"""Settings of a pass that drops what stands on lists: opted out, blocked, reserved."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from carnac.curate.lists.entries import Kind
from carnac.curate.masks import NO_BLOCKS_LEFT, SIGNALS_FAILED
from carnac.curate.settings import PassName
from carnac.recipe.settings import Settings

UNHASHED = "unhashed"  # before the kind of a hash that a kept picture lacks: what cannot be compared is not kept


class OptOutService(Settings):
    """A service that is asked which URLs were opted out: it gets and gives JSON."""

    endpoint: str = Field(
        pattern="^https?://[^ ]+$",
        description='URL that gets `{"urls": [...]}` by POST and answers `{"opted_out": [...]}`.',
    )
    token_variable: str | None = Field(
        default=None,
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable whose value is sent as `Authorization: Bearer`; the recipe holds no secret.",
    )
    urls_per_request: int = Field(default=1000, ge=1, description="URLs asked after at once.")
    requests_per_second: float = Field(default=5, gt=0, description="Requests a second at most, of one worker.")
    timeout_seconds: float = Field(default=60, gt=0, description="Time that one request may take.")
    max_tries: int = Field(
        default=5, ge=1, description="Tries of one request, with growing waits, before the run stops."
    )
    backoff_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Wait before the second try; doubled each time. A longer Retry-After is obeyed, up to ten minutes.",
    )
    allow_private_addresses: bool = Field(default=False, description="Whether it may be in this machine's own network.")


class ListsPass(Settings):
    """Drop pages and images that stand on lists, and pages that object to their use."""

    name: PassName
    kind: Literal["lists"] = Field(description="This pass drops what stands on lists.")
    urls: tuple[Path, ...] = Field(default=(), description="Files of URLs, one a line: of pages and of images.")
    domains: tuple[Path, ...] = Field(default=(), description="Files of domains, one a line: they and all below them.")
    image_sha256: tuple[Path, ...] = Field(
        default=(), description="Files of sha256 of image files, as received or as stored, one a line."
    )
    image_pdq: tuple[Path, ...] = Field(default=(), description="Files of PDQ hashes, 64 hex digits a line.")
    image_phash: tuple[Path, ...] = Field(
        default=(), description="Files of 64-bit perceptual hashes, 16 hex digits a line."
    )
    max_pdq_distance: int = Field(
        default=31, ge=0, le=128, description="A picture is on a list of PDQ hashes at so many differing bits or fewer."
    )
    # Of 100 real pictures with 1 % cut off each side all are within 8 bits, 99 within 6; of 1,000 others none within 9.
    max_phash_distance: int = Field(
        default=8, ge=0, le=32, description="A picture is on a list of perceptual hashes at so many bits or fewer."
    )
    reservations: tuple[str, ...] = Field(
        default=(), description="Objections (`noai`, `tdm-reservation`): pages that make one are dropped."
    )
    service: OptOutService | None = Field(default=None, description="A service to ask for opted-out URLs.")
    drop: Literal["image", "document"] = Field(
        default="image", description="What goes when an image is on a list: the image, or its whole document."
    )

    @model_validator(mode="after")
    def _has_a_list(self) -> Self:
        if not self.files and not self.reservations and self.service is None:
            raise ValueError("this pass has no list: give urls, domains, image_sha256, image_pdq, reservations ...")
        return self

    @property
    def files(self) -> dict[Kind, tuple[Path, ...]]:
        """The files of every kind of list that is given."""
        kinds: dict[Kind, tuple[Path, ...]] = {
            "url": self.urls,
            "domain": self.domains,
            "sha256": self.image_sha256,
            "pdq": self.image_pdq,
            "phash": self.image_phash,
        }
        return {kind: files for kind, files in kinds.items() if files}

    @property
    def needs_images(self) -> bool:
        """Whether a list is compared with what image files hash to."""
        return bool(self.image_sha256 or self.image_pdq or self.image_phash)

    def reasons(self) -> tuple[str, ...]:
        """Return the names of the reasons: what kind of list an entry stands on."""
        given = [f"listed.{kind}" for kind in self.files]
        asked = [] if self.service is None else ["listed.service"]
        unhashed = [f"{UNHASHED}.{kind}" for kind in ("pdq", "phash") if kind in self.files]
        reserved = [f"reserved.{use}" for use in dict.fromkeys(self.reservations)]
        return (SIGNALS_FAILED, *given, *asked, *unhashed, *reserved, NO_BLOCKS_LEFT)
