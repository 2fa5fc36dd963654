"""Settings of the samples."""

from __future__ import annotations

from pydantic import Field

from carnac.recipe.settings import Settings


class SplitSettings(Settings):
    """The held-out split."""

    held_out: float = Field(default=0.05, ge=0, lt=1, description="share of documents kept apart for evaluation")
    seed: int = Field(default=0, description="another seed gives another split")
