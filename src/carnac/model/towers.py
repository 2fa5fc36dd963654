"""Backbone tables -> transformers' configurations, and everything that is wrong with them as sentences.

transformers accepts unknown fields in silence and finds some contradictions only when weights are made, some never.
Importing this module is cheap; its functions import transformers (seconds).
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

from carnac.core.errors import InputError
from carnac.model.settings import ModelSettings, TowerSettings, VisionSettings

Part = Literal["vision", "language"]
Mistake = tuple[tuple[str, ...], str]

# Filled from elsewhere, so that one number is never written in two places.
FILLED = {
    "vision": {
        "image_size": "the picture settings",
        "num_patches": "the picture settings",
        "num_channels": "the picture settings",
    },
    "language": {
        "vocab_size": "the tokenizer",
        "pad_token_id": "the tokenizer",
        "bos_token_id": "the tokenizer",
        "eos_token_id": "the tokenizer",
        "use_cache": "the task at hand",
    },
}

# SigLIP 2 of the kind that takes any aspect ratio: it eats patches already cut, and counts them instead of pixels.
CUT_BEFORE = "siglip2_vision_model"
# SigLIP's architecture, fields and tensor names in a class that takes a mask of patches: pictures of any shape.
NATIVE = "idefics2_vision"
# The same under other names: towers that can be shown pictures of any shape.
SIGLIP_TYPES = ("siglip_vision_model", "idefics3_vision", "smolvlm_vision")
NATIVE_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size",
    "patch_size", "hidden_act", "layer_norm_eps", "attention_dropout",
)  # fmt: skip
# Towers whose first feature is a patch already.
WITHOUT_CLASS_TOKEN = ("siglip", "ijepa", "aimv2", "idefics2", "idefics3", "smolvlm")

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
    _raise_mistakes(part, _check_tower(part, tower, filled))
    return make_config(str(tower.type), {**tower.config, **_known(str(tower.type), filled)})


def trained_config(part: Part, tower: TowerSettings) -> Any:
    """Return the configuration that a folder or hub name holds, of a contrastive model its vision half.

    Raise InputError with every mistake found.
    """
    config, mistakes = _read_config(part, tower)
    _raise_mistakes(part, mistakes)
    return config


def vision_config(settings: VisionSettings, image_size_px: int, *, native_aspect: bool = False) -> Any:
    """Return the configuration of the tower for squares of `image_size_px`; raise InputError with every mistake.

    With `native_aspect`: for pictures of any shape within those squares.
    """
    config = _square_config(settings, image_size_px)
    return of_aspect(config, native_aspect=True) if native_aspect else config


def of_aspect(config: Any, *, native_aspect: bool) -> Any:
    """Return the configuration of the same tower for pictures of any shape, or for squares alone.

    Raises InputError for a tower that is not of SigLIP's kind and is to take pictures of any shape.
    """
    if (config.model_type == NATIVE) == native_aspect:
        return config
    if native_aspect and config.model_type not in SIGLIP_TYPES:
        raise InputError(f"model.vision: {refuse_native(config.model_type)}")
    kind, without_head = (NATIVE, {}) if native_aspect else (SIGLIP_TYPES[0], {"vision_use_head": False})
    return make_config(kind, {**{name: getattr(config, name) for name in NATIVE_FIELDS}, **without_head})


def refuse_native(kind: str) -> str | None:
    """Say why a tower of this type cannot be shown pictures of any shape, or None where it can."""
    if kind in (*SIGLIP_TYPES, NATIVE):
        return None
    return (
        f"pictures of any shape (pictures.aspect = native) need a tower of SigLIP's kind ({SIGLIP_TYPES[0]}), whose "
        f"weights Idefics2's class takes with a mask of patches; {kind} has no such class. Set pictures.aspect = square"
    )


def _square_config(settings: VisionSettings, image_size_px: int) -> Any:
    if settings.type is None:
        return sized(trained_config("vision", settings), image_size_px)
    filled: dict[str, Any] = {"image_size": image_size_px, "num_channels": 3}
    if settings.type == CUT_BEFORE:
        filled["num_patches"] = (image_size_px // (patch_px(settings) or 1)) ** 2
    # SigLIP's pooling head turns patches into one vector that nothing here reads: weights without gradients.
    if "vision_use_head" not in settings.config:
        filled["vision_use_head"] = False
    return tower_config("vision", settings, filled)


def sized(config: Any, image_size_px: int) -> Any:
    """Return a copy of a tower's configuration for squares of `image_size_px`."""
    config = copy.deepcopy(config)
    if config.model_type == CUT_BEFORE:
        config.num_patches = (image_size_px // config.patch_size) ** 2
    else:
        pair = isinstance(config.image_size, list | tuple)
        config.image_size = [image_size_px, image_size_px] if pair else image_size_px
    return config


def patch_px(vision: VisionSettings, *, ask_hub: bool = False) -> int | None:
    """Return the side of a tower's patches, or None where a mistake hides it, or the hub would have to be asked."""
    return side_of(getattr(known_config("vision", vision, ask_hub=ask_hub), "patch_size", None))


def side_of(size: object) -> int | None:
    """Return the side of a square that a configuration gives as a number or as two equal ones, else None."""
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    return size if isinstance(size, int) and size > 0 else None


def max_positions(language: TowerSettings) -> int | None:
    """Return the longest sequence of a language model, or None where nothing says it without asking the hub."""
    longest = getattr(known_config("language", language), "max_position_embeddings", None)
    return longest if isinstance(longest, int) else None


def known_config(part: Part, tower: TowerSettings, *, ask_hub: bool = False) -> Any:
    """Return a backbone's configuration as far as its settings tell, or None as `patch_px` does."""
    if tower.type is None:
        return None if tower.hub is not None and not ask_hub else _read_config(part, tower)[0]
    try:
        return make_config(tower.type, dict(tower.config))
    except (KeyError, ValueError):
        return None


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


def _raise_mistakes(part: Part, mistakes: Iterable[Mistake]) -> None:
    sentences = [f"model.{part}.{'.'.join(place)}: {sentence}" for place, sentence in mistakes]
    if sentences:
        raise InputError("\n".join(sentences))


def _known(model_type: str, filled: dict[str, Any]) -> dict[str, Any]:
    """Return those of the `filled` fields that a configuration has, under its own names."""
    fields = own_fields(model_type)
    return {name: value for name, value in filled.items() if name in fields}


def _read_config(part: Part, tower: TowerSettings) -> tuple[Any, list[Mistake]]:
    """Return the configuration of a trained backbone, None where there is none, and its mistakes."""
    from huggingface_hub.errors import StrictDataclassError
    from huggingface_hub.utils import logging as hub_logging
    from transformers import AutoConfig

    origin = "hub" if tower.folder is None else "folder"
    if tower.folder is not None and not (tower.folder / "config.json").is_file():
        wanted = "a folder as transformers saves it (config.json, safetensors, tokenizer)"
        return None, [((origin,), f"{tower.folder}: no config.json there; wanted {wanted}")]
    if tower.hub is not None:
        # Each of five retries warns in two lines; what comes of them is said below.
        hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call] # huggingface_hub is untyped here
    try:
        config = AutoConfig.from_pretrained(
            str(tower.folder or tower.hub), local_files_only=tower.folder is not None, trust_remote_code=False
        )
    except (OSError, KeyError, ValueError, TypeError, StrictDataclassError) as error:
        detail = " ".join(str(error).split())[:300]
        if "couldn't connect" in detail:
            sentence = "cannot be fetched, the hub does not answer; give the folder of a copy instead (folder = ...)"
            return None, [((origin,), f"{tower.hub}: {sentence}")]
        return None, [((origin,), f"{tower.folder or tower.hub}: no model that transformers knows: {detail}")]
    if part == "vision":
        config = getattr(config, "vision_config", config)
        if getattr(config, "vision_use_head", False):
            config.vision_use_head = False
    kind = config.model_type
    known = kind in _known_types(part) or kind == NATIVE
    refusal = _refuse_type(part, kind) if known else f"transformers has no {part} model {kind!r}"
    return config, [((origin,), sentence) for sentence in (refusal or _refuse_layers(part, config),) if sentence]


