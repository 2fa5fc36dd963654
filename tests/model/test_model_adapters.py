"""Adapters: what is frozen stays so to the bit, a merge changes nothing, and what was trained is kept alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from model_builder import IMAGE_SIZE_PX, VOCABULARY, make_settings
from model_steps import logits, train

from carnac.core.errors import InputError
from carnac.model.adapter_files import is_adapters, load_adapters, save_adapters
from carnac.model.adapters import adapter_parameters, merge_adapters
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import AdapterSettings, ModelSettings
from carnac.model.weights import load_model, save_model, stored_tensors

ADDED = (VOCABULARY - 1, VOCABULARY, VOCABULARY + 1)
KINDS = {
    "LoRA": AdapterSettings(rank=4, alpha=8.0, vision=("q_proj", "v_proj", "fc1")),
    "DoRA": AdapterSettings(rank=4, alpha=8.0, dora=True, vision=("out_proj",), language=("q_proj", "down_proj")),
    "LoRA on the language model alone": AdapterSettings(rank=2),
}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two trained backbones, as transformers saves them: their weights are random but stored."""
    folder = tmp_path_factory.mktemp("backbones")
    model = build_model(make_settings(), Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), IMAGE_SIZE_PX, seed=5)
    model.vision.save_pretrained(folder / "vision")
    model.language.save_pretrained(folder / "language")
    return folder


def adapted_settings(backbones: Path, adapters: AdapterSettings) -> ModelSettings:
    content = {
        "vision": {"folder": str(backbones / "vision")},
        "connector": {"type": "mlp", "hidden_size": 48},
        "language": {"folder": str(backbones / "language")},
        "trained": ["connector", "added_tokens"],
        "adapters": adapters.model_dump(mode="json"),
    }
    return ModelSettings.model_validate_json(json.dumps(content))


