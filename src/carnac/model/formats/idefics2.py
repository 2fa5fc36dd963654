"""Idefics2: SigLIP weights, pictures of any shape or squares, gated MLP and perceiver, any language model with SiLU.

Pure mappings between our parts and transformers' `Idefics2ForConditionalGeneration`: configurations, tensor names, and
the sentence that says why a model has no place in the format. Laurencon et al. 2024, arXiv 2405.02246.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from carnac.core.errors import InputError
from carnac.model.formats.description import Description, Reason
from carnac.model.formats.idefics3 import VISION_FIELDS
from carnac.model.formats.idefics3 import VISION_TYPES as SQUARE_TYPES
from carnac.model.formats.language_model import inside_of, refuse_language
from carnac.model.formats.positions import nearest_sides, numbers_patches_in_order
from carnac.model.settings import ConnectorSettings, PerceiverSettings, VisionSettings

if TYPE_CHECKING:
    import torch

MODEL_TYPES = ("idefics2",)
NATIVE = "idefics2_vision"
# The same architecture, fields and tensor names; only the last one takes pictures of any shape here.
VISION_TYPES = (*(kind for kind in SQUARE_TYPES if kind != NATIVE), NATIVE)
VISION, TEXT, CONNECTOR = "model.vision_model.", "model.text_model.", "model.connector."
ACTIVATIONS = ("silu", "swish")  # two names of one function, the one of our gated MLP
# Ours -> theirs, word by word; where the gated MLP and the resampler begin is told apart by `_their_name`.
WORDS = {
    "latent_norm": "input_latents_norm",
    "patch_norm": "input_context_norm",
    "attention": "self_attn",
    "mlp_norm": "post_attention_layernorm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "output": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}
OUR_WORDS = {theirs: ours for ours, theirs in WORDS.items()}
MLP, RESAMPLER = "modality_projection.", "perceiver_resampler."


def reasons(described: Description) -> Iterator[Reason]:
    """Yield every reason why the format cannot express the model; none where it can. Looks at no weights."""
    vision = described.settings.vision
    if described.vision.model_type not in VISION_TYPES:
        sentence = f"its vision tower has SigLIP weights, and this one is {described.vision.model_type}"
        yield ("model", "vision"), sentence
    if vision.feature_layer != -1:
        sentence = f"it reads the tower's last layer, and this model reads layer {vision.feature_layer}"
        yield ("model", "vision", "feature_layer"), sentence
    if vision.class_token:
        yield ("model", "vision", "class_token"), "its tower has no class token, and this model keeps one"
    yield from _refuse_connector(described)
    yield from _refuse_pictures(described)
    yield from refuse_language(described.language)


def _refuse_connector(described: Description) -> Iterator[Reason]:
    connector, language = described.settings.connector, described.language
    if not isinstance(connector, PerceiverSettings):
        sentence = f"its connector is a gated MLP and a perceiver, and this one is of type {connector.type}"
        yield ("model", "connector"), sentence
        return
    inside, activation = getattr(language, "intermediate_size", None), getattr(language, "hidden_act", None)
    if activation not in ACTIVATIONS or not isinstance(inside, int):
        found = "has none" if activation is None or not isinstance(inside, int) else f"has {activation}"
        sentence = (
            "its connector takes width and activation from the language model's gated MLP, wanted silu, and this "
            f"{language.model_type} {found}"
        )
        yield ("model", "language"), sentence
    elif (connector.hidden_size or language.hidden_size) > inside:
        sentence = (
            f"its gated MLP is as wide inside as that of the language model, {inside}, and this one has "
            f"{connector.hidden_size or language.hidden_size} (narrower would do)"
        )
        yield ("model", "connector", "hidden_size"), sentence


def _refuse_pictures(described: Description) -> Iterator[Reason]:
    pictures, side = described.pictures, described.patches_per_side
    if pictures.marks != "idefics2":
        yield ("pictures", "marks"), 'its processor writes Idefics2\'s marks around pictures (marks = "idefics2")'
    if described.vision.model_type != NATIVE and not numbers_patches_in_order(side):
        others = " or ".join(str(other * pictures.patch_px) for other in nearest_sides(side))
        sentence = (
            f"transformers' Idefics2 places {side} x {side} patches wrongly, by rounding: two of them share a position "
            f"(pictures of {pictures.size_px} px; {others} px would do)"
        )
        yield ("pictures", "size_px"), sentence


def configuration(described: Description, image_id: int) -> Any:
    """Return transformers' `Idefics2Config` of a model that the format can express."""
    from transformers import Idefics2Config

    connector, language = described.settings.connector, copy.deepcopy(described.language)
    assert isinstance(connector, PerceiverSettings), "the format cannot express this connector"
    perceiver: dict[str, Any] = {
        # Where the width is not the language model's, transformers takes another epsilon too.
        "hidden_size": language.hidden_size,
        "rms_norm_eps": connector.norm_epsilon,
        "resampler_n_latents": connector.latents,
        "resampler_depth": connector.depth,
        "resampler_n_heads": connector.heads,
        "resampler_head_dim": connector.head_size,
        "num_key_value_heads": connector.kv_heads,
    }
    return Idefics2Config(
        vision_config={name: getattr(described.vision, name) for name in VISION_FIELDS},
        perceiver_config=perceiver,
        text_config=language,
        image_token_id=image_id,
        tie_word_embeddings=language.tie_word_embeddings,
    )


