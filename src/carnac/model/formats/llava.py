"""LLaVA: any vision tower, any language model, one token per patch through an MLP; whole pictures without marks.

Pure mappings between our parts and transformers' `LlavaForConditionalGeneration`: configurations, tensor names, and the
sentence that says why a model has no place in the format. Liu et al. 2023, arXiv 2310.03744.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from carnac.core.errors import InputError
from carnac.model.formats.description import LEADING_TOKENS, Description, Reason
from carnac.model.formats.language_model import inside_of, refuse_language
from carnac.model.settings import ConnectorSettings, MlpSettings, VisionSettings

if TYPE_CHECKING:
    import torch

MODEL_TYPES = ("llava",)
VISION, TEXT, PROJECTOR = "model.vision_tower.", "model.language_model.", "model.multi_modal_projector."
# Towers that norm their last layer outside of what the class reads; the others keep the norm in reach.
NORM_OUTSIDE = ("dinov2", "dinov2_with_registers", "dinov3_vit")
CUT_BEFORE = "siglip2_vision_model"  # takes patches already cut and their grid, which LLaVA's class does not pass


def reasons(described: Description) -> Iterator[Reason]:
    """Yield every reason why the format cannot express the model; none where it can. Looks at no weights."""
    connector, leading = described.settings.connector, described.leading_tokens
    kind, width = described.vision.model_type, described.language.hidden_size
    if kind == CUT_BEFORE:
        sentence = f"its class shows the tower whole pictures, and {kind} takes patches that were cut before"
        yield ("model", "vision"), sentence
    if kind in NORM_OUTSIDE and described.settings.vision.feature_layer == -1:
        layers = described.vision.num_hidden_layers
        sentence = f"it reads layers of {kind} before the last norm, and this model behind it ({layers} or -2 would do)"
        yield ("model", "vision", "feature_layer"), sentence
    if not isinstance(connector, MlpSettings):
        sentence = f"its connector is an MLP that keeps every patch, and this one is a {connector.type}"
        yield ("model", "connector"), sentence
    elif connector.layers == 2 and (connector.hidden_size or width) > width:
        inside = connector.hidden_size
        sentence = f"its connector is no wider inside than the language model, {width}, and this one has {inside}"
        yield ("model", "connector", "hidden_size"), sentence
    if leading is not None and (leading > 1 or (described.settings.vision.class_token and leading == 0)):
        yield ("model", "vision"), f"it can drop one token before the patches or none, and {kind} has {leading}"
    if described.pictures.max_tiles > 1:
        sentence = "it shows whole pictures only, and this model cuts them into tiles (max_tiles = 1 would do)"
        yield ("pictures", "max_tiles"), sentence
    if described.pictures.marks != "none":
        yield ("pictures", "marks"), "its processor writes no marks around pictures, and this model has them"
    yield from refuse_language(described.language)


def configuration(described: Description, image_id: int) -> Any:
    """Return transformers' `LlavaConfig` of a model that the format can express."""
    from transformers import LlavaConfig

    settings, connector = described.settings.vision, described.settings.connector
    assert isinstance(connector, MlpSettings)
    vision, language = copy.deepcopy(described.vision), copy.deepcopy(described.language)
    # The class reads hidden states, which in most towers stop before the final norm; ours reads behind it.
    vision.tie_last_hidden_states = settings.feature_layer == -1
    return LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=image_id,
        image_seq_length=described.patches_per_side**2 + int(settings.class_token),
        projector_hidden_act="gelu" if connector.layers == 2 else "linear",
        vision_feature_select_strategy=select_strategy(described),
        vision_feature_layer=settings.feature_layer,
        multimodal_projector_bias=connector.bias,
        tie_word_embeddings=language.tie_word_embeddings,
    )


def select_strategy(described: Description) -> Literal["default", "full"]:
    """Return the format's word for which features are kept: `default` drops the first, `full` keeps all."""
    dropped = (described.leading_tokens or 0) - int(described.settings.vision.class_token)
    return "default" if dropped else "full"


