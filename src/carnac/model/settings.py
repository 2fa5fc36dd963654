"""What a recipe says about the model. Read by `carnac check`: no torch, no transformers here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from carnac.recipe.settings import Settings

ConfigValue = int | float | bool | str


class TowerSettings(Settings):
    """A backbone built with random weights from one of transformers' configuration classes."""

    type: str = Field(description="transformers' model_type, such as siglip_vision_model or llama")
    config: dict[str, ConfigValue] = Field(
        default_factory=dict, description="fields of transformers' configuration class; its defaults fill the rest"
    )


class ConnectorSettings(Settings):
    """The map from a picture's patches to the language model's width."""

    type: Literal["mlp"] = Field(default="mlp", description="mlp: two linear layers with a GELU between")
    hidden_size: int = Field(gt=0, description="width of the hidden layer")


class ModelSettings(Settings):
    """A model: a vision tower, a connector, a language model, and how they are joined."""

    family: Literal["autoregressive"] = Field(
        default="autoregressive", description="autoregressive: each picture takes places in the token sequence"
    )
    vision: TowerSettings = Field(description="the vision tower")
    connector: ConnectorSettings = Field(description="what joins the two")
    language: TowerSettings = Field(description="the language model")


class GenerationSettings(Settings):
    """How new tokens are chosen."""

    max_new_tokens: int = Field(default=128, ge=1, description="stop after this many tokens")
    temperature: float = Field(default=0.0, ge=0.0, description="0 takes the likeliest token; higher draws more freely")
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, description="draw among the likeliest tokens that together reach this probability"
    )
    seed: int = Field(default=0, ge=0, description="seed of the draws")
