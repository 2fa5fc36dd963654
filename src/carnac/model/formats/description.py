"""What a model is made of, as far as a format must know it; no torch at import.

Made from a recipe before training (`carnac check`) or from a model (`carnac export`): the same rules look at both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from carnac.model.settings import ModelSettings
from carnac.sequence.settings import PictureSettings

if TYPE_CHECKING:
    from carnac.model.multimodal import MultimodalModel

Reason = tuple[tuple[str, ...], str]  # place in a train recipe, and the sentence

# Tokens before the patches (class token, distillation token) by transformers' model_type; registers come on top.
LEADING_TOKENS = {
    "siglip_vision_model": 0, "siglip2_vision_model": 0, "aimv2_vision_model": 0, "ijepa": 0, "clip_vision_model": 1,
    "idefics2_vision": 0, "vit": 1, "dinov2": 1, "dinov2_with_registers": 1, "dinov3_vit": 1, "beit": 1, "deit": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A model's settings and what follows from them.

    `vision` and `language` are transformers' configurations of the two backbones. `leading_tokens` is the number of
    features before the patches, class and register tokens; None where only a built tower can tell. `added_rows` is the
    number of added tokens beyond the language model's own table: 0 where that is not built.
    """

    settings: ModelSettings
    vision: Any
    language: Any
    pictures: PictureSettings
    leading_tokens: int | None
    added_rows: int = 0

    @property
    def patches_per_side(self) -> int:
        """Patches along a side of a square."""
        return int(self.pictures.size_px // self.pictures.patch_px)


def describe_settings(settings: ModelSettings, vision: Any, language: Any, pictures: PictureSettings) -> Description:
    """Describe a model that is not built yet, from the configurations of its backbones."""
    leading = LEADING_TOKENS.get(vision.model_type)
    registers = int(getattr(vision, "num_register_tokens", 0) or 0)
    return Description(
        settings=settings,
        vision=vision,
        language=language,
        pictures=pictures,
        leading_tokens=None if leading is None else leading + registers,
    )


def describe_model(model: MultimodalModel, pictures: PictureSettings) -> Description:
    """Describe a model; its tower is run on one blank square to see what comes before the patches."""
    import torch

    from carnac.model.added_tokens import added_ids_of, base_rows
    from carnac.model.vision import num_patches

    described = describe_settings(model.settings, model.vision.config, model.language.config, pictures)
    if added_ids_of(model.language):
        described = replace(described, added_rows=model.language.config.vocab_size - base_rows(model.language))
    if described.leading_tokens is not None:
        return described
    blank = torch.zeros(1, 3, model.image_size_px, model.image_size_px, device=model.device)
    with torch.no_grad():
        length = model.vision(pixel_values=blank).last_hidden_state.shape[1]
    return replace(described, leading_tokens=length - num_patches(model.vision.config))