def their_tensors(
    described: Description,
    vision: Mapping[str, torch.Tensor],
    connector: Mapping[str, torch.Tensor],
    language: Mapping[str, torch.Tensor],
    body: str = "model",
) -> dict[str, torch.Tensor]:
    """Return the tensors of `Idefics2ForConditionalGeneration`, by name; arguments as in `idefics3.their_tensors`.

    A gated MLP that is narrower than the language model's is filled up with zeros, which is exact: silu(0) x 0 = 0.
    """
    from torch.nn.functional import pad

    found = {VISION + _bare(name): tensor for name, tensor in vision.items() if not _bare(name).startswith("head.")}
    missing = int(described.language.intermediate_size) - len(connector["mlp.gate.weight"])
    for name, tensor in connector.items():
        if missing and name.startswith("mlp."):
            tensor = pad(tensor, (0, missing) if name == "mlp.down.weight" else (0, 0, 0, missing))  # noqa: PLW2901
        found[CONNECTOR + _their_name(name)] = tensor
    return found | inside_of(TEXT, language, body)


def our_vision(config: Any) -> Any:
    """Return the configuration of the tower of an `Idefics2Config`, whole patches only: its own class is ours."""
    from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig

    fields = {name: getattr(config.vision_config, name) for name in VISION_FIELDS}
    fields["image_size"] -= fields["image_size"] % fields["patch_size"]
    return Idefics2VisionConfig(**fields)


def our_settings(config: Any) -> tuple[VisionSettings, ConnectorSettings]:
    """Return the settings of tower and connector of an `Idefics2Config`; raise InputError for what ours cannot be."""
    perceiver, language = config.perceiver_config, config.text_config
    activations = {"perceiver_config": perceiver.hidden_act, "text_config": getattr(language, "hidden_act", None)}
    for name, activation in activations.items():
        if activation not in ACTIVATIONS:
            raise InputError(
                f"{name}.hidden_act: {activation!r}; wanted 'silu', as the connector of Idefics2-8b has it"
            )
    if perceiver.resampler_n_heads % perceiver.num_key_value_heads:
        heads, groups = perceiver.resampler_n_heads, perceiver.num_key_value_heads
        raise InputError(f"perceiver_config.num_key_value_heads: {groups}; wanted a divisor of the {heads} heads")
    return (
        VisionSettings(type="siglip_vision_model"),
        PerceiverSettings(
            type="perceiver",
            hidden_size=language.intermediate_size,
            latents=perceiver.resampler_n_latents,
            depth=perceiver.resampler_depth,
            heads=perceiver.resampler_n_heads,
            head_size=perceiver.resampler_head_dim,
            kv_heads=perceiver.num_key_value_heads,
            norm_epsilon=perceiver.rms_norm_eps,
        ),
    )


def our_tensors(
    _config: Any, tensors: Mapping[str, torch.Tensor], body: str = "model"
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the tensors of vision tower, connector and language model under our names; the inverse of the above."""
    vision, connector, language = {}, {}, {}
    for name, tensor in tensors.items():
        if name.startswith(VISION):
            vision[name.removeprefix(VISION)] = tensor
        elif name.startswith(TEXT):
            language[f"{body}.{name.removeprefix(TEXT)}"] = tensor
        elif name.startswith(CONNECTOR):
            connector[_our_name(name.removeprefix(CONNECTOR))] = tensor
        else:
            language[name] = tensor
    return vision, connector, language


def _their_name(name: str) -> str:
    words = ".".join(WORDS.get(word, word) for word in name.split("."))
    return MLP + words.removeprefix("mlp.") if words.startswith("mlp.") else RESAMPLER + words


def _our_name(name: str) -> str:
    ours = f"mlp.{name.removeprefix(MLP)}" if name.startswith(MLP) else name.removeprefix(RESAMPLER)
    return ".".join(OUR_WORDS.get(word, word) for word in ours.split("."))


def _bare(name: str) -> str:
    return name.removeprefix("vision_model.")
