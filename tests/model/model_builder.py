"""Tiny models, and batches made by hand: random ids and pixels in pieces of chosen lengths."""

from __future__ import annotations

import numpy as np

from carnac.core.batch import IGNORED, Batch
from carnac.core.batch import Piece as BatchPiece
from carnac.core.seeds import generator
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ConfigValue, MlpSettings, ModelSettings, TowerSettings, VisionSettings

VOCABULARY = 128
IMAGE_SIZE_PX = 32
IMAGE_TOKENS = 4
Piece = tuple[int, int]  # tokens, images
Rows = list[list[Piece]]


# Attention families whose packed masks differ, with windows shorter than the pieces; Gemma 3's sixth layer sees all.
FAMILIES: dict[str, dict[str, ConfigValue]] = {
    "llama": {},
    "mistral": {"sliding_window": 7},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "gemma2": {"sliding_window": 7, "head_dim": 12, "query_pre_attn_scalar": 12},
    "gemma3_text": {"sliding_window": 7, "head_dim": 12, "query_pre_attn_scalar": 12, "num_hidden_layers": 6},
}


def make_family(kind: str, seed: int = 0, **fields: ConfigValue) -> MultimodalModel:
    """Return a tiny model of one of `FAMILIES`, in evaluation mode."""
    return make_model(kind, seed=seed, **FAMILIES[kind], **fields).eval()


def make_settings(language: str = "llama", **fields: ConfigValue) -> ModelSettings:
    """Return the settings of a model of about 100,000 parameters; `fields` go to the language model."""
    vision: dict[str, ConfigValue] = {"hidden_size": 32, "intermediate_size": 64, "patch_size": 16}
    text: dict[str, ConfigValue] = {"hidden_size": 48, "intermediate_size": 96, "max_position_embeddings": 256}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return ModelSettings(
        vision=VisionSettings(type="siglip_vision_model", config=vision),
        connector=MlpSettings(hidden_size=48),
        language=TowerSettings(type=language, config=text | fields),
    )


def make_model(language: str = "llama", seed: int = 0, **fields: ConfigValue) -> MultimodalModel:
    """Return a tiny model with random weights."""
    vocabulary = Vocabulary(size=VOCABULARY, pad_id=0, bos_id=None, eos_id=1)
    return build_model(make_settings(language, **fields), vocabulary, IMAGE_SIZE_PX, seed)


def make_batch(rows: Rows, *, seed: int = 0) -> Batch:
    """Return a batch whose rows hold pieces of (tokens, images), padded to the longest row."""
    draws = generator(seed, "batch")
    width = max(sum(tokens for tokens, _ in row) for row in rows)
    shape = (len(rows), width)
    input_ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    positions, segment = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    image_of_token = np.full(shape, -1, np.int64)
    slots: list[tuple[int, int, int]] = []
    pieces: list[BatchPiece] = []
    for number, row in enumerate(rows):
        place = 0
        for tokens, images in row:
            end = place + tokens
            ids = draws.integers(3, VOCABULARY, tokens)
            target = np.append(ids[1:], IGNORED)
            segment[number, place:end] = len(pieces)
            positions[number, place:end] = np.arange(tokens)
            for image in range(images):
                first = 1 + image * (tokens - 1) // max(images, 1)
                ids[first : first + IMAGE_TOKENS] = 2
                target[first - 1 : first - 1 + IMAGE_TOKENS] = IGNORED
                image_of_token[number, place + first : end] = len(slots)
                slots.append((number, place + first, IMAGE_TOKENS))
            input_ids[number, place:end], labels[number, place:end] = ids, target
            pieces.append(BatchPiece(source="web", shard="part", row=len(pieces), start=0, stop=tokens, images=images))
            place = end
        positions[number, place:] = np.arange(width - place)
    return Batch(
        input_ids=input_ids,
        labels=labels,
        positions=positions,
        segment=segment,
        image_slots=np.array(slots, np.int64).reshape(-1, 3),
        image_of_token=image_of_token,
        pixels=draws.standard_normal((len(slots), 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX), dtype=np.float32),
        provenance=tuple(pieces),
    )
