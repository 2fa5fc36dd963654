"""Everything wrong with a model's settings as sentences, and how many image tokens they make, without building it.

Importing this module is cheap; its functions import transformers' configurations (seconds).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from carnac.model.settings import (
    ConnectorSettings,
    MlpSettings,
    ModelSettings,
    PerceiverSettings,
    ResamplerSettings,
    VisionSettings,
)
from carnac.model.towers import WITHOUT_CLASS_TOKEN, Mistake, check_towers, known_config, patch_px, refuse_native


def check_model(
    settings: ModelSettings, image_size_px: int | None = None, *, native_aspect: bool = False, max_tiles: int = 1
) -> list[Mistake]:
    """Return every mistake of a model's settings as (place in the settings, sentence).

    `image_size_px` is the side of the squares that the vision tower is shown; with `native_aspect` pictures of any
    shape stand in them. A picture is more than one square where `max_tiles` is more than 1.
    """
    mistakes = check_towers(settings, image_size_px)
    if native_aspect:
        mistakes += _check_native(settings)
    mistakes += _check_family(settings, max_tiles)
    # Two sentences about one mistake are one too many.
    if not any(place[0] == "vision" for place, _ in mistakes):
        mistakes += _check_features(settings.vision)
    if not any(place[0] == "vision" for place, _ in mistakes):
        mistakes += _check_connector(settings, image_size_px)
    return mistakes + check_trained(settings)


def _check_native(settings: ModelSettings) -> Iterator[Mistake]:
    """Yield why a model cannot be shown pictures of any shape."""
    kind = getattr(known_config("vision", settings.vision), "model_type", None)
    sentence = None if kind is None else refuse_native(kind)
    if sentence:
        origin = next(name for name in ("type", "folder", "hub") if getattr(settings.vision, name) is not None)
        yield ("vision", origin), f"{sentence}."
    if not isinstance(settings.connector, PerceiverSettings | ResamplerSettings):
        sentence = (
            f"{settings.connector.type} joins the patches of a whole square, and with pictures.aspect = native those "
            "beyond a picture are none; wanted perceiver or resampler, whose latents read the picture alone."
        )
        yield ("connector", "type"), sentence


def _check_family(settings: ModelSettings, max_tiles: int) -> Iterator[Mistake]:
    """Yield what does not fit between the family and the other tables."""
    if settings.family != "cross_attention":
        if isinstance(settings.connector, ResamplerSettings):
            sentence = (
                "a resampler keeps the width of the tower, which only cross-attention can read; wanted perceiver, or "
                'family = "cross_attention".'
            )
            yield ("connector", "type"), sentence
        return
    blocks = settings.blocks
    if max_tiles > 1 and (blocks.attend != "earlier" or blocks.p_next):
        field = "attend" if blocks.attend != "earlier" else "p_next"
        sentence = (
            f"each of a picture's squares counts as an image, and with {field} = {getattr(blocks, field)} a token "
            f'reads one of them only (pictures.max_tiles = {max_tiles}); wanted attend = "earlier", or max_tiles = 1.'
        )
        yield ("cross_attention", field), sentence
    language = known_config("language", settings.language)
    width, heads = (getattr(language, name, None) for name in ("hidden_size", "num_attention_heads"))
    heads = blocks.heads or heads
    if isinstance(width, int) and isinstance(heads, int) and width % heads:
        yield ("cross_attention", "heads"), f"{heads} does not divide the language model's width, {width}."


def num_features_of(vision: VisionSettings, image_size_px: int, *, ask_hub: bool = False) -> int | None:
    """Return the features of one square that the connector reads, or None where the hub would have to be asked."""
    side = patch_px(vision, ask_hub=ask_hub)
    return None if side is None else (image_size_px // side) ** 2 + int(vision.class_token)


def square_places(settings: ModelSettings, patches: int) -> int:
    """Return P, the places in a row that the model gives one square of `patches` features.

    Raises ValueError as `image_tokens_of` does.
    """
    tokens = image_tokens_of(settings.connector, patches)
    return 1 if settings.family == "cross_attention" else tokens


def image_tokens_of(connector: ConnectorSettings, patches: int) -> int:
    """Return K, the image tokens that a connector makes of the `patches` features of one square.

    Raises ValueError with a sentence where pixel shuffle cannot cut them into squares.
    """
    if isinstance(connector, MlpSettings):
        return patches
    if isinstance(connector, PerceiverSettings | ResamplerSettings):
        return connector.latents
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} features are no square grid; leave the tower's class_token out.")
    if side % connector.factor:
        raise ValueError(f"{connector.factor} does not divide the tower's grid of {side} x {side} patches.")
    return (side // connector.factor) ** 2


def _check_connector(settings: ModelSettings, image_size_px: int | None) -> list[Mistake]:
    connector = settings.connector
    if isinstance(connector, PerceiverSettings) and connector.heads % connector.kv_heads:
        sentence = f"{connector.kv_heads} does not divide heads = {connector.heads}."
        return [(("connector", "kv_heads"), sentence)]
    patches = None if image_size_px is None else num_features_of(settings.vision, image_size_px)
    if patches is not None:
        try:
            image_tokens_of(connector, patches)
        except ValueError as error:
            return [(("connector", "factor"), str(error))]
    return []


def _check_features(vision: VisionSettings) -> Iterator[Mistake]:
    config = known_config("vision", vision)
    kind, layers = getattr(config, "model_type", ""), getattr(config, "num_hidden_layers", None)
    if vision.class_token and kind.startswith(WITHOUT_CLASS_TOKEN):
        yield ("vision", "class_token"), f"{kind} has no class token; leave it false."
    if isinstance(layers, int) and not -layers - 1 <= vision.feature_layer <= layers:
        yield ("vision", "feature_layer"), f"got {vision.feature_layer}, but this {kind} has {layers} layers."


def check_trained(settings: ModelSettings) -> list[Mistake]:
    """Return what does not fit between the parts that are trained and those that have adapters."""
    adapters = settings.adapters
    if adapters is None:
        sentence = "nothing would be trained; name a part, or add adapters."
        return [] if settings.trained else [(("trained",), sentence)]
    adapted = {"vision": adapters.vision, "language": adapters.language}
    if not any(adapted.values()):
        return [(("adapters",), "no layers are named in vision or language; leave the table out.")]
    sentence = "the weights of {0} are trained themselves; take {0} out of trained, or set adapters.{0} = []."
    both = [part for part, ends in adapted.items() if ends and part in settings.trained]
    return [(("adapters", part), sentence.format(part)) for part in both]
