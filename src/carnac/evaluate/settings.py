"""Settings of the evaluations."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from carnac.recipe.settings import Settings


class GroundingSettings(Settings):
    """Next-token loss with the right images, with those of other documents, and with none."""

    seed: int = Field(default=0, ge=0, description="draws the images of other documents and the bootstrap")
    resamples: int = Field(default=10_000, ge=100, description="bootstrap resamples for the 95 % intervals")


class QuestionSettings(Settings):
    """Questions answered with the right pictures, with those of other conversations, and with none."""

    max_new_tokens: int = Field(default=32, ge=1, description="an answer ends after so many tokens at the latest")
    prompts_at_once: int = Field(default=24, ge=3, description="prompts that are answered side by side")
    kinds: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="kinds of questions by their answers, such as colour = ['red', 'blue']; beside yes and no the "
        "others are found: answers to one and the same question are of one kind",
    )
    seed: int = Field(default=0, ge=0, description="draws the pictures of other conversations and the bootstrap")
    resamples: int = Field(default=10_000, ge=100, description="bootstrap resamples for the 95 % intervals")

    @model_validator(mode="after")
    def _one_kind_each(self) -> Self:
        answers = [answer for kind in self.kinds.values() for answer in {each.strip().lower() for each in kind}]
        twice = sorted({answer for answer in answers if answers.count(answer) > 1})
        if twice:
            raise ValueError(f"kinds: {twice[0]!r} stands in two of them; wanted each answer in one.")
        if "all" in self.kinds:
            raise ValueError("kinds: all is what the questions together are called; wanted another name.")
        return self
