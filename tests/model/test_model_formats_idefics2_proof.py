"""The whole way to Idefics2 and back: texts and picture files, its processor, continuations; the proof's own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_formats import byte_level_words, compare, make_talkative, make_words, metaspace_words, write_all
from model_idefics2 import PERCEIVER, pictures_of, settings_of

from carnac.core.errors import InputError
from carnac.model.build import build_model
from carnac.model.formats.description import Description, describe_model
from carnac.model.formats.idefics2_processor import make_processor
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

SHOWN: dict[str, dict[str, Any]] = {
    "any shape": {},
    "any shape, no shorter than 24 px": {"shortest_px": 24},
    "any shape, quarters": {"max_tiles": 2},
    "any shape, quarters no shorter than 16 px, bilinear": {"max_tiles": 2, "shortest_px": 16, "resample": "bilinear"},
    "squares": {"native": False},
    "squares, quarters": {"native": False, "max_tiles": 2},
}


def make(pictures: PictureSettings, words: LoadedTokenizer) -> tuple[MultimodalModel, Description]:
    settings = settings_of(PERCEIVER.model_copy(update={"hidden_size": 96}), fields={"max_position_embeddings": 2048})
    rows = words.vocabulary_size - len(words.added_ids)
    special = {"pad_id": words.pad, "bos_id": words.begin, "eos_id": words.end, "added_ids": words.added_ids}
    vocabulary = Vocabulary(size=rows if words.added_ids else words.vocabulary_size, **special)  # type: ignore[arg-type]
    native = pictures.aspect == "native"
    model = build_model(settings, vocabulary, pictures.size_px, seed=3, native_aspect=native).eval()
    make_talkative(model)
    return model, describe_model(model, pictures.model_copy(update={"tokens": model.tokens_per_image}))


def check(label: str, found: dict[str, Any]) -> None:
    equal = sum(each["equal"] for each in found["greedy"])
    pixels = [each.get("pixels_max_difference", 0.0) for each in found["processor"]]
    print(f"{label}: worst {found['worst']:.1e}, {equal} of {len(found['greedy'])} equal, pixels {max(pixels):.2f}")
    assert found["class"] == "Idefics2ForConditionalGeneration"
    assert found["worst"] <= 1e-5
    assert found["passed"]
    assert all(each["ids_equal"] for each in found["processor"])
    assert all(each["pixels_same_shape"] for each in found["processor"][1:])


@pytest.mark.parametrize("label", SHOWN)
def test_texts_and_picture_files_give_the_same_answers(label: str, tmp_path: Path) -> None:
    pictures = pictures_of(**SHOWN[label])
    words = make_words(pictures)
    model, described = make(pictures, words)
    write_all(model, described, "idefics2", words, tmp_path / "export")
    check(label, compare(model, described, words, tmp_path / "export", tmp_path))


@pytest.mark.parametrize("kind", ["first", "always", "byte level"])
def test_the_tokenizer_of_another_model_goes_along(kind: str, tmp_path: Path) -> None:
    pictures = pictures_of(max_tiles=2)
    byte_level = kind == "byte level"
    words = byte_level_words(tmp_path, pictures) if byte_level else metaspace_words(tmp_path, pictures, kind)
    assert words.image in words.added_ids
    model, described = make(pictures, words)
    write_all(model, described, "idefics2", words, tmp_path / "export")
    check(kind, compare(model, described, words, tmp_path / "export", tmp_path))


def test_the_processors_file_says_how_pictures_were_shown(tmp_path: Path) -> None:
    pictures = pictures_of(max_tiles=2, shortest_px=24)
    words = make_words(pictures)
    write_all(*make(pictures, words), "idefics2", words, tmp_path)
    found = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert found["image_processor_type"].startswith("Idefics2ImageProcessor")
    assert found["size"] == {"shortest_edge": 24, "longest_edge": 48}
    assert found["do_image_splitting"]
    assert json.loads((tmp_path / "processor_config.json").read_text())["image_seq_len"] == PERCEIVER.latents


def test_a_tokenizer_without_the_mark_is_refused() -> None:
    words = make_words(PictureSettings(size_px=48, patch_px=8))
    _, described = make(pictures_of(), words)

    class Words:
        def get_vocab(self) -> dict[str, int]:
            return words.tokenizer.get_vocab()

    with pytest.raises(InputError, match=r"writes the token <image>, which this tokenizer does not have"):
        make_processor(described, Words(), "")
