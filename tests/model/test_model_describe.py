"""Sizes are those of the model: from a skeleton, from the model itself, and from the head of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from model_builder import IMAGE_SIZE_PX, VOCABULARY, make_settings

from carnac.core.errors import InputError
from carnac.model.build import build_model, build_skeleton
from carnac.model.describe import measure_folder, measure_model
from carnac.model.language import Vocabulary
from carnac.model.settings import AdapterSettings, ModelSettings
from carnac.model.weights import save_model

WORDS = Vocabulary(size=VOCABULARY + 3, pad_id=0, eos_id=1, added_ids=(VOCABULARY, VOCABULARY + 1, VOCABULARY + 2))


def settings_of(trained: list[str], adapters: AdapterSettings | None, *, tied: bool) -> ModelSettings:
    settings = make_settings(tie_word_embeddings=tied)
    content = {**settings.model_dump(mode="json"), "trained": trained}
    content["adapters"] = None if adapters is None else adapters.model_dump(mode="json")
    return ModelSettings.model_validate_json(json.dumps(content))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("adapters", [None, AdapterSettings(rank=3, vision=("q_proj",)), AdapterSettings(dora=True)])
def test_a_skeleton_the_model_and_its_folder_have_equal_sizes(
    tmp_path: Path, adapters: AdapterSettings | None, tied: bool
) -> None:
    settings = settings_of(["connector", "added_tokens"], adapters, tied=tied)
    model = build_model(settings, WORDS, IMAGE_SIZE_PX, seed=0)
    size = measure_model(model)
    assert measure_model(build_skeleton(settings, WORDS, IMAGE_SIZE_PX)) == size
    save_model(model, tmp_path)
    assert measure_folder(tmp_path) == size
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.trained == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert size.training_bytes == 4 * size.parameters + 12 * size.trained
    names = [part.name for part in size.parts]
    assert names == ["vision", "connector", "language", "added tokens", *(["adapters"] if adapters else [])]
    parts = {part.name: part for part in size.parts}
    assert (parts["language"].trained, parts["vision"].trained) == (0, 0)
    assert (parts["added tokens"].kind, parts["vision"].kind) == (
        "3 rows",
        "siglip_vision_model, 2 layers of width 32",
    )
    assert (size.image_size_px, size.tokens_per_image) == (IMAGE_SIZE_PX, 4)
    assert size.cache_bytes == 2 * 4 * 2 * 2 * 12  # keys and values, fp32, layers, heads, width of a head


def test_all_parts_are_trained_unless_said(tmp_path: Path) -> None:
    size = measure_model(build_skeleton(make_settings(), Vocabulary(size=VOCABULARY, pad_id=0), IMAGE_SIZE_PX))
    assert size.trained == size.parameters
    assert [part.name for part in size.parts] == ["vision", "connector", "language"]


def test_a_folder_without_a_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: cannot be read"):
        measure_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "other"}')
    with pytest.raises(InputError, match=r"config\.json: not a model that carnac wrote: 'settings'"):
        measure_folder(tmp_path)
    save_model(build_model(make_settings(), WORDS, IMAGE_SIZE_PX, seed=0), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(InputError, match=r"model\.safetensors: missing, damaged or not a safetensors file"):
        measure_folder(tmp_path)