def _check_trained(part: Part, tower: TowerSettings, filled: dict[str, Any]) -> Iterator[Mistake]:
    if tower.folder is None:
        return  # a check never asks the network
    config, mistakes = _read_config(part, tower)
    yield from mistakes
    if mistakes:
        return
    if not any(tower.folder.glob("*.safetensors")):
        yield ("folder",), f"{tower.folder}: no weights in safetensors there; nothing else is read"
    size = filled.get("image_size")
    patch = side_of(config.patch_size) if part == "vision" else None
    if size is not None and patch is not None and size % patch:
        yield ("folder",), f"{tower.folder}: image_size {size} is not a multiple of its patch_size {patch}"


def _check_tower(part: Part, tower: TowerSettings, filled: dict[str, Any]) -> Iterator[Mistake]:
    if tower.type is None:
        yield from _check_trained(part, tower, filled)
        return
    types = _known_types(part)
    if tower.type not in types and tower.type != NATIVE:
        yield ("type",), f"transformers has no {part} model of type {tower.type!r}{closest(tower.type, types)}"
        return
    refusal = _refuse_type(part, tower.type)
    if refusal:
        yield ("type",), refusal
        return
    mistakes = list(_check_keys(part, tower.type, tower.config))
    yield from mistakes
    if not mistakes:
        yield from _check_values(part, tower.type, {**tower.config, **_known(tower.type, filled)}, filled)


