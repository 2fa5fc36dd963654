"""Both ways: our model in transformers' class, and theirs in ours. The proof's own code runs here, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_formats import (
    SHUFFLE,
    Case,
    byte_level_words,
    compare,
    export_case,
    make_case,
    make_talkative,
    make_words,
    metaspace_words,
    pictures_of,
    write_all,
)

from carnac.model.formats import FormatName
from carnac.model.formats.description import describe_model
from carnac.model.formats.folders import read_folder
from carnac.model.formats.processor import write_processor
from carnac.model.settings import MlpSettings
from carnac.sequence.settings import PictureSettings

ONE_LAYER = MlpSettings(layers=1)
OURS = {
    "idefics3": Case(format="idefics3"),
    "idefics3, tied": Case(format="idefics3", language={"tie_word_embeddings": True}),
    "idefics3, all heads of their own": Case(format="idefics3", language={"num_key_value_heads": 4}),
    "idefics3, one key-value head": Case(format="idefics3", language={"num_key_value_heads": 1}),
    "idefics3, tiles": Case(format="idefics3", max_tiles=3),
    "idefics3, 6 x 6 patches": Case(format="idefics3", size_px=48, connector=SHUFFLE.model_copy(update={"factor": 3})),
    "idefics3, linear": Case(format="idefics3", connector=MlpSettings(layers=1, bias=False)),
    "idefics3, mistral, window 9": Case(format="idefics3", language_type="mistral", language={"sliding_window": 9}),
    "idefics3, qwen2": Case(format="idefics3", language_type="qwen2"),
    "idefics3, gemma3": Case(
        format="idefics3",
        language_type="gemma3_text",
        language={"head_dim": 12, "sliding_window": 9, "tie_word_embeddings": True},
    ),
    "idefics3, added tokens": Case(format="idefics3", added_tokens=8),
    "idefics3, added tokens, tied": Case(format="idefics3", added_tokens=8, language={"tie_word_embeddings": True}),
    "llava": Case(format="llava"),
    "llava, tied": Case(format="llava", language={"tie_word_embeddings": True}),
    "llava, clip, -2": Case(format="llava", vision_type="clip_vision_model", feature_layer=-2),
    "llava, clip, -1": Case(format="llava", vision_type="clip_vision_model"),
    "llava, clip, class token": Case(
        format="llava", vision_type="clip_vision_model", feature_layer=2, class_token=True
    ),
    "llava, siglip, before the norm": Case(format="llava", feature_layer=3),
    "llava, dinov2": Case(format="llava", vision_type="dinov2", feature_layer=-2),
    "llava, vit": Case(format="llava", vision_type="vit"),
    "llava, linear": Case(format="llava", connector=ONE_LAYER),
    "llava, linear without bias": Case(format="llava", connector=MlpSettings(layers=1, bias=False)),
    "llava, narrow": Case(format="llava", connector=MlpSettings(hidden_size=20, bias=False)),
    "llava, mistral, window 9": Case(format="llava", language_type="mistral", language={"sliding_window": 9}),
    "llava, gemma3, added tokens": Case(
        format="llava",
        language_type="gemma3_text",
        language={"head_dim": 12, "tie_word_embeddings": True},
        added_tokens=8,
    ),
    "llava, other names of table and head": Case(format="llava", language_type="gpt_neox"),
}


def check(label: str, found: dict[str, Any]) -> None:
    equal = sum(each["equal"] for each in found["greedy"])
    print(f"{label}: worst {found['worst']:.1e}, {equal} of {len(found['greedy'])} equal, {found['ties']} ties")
    assert found["worst"] <= 1e-5
    assert found["passed"]
    assert [each["case"] for each in found["logits"]] == [
        "no picture", "one picture", "three pictures", "padded", "packed",
    ]  # fmt: skip
    assert all(each["ids_equal"] for each in found["processor"])
    assert all(each["pixels_same_shape"] for each in found["processor"][1:])


@pytest.mark.parametrize("label", OURS)
def test_transformers_computes_what_our_model_computes(label: str, tmp_path: Path) -> None:
    check(label, export_case(OURS[label], tmp_path))


@pytest.mark.parametrize("kind", ["first", "always", "byte level"])
@pytest.mark.parametrize("name", ["idefics2", "idefics3", "llava"])
def test_the_tokenizer_of_another_model_goes_along(name: FormatName, kind: str, tmp_path: Path) -> None:
    case = Case(format=name, max_tiles=1 if name == "llava" else 2)
    pictures = pictures_of(case)
    if kind == "byte level":
        words = byte_level_words(tmp_path / "words", pictures)
    else:
        words = metaspace_words(tmp_path / "words", pictures, kind)
    assert words.image in words.added_ids
    model, described, _ = make_case(case, words)
    write_all(model, described, name, words, tmp_path / "export")
    check(f"{name}, {kind}", compare(model, described, words, tmp_path / "export", tmp_path))


def test_squares_of_idefics2_are_read_with_the_positions_of_transformers(tmp_path: Path) -> None:
    """Two of 19 patches in a row have the same position there; ours, a tower of squares then, computes the same."""
    case = Case(format="idefics2", size_px=76, patch_px=4, aspect="native")
    model, described, words = make_case(case)
    write_all(model, described, "idefics2", words, tmp_path / "export")
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = tmp_path / "export" / name
        content = json.loads(path.read_text())
        content.get("image_processor", content)["size"] = {"height": 76, "width": 76}
        path.write_text(json.dumps(content))
    again, _ = read_folder(tmp_path / "export")
    assert again.vision.config.model_type == "siglip_vision_model"
    shown = described.pictures.model_copy(update={"aspect": "square"})
    found = compare(again, describe_model(again, shown), words, tmp_path / "export", tmp_path)
    check("idefics2, 19 x 19 patches", found)


def test_continuations_are_worth_comparing(tmp_path: Path) -> None:
    export_case(OURS["idefics3"], tmp_path)
    prompts = json.loads((tmp_path / "reference" / "reference.json").read_text())["prompts"]
    assert all(len(prompt["continuation"]) == 32 and len(set(prompt["continuation"])) > 3 for prompt in prompts)


@pytest.mark.parametrize("part", ["vision", "connector", "language"])
def test_a_weight_that_differs_fails_the_proof(part: str, tmp_path: Path) -> None:
    model, described, words = make_case(OURS["llava"])
    write_all(model, described, "llava", words, tmp_path / "export")
    with torch.no_grad():
        next(getattr(model, part).parameters()).mul_(1.001)
    found = compare(model, described, words, tmp_path / "export", tmp_path)
    assert not found["passed"]
    assert found["worst"] > 1e-5


@pytest.mark.parametrize(
    "label", ["idefics3, tiles", "idefics3, added tokens, tied", "llava, clip, -2", "llava, linear"]
)
def test_an_export_read_and_written_again_is_the_same_file(label: str, tmp_path: Path) -> None:
    case = OURS[label]
    model, described, words = make_case(case)
    write_all(model, described, case.format, words, tmp_path / "first")
    again, _ = read_folder(tmp_path / "first")
    write_all(again, describe_model(again, described.pictures), case.format, words, tmp_path / "second")
    for path in sorted((tmp_path / "first").iterdir()):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


LLAMA = {
    "model_type": "llama", "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
SIGLIP = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
CLIP = {**SIGLIP, "model_type": "clip_vision_model"}
THEIRS: dict[str, tuple[FormatName, str, dict[str, Any]]] = {
    "idefics3": ("idefics3", "idefics3", {"vision_config": SIGLIP, "tie_word_embeddings": False}),
    "idefics3, tied": ("idefics3", "idefics3", {"vision_config": SIGLIP, "tie_word_embeddings": True}),
    "smolvlm, 4 by 4 patches in one": (
        "idefics3", "smolvlm", {"vision_config": SIGLIP, "scale_factor": 4, "tie_word_embeddings": True},
    ),
    # transformers gives two of 19 patches in a row the same position; ours computes the same.
    "idefics3, 19 x 19 patches": (
        "idefics3", "idefics3", {"vision_config": {**SIGLIP, "image_size": 76, "patch_size": 4}, "scale_factor": 19},
    ),
    "idefics3, a rest that no patch sees": (
        "idefics3", "idefics3", {"vision_config": {**SIGLIP, "image_size": 36}, "scale_factor": 2},
    ),
    "llava": ("llava", "llava", {"vision_config": CLIP}),
    "llava, tied, no bias": (
        "llava", "llava", {"vision_config": CLIP, "tie_word_embeddings": True, "multimodal_projector_bias": False},
    ),
    "llava, siglip, the last layer before its norm": (
        "llava", "llava",
        {
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model"},
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
    ),
    "llava, class token": (
        "llava", "llava",
        {"vision_config": CLIP, "vision_feature_layer": 1, "vision_feature_select_strategy": "full"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("label", THEIRS)
def test_our_model_computes_what_transformers_computes(label: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    name, model_type, fields = THEIRS[label]
    pictures = PictureSettings(size_px=32, patch_px=8, marks="idefics3" if name == "idefics3" else "none")
    words = make_words(pictures)
    image = {"image_token_id" if name == "idefics3" else "image_token_index": words.image}
    tied = {"tie_word_embeddings": fields.get("tie_word_embeddings", False)}
    text = {**LLAMA, **tied, "vocab_size": words.vocabulary_size}
    auto: Any = AutoModelForImageTextToText
    theirs = auto.from_config(AutoConfig.for_model(model_type, text_config=text, **image, **fields))
    make_talkative(theirs)
    theirs.save_pretrained(tmp_path / "theirs")

    model, _ = read_folder(tmp_path / "theirs")
    shown = PictureSettings(
        size_px=model.image_size_px,
        patch_px=model.vision.config.patch_size,
        marks=pictures.marks,
        tokens=model.tokens_per_image,
    )
    described = describe_model(model, shown)
    write_processor(described, name, words, tmp_path / "theirs")
    check(label, compare(model, described, words, tmp_path / "theirs", tmp_path))
