"""How pieces are packed into rows and rows into batches."""

from __future__ import annotations

from pydantic import Field

from carnac.recipe.settings import Settings


class MixSettings(Settings):
    """The shape of a batch and the order of the data."""

    row_tokens: int = Field(
        default=512, ge=2, description="positions of a row: the model's context, image tokens included"
    )
    row_images: int = Field(
        default=8,
        ge=0,
        description="images of a row at most, a tile counting as one; bounds the work of the vision tower",
    )
    rows_per_batch: int = Field(default=8, ge=1, description="rows of a global batch, over all processes")
    pieces_per_block: int = Field(
        default=16384,
        ge=1,
        description="pieces packed together: an epoch is shuffled, cut into blocks and packed block by block",
    )
    seed: int = Field(default=0, ge=0, description="draws the order of the pieces, anew for each epoch")
