"""What a format can express, said without weights; and folders that are not what they should be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_formats import BLOCKS, SHUFFLE, Case, make_case, make_words, pictures_of, settings_of, write_all
from model_idefics import idefics_case

from carnac.core.errors import InputError
from carnac.model.formats import NAMES, refusals
from carnac.model.formats.description import describe_model, describe_settings
from carnac.model.formats.folders import read_folder
from carnac.model.formats.language_model import refuse_built_language
from carnac.model.formats.pictures import read_pictures
from carnac.model.formats.positions import LANES, nearest_sides, numbers_patches_in_order
from carnac.model.formats.processor import chat_template
from carnac.model.settings import MlpSettings, PerceiverSettings
from carnac.model.towers import tower_config, vision_config
from carnac.sequence.layout import lay_out_prompt

IDEFICS3, LLAVA = Case(format="idefics3"), Case(format="llava")
IDEFICS, IDEFICS2 = idefics_case(), Case(format="idefics2")
SIX_LAYERS = {"num_hidden_layers": 6}


def blocks(**changes: Any) -> dict[str, Any]:
    return {"blocks": BLOCKS.model_copy(update=changes)}


REFUSED: list[tuple[Case, dict[str, Any], tuple[str, ...], str]] = [
    (IDEFICS3, {"vision_type": "clip_vision_model"}, ("model", "vision"), "this one is clip_vision_model; no other"),
    (IDEFICS3, {"feature_layer": -2}, ("model", "vision", "feature_layer"), "reads layer -2"),
    (IDEFICS3, {"class_token": True}, ("model", "vision", "class_token"), "this model keeps one"),
    (IDEFICS3, {"connector": MlpSettings()}, ("model", "connector"), "this one is an MLP"),
    (IDEFICS3, {"connector": MlpSettings(layers=1)}, ("model", "connector"), "one linear map with bias"),
    (IDEFICS3, {"connector": PerceiverSettings(type="perceiver")}, ("model", "connector"), "a perceiver"),
    (IDEFICS3, {"size_px": 29 * 8}, ("pictures", "size_px"), "29 x 29 patches.*224 or 240 px would do"),
    (IDEFICS3, {"language_type": "gemma2"}, ("model", "language"), "final_logit_softcapping = 30.0"),
    (IDEFICS3, {"aspect": "native"}, ("pictures", "aspect"), "shows squares.*no other"),
    (IDEFICS, {"vision_type": "siglip_vision_model"}, ("model", "vision"), "CLIP's, and this one is siglip"),
    (IDEFICS, {"feature_layer": -2}, ("model", "vision", "feature_layer"), "reads layer -2"),
    (IDEFICS, {"class_token": False}, ("model", "vision", "class_token"), "this model drops it"),
    (IDEFICS, {"connector": MlpSettings(layers=1)}, ("model", "connector"), "a resampler, and this one is of type mlp"),
    (IDEFICS, {"language": SIX_LAYERS} | blocks(every=4), ("model", "cross_attention", "every"), "3 would do"),
    (IDEFICS, blocks(attend="earlier"), ("model", "cross_attention", "attend"), "read attend = earlier"),
    (IDEFICS, blocks(mlp="gelu"), ("model", "cross_attention", "mlp"), "these have mlp = gelu"),
    (IDEFICS, blocks(hidden_size=64), ("model", "cross_attention", "hidden_size"), "96, and these have 64"),
    (IDEFICS, blocks(heads=2), ("model", "cross_attention", "heads"), "4, and these have 2"),
    (IDEFICS, blocks(text_tokens="untouched"), ("model", "cross_attention", "text_tokens"), '"mlp" would do'),
    (IDEFICS, blocks(mask="uniform"), ("model", "cross_attention", "mask"), "the mean of all"),
    (IDEFICS, {"language_type": "qwen2"}, ("model", "language"), "a Llama, and this one is qwen2"),
    (IDEFICS, {"language_type": "mistral", "language": {"sliding_window": 9}}, ("model", "language"), "last 9 tokens"),
    (IDEFICS, {"language": {"attention_bias": True}}, ("model", "language"), "attention_bias"),
    (IDEFICS, {"language": {"mlp_bias": True}}, ("model", "language"), "mlp_bias"),
    (IDEFICS, {"language": {"head_dim": 16}}, ("model", "language"), "4 heads of 16"),
    (IDEFICS, {"language": {"hidden_act": "gelu"}}, ("model", "language"), "hidden_act = gelu"),
    (LLAVA, {"connector": SHUFFLE}, ("model", "connector"), "this one is a pixel_shuffle"),
    (LLAVA, {"connector": MlpSettings(hidden_size=64)}, ("model", "connector", "hidden_size"), "this one has 64"),
    (LLAVA, {"max_tiles": 2}, ("pictures", "max_tiles"), "cuts them into tiles"),
    (LLAVA, {"vision_type": "dinov2"}, ("model", "vision", "feature_layer"), "3 or -2 would do"),
    (LLAVA, {"vision_type": "dinov2_with_registers", "feature_layer": -2}, ("model", "vision"), "has 5"),
    (LLAVA, {"class_token": True}, ("model", "vision"), "siglip_vision_model has 0"),
    (LLAVA, {"language_type": "granite"}, ("model", "language"), "logits_scaling = 4"),
    (LLAVA, {"language_type": "phi"}, ("model", "language"), "phi has an output layer with a bias or a scale"),
]  # fmt: skip


def described(case: Case, marks: str | None = None) -> Any:
    """Describe a case as `carnac check` does, without building it."""
    settings = settings_of(case)
    fields: dict[str, Any] = {"logits_scaling": 4.0} if case.language_type == "granite" else {}
    language = tower_config("language", settings.language, {"vocab_size": 99})
    for name, value in fields.items():
        setattr(language, name, value)
    pictures = pictures_of(case)
    pictures = pictures.model_copy(update={"marks": marks or pictures.marks})
    vision = vision_config(settings.vision, case.size_px, native_aspect=case.aspect == "native")
    return describe_settings(settings, vision, language, pictures)


@pytest.mark.parametrize(("case", "changes", "place", "words"), REFUSED)
def test_a_model_that_a_format_cannot_express_is_refused_in_one_sentence(
    case: Case, changes: dict[str, Any], place: tuple[str, ...], words: str
) -> None:
    changed = Case(**{**vars(case), **changes})
    ((found, sentence),) = refusals(case.format, described(changed))
    assert found == place
    assert sentence.startswith(f"the {case.format} format cannot express this model: ")
    assert re.search(words, sentence)


def test_a_model_that_a_format_can_express_is_not_refused() -> None:
    native = Case(format="idefics2", aspect="native", max_tiles=2)
    tiled, vit = Case(format="idefics3", max_tiles=4), Case(format="llava", vision_type="vit")
    for case in (IDEFICS, IDEFICS2, native, IDEFICS3, tiled, LLAVA, vit):
        assert refusals(case.format, described(case)) == []


def test_the_sentence_says_which_format_can() -> None:
    sentences = [sentence for _, sentence in refusals("idefics3", described(LLAVA))]
    assert len(sentences) == 2
    assert all(sentence.endswith("; llava can.") for sentence in sentences)
    ((_, sentence),) = refusals("llava", described(LLAVA, marks="idefics3"))
    assert sentence.endswith("; no other format can either: carnac's own folder keeps all of it.")


def test_a_model_of_the_other_family_is_sent_to_the_format_that_can() -> None:
    for name in NAMES[1:]:
        place, sentence = refusals(name, described(IDEFICS))[0]
        assert place == ("model", "family")
        assert "this model's family is cross_attention; idefics can." in sentence
    place, sentence = refusals("idefics", described(LLAVA))[0]
    assert place == ("model", "family")
    assert sentence.endswith("this model's family is autoregressive; llava can.")
    ((place, sentence),) = refusals("idefics", described(IDEFICS, marks="none"))
    assert place == ("pictures", "marks")


def test_logits_that_the_class_would_lose_are_seen_in_the_model_itself() -> None:
    model, _, _ = make_case(LLAVA)
    assert refuse_built_language(model.language) is None

    def scale(_module: Any, _inputs: Any, outputs: Any) -> Any:
        outputs.logits *= 1.01
        return outputs

    model.language.register_forward_hook(scale)
    assert "does more to its logits" in str(refuse_built_language(model.language))


def test_what_stands_before_the_patches_is_seen_in_a_tower_that_nobody_has_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from carnac.model.formats import description

    model, known, _ = make_case(Case(format="llava", vision_type="vit"))
    monkeypatch.delitem(description.LEADING_TOKENS, "vit")
    assert describe_model(model, known.pictures).leading_tokens == known.leading_tokens == 1


def positions_of_transformers(side: int) -> list[int]:
    from transformers import Idefics3VisionConfig
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionEmbeddings

    embeddings = Idefics3VisionEmbeddings(
        Idefics3VisionConfig(hidden_size=1, image_size=side, patch_size=1, num_channels=3)
    )
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.bias.zero_()  # type: ignore[union-attr]
        embeddings.position_embedding.weight.copy_(torch.arange(side**2)[:, None])
        mask = torch.ones(1, side, side, dtype=torch.bool)
        found: list[int] = embeddings(torch.zeros(1, 3, side, side), mask).flatten().long().tolist()
    return found


def test_patches_that_we_say_are_in_order_are_in_order_in_transformers() -> None:
    wrong = [side for side in range(1, 71) if positions_of_transformers(side) != list(range(side**2))]
    ours = [side for side in range(1, 71) if not numbers_patches_in_order(side)]
    assert set(wrong) <= set(ours)
    assert 19 in ours
    # SigLIP at 224, 384 and 512 px of 16, SigLIP-SO400M at 364 and 378 px of 14: those that people use.
    assert {14, 24, 32, 26, 27}.isdisjoint(ours)


def test_the_boundaries_are_those_of_torch() -> None:
    from carnac.model.formats.positions import _boundaries

    sides = range(1, 129)
    equal = {
        lanes: all(np.array_equal(_boundaries(side, lanes), torch.arange(1 / side, 1.0, 1 / side)) for side in sides)
        for lanes in LANES
    }
    assert any(equal.values()), equal  # which of them depends on the processor


def test_the_nearest_sides_are_in_order() -> None:
    assert nearest_sides(29) == (28, 30)
    assert nearest_sides(1) == (2,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, about, words = make_case(LLAVA)
    write_all(model, about, "llava", words, tmp_path / "llava")
    return tmp_path / "llava"


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"model_type": "llama"},
            r"config.json: a model of type 'llama'; wanted one of idefics, idefics2, idefics3, llava",
        ),
        ({"model_type": "no such thing"}, "no configuration that transformers can read"),
        ({"model_type": "llava", "text_config": 5}, "no configuration that transformers can read"),
        ({"vision_feature_layer": [1, 2]}, r"reads several layers \[1, 2\]; wanted one"),
        ({"projector_hidden_act": "relu"}, "'relu'; wanted 'gelu', or 'linear'"),
        ({"projector_hidden_act": "linear"}, "with two maps; wanted one map"),
        ({"vision_feature_select_strategy": "default"}, "drops 1 of the 0 tokens that siglip_vision_model"),
    ],
)
def test_a_folder_of_another_model_is_refused(folder: Path, fields: dict[str, Any], words: str) -> None:
    change_config(folder, **fields)
    with pytest.raises(InputError, match=words):
        read_folder(folder)


def test_weights_that_are_not_whole_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["multi_modal_projector.linear_1.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 missing, first model\.multi_modal_projector\.linear_1\.weight"):
        read_folder(folder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        read_folder(folder)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_folder(folder)


SMOLVLM = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}, "do_image_splitting": True}
TOWER: dict[str, Any] = {"size_px": 512, "patch_px": 16, "tokens": 64, "model_type": "siglip_vision_model"}


def test_pictures_are_read_from_the_processors_file(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**SMOLVLM, "resample": 1, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2]}))
    pictures, notes = read_pictures(tmp_path, "idefics3", **TOWER)
    assert notes == []
    assert (pictures.max_tiles, pictures.marks, pictures.resample, pictures.tokens) == (4, "idefics3", "lanczos", 64)
    assert (pictures.mean, pictures.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    path.write_text(json.dumps({**SMOLVLM, "do_image_splitting": False}))
    assert read_pictures(tmp_path, "idefics3", **TOWER)[0].max_tiles == 1
    path.write_text(json.dumps({**SMOLVLM, "size": {"longest_edge": 2000}}))
    assert "from pictures of 2000 px; carnac's are 4 x 512 px" in read_pictures(tmp_path, "idefics3", **TOWER)[1][0]
    path.write_text(json.dumps({"do_center_crop": True}))
    pictures, notes = read_pictures(tmp_path, "llava", **TOWER)
    assert pictures.marks == "none"
    assert "the middle square" in notes[0]


def test_pictures_of_idefics_are_squares_with_clips_numbers(tmp_path: Path) -> None:
    path, tower = tmp_path / "preprocessor_config.json", {**TOWER, "tokens": 1, "model_type": "clip_vision_model"}
    path.write_text(json.dumps({"image_num_channels": 3, "image_size": 512}))  # no more stands there in idefics-9b's
    pictures, notes = read_pictures(tmp_path, "idefics", **tower)
    assert notes == []
    assert (pictures.marks, pictures.max_tiles, pictures.resample, pictures.tokens) == ("idefics", 1, "bicubic", 1)
    assert pictures.mean == (0.48145466, 0.4578275, 0.40821073)


def test_pictures_of_idefics2_keep_their_shape_unless_its_file_names_a_square(tmp_path: Path) -> None:
    path, tower = tmp_path / "preprocessor_config.json", {**TOWER, "size_px": 980, "patch_px": 14}
    path.write_text(json.dumps({"do_image_splitting": True, "size": {"longest_edge": 980, "shortest_edge": 378}}))
    pictures, notes = read_pictures(tmp_path, "idefics2", **tower)
    assert notes == []
    assert (pictures.aspect, pictures.shortest_px, pictures.max_tiles) == ("native", 378, 2)
    assert (pictures.marks, pictures.resample) == ("idefics2", "bilinear")
    path.write_text(json.dumps({"size": {"longest_edge": 490, "shortest_edge": 5}}))
    pictures, notes = read_pictures(tmp_path, "idefics2", **tower)
    assert (pictures.shortest_px, pictures.max_tiles) == (None, 1)
    assert "shrinks pictures to 490 px" in notes[0]
    path.write_text(json.dumps({"size": {"height": 980, "width": 980}}))
    pictures, notes = read_pictures(tmp_path, "idefics2", **tower)
    assert (pictures.aspect, notes) == ("square", [])
    path.write_text(json.dumps({"size": {"height": 490, "width": 980}}))
    assert "490 x 980 px; carnac's are 980 x 980 px" in read_pictures(tmp_path, "idefics2", **tower)[1][0]


@pytest.mark.parametrize("case", [IDEFICS3, LLAVA])
def test_a_conversation_is_written_as_carnac_chat_lays_it_out(case: Case) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    pictures = pictures_of(case)
    words = make_words(pictures)
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which mill?"}]},
        {"role": "assistant", "content": " The old one."},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": [{"type": "text", "text": " By the river."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "And these?"}]},
    ]
    rendered: Any = render_jinja_template([messages], chat_template=chat_template(words))[0]
    parts: list[str | bytes] = [b"", "Which mill? The old one.", "Where? By the river.", b"", b"", "And these?"]
    image = words.roles.image
    wanted = f"<|begin|>{image}Which mill? The old one.\n\nWhere? By the river.{image}{image}And these?"
    assert rendered == [wanted]
    laid = lay_out_prompt(parts, words, pictures)
    assert words.decode([each for each in laid.ids.tolist() if each not in words.marks.values()]) == wanted.replace(
        image, image * pictures.square_tokens
    )