def _known_types(part: Part) -> Collection[str]:
    from transformers.models.auto import modeling_auto

    if part == "language":
        return list(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    return list(modeling_auto.MODEL_MAPPING_NAMES)


def _refuse_type(part: Part, model_type: str) -> str | None:
    if model_type == NATIVE:
        return (
            f"{model_type} is the tower inside a whole Idefics2, no model of its own: wanted SigLIP "
            f"({SIGLIP_TYPES[0]}), with pictures.aspect = native for pictures of any shape, or the whole model "
            "(init_from)"
        )
    if part == "vision":
        missing = {"image_size", "patch_size", "hidden_size"} - own_fields(model_type)
        if missing and model_type != CUT_BEFORE:
            return (
                f"{model_type} has no {', '.join(sorted(missing))}: a tower of square patches of fixed size is needed"
            )
        return None
    if model_type.startswith(UNPACKABLE_FAMILIES):
        return f"{model_type} mixes neighbouring tokens by convolution or recurrence: packed pieces would leak"
    if "vocab_size" not in own_fields(model_type):
        return f"{model_type} is a composed model, not a language model (try {model_type}_text)"
    return None


def _refuse_layers(part: Part, config: Any) -> str | None:
    layers = set(getattr(config, "layer_types", None) or ()) - PACKABLE_LAYERS
    if part == "vision" or not layers:
        return None
    names = ", ".join(sorted(layers))
    return f"{config.model_type} has layers of kind {names}: packed pieces would leak (attention only)"


def _check_keys(part: Part, model_type: str, given: Collection[str]) -> Iterator[Mistake]:
    # transformers moves the old scalar `rope_theta` into `rope_parameters`.
    known = own_fields(model_type)
    known |= {"rope_theta"} if "rope_parameters" in known else set()
    for name in given:
        if name in FILLED[part]:
            yield ("config", name), f"is filled from {FILLED[part][name]}: leave it out"
        elif name not in known:
            hint = closest(name, known - set(FILLED[part]))
            yield ("config", name), f"{model_type} has no field {name!r}{hint}"


def _check_values(part: Part, model_type: str, fields: dict[str, Any], filled: dict[str, Any]) -> Iterator[Mistake]:
    try:
        config = make_config(model_type, fields)
    except ValueError as error:
        yield ("config",), str(error)
        return
    yield from _check_divisions(config, filled.get("image_size"))
    refusal = _refuse_layers(part, config)
    if refusal:
        yield ("type",), refusal


def _check_divisions(config: Any, image_size: int | None) -> Iterator[Mistake]:
    pairs = [("num_attention_heads", "num_key_value_heads")]
    # A model with its own head size projects to heads * head size, whatever the width.
    if not getattr(config, "head_dim", None):
        pairs.append(("hidden_size", "num_attention_heads"))
    numbers = [(name, getattr(config, name, None), divisor) for name, divisor in pairs]
    if image_size is not None:
        numbers.append(("image_size", image_size, "patch_size"))
    for name, value, divisor_name in numbers:
        divisor = getattr(config, divisor_name, None)
        divisor = side_of(divisor) if divisor_name == "patch_size" else divisor
        if isinstance(value, int) and isinstance(divisor, int) and (divisor < 1 or value % divisor):
            sentence = f"{name} {value} is not a multiple of {divisor_name} {divisor}"
            yield ("config", name if name != "image_size" else divisor_name), sentence
