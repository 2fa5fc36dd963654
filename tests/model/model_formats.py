"""Tiny models for all formats: ours with random weights, and theirs, each with a tokenizer and the proof's prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from carnac.model.build import build_model
from carnac.model.formats import FormatName
from carnac.model.formats.description import Description, describe_model
from carnac.model.formats.folders import SpecialIds, write_folder
from carnac.model.formats.processor import write_processor
from carnac.model.formats.proof import prove
from carnac.model.formats.reference import write_reference
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import (
    ConfigValue,
    ConnectorSettings,
    CrossAttentionSettings,
    MlpSettings,
    ModelSettings,
    PerceiverSettings,
    PixelShuffleSettings,
    ResamplerSettings,
    TowerSettings,
    VisionSettings,
)
from carnac.sequence.marks import mark_names
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

WORDS = "the old mill by the river turns its wheel\n\nin the evening while people walk along the water"
SHUFFLE = PixelShuffleSettings(type="pixel_shuffle", factor=2)
PERCEIVER = PerceiverSettings(type="perceiver", latents=4, depth=2, heads=4, head_size=8, kv_heads=2)
RESAMPLER = ResamplerSettings(type="resampler", latents=4, depth=2, heads=4, head_size=8)
BLOCKS = CrossAttentionSettings(every=1, text_tokens="mlp", gate_start=0.5)
CONNECTORS: dict[FormatName, ConnectorSettings] = {
    "idefics": RESAMPLER,
    "idefics2": PERCEIVER,
    "idefics3": SHUFFLE,
    "llava": MlpSettings(),
}
Fields = dict[str, ConfigValue]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model to export; `language` and `vision` go over the tiny ones' fields."""

    format: FormatName
    vision_type: str = "siglip_vision_model"
    blocks: CrossAttentionSettings | None = None
    aspect: Literal["square", "native"] = "square"
    shortest_px: int | None = None
    language_type: str = "llama"
    connector: ConnectorSettings | None = None
    feature_layer: int = -1
    class_token: bool = False
    max_tiles: int = 1
    size_px: int = 32
    patch_px: int = 8
    language: Fields | None = None
    added_tokens: int = 0


def make_words(pictures: PictureSettings) -> LoadedTokenizer:
    tokenizer = train_tokenizer([WORDS] * 2, TokenizerSettings(vocabulary_size=400), mark_names(pictures))
    return ready(tokenizer)


def make_case(case: Case, words: LoadedTokenizer | None = None) -> tuple[MultimodalModel, Description, LoadedTokenizer]:
    """Return the model of a case, its description and its tokenizer."""
    pictures = pictures_of(case)
    vocabulary = None if words is None else _given_vocabulary(words)
    words = words or make_words(pictures)
    vocabulary = vocabulary or _vocabulary(words, case.added_tokens)
    native = case.aspect == "native"
    model = build_model(settings_of(case), vocabulary, case.size_px, seed=3, native_aspect=native).eval()
    make_talkative(model)
    return model, describe_model(model, pictures.model_copy(update={"tokens": model.tokens_per_image})), words


def pictures_of(case: Case) -> PictureSettings:
    return PictureSettings(
        size_px=case.size_px,
        patch_px=case.patch_px,
        aspect=case.aspect,
        shortest_px=case.shortest_px,
        marks="none" if case.format == "llava" else case.format,
        max_tiles=case.max_tiles,
    )


def settings_of(case: Case) -> ModelSettings:
    vision: Fields = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": case.patch_px}
    if not case.vision_type.startswith("dinov2"):
        vision["intermediate_size"] = 64
    language: Fields = {"hidden_size": 48, "intermediate_size": 96, "max_position_embeddings": 4096}
    language |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    if case.language_type != "gpt_neox":
        language["num_key_value_heads"] = 2
    language |= {"tie_word_embeddings": False} | (case.language or {})
    crossed = case.format == "idefics"
    return ModelSettings(
        family="cross_attention" if crossed else "autoregressive",
        cross_attention=(case.blocks or BLOCKS) if crossed else None,
        vision=VisionSettings(
            type=case.vision_type, config=vision, feature_layer=case.feature_layer, class_token=case.class_token
        ),
        connector=case.connector or CONNECTORS[case.format],
        language=TowerSettings(type=case.language_type, config=language),
    )


def make_talkative(model: torch.nn.Module) -> None:
    """Enlarge random weights: as they are drawn, a greedy continuation is one token again and again."""
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.1)


def export_case(case: Case, folder: Path) -> dict[str, Any]:
    """Write the model of a case into `folder / "export"` and return what the proof finds, here in this process."""
    model, described, words = make_case(case)
    write_all(model, described, case.format, words, folder / "export")
    return compare(model, described, words, folder / "export", folder)


def write_all(
    model: MultimodalModel, described: Description, name: FormatName, words: LoadedTokenizer, out: Path
) -> None:
    ids = SpecialIds(image=words.image, begin=words.begin, end=words.end, pad=words.pad)
    write_folder(model, described, name, ids, out)
    write_processor(described, name, words, out)


def compare(
    model: MultimodalModel, described: Description, words: LoadedTokenizer, theirs: Path, folder: Path
) -> dict[str, Any]:
    reference = folder / "reference"
    reference.mkdir()
    assert write_reference(model, words, described.pictures, reference) == []
    return prove(theirs, reference)


def _vocabulary(words: LoadedTokenizer, added: int) -> Vocabulary:
    # The image token, ids inside the table and ids beyond it.
    size = words.vocabulary_size
    ids = (words.image, *range(size - added // 2, size)) if added else ()
    return Vocabulary(size=size - added // 4, pad_id=words.pad, bos_id=words.begin, eos_id=words.end, added_ids=ids)


def _given_vocabulary(words: LoadedTokenizer) -> Vocabulary:
    """Return the vocabulary of a model whose own tokenizer lacked the tokens of pictures."""
    own = words.vocabulary_size - len(words.added_ids)
    return Vocabulary(size=own, pad_id=words.pad, bos_id=words.begin, eos_id=words.end, added_ids=words.added_ids)


def metaspace_words(folder: Path, pictures: PictureSettings, scheme: str) -> LoadedTokenizer:
    """Return a tokenizer of Llama 2's kind, read from a folder as transformers saves it: it begins with `<s>`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme, split=True)
    decoding = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(decoding)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair=None, special_tokens=[("<s>", 1)])
    return _saved_words(tokenizer, folder, pictures, bos_token="<s>", eos_token="</s>", pad_token="<unk>")  # noqa: S106


def byte_level_words(folder: Path, pictures: PictureSettings) -> LoadedTokenizer:
    """Return a tokenizer of SmolLM2's kind: nothing begins a sequence, two line ends are one token."""
    tokenizer = train_tokenizer([WORDS, *["\n\n"] * 9], TokenizerSettings(vocabulary_size=400))
    return _saved_words(tokenizer, folder, pictures, eos_token="<|end|>", pad_token="<|pad|>")  # noqa: S106


def _saved_words(tokenizer: Tokenizer, folder: Path, pictures: PictureSettings, **names: str) -> LoadedTokenizer:
    wrapper: Any = PreTrainedTokenizerFast
    wrapper(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return read_tokenizer_folder(folder, pictures)
