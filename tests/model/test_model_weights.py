from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_builder import IMAGE_SIZE_PX, make_batch, make_model, make_settings

from carnac.core.errors import InputError
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ModelSettings
from carnac.model.tensors import to_tensors
from carnac.model.weights import load_model, load_weights, save_model, stored_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(make_model(), tmp_path)
    return tmp_path


def logits(model: MultimodalModel) -> torch.Tensor:
    with torch.no_grad():
        return model(to_tensors(make_batch([[(20, 1), (9, 0)]]), 4, model.device))  # type: ignore[no-any-return]


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_loads_to_the_same_model(tmp_path: Path, tied: bool) -> None:
    model = make_model("mistral", sliding_window=7, tie_word_embeddings=tied)
    save_model(model, tmp_path / "new" / "model")
    state = torch.get_rng_state()
    again = load_model(tmp_path / "new" / "model")
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(logits(model), logits(again))
    assert again.settings == model.settings
    assert not again.training
    head, table = again.language.get_output_embeddings().weight, again.language.get_input_embeddings().weight
    assert (head is table) == tied
    assert sorted(path.name for path in (tmp_path / "new" / "model").iterdir()) == ["config.json", "model.safetensors"]


CONNECTORS: list[dict[str, Any]] = [
    {"type": "mlp", "layers": 1, "bias": False},
    {"type": "pixel_shuffle", "factor": 2},
    {"type": "perceiver", "latents": 4, "depth": 1, "heads": 2, "head_size": 8, "kv_heads": 1},
]


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("tied", [True, False])
def test_connectors_and_added_tokens_load_as_they_were_saved(
    tmp_path: Path, connector: dict[str, Any], tied: bool
) -> None:
    settings = make_settings("gemma2", head_dim=12, tie_word_embeddings=tied)
    settings = ModelSettings.model_validate(
        {**settings.model_dump(), "connector": connector, "trained": ("connector",)}
    )
    vocabulary = Vocabulary(size=131, pad_id=130, added_ids=(130, 60, 129, 128))
    model = build_model(settings, vocabulary, IMAGE_SIZE_PX, seed=0)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.settings == settings
    assert again.tokens_per_image == model.tokens_per_image
    names, found = stored_tensors(model), stored_tensors(again)
    assert names.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in names.items())
    ids = torch.tensor([[130, 60, 5, 129, 128]])
    with torch.no_grad():
        one, two = (each.eval().language(input_ids=ids).logits for each in (model, again))
    assert torch.equal(one, two)
    trained = [name for name, parameter in again.named_parameters() if parameter.requires_grad]
    assert trained == [name for name, _ in again.named_parameters() if name.startswith("connector.")]


def test_a_folder_of_before_added_tokens_loads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("added_tokens") == {"ids": [], "base_rows": 128}
    for name in ("folder", "hub"):
        del config["settings"]["language"][name]
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(load_model(folder)), logits(make_model()))


def test_tied_weights_are_stored_once() -> None:
    model = make_model()
    names = stored_tensors(model)
    assert "language.model.embed_tokens.weight" in names
    assert "language.lm_head.weight" not in names
    assert sum(tensor.numel() for tensor in names.values()) == sum(each.numel() for each in model.parameters())


def test_the_configuration_names_every_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["language"]["vocab_size"] == 128
    assert config["vision"]["image_size"] == 32
    assert config["tokens_per_image"] == 4
    assert config["settings"]["family"] == "autoregressive"


def test_other_files_of_the_folder_stay(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    save_model(make_model(seed=5), folder)
    assert (folder / "tokenizer.json").read_text() == "{}"
    assert torch.equal(logits(load_model(folder)), logits(make_model(seed=5)))


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def edit(**changes: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


def edit_language(**changes: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edit(language=config["language"] | changes)(folder)

    return apply


@pytest.mark.parametrize(
    ("damage", "file", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json", "is .* a carnac model"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json", "not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json", "format is 'list'"),
        (edit(format="else"), "config.json", "format is 'else'"),
        (edit(settings={}), "config.json", "not a model that carnac can build"),
        (edit(vision={"model_type": "none"}), "config.json", "not a model that carnac can build"),
        (edit_language(auto_map={"AutoModelForCausalLM": "code.Evil"}), "config.json", "no field 'auto_map'"),
        (edit(added_tokens={"ids": [300], "base_rows": 128}), "config.json", "none left out behind the 128 rows"),
        (edit_language(hidden_size=47), "config.json", "not a model that carnac can build"),
        (edit_language(num_hidden_layers=3), "model.safetensors", "9 missing, 0 unknown"),
        (edit_language(num_hidden_layers=1), "model.safetensors", "0 missing, 9 unknown"),
        (edit_language(intermediate_size=95), "model.safetensors", "has shape"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors", "missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors", "damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04}."), "model.safetensors", "damaged"),
        (truncate, "model.safetensors", "damaged"),
    ],
)
def test_a_damaged_folder_gives_one_sentence(
    folder: Path, damage: Callable[[Path], None], file: str, words: str
) -> None:
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        load_model(folder)
    assert str(folder / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_load_leaves_the_model_alone(folder: Path) -> None:
    model = make_model(intermediate_size=64, seed=7)
    before = logits(model)
    with pytest.raises(InputError, match="another model"):
        load_weights(model, folder)
    assert torch.equal(before, logits(model))
