"""Models made of trained backbones, which lie in folders as their makers hand them out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from model_backbones import save_language, save_vision
from model_builder import IMAGE_SIZE_PX, VOCABULARY, make_batch

from carnac.core.batch import Batch
from carnac.core.errors import InputError
from carnac.model.added_tokens import added_ids_of, added_parameters
from carnac.model.build import build_model
from carnac.model.language import Vocabulary, build_language
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ModelSettings, PixelShuffleSettings, TowerSettings, VisionSettings
from carnac.model.tensors import to_tensors
from carnac.model.weights import load_model, save_model

ADDED = Vocabulary(size=VOCABULARY + 2, pad_id=129, eos_id=1, added_ids=(127, 128, 129))


def settings_for(folder: Path) -> ModelSettings:
    return ModelSettings(
        vision=VisionSettings(folder=folder / "vision"),
        connector=PixelShuffleSettings(type="pixel_shuffle", factor=2),
        language=TowerSettings(folder=folder / "language"),
    )


def logits(model: MultimodalModel, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(to_tensors(batch, model.tokens_per_image, model.device))
    return found


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "gemma2", "gemma3_text", "gpt2"])
def test_a_folder_gives_the_trained_language_model(tmp_path: Path, kind: str) -> None:
    fields = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64} if kind == "gpt2" else {}
    theirs = save_language(tmp_path, kind, **fields)
    ours = build_language(TowerSettings(folder=tmp_path), Vocabulary(size=120, pad_id=3, bos_id=4, eos_id=5))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)
    assert (ours.config.pad_token_id, ours.config.bos_token_id, ours.config.eos_token_id) == (3, 4, 5)
    assert ours.config.vocab_size == VOCABULARY


def test_half_precision_weights_are_read_in_full(tmp_path: Path) -> None:
    save_language(tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    model = build_language(TowerSettings(folder=tmp_path), Vocabulary(size=VOCABULARY, pad_id=0))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_backbones_folders_are_not_needed_again(tmp_path: Path) -> None:
    save_vision(tmp_path / "vision", "siglip")
    save_language(tmp_path / "language", tie_word_embeddings=True)
    model = build_model(settings_for(tmp_path), ADDED, IMAGE_SIZE_PX, seed=3)
    batch = make_batch([[(40, 2), (9, 0)], [(30, 1)]])
    batch.input_ids[0, 30:33] = ADDED.added_ids
    wanted = logits(model, batch)
    save_model(model, tmp_path / "model")
    shutil.rmtree(tmp_path / "vision")
    shutil.rmtree(tmp_path / "language")
    again = load_model(tmp_path / "model")
    assert torch.equal(logits(again, batch), wanted)
    assert added_ids_of(again.language) == ADDED.added_ids
    assert (again.language.config.vocab_size, again.language.config.pad_token_id) == (130, 129)
    assert len(added_parameters(again.language)) == 1
    assert again.settings == model.settings


def test_a_tower_may_be_shown_larger_squares_than_it_was_trained_with(tmp_path: Path) -> None:
    save_vision(tmp_path / "vision", "clip")
    save_language(tmp_path / "language")
    model = build_model(settings_for(tmp_path), ADDED, 48, seed=3)
    assert (model.image_size_px, model.tokens_per_image) == (48, 9)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters(), strict=True))


def test_new_parts_depend_on_the_seed_and_trained_ones_do_not(tmp_path: Path) -> None:
    save_vision(tmp_path / "vision", "vit")
    save_language(tmp_path / "language")
    state = torch.get_rng_state()
    one, same, other = (build_model(settings_for(tmp_path), ADDED, 48, seed) for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    differ = {name for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True) if (a != b).any()}
    added = {"language.model.embed_tokens.added.weight", "language.lm_head.added.weight"}
    assert differ - {"vision.pooler.dense.weight"} == {"connector.projection.weight", *added}


@pytest.mark.parametrize(
    ("kind", "fields", "vocabulary", "words"),
    [
        ("llama", {}, Vocabulary(size=140, pad_id=0), "knows 128 tokens, the tokenizer has 140"),
        ("llama", {}, Vocabulary(size=131, pad_id=0, added_ids=(128, 129)), "knows 128 tokens, the tokenizer has 131"),
        ("opt", {"ffn_dim": 32, "word_embed_proj_dim": 32}, Vocabulary(size=9, pad_id=0), "cannot be packed"),
    ],
)
def test_language_models_that_do_not_fit_are_refused(
    tmp_path: Path, kind: str, fields: dict[str, Any], vocabulary: Vocabulary, words: str
) -> None:
    save_language(tmp_path, kind, **fields)
    with pytest.raises(InputError, match=words):
        build_language(TowerSettings(folder=tmp_path), vocabulary)


def test_composed_models_and_towers_are_no_language_model(tmp_path: Path) -> None:
    save_vision(tmp_path / "siglip", "siglip")
    with pytest.raises(InputError, match=r"model\.language\.folder: transformers has no language model 'siglip'"):
        build_language(TowerSettings(folder=tmp_path / "siglip"), ADDED)
    (tmp_path / "config.json").write_text('{"model_type": "gemma3"}')
    with pytest.raises(InputError, match="try gemma3_text"):
        build_language(TowerSettings(folder=tmp_path), ADDED)
    (tmp_path / "config.json").write_text('{"model_type": "lfm2"}')
    with pytest.raises(InputError, match="convolution or recurrence"):
        build_language(TowerSettings(folder=tmp_path), ADDED)


def test_weights_of_another_architecture_give_one_sentence(tmp_path: Path) -> None:
    save_language(tmp_path, "gpt2", n_embd=32, n_layer=2, n_head=2)
    save_language(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "config.json", tmp_path / "config.json")
    with pytest.raises(InputError, match=r"weights of another model: .* of this llama are") as caught:
        build_language(TowerSettings(folder=tmp_path), Vocabulary(size=VOCABULARY, pad_id=0))
    assert "\n" not in str(caught.value)


def test_weights_of_another_size_give_one_sentence(tmp_path: Path) -> None:
    save_language(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"intermediate_size": 64', '"intermediate_size": 96'))
    with pytest.raises(InputError, match=r"this llama") as caught:
        build_language(TowerSettings(folder=tmp_path), Vocabulary(size=VOCABULARY, pad_id=0))
    assert str(tmp_path) in str(caught.value)