def their_tensors(
    described: Description,
    vision: Mapping[str, torch.Tensor],
    connector: Mapping[str, torch.Tensor],
    language: Mapping[str, torch.Tensor],
    body: str = "model",
) -> dict[str, torch.Tensor]:
    """Return the tensors of `LlavaForConditionalGeneration`, by name; arguments as in `idefics3.their_tensors`.

    A narrower connector is filled up with zeros and a single linear map followed by the identity: both exact.
    """
    found = {VISION + name: tensor for name, tensor in vision.items()}
    for name, tensor in _projector(connector, described.language.hidden_size).items():
        found[PROJECTOR + name] = tensor
    return found | inside_of(TEXT, language, body)


def our_vision(config: Any) -> Any:
    """Return the configuration of the tower of a `LlavaConfig`, whole patches only."""
    vision = copy.deepcopy(config.vision_config)
    vision.image_size -= vision.image_size % vision.patch_size
    return vision


def our_settings(config: Any) -> tuple[VisionSettings, ConnectorSettings]:
    """Return the settings of tower and connector of a `LlavaConfig`; raise InputError for what ours cannot express."""
    kind, layer = config.vision_config.model_type, config.vision_feature_layer
    if not isinstance(layer, int):
        raise InputError(f"vision_feature_layer: reads several layers {layer}; wanted one")
    if config.projector_hidden_act not in ("gelu", "linear"):
        raise InputError(f"projector_hidden_act: {config.projector_hidden_act!r}; wanted 'gelu', or 'linear'")
    leading = LEADING_TOKENS.get(kind, 0) + int(getattr(config.vision_config, "num_register_tokens", 0) or 0)
    dropped = int(config.vision_feature_select_strategy == "default")
    if leading - dropped not in (0, 1) or (leading > 1 and dropped != leading):
        raise InputError(
            f"vision_feature_select_strategy: {config.vision_feature_select_strategy!r} drops {dropped} of the "
            f"{leading} tokens that {kind} puts before its patches; wanted the patches, with or without a class token"
        )
    if layer == -1 and not getattr(config.vision_config, "tie_last_hidden_states", False):
        layer = config.vision_config.num_hidden_layers  # the same layer, before the final norm
    return (
        VisionSettings(type=kind, feature_layer=layer, class_token=leading > dropped),
        MlpSettings(
            layers=2 if config.projector_hidden_act == "gelu" else 1,
            bias=config.multimodal_projector_bias,
        ),
    )


def our_tensors(
    config: Any, tensors: Mapping[str, torch.Tensor], body: str = "model"
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the tensors of vision tower, connector and language model under our names; the inverse of the above.

    Raises InputError where a linear connector is two maps of which the second is not the identity.
    """
    vision, connector, language = {}, {}, {}
    for name, tensor in tensors.items():
        if name.startswith(VISION):
            vision[name.removeprefix(VISION)] = tensor
        elif name.startswith(TEXT):
            language[f"{body}.{name.removeprefix(TEXT)}"] = tensor
        elif name.startswith(PROJECTOR):
            ours = name.removeprefix(PROJECTOR).replace("linear_1", "up").replace("linear_2", "down")
            connector[ours] = tensor
        else:
            language[name] = tensor
    if config.projector_hidden_act == "linear":
        connector = _single(connector)
    return vision, connector, language


def _projector(connector: Mapping[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    import torch
    from torch.nn.functional import pad

    first, last = ("up", "down") if "up.weight" in connector else ("down", None)
    missing = width - len(connector[f"{first}.weight"])
    found = {"linear_1.weight": pad(connector[f"{first}.weight"], (0, 0, 0, missing))}
    # GELU maps the zeros of the rows that fill up to zeros.
    found["linear_2.weight"] = (
        torch.eye(width, dtype=found["linear_1.weight"].dtype)
        if last is None
        else pad(connector[f"{last}.weight"], (0, missing))
    )
    if f"{first}.bias" in connector:
        found["linear_1.bias"] = pad(connector[f"{first}.bias"], (0, missing))
        found["linear_2.bias"] = torch.zeros(width) if last is None else connector[f"{last}.bias"]
    return found


def _single(connector: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    import torch

    second = connector["down.weight"]
    bias = connector.get("down.bias")
    if not torch.equal(second, torch.eye(len(second), dtype=second.dtype)) or (bias is not None and bias.any()):
        raise InputError("projector_hidden_act: 'linear' with two maps; wanted one map, the second the identity")
    return {name.replace("up", "down"): tensor for name, tensor in connector.items() if name.startswith("up")}
