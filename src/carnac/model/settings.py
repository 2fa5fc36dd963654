"""What a recipe says about the model. Read by `carnac check`: no torch, no transformers here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from carnac.core.errors import InputError
from carnac.recipe.settings import Settings

ConfigValue = int | float | bool | str
Part = Literal["vision", "connector", "language", "added_tokens"]
PARTS: tuple[Part, ...] = ("vision", "connector", "language", "added_tokens")
NORM_EPSILON = 1e-6  # of the perceiver's norms, as in transformers' Idefics2


class TowerSettings(Settings):
    """A backbone: one of transformers' configuration classes with random weights, or a folder with trained ones."""

    type: str | None = Field(
        default=None, description="random weights: transformers' model_type, such as siglip_vision_model or llama"
    )
    config: dict[str, ConfigValue] = Field(
        default_factory=dict, description="fields of transformers' configuration class; its defaults fill the rest"
    )
    folder: Path | None = Field(
        default=None, description="trained weights: a folder as transformers saves it (config.json, safetensors)"
    )
    hub: str | None = Field(
        default=None, description="trained weights: a name on the Hugging Face hub, which is fetched over the network"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [name for name in ("type", "folder", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            raise ValueError(f"wanted one of type (random weights), folder or hub (trained weights); got {got}.")
        if self.config and self.type is None:
            raise ValueError(f"config is for random weights (type); {given[0]} brings its own: leave config out.")
        return self


class VisionSettings(TowerSettings):
    """A vision tower, and which of its features the connector reads."""

    feature_layer: int = Field(
        default=-1,
        description="-1: the last layer, with the tower's final norm; -2, -3 ... or 1, 2 ...: the output of that layer "
        "as it is, counted as in transformers' hidden_states (LLaVA-1.5 reads -2)",
    )
    class_token: bool = Field(default=False, description="whether the class token is kept as one more patch")


class MlpSettings(Settings):
    """One patch, one token: linear layers with a GELU between (LLaVA-1.5)."""

    type: Literal["mlp"] = Field(default="mlp", description="mlp: linear layers with a GELU between; patch = token")
    hidden_size: int | None = Field(
        default=None, gt=0, description="width of the hidden layer; left out, the language model's (as in LLaVA)"
    )
    layers: Literal[1, 2] = Field(default=2, description="2, or 1 for a single linear map")
    bias: bool = Field(default=True, description="whether the layers have a bias")


class PerceiverSettings(Settings):
    """A gated MLP, then latents that read the patches by cross-attention: a fixed number of tokens (Idefics2)."""

    type: Literal["perceiver"] = Field(description="perceiver: a gated MLP and a perceiver resampler")
    hidden_size: int | None = Field(
        default=None, gt=0, description="width of the gated MLP's hidden layer; left out, the language model's"
    )
    hidden_like_language: bool = Field(
        default=False,
        exclude_if=lambda value: not value,  # as of norm_epsilon
        description="whether that layer is as wide as those inside the language model's own MLPs (Idefics2); then "
        "hidden_size is left out",
    )
    latents: int = Field(default=64, ge=1, description="image tokens of each picture or tile")
    depth: int = Field(default=3, ge=1, description="layers of the resampler")
    heads: int = Field(default=16, ge=1, description="attention heads")
    head_size: int = Field(default=96, ge=1, description="width of a head")
    kv_heads: int = Field(default=4, ge=1, description="heads of keys and values; divides `heads`")
    norm_epsilon: float = Field(
        default=NORM_EPSILON,
        gt=0.0,
        exclude_if=lambda value: value == NORM_EPSILON,  # so that stored digests stay what they were before it
        description="what the RMS norms add to the mean square (Idefics2-8b: 1e-5)",
    )

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.hidden_like_language and self.hidden_size is not None:
            raise ValueError(
                f"hidden_size = {self.hidden_size} and hidden_like_language exclude one another; leave one out."
            )
        return self


class PixelShuffleSettings(Settings):
    """Squares of neighbouring patches become one token, then one linear map (Idefics3, SmolVLM)."""

    type: Literal["pixel_shuffle"] = Field(description="pixel_shuffle: factor x factor patches become one token")
    factor: int = Field(default=2, ge=1, description="side of the square of patches that becomes one token")


class ResamplerSettings(Settings):
    """Latents that read the patches at the tower's own width (Flamingo, Idefics); for cross-attention."""

    type: Literal["resampler"] = Field(description="resampler: a perceiver resampler of the tower's width")
    latents: int = Field(default=64, ge=1, description="latents of each picture or tile")
    depth: int = Field(default=6, ge=1, description="layers of the resampler")
    heads: int = Field(default=16, ge=1, description="attention heads")
    head_size: int = Field(default=96, ge=1, description="width of a head")
    qk_norms: bool = Field(default=True, description="whether queries and keys are normed, head by head")


ConnectorSettings = Annotated[
    MlpSettings | PerceiverSettings | PixelShuffleSettings | ResamplerSettings, Field(discriminator="type")
]


class CrossAttentionSettings(Settings):
    """Gated cross-attention before every n-th layer of the language model (Flamingo, Idefics)."""

    every: int = Field(default=4, ge=1, description="a block stands before layers 0, every, 2 x every ...")
    attend: Literal["previous", "next", "earlier"] = Field(
        default="previous",
        description="which images of its document a token reads: the last one at or before it, the first one at or "
        "after it, or all at or before it",
    )
    p_next: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="share of the pieces that read the next image and not the previous one while training (Flamingo)",
    )
    gates: Literal["scalar", "vector"] = Field(
        default="scalar",
        description="scalar: a gate for attention and a gate for the MLP of a block; vector: D of each",
    )
    gate_start: float = Field(default=0.0, description="where gates start; tanh of it is what a block adds at first")
    gate_spread: float = Field(default=0.0, ge=0.0, description="standard deviation of the gates at the start")
    qk_norms: bool = Field(default=True, description="whether queries and keys are RMS-normed, head by head")
    mlp: Literal["swiglu", "gelu"] = Field(default="swiglu", description="the MLP of a block")
    hidden_size: int | None = Field(
        default=None, gt=0, description="width inside that MLP; left out, that of the language model's own"
    )
    heads: int | None = Field(
        default=None, ge=1, description="attention heads of a block; left out, as many as the language model has"
    )
    text_tokens: Literal["untouched", "mlp"] = Field(
        default="untouched",
        description="tokens that read no image: untouched: they pass a block as they are, so that text alone is the "
        "language model's to the bit; mlp: they go through the block's MLP (Flamingo, Idefics)",
    )
    mask: Literal["exact", "uniform"] = Field(
        default="exact",
        description="exact: a token that reads no image gets zero from it; uniform: it gets the mean of all images of "
        "its row, the leak that transformers' Idefics had until 2023 (for comparison only: recipes/image-mask)",
    )


class AdapterSettings(Settings):
    """LoRA (Hu et al. 2021) or DoRA (Liu et al. 2024) on chosen parts of the backbones, through peft."""

    rank: int = Field(default=64, ge=1, description="rank of the two factors")
    alpha: float = Field(default=16.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout before the first factor")
    dora: bool = Field(default=False, description="whether magnitudes are learned apart from directions (DoRA)")
    vision: tuple[str, ...] = Field(
        default=(), description="ends of the names of linear layers of the vision tower that are adapted, as q_proj"
    )
    language: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="ends of the names of linear layers of the language model that are adapted",
    )


class ModelSettings(Settings):
    """A model: a vision tower, a connector, a language model, and how they are joined."""

    family: Literal["autoregressive", "cross_attention"] = Field(
        default="autoregressive",
        description="autoregressive: each picture takes places in the token sequence; cross_attention: one place, and "
        "blocks between the layers of the language model read it",
    )
    vision: VisionSettings = Field(description="the vision tower")
    connector: ConnectorSettings = Field(default=MlpSettings(), description="what joins the two")
    language: TowerSettings = Field(description="the language model")
    cross_attention: CrossAttentionSettings | None = Field(
        default=None, description="the blocks of the family cross_attention; left out, as by default"
    )
    trained: tuple[Part, ...] = Field(
        default=PARTS, description="parts whose weights are trained; the others are frozen, to the bit"
    )
    adapters: AdapterSettings | None = Field(default=None, description="adapters on backbones that are frozen")

    @model_validator(mode="after")
    def _blocks_of_their_family(self) -> Self:
        if self.cross_attention is not None and self.family != "cross_attention":
            raise ValueError('[model.cross_attention] is of family = "cross_attention"; set that, or leave it out.')
        return self

    def over(self, language: object) -> Self:
        """Return these settings with the width that the connector takes from a language model's configuration.

        Raises InputError where the configuration names none.
        """
        connector = self.connector
        if not isinstance(connector, PerceiverSettings) or not connector.hidden_like_language:
            return self
        inside = getattr(language, "intermediate_size", None)
        if not isinstance(inside, int):
            kind = getattr(language, "model_type", "model")
            raise InputError(
                f"model.connector.hidden_like_language: this {kind} does not say how wide its MLPs are inside; set "
                "hidden_size instead."
            )
        widened = connector.model_copy(update={"hidden_size": inside, "hidden_like_language": False})
        return self.model_copy(update={"connector": widened})

    @property
    def blocks(self) -> CrossAttentionSettings:
        """The settings of the cross-attention blocks, also where the recipe leaves them all out."""
        return self.cross_attention or CrossAttentionSettings()


class GenerationSettings(Settings):
    """How new tokens are chosen."""

    max_new_tokens: int = Field(default=128, ge=1, description="stop after this many tokens")
    temperature: float = Field(default=0.0, ge=0.0, description="0 takes the likeliest token; higher draws more freely")
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, description="draw among the likeliest tokens that together reach this probability"
    )
    seed: int = Field(default=0, ge=0, description="seed of the draws")
    stop: tuple[str, ...] = Field(default=(), description="texts that end an answer; they are not part of it")
