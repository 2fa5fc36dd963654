"""What a recipe says about training. Read by `carnac check`: no torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from carnac.recipe.settings import Settings


class OptimizerSettings(Settings):
    """AdamW."""

    learning_rate: float = Field(gt=0.0, description="highest learning rate, reached after the warm-up")
    # A TOML array is a list: without `strict=False` it would be no tuple.
    betas: tuple[float, float] = Field(
        default=(0.9, 0.95), strict=False, description="decay of the first and second moment"
    )
    epsilon: float = Field(default=1e-8, gt=0.0, description="added to the root of the second moment")
    weight_decay: float = Field(default=0.1, ge=0.0, description="decay of matrices; none on norms, biases, embeddings")
    clip_norm: float = Field(default=1.0, gt=0.0, description="longest gradient taken; longer ones are scaled down")
    z_loss: float = Field(default=0.0, ge=0.0, description="weight of the mean square of the logits' log-sum-exp")


class ScheduleSettings(Settings):
    """The learning rate over the steps."""

    kind: Literal["cosine"] = Field(default="cosine", description="cosine: linear warm-up, then half a cosine down")
    warmup_steps: int = Field(default=0, ge=0, description="steps of linear warm-up")
    final_ratio: float = Field(default=0.1, ge=0.0, le=1.0, description="last learning rate over the highest one")


class CheckpointSettings(Settings):
    """When the run is saved."""

    every_steps: int = Field(default=100, ge=1, description="steps between two checkpoints; the last step is saved too")
    keep_last: int = Field(default=2, ge=1, description="number of newest checkpoints that are kept")


class TrainSettings(Settings):
    """A training run."""

    steps: int = Field(ge=1, le=10_000_000, description="number of steps, one batch each")
    seed: int = Field(default=0, ge=0, description="seed of the weights and of whatever is drawn in a step")
    micro_rows: int | None = Field(
        default=None, ge=1, description="rows computed at once; fewer take less memory and give the same gradient"
    )
    threads: int = Field(
        default=2, ge=1, le=256, description="CPU threads; another number changes the last bits of a loss"
    )
    optimizer: OptimizerSettings = Field(description="the optimizer")
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings, description="the learning rate over the steps")
    checkpoints: CheckpointSettings = Field(default_factory=CheckpointSettings, description="when the run is saved")
