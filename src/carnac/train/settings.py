"""What a recipe says about training. Read by `carnac check`: no torch here."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from carnac.recipe.settings import Settings

Decay = Annotated[float, Field(ge=0.0, lt=1.0)]  # AdamW divides by 1 less its powers
RatedPart = Literal["vision", "connector", "language", "added_tokens", "adapters"]


class OptimizerSettings(Settings):
    """AdamW."""

    learning_rate: float = Field(gt=0.0, description="highest learning rate, reached after the warm-up")
    rates: dict[RatedPart, float] = Field(
        default_factory=dict,
        description="highest learning rates of single parts, by name: vision, connector, language, added_tokens, "
        "adapters; parts left out have `learning_rate`",
    )
    # A TOML array is a list: without `strict=False` it would be no tuple.
    betas: tuple[Decay, Decay] = Field(
        default=(0.9, 0.95), strict=False, description="decay of the first and second moment"
    )
    epsilon: float = Field(default=1e-8, gt=0.0, description="added to the root of the second moment")
    weight_decay: float = Field(
        default=0.1, ge=0.0, description="decay of matrices; none on norms, biases, gates, embeddings"
    )
    clip_norm: float = Field(default=1.0, gt=0.0, description="longest gradient taken; longer ones are scaled down")
    z_loss: float = Field(default=0.0, ge=0.0, description="weight of the mean square of the logits' log-sum-exp")

    @model_validator(mode="after")
    def _rates(self) -> Self:
        wrong = [name for name, rate in self.rates.items() if rate <= 0]
        if wrong:
            raise ValueError(
                f"the rate of {wrong[0]} is {self.rates[wrong[0]]}, wanted more than 0; freeze it instead."
            )
        return self


class ScheduleSettings(Settings):
    """The learning rate over the steps."""

    kind: Literal["cosine", "linear", "stable_decay"] = Field(
        default="cosine",
        description="after a linear warm-up: half a cosine down, a straight line down, or (stable_decay) the highest "
        "rate until the last decay_steps, then a straight line down",
    )
    warmup_steps: int = Field(default=0, ge=0, description="steps of linear warm-up")
    decay_steps: int | None = Field(
        default=None, ge=1, description="stable_decay only: steps of the way down at the end; default: a fifth of all"
    )
    final_ratio: float = Field(default=0.1, ge=0.0, le=1.0, description="last learning rate over the highest one")

    @model_validator(mode="after")
    def _decay(self) -> Self:
        if self.decay_steps is not None and self.kind != "stable_decay":
            raise ValueError(f"decay_steps is for kind = stable_decay, got {self.kind}; leave it out.")
        return self


class CheckpointSettings(Settings):
    """When the run is saved."""

    every_steps: int = Field(default=100, ge=1, description="steps between two checkpoints; the last step is saved too")
    keep_last: int = Field(default=2, ge=1, description="number of newest checkpoints that are kept")
    keep_every: int | None = Field(
        default=None, ge=1, description="checkpoints at multiples of so many steps are kept for good"
    )


class ComputeSettings(Settings):
    """Where and how steps are computed. Another device, precision or thread count changes a loss in its last bits."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where there is one")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="bf16: frozen weights and the arithmetic in bfloat16, trained weights and their moments in float32",
    )
    activation_checkpointing: bool = Field(
        default=False, description="layers are computed twice and their activations not kept: less memory, more time"
    )
    compile: bool = Field(default=False, description="torch.compile, on a GPU only")
    peak_tflops: float | None = Field(
        default=None, gt=0, description="what the device can do, for the utilisation (MFU); known GPUs need it not"
    )


class MonitorSettings(Settings):
    """What is looked at while a run goes on. None of it moves a weight."""

    grounding_every_steps: int | None = Field(
        default=100, ge=1, description="steps between two looks at the batch's loss with images of other samples"
    )
    evaluation_every_steps: int | None = Field(
        default=None, ge=1, description="steps between two evaluations on held-out samples (needs `heldout`)"
    )
    evaluation_samples: int = Field(
        default=256, ge=2, description="held-out samples that an evaluation looks at, the first so many"
    )
    tensorboard: bool = Field(default=False, description="whether metrics are also written for TensorBoard")


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
    compute: ComputeSettings = Field(default_factory=ComputeSettings, description="where and how steps are computed")
    monitor: MonitorSettings = Field(default_factory=MonitorSettings, description="what is looked at meanwhile")
