"""Backbone tables -> transformers' configurations, and everything that is wrong with them as sentences.

transformers accepts unknown fields in silence and finds some contradictions only when weights are made, some never.
Importing this module is cheap; its functions import transformers (seconds).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Iterator
from typing import Any, Literal

from carnac.core.errors import InputError
from carnac.model.settings import ModelSettings, TowerSettings

Part = Literal["vision", "language"]
Mistake = tuple[tuple[str, ...], str]

# Filled from elsewhere, so that one number is never written in two places.
FILLED = {
    "vision": {"image_size": "the picture settings", "num_channels": "the picture settings"},
    "language": {
        "vocab_size": "the tokenizer",
        "pad_token_id": "the tokenizer",
        "bos_token_id": "the tokenizer",
        "eos_token_id": "the tokenizer",
        "use_cache": "the task at hand",
    },
}

# Only these keep packed pieces apart (to 1e-6 of separate runs); convolutions and recurrences see the neighbour.
PACKABLE_LAYERS = frozenset({"full_attention", "sliding_attention"})
# Recurrent or convolutional families whose default configuration does not say so in `layer_types`.
UNPACKABLE_FAMILIES = ("lfm2", "mamba", "rwkv", "xlstm", "falcon_mamba", "recurrent_gemma", "zaya")


def check_towers(settings: ModelSettings, image_size_px: int | None = None) -> list[Mistake]:
    """Return every mistake of the two backbones as (place in the settings, sentence)."""
    mistakes: list[Mistake] = []
    parts: tuple[tuple[Part, TowerSettings], ...] = (("vision", settings.vision), ("language", settings.language))
    for part, tower in parts:
        filled: dict[str, Any] = {} if part == "language" or image_size_px is None else {"image_size": image_size_px}
        mistakes += [((part, *place), sentence) for place, sentence in _check_tower(part, tower, filled)]
    return mistakes


def tower_config(part: Part, tower: TowerSettings, filled: dict[str, Any]) -> Any:
    """Return transformers' configuration of `tower`, with the `filled` fields that this part's class knows.

    Raise InputError with every mistake found.
    """
    mistakes = list(_check_tower(part, tower, filled))
    if mistakes:
        raise InputError("\n".join(f"model.{part}.{'.'.join(place)}: {sentence}" for place, sentence in mistakes))
    fields = own_fields(tower.type)
    return make_config(tower.type, {**tower.config, **{name: filled[name] for name in filled if name in fields}})


def make_config(model_type: str, fields: dict[str, Any]) -> Any:
    """Return transformers' configuration; raise ValueError with one sentence where its own checks refuse `fields`."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return configuration_class(model_type)(**fields)
    except (StrictDataclassError, ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"transformers refuses this configuration: {' '.join(str(error).split())}") from error


def configuration_class(model_type: str) -> Any:
    """Return transformers' configuration class of `model_type`; raise KeyError where there is none."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def own_fields(model_type: str) -> set[str]:
    """Return the fields that describe this architecture, without those that every configuration has."""
    from transformers import PreTrainedConfig

    every = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    cls = configuration_class(model_type)
    return {field.name for field in dataclasses.fields(cls) if field.name not in every} | set(cls.attribute_map)


def stored_fields(config: Any) -> dict[str, Any]:
    """Return the architecture's fields of a configuration, ready for JSON: enough to build it again."""
    # An alias (GPT-2's hidden_size for n_embd) is the same field twice.
    names = own_fields(config.model_type) - set(config.attribute_map)
    return {name: value for name, value in config.to_dict().items() if name in names}


def closest(word: str, words: Collection[str]) -> str:
    """Return ' (did you mean X?)' for the word most like `word`, or nothing."""
    found = difflib.get_close_matches(word, sorted(words), n=1, cutoff=0.7)
    return f" (did you mean {found[0]}?)" if found else ""


def _check_tower(part: Part, tower: TowerSettings, filled: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    types = _known_types(part)
    if tower.type not in types:
        yield ("type",), f"transformers has no {part} model of type {tower.type!r}{closest(tower.type, types)}"
        return
    refusal = _refuse_type(part, tower.type)
    if refusal:
        yield ("type",), refusal
        return
    mistakes = list(_check_keys(part, tower))
    yield from mistakes
    if not mistakes:
        yield from _check_values(part, tower, filled)


def _known_types(part: Part) -> Collection[str]:
    from transformers.models.auto import modeling_auto

    if part == "language":
        return list(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    return list(modeling_auto.MODEL_MAPPING_NAMES)


def _refuse_type(part: Part, model_type: str) -> str | None:
    if part == "vision":
        missing = {"image_size", "patch_size", "hidden_size"} - own_fields(model_type)
        if missing:
            return (
                f"{model_type} has no {', '.join(sorted(missing))}: a tower of square patches of fixed size is needed"
            )
        return None
    if model_type.startswith(UNPACKABLE_FAMILIES):
        return f"{model_type} mixes neighbouring tokens by convolution or recurrence: packed pieces would leak"
    if "vocab_size" not in own_fields(model_type):
        return f"{model_type} is a composed model, not a language model (try {model_type}_text)"
    return None


def _check_keys(part: Part, tower: TowerSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    # transformers moves the old scalar `rope_theta` into `rope_parameters`.
    known = own_fields(tower.type)
    known |= {"rope_theta"} if "rope_parameters" in known else set()
    for name in tower.config:
        if name in FILLED[part]:
            yield ("config", name), f"is filled from {FILLED[part][name]}: leave it out"
        elif name not in known:
            hint = closest(name, known - set(FILLED[part]))
            yield ("config", name), f"{tower.type} has no field {name!r}{hint}"


def _check_values(part: Part, tower: TowerSettings, filled: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    kept = {name: value for name, value in filled.items() if name in own_fields(tower.type)}
    try:
        config = make_config(tower.type, {**tower.config, **kept})
    except ValueError as error:
        yield ("config",), str(error)
        return
    yield from _check_divisions(config, "image_size" in filled)
    layers = set(getattr(config, "layer_types", None) or ())
    if part == "language" and not layers <= PACKABLE_LAYERS:
        names = ", ".join(sorted(layers - PACKABLE_LAYERS))
        yield ("type",), f"{tower.type} has layers of kind {names}: packed pieces would leak (attention only)"


def _check_divisions(config: Any, with_picture: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    pairs = [("num_attention_heads", "num_key_value_heads")]
    # A model with its own head size projects to heads * head size, whatever the width.
    if not getattr(config, "head_dim", None):
        pairs.append(("hidden_size", "num_attention_heads"))
    if with_picture:
        pairs.append(("image_size", "patch_size"))
    for name, divisor_name in pairs:
        value, divisor = getattr(config, name, None), getattr(config, divisor_name, None)
        if isinstance(value, int) and isinstance(divisor, int) and (divisor < 1 or value % divisor):
            sentence = f"{name} {value} is not a multiple of {divisor_name} {divisor}"
            yield ("config", name if name != "image_size" else divisor_name), sentence
