"""What a recipe may set about the extraction of pages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from carnac.recipe.settings import Settings


class ExtractSettings(Settings):
    """How pages become documents."""

    scope: Literal["main", "page"] = Field(
        default="main",
        description="`main`: the article and its pictures. `page`: the whole page by the rules published with OBELICS.",
    )
    comments: bool = Field(default=False, description="Whether the comments of readers are kept (of scope `main`).")
    plain: bool = Field(
        default=False,
        description="Whether lists and tables are bare lines, cells parted by a tab, without marks (of scope `main`).",
    )
    max_source_width_px: int | None = Field(
        default=None,
        gt=0,
        description="Of a `srcset` or `<picture>` the widest candidate that is no wider; left out, `src` where it "
        "names a picture (of scope `main`).",
    )
    mend_text: bool = Field(default=False, description="Whether text that was decoded twice is mended, by ftfy.")
    max_page_bytes: int = Field(
        default=10_000_000, gt=0, description="Pages of more bytes, decompressed, are refused as `page_too_large`."
    )
    language_characters: int = Field(
        default=1000, gt=0, description="How many characters of a document's text the language is told from."
    )
