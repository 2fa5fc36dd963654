"""Settings of a pass that drops repeats."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, field_validator

from carnac.curate.masks import NO_BLOCKS_LEFT, SIGNALS_FAILED
from carnac.curate.settings import PassName, not_empty
from carnac.recipe.settings import Settings

DocumentRepeat = Literal["url", "text", "near", "image_set"]
BlockRepeat = Literal["paragraph", "image_url", "image_sha256", "image_phash", "image_in_document"]
RepeatKind = Literal[DocumentRepeat, BlockRepeat]
Keep = Literal["first", "latest", "longest"]
DOCUMENT_KINDS: frozenset[str] = frozenset(get_args(DocumentRepeat))


class RepeatsPass(Settings):
    """Keep one document of each set of equal ones, and drop blocks that are all over the place."""

    name: PassName
    kind: Literal["repeats"] = Field(description="This pass drops what repeats.")
    by: Annotated[tuple[RepeatKind, ...], AfterValidator(not_empty)] = Field(
        description="What repeats, searched in this order. Documents: `url`, `text`, `near`, `image_set`. Text blocks: "
        "`paragraph`. Image blocks: `image_url`, `image_sha256`, `image_phash`, `image_in_document`."
    )
    keep: Keep = Field(
        default="first",
        description="Which document of a set stays: that of the smallest part name and row, the one fetched last, or "
        "the one of most words. Equals go by part name and row.",
    )
    near_similarity: float = Field(
        default=0.75,
        gt=0,
        le=1,
        description="Documents are near-duplicates from this Jaccard similarity of their word 3-shingles on.",
    )
    max_paragraph_copies: int = Field(
        default=2, ge=1, description="A paragraph that occurs more often than this in its domain is dropped everywhere."
    )
    max_image_copies: int = Field(
        default=10, ge=1, description="An image that occurs more often than this is dropped everywhere."
    )
    max_phash_distance: int = Field(
        default=4, ge=0, le=7, description="Pictures whose perceptual hashes differ in at most so many bits are one."
    )

    @field_validator("by")
    @classmethod
    def _each_once(cls, by: tuple[RepeatKind, ...]) -> tuple[RepeatKind, ...]:
        if len(set(by)) < len(by):
            raise ValueError(f"by names a kind twice: {', '.join(by)}")
        return by

    def reasons(self) -> tuple[str, ...]:
        """Return the names of the reasons, in the order in which they are tried."""
        return (SIGNALS_FAILED, *(repeat_reason(kind) for kind in self.by), NO_BLOCKS_LEFT)


def repeat_reason(kind: str) -> str:
    """Return the name of the reason for a repeat: `repeat.url`."""
    return f"repeat.{kind}"