def adapted_model(backbones: Path, adapters: AdapterSettings) -> MultimodalModel:
    vocabulary = Vocabulary(size=VOCABULARY + 2, pad_id=0, eos_id=1, added_ids=ADDED)
    return build_model(adapted_settings(backbones, adapters), vocabulary, IMAGE_SIZE_PX, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_after_20_steps_the_backbones_are_the_same_to_the_bit_and_the_rest_has_moved(
    backbones: Path, kind: str
) -> None:
    model = adapted_model(backbones, KINDS[kind])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: tensor.detach().clone() for name, tensor in stored_tensors(model).items()}
    train(model, steps=20)
    changed = {name for name, tensor in stored_tensors(model).items() if not torch.equal(tensor, before[name])}
    assert changed == trained
    beside = {name for name in trained if "lora_" not in name}
    assert {name.partition(".")[0] for name in beside} == {"connector", "language"}
    assert [name for name in beside if name.startswith("language")] == ["language.model.embed_tokens.added.weight"]
    assert sum(parameter.numel() for parameter in adapter_parameters(model)) == sum(
        before[name].numel() for name in trained if "lora_" in name
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_changes_no_logit_by_more_than_1e_5_and_leaves_plain_backbones(
    backbones: Path, tmp_path: Path, kind: str
) -> None:
    model = adapted_model(backbones, KINDS[kind])
    untrained = logits(model.eval())
    train(model, steps=20)
    wanted = logits(model)
    scale = wanted.abs().max()
    assert (wanted - untrained).abs().max() / scale > 0.05, "the adapters say something"
    merge_adapters(model)
    difference = float((logits(model) - wanted).abs().max() / scale)
    print(f"{kind}: {difference:.1e}")
    assert difference <= 1e-5
    assert model.settings.adapters is None
    assert not [name for name in model.state_dict() if "lora_" in name or "base_layer" in name]
    save_model(model, tmp_path)
    assert torch.equal(logits(load_model(tmp_path)), logits(model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_adapters_comes_back_to_the_bit(backbones: Path, tmp_path: Path, kind: str) -> None:
    model = adapted_model(backbones, KINDS[kind])
    train(model, steps=3)
    save_model(model, tmp_path / "whole")
    again = load_model(tmp_path / "whole")
    assert torch.equal(logits(again), logits(model))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in again.named_parameters() if parameter.requires_grad} == trained


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_alone_makes_the_same_model_of_the_same_backbones(
    backbones: Path, tmp_path: Path, kind: str
) -> None:
    model = adapted_model(backbones, KINDS[kind])
    train(model, steps=3)
    save_adapters(model, tmp_path / "adapters")
    assert is_adapters(tmp_path / "adapters")
    assert not is_adapters(backbones / "language")
    assert torch.equal(logits(load_adapters(tmp_path / "adapters")), logits(model))
    moved = shutil.copytree(backbones, tmp_path / "elsewhere")
    again = load_adapters(tmp_path / "adapters", {"vision": moved / "vision", "language": moved / "language"})
    assert torch.equal(logits(again), logits(model))
    from safetensors.torch import load_file

    stored = sum(t.numel() for path in (tmp_path / "adapters").rglob("*.safetensors") for t in load_file(path).values())
    assert stored == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers so
@pytest.mark.parametrize("kind", ["LoRA", "DoRA"])
def test_peft_itself_loads_the_adapters_of_a_backbone(backbones: Path, tmp_path: Path, kind: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = adapted_model(backbones, KINDS[kind])
    train(model, steps=3)
    save_adapters(model, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(backbones / "language", local_files_only=True)
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        plain = base(ids).logits.clone()
        found = PeftModel.from_pretrained(base, tmp_path / "language", local_files_only=True).eval()(ids).logits
        wanted = model.language(ids).logits[..., : VOCABULARY - 1]
    assert (found - plain).abs().max() > 1e-3
    assert torch.equal(found[..., : VOCABULARY - 1], wanted)


def test_backbones_that_lie_nowhere_else_are_kept_with_the_adapters(tmp_path: Path) -> None:
    settings = make_settings().model_copy(update={"trained": ("connector",), "adapters": AdapterSettings(rank=2)})
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), IMAGE_SIZE_PX, seed=3)
    train(model, steps=2)
    save_adapters(model, tmp_path)
    assert torch.equal(logits(load_adapters(tmp_path)), logits(model))


def test_what_is_wrong_with_a_folder_of_adapters_is_one_sentence(backbones: Path, tmp_path: Path) -> None:
    model = adapted_model(backbones, KINDS["LoRA"])
    save_adapters(model, tmp_path / "whole")
    other = shutil.copytree(backbones, tmp_path / "other")
    language = build_model(make_settings(), Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), IMAGE_SIZE_PX, seed=6)
    language.language.save_pretrained(other / "language")
    with pytest.raises(InputError, match=r"trained on another language backbone than the one in .*other"):
        load_adapters(tmp_path / "whole", {"language": other / "language"})
    with pytest.raises(InputError, match=r"gone.*: no config\.json there"):
        load_adapters(tmp_path / "whole", {"vision": tmp_path / "gone"})
    for damage, words in {
        "language/adapter_model.safetensors": "missing; the adapters' folder is not whole",
        "trained.safetensors": "missing; the adapters' folder is not whole",
        "config.json": r"config\.json: cannot be read",
    }.items():
        folder = shutil.copytree(tmp_path / "whole", tmp_path / damage.replace("/", "-"))
        (folder / damage).unlink()
        with pytest.raises(InputError, match=words) as caught:
            load_adapters(folder)
        assert str(caught.value).startswith(str(folder))
    (tmp_path / "whole" / "trained.safetensors").write_bytes(b"1234")
    with pytest.raises(InputError, match=r"trained\.safetensors: damaged or not a safetensors file"):
        load_adapters(tmp_path / "whole")


def test_a_name_that_no_linear_layer_has_is_one_sentence(backbones: Path) -> None:
    for adapters, words in (
        (AdapterSettings(language=("q_prog",)), "language: no linear layer of this llama ends with 'q_prog'; it has"),
        (AdapterSettings(language=("lm_head",)), "no linear layer of this llama ends with 'lm_head'"),
        (AdapterSettings(vision=("layer_norm1",), language=()), "no linear layer of this siglip_vision_model ends"),
    ):
        with pytest.raises(InputError, match=words):
            adapted_model(backbones, adapters)
