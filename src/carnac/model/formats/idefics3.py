"""Idefics3 and SmolVLM: SigLIP weights, pixel shuffle and one linear map, any language model; tiles with marks.

Pure mappings between our parts and transformers' `Idefics3ForConditionalGeneration`: configurations, tensor names, and
the sentence that says why a model has no place in the format. Laurencon et al. 2024, arXiv 2408.12637; Marafioti et al.
2025, arXiv 2504.05299.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from carnac.model.formats.description import Description, Reason
from carnac.model.formats.language_model import inside_of, refuse_language
from carnac.model.formats.positions import nearest_sides, numbers_patches_in_order
from carnac.model.settings import ConnectorSettings, MlpSettings, PixelShuffleSettings, VisionSettings

if TYPE_CHECKING:
    import torch

MODEL_TYPES = ("idefics3", "smolvlm")
# The same architecture, fields and tensor names under three names.
VISION_TYPES = ("siglip_vision_model", "idefics3_vision", "smolvlm_vision")
VISION_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size",
    "patch_size", "hidden_act", "layer_norm_eps", "attention_dropout",
)  # fmt: skip
VISION, TEXT, PROJECTION = "model.vision_model.", "model.text_model.", "model.connector.modality_projection.proj.weight"
POSITIONS = "embeddings.position_embedding.weight"


def reasons(described: Description) -> Iterator[Reason]:
    """Yield every reason why the format cannot express the model; none where it can. Looks at no weights."""
    vision, pictures, connector = described.settings.vision, described.pictures, described.settings.connector
    if described.vision.model_type not in VISION_TYPES:
        sentence = f"its vision tower has SigLIP weights, and this one is {described.vision.model_type}"
        yield ("model", "vision"), sentence
    if vision.feature_layer != -1:
        sentence = f"it reads the tower's last layer, and this model reads layer {vision.feature_layer}"
        yield ("model", "vision", "feature_layer"), sentence
    if vision.class_token:
        yield ("model", "vision", "class_token"), "its tower has no class token, and this model keeps one"
    if _factor(connector) is None:
        sentence = (
            f"its connector is a pixel shuffle and a linear map without bias, and this one is {_named(connector)}"
        )
        yield ("model", "connector"), sentence
    if pictures.marks != "idefics3":
        yield ("pictures", "marks"), "its processor always writes marks around pictures, and this model has none"
    side = described.patches_per_side
    if not numbers_patches_in_order(side):
        others = " or ".join(str(other * pictures.patch_px) for other in nearest_sides(side))
        sentence = (
            f"transformers' Idefics3 places {side} x {side} patches wrongly, by rounding: two of them share a position "
            f"(pictures of {pictures.size_px} px; {others} px would do)"
        )
        yield ("pictures", "size_px"), sentence
    yield from refuse_language(described.language)


def configuration(described: Description, image_id: int) -> Any:
    """Return transformers' `Idefics3Config` of a model that the format can express."""
    from transformers import Idefics3Config

    fields = {name: getattr(described.vision, name) for name in VISION_FIELDS}
    language = copy.deepcopy(described.language)
    factor = _factor(described.settings.connector)
    assert factor is not None, "the format cannot express this connector"
    padding: dict[str, Any] = {"pad_token_id": language.pad_token_id}  # else Idefics3-8B's, beyond other vocabularies
    return Idefics3Config(
        vision_config={"model_type": "idefics3_vision", **fields},
        text_config=language,
        scale_factor=factor,
        image_token_id=image_id,
        tie_word_embeddings=language.tie_word_embeddings,
        **padding,
    )


def their_tensors(
    described: Description,
    vision: Mapping[str, torch.Tensor],
    connector: Mapping[str, torch.Tensor],
    language: Mapping[str, torch.Tensor],
    body: str = "model",
) -> dict[str, torch.Tensor]:
    """Return the tensors of `Idefics3ForConditionalGeneration`, by name.

    `vision` and `language` are the backbones' tensors under transformers' own names, `connector` ours; `body` is where
    the language model keeps all but its output layer.
    """
    found = {VISION + _bare(name): tensor for name, tensor in vision.items() if not _bare(name).startswith("head.")}
    shuffled = isinstance(described.settings.connector, PixelShuffleSettings)
    found[PROJECTION] = connector["projection.weight" if shuffled else "down.weight"]
    return found | inside_of(TEXT, language, body)


def our_vision(config: Any) -> Any:
    """Return the `SiglipVisionConfig` that computes what the tower of an `Idefics3Config` does."""
    from transformers import SiglipVisionConfig

    fields = {name: getattr(config.vision_config, name) for name in VISION_FIELDS}
    # 384 px of 14 px patches (SmolVLM-2.2B) are 27 patches and a rest that no patch sees: 378 px.
    fields["image_size"] -= fields["image_size"] % fields["patch_size"]
    return SiglipVisionConfig(vision_use_head=False, **fields)


def our_settings(config: Any) -> tuple[VisionSettings, ConnectorSettings]:
    """Return the settings of tower and connector of an `Idefics3Config`."""
    return (
        VisionSettings(type="siglip_vision_model"),
        PixelShuffleSettings(type="pixel_shuffle", factor=config.scale_factor),
    )


def our_tensors(
    config: Any, tensors: Mapping[str, torch.Tensor], body: str = "model"
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the tensors of vision tower, connector and language model under our names; the inverse of the above.

    The tower's table of positions is put into the order in which transformers uses its rows on this machine.
    """
    vision, language = {}, {}
    for name, tensor in tensors.items():
        if name.startswith(VISION):
            vision[name.removeprefix(VISION)] = tensor
        elif name.startswith(TEXT):
            language[f"{body}.{name.removeprefix(TEXT)}"] = tensor
        elif name != PROJECTION:
            language[name] = tensor
    vision[POSITIONS] = vision[POSITIONS][used_positions(config.vision_config)]
    return vision, {"projection.weight": tensors[PROJECTION]}, language


def used_positions(config: Any) -> torch.Tensor:
    """Return int64 [P], the row that transformers looks up for each patch of a whole square."""
    import torch

    side = config.image_size // config.patch_size
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    fractions = torch.arange(side, dtype=torch.float32) * (1.0 / torch.tensor([side]))
    places = torch.bucketize(fractions.clamp(max=1.0 - 1e-6), boundaries, right=True)
    positions: torch.Tensor = (places[:, None] * side + places).flatten()
    return positions


def _bare(name: str) -> str:
    return name.removeprefix("vision_model.")


def _factor(connector: ConnectorSettings) -> int | None:
    if isinstance(connector, PixelShuffleSettings):
        return connector.factor
    is_linear = isinstance(connector, MlpSettings) and connector.layers == 1 and not connector.bias
    return 1 if is_linear else None


def _named(connector: ConnectorSettings) -> str:
    if isinstance(connector, MlpSettings):
        return "one linear map with bias" if connector.layers == 1 else "an MLP"
    return f"a {connector.type}"
