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
from carnac.model.towers import WITHOUT_CLASS_TOKEN, Mistake, check_towers, known_config, patch_px


def check_model(settings: ModelSettings, image_size_px: int | None = None) -> list[Mistake]:
    """Return every mistake of a model's settings as (place in the settings, sentence).

    `image_size_px` is the side of the squares that the vision tower is shown.
    """
    mistakes = check_towers(settings, image_size_px)
    # Two sentences about one mistake are one too many.
    if not any(place[0] == "vision" for place, _ in mistakes):
        mistakes += _check_features(settings.vision)
    if not any(place[0] == "vision" for place, _ in mistakes):
        mistakes += _check_connector(settings, image_size_px)
    return mistakes + check_trained(settings)


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
