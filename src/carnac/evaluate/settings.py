"""Settings of the grounding evaluation."""

from __future__ import annotations

from pydantic import Field

from carnac.recipe.settings import Settings


class GroundingSettings(Settings):
    """Next-token loss with the right images, with those of other documents, and with none."""

    seed: int = Field(default=0, ge=0, description="draws the images of other documents and the bootstrap")
    resamples: int = Field(default=10_000, ge=100, description="bootstrap resamples for the 95 % intervals")
