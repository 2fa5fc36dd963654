"""Language models of many families: packed without a leak, given added tokens, saved and loaded again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_builder import IMAGE_SIZE_PX, VOCABULARY, make_batch, make_settings

from carnac.core.errors import InputError
from carnac.model.added_tokens import added_ids_of, language_weights
from carnac.model.build import build_model
from carnac.model.language import Vocabulary, language_from_config
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ConfigValue, TowerSettings
from carnac.model.tensors import to_tensors
from carnac.model.towers import configuration_class, make_config, own_fields, stored_fields
from carnac.model.weights import load_model, save_model

FAMILIES = [
    "llama",
    "mistral",
    "mixtral",
    "ministral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "vaultgemma",
    "phi",
    "phi3",
    "olmo",
    "olmo2",
    "olmo3",
    "granite",
    "cohere",
    "cohere2",
    "glm",
    "glm4",
    "starcoder2",
    "gpt2",
    "gpt_neox",
    "gptj",
    "gpt_bigcode",
    "codegen",
    "nemotron",
    "exaone4",
    "helium",
    "arcee",
    "apertus",
    "seed_oss",
    "persimmon",
    "ernie4_5",
    "hunyuan_v1_dense",
    "diffllama",
    "bitnet",
]
LEAKING = ["bloom", "falcon", "mpt", "opt", "xglm", "biogpt"]
ADDED = Vocabulary(size=VOCABULARY, pad_id=0, added_ids=(128, 60, 129))
SIZES: dict[str, ConfigValue] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "head_dim": 12,
    "rotary_dim": 8,
    "ffn_dim": 96,
    "word_embed_proj_dim": 48,
    "d_model": 48,
    "n_layers": 2,
    "n_heads": 4,
    "attention_heads": 4,
    "num_layers": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "moe_intermediate_size": 32,
}


def make_small(kind: str) -> MultimodalModel:
    """Return a small model of a family, its sizes under the family's own names."""
    known = own_fields(kind) - set(configuration_class(kind).attribute_map)
    sizes = {name: size for name, size in SIZES.items() if name in known}
    settings = make_settings().model_copy(update={"language": TowerSettings(type=kind, config=sizes)})
    return build_model(settings, ADDED, IMAGE_SIZE_PX, seed=0).eval()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_is_packed_extended_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    model = make_small(kind)
    tensors = to_tensors(make_batch([[(23, 2), (9, 0), (31, 3)], [(40, 1)]]), model.tokens_per_image, model.device)
    ids = torch.tensor([[*ADDED.added_ids, 5, 6, 7]])
    plain = language_from_config(make_config(kind, stored_fields(model.language.config))).eval()
    plain.load_state_dict(language_weights(model), strict=False)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(tensors), again(tensors))
        found, wanted = (each(input_ids=ids, use_cache=False).logits for each in (model.language, plain))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert added_ids_of(again.language) == ADDED.added_ids


@pytest.mark.parametrize("kind", LEAKING)
def test_families_that_leak_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match=f"model.language: {kind} cannot be packed"):
        make_small(kind)
