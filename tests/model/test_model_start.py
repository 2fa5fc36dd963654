"""Going on from a model that is there: what is kept to the bit, what is merged, resized, added, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_backbones import save_language, save_vision
from model_builder import IMAGE_SIZE_PX, VOCABULARY, make_settings
from model_formats import Case, make_case, write_all
from model_steps import logits, train

from carnac.core.errors import InputError
from carnac.model.adapter_files import load_adapters, save_adapters
from carnac.model.adapters import adapter_parameters
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import (
    PARTS,
    AdapterSettings,
    MlpSettings,
    ModelSettings,
    Part,
    PerceiverSettings,
    PixelShuffleSettings,
)
from carnac.model.start import fit_vocabulary, start_from
from carnac.model.tensors import BatchTensors
from carnac.model.weights import load_model, save_model, stored_tensors

LORA = AdapterSettings(rank=4, vision=("q_proj", "fc1"), language=("q_proj", "down_proj"))
DORA = LORA.model_copy(update={"dora": True})


def start(folder: Path, **changes: Any) -> MultimodalModel:
    given: dict[str, Any] = {"trained": PARTS, "adapters": None, "merge": False, "image_size_px": None, "seed": 0}
    return start_from(folder, **(given | changes))


def copies(model: MultimodalModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in stored_tensors(model).items()}


def trained_names(model: MultimodalModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model of which all was trained."""
    folder = tmp_path_factory.mktemp("finished")
    model = build_model(make_settings(), Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), IMAGE_SIZE_PX, seed=1)
    train(model, steps=5)
    save_model(model, folder)
    return folder


def adapted(folder: Path, adapters: AdapterSettings = LORA) -> MultimodalModel:
    """Write to `folder` a model with frozen backbones and trained adapters, and return it."""
    settings = make_settings().model_copy(update={"trained": ("connector",), "adapters": adapters})
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), IMAGE_SIZE_PX, seed=2)
    train(model, steps=5)
    save_model(model, folder)
    return model


def test_a_finished_model_goes_on_as_it_was(finished: Path) -> None:
    wanted = load_model(finished)
    model = start(finished)
    assert torch.equal(logits(model), logits(wanted))
    assert trained_names(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("trained", [("connector",), ("vision", "connector"), ("language",)])
def test_the_parts_that_are_not_trained_stay_to_the_bit(finished: Path, trained: tuple[Part, ...]) -> None:
    model = start(finished, trained=trained)
    assert model.settings.trained == tuple(part for part in PARTS if part in trained)
    before = copies(model)
    train(model, steps=5)
    changed = {name for name, tensor in stored_tensors(model).items() if not torch.equal(tensor, before[name])}
    assert {name.partition(".")[0] for name in changed} == set(trained)


def test_new_adapters_change_nothing_at_first_and_are_trained_alone(finished: Path) -> None:
    model = start(finished, trained=("connector",), adapters=LORA)
    assert torch.equal(logits(model), logits(load_model(finished)))
    own = {id(parameter) for parameter in adapter_parameters(model)}
    assert own
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name.startswith("connector.") or id(parameter) in own)
    before = copies(model)
    train(model, steps=5)
    changed = {name for name, tensor in stored_tensors(model).items() if not torch.equal(tensor, before[name])}
    assert changed == trained_names(model)


def test_new_weights_depend_on_the_seed_alone_and_the_callers_draws_go_on(finished: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    models = [start(finished, trained=(), adapters=LORA, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), wanted)
    one, same, other = (torch.cat([each.flatten() for each in adapter_parameters(model)]) for model in models)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("adapters", [LORA, DORA])
@pytest.mark.parametrize("then", [None, AdapterSettings(rank=2, language=("v_proj",))])
def test_earlier_adapters_are_merged_before_new_ones(
    tmp_path: Path, adapters: AdapterSettings, then: AdapterSettings | None
) -> None:
    before = adapted(tmp_path, adapters)
    wanted = logits(before)
    model = start(tmp_path, trained=("connector",) if then else ("connector", "language"), adapters=then, merge=True)
    difference = float((logits(model) - wanted).abs().max() / wanted.abs().max())
    print(f"{difference:.1e}")
    assert difference <= 1e-5
    assert model.settings.adapters == then
    names = {name for name in model.state_dict() if "lora_" in name}
    assert {name.split(".")[-4] for name in names} == ({"v_proj"} if then else set())
    assert not any("lora_" in name for name in model.vision.state_dict())


def test_new_adapters_merge_the_earlier_ones_unasked(tmp_path: Path) -> None:
    wanted = logits(adapted(tmp_path))
    model = start(tmp_path, trained=("connector",), adapters=DORA)
    assert float((logits(model) - wanted).abs().max() / wanted.abs().max()) <= 1e-5
    assert model.settings.adapters == DORA


def test_adapters_that_are_kept_are_trained_on(tmp_path: Path) -> None:
    before = adapted(tmp_path)
    model = start(tmp_path, trained=("connector",))
    assert torch.equal(logits(model), logits(before))
    assert trained_names(model) == trained_names(before)
    assert any(".lora_" in name for name in trained_names(model))


def test_a_folder_of_adapters_is_a_start_too(tmp_path: Path) -> None:
    towers = {"vision": tmp_path / "vision", "language": tmp_path / "language"}
    save_vision(towers["vision"], "siglip")
    save_language(towers["language"])
    content = {part: {"folder": str(folder)} for part, folder in towers.items()}
    content |= {"trained": ["connector"], "adapters": LORA.model_dump(mode="json")}  # type: ignore[dict-item]
    settings = ModelSettings.model_validate_json(json.dumps(content | {"connector": {"type": "pixel_shuffle"}}))
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), IMAGE_SIZE_PX, seed=0)
    train(model, steps=5)
    save_adapters(model, tmp_path / "adapters")
    kept = start(tmp_path / "adapters", trained=("connector",))
    assert torch.equal(logits(kept), logits(model))
    assert str(kept.settings.language.folder) == str(towers["language"])
    merged = start(tmp_path / "adapters", trained=("connector",), merge=True)
    # Merged weights are no longer the folder's: a folder of adapters would leave them out as if they were.
    assert (merged.settings.language.folder, merged.settings.language.type) == (None, "llama")
    with pytest.raises(InputError, match=r"model\.vision: this siglip_vision_model is no longer that of a folder"):
        save_adapters(merged, tmp_path / "again")
    save_adapters(kept, tmp_path / "again")
    assert torch.equal(logits(load_adapters(tmp_path / "again")), logits(model))


def test_a_backbone_that_was_trained_is_no_longer_called_by_its_folder(tmp_path: Path) -> None:
    save_language(tmp_path / "language")
    language = {"folder": str(tmp_path / "language")}
    content = make_settings().model_dump(mode="json") | {"language": language, "trained": ["language"]}
    settings = ModelSettings.model_validate_json(json.dumps(content))
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), IMAGE_SIZE_PX, seed=0)
    train(model, steps=5)
    save_model(model, tmp_path / "model")
    further = start(tmp_path / "model", trained=("connector",))
    assert (further.settings.language.folder, further.settings.language.type) == (None, "llama")
    assert torch.equal(logits(further), logits(model))
    save_model(further, tmp_path / "further")
    assert torch.equal(logits(load_model(tmp_path / "further")), logits(model))


FORMATS = {
    "idefics3": Case(format="idefics3", language={"tie_word_embeddings": True}),
    "llava": Case(format="llava", vision_type="clip_vision_model", feature_layer=-2),
}


@pytest.mark.parametrize("name", FORMATS)
def test_an_exported_folder_is_a_start(tmp_path: Path, name: str) -> None:
    case = FORMATS[name]
    before, described, words = make_case(case)
    write_all(before, described, case.format, words, tmp_path)
    adapters = AdapterSettings(rank=2, language=("q_proj",))
    model = start(tmp_path, trained=("connector",), adapters=adapters)
    found, wanted = show(model), show(before)
    assert float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-5
    assert {name.partition(".")[0] for name in trained_names(model)} == {"connector", "language"}
    again = start(tmp_path, trained=PARTS)
    assert trained_names(again) == {name for name, _ in again.named_parameters()}
    larger = start(tmp_path, trained=("connector",), image_size_px=64)
    assert larger.tokens_per_image == 4 * model.tokens_per_image
    assert show(larger).isfinite().all()


def show(model: MultimodalModel) -> torch.Tensor:
    """Return the logits of a row with one picture, whatever the model's squares."""
    side, tokens = model.image_size_px, model.tokens_per_image
    draws = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (1, tokens + 9), generator=draws)
    batch = BatchTensors(
        input_ids=ids,
        labels=ids,
        positions=torch.arange(tokens + 9)[None],
        image_places=torch.arange(3, tokens + 3)[None],
        pixels=torch.randn(1, 3, side, side, generator=draws),
    )
    with torch.no_grad():
        found: torch.Tensor = model(batch)
    return found


CONNECTORS = {
    "mlp": MlpSettings(hidden_size=40),
    "pixel_shuffle": PixelShuffleSettings(type="pixel_shuffle"),
    "perceiver": PerceiverSettings(type="perceiver", latents=5, depth=1, heads=2, head_size=8, kv_heads=1),
}


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("kind", ["siglip", "clip", "dinov2"])
def test_larger_squares_are_seen_as_the_family_sees_them(tmp_path: Path, kind: str, connector: str) -> None:
    save_vision(tmp_path / "vision", kind)
    content = make_settings().model_dump(mode="json") | {"vision": {"folder": str(tmp_path / "vision")}}
    settings = ModelSettings.model_validate_json(json.dumps(content)).model_copy(
        update={"connector": CONNECTORS[connector]}
    )
    before = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), 32, seed=0).eval()
    save_model(before, tmp_path / "model")
    model = start(tmp_path / "model", image_size_px=64)
    assert model.image_size_px == 64
    assert model.tokens_per_image == (5 if connector == "perceiver" else 4 * before.tokens_per_image)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        keywords = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
        wanted = before.vision(pixels, **keywords).last_hidden_state
        found = model.vision(pixels).last_hidden_state
    assert float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-5
    weights = zip(model.connector.state_dict().items(), before.connector.state_dict().items(), strict=True)
    assert all(one == other and torch.equal(mine, theirs) for (one, mine), (other, theirs) in weights)
    # As in a recipe of two stages: saved at the larger size, it comes back so.
    save_model(model, tmp_path / "larger")
    assert torch.equal(show(load_model(tmp_path / "larger")), show(model))
    back = start(tmp_path / "larger", image_size_px=64)
    assert torch.equal(show(back), show(model))


def test_adapters_of_the_tower_are_kept_at_another_size(tmp_path: Path) -> None:
    before = adapted(tmp_path)
    model = start(tmp_path, trained=("connector",), image_size_px=64)
    for name, tensor in model.vision.state_dict().items():
        if "position" not in name:
            assert torch.equal(tensor, before.vision.state_dict()[name])
    assert any(".lora_" in name for name in model.vision.state_dict())
    assert trained_names(model) == trained_names(before)
    assert show(model).isfinite().all()


@pytest.mark.parametrize("added", [(), (VOCABULARY - 1, VOCABULARY, VOCABULARY + 1)])
@pytest.mark.parametrize("tied", [True, False])
def test_tokens_that_the_model_lacks_get_rows(tmp_path: Path, added: tuple[int, ...], tied: bool) -> None:
    save_language(tmp_path / "language", tie_word_embeddings=tied)
    content = make_settings().model_dump(mode="json") | {"language": {"folder": str(tmp_path / "language")}}
    settings = ModelSettings.model_validate_json(json.dumps(content))
    rows = VOCABULARY + 2 * bool(added)
    vocabulary = Vocabulary(size=rows, pad_id=0, eos_id=1, added_ids=added)
    before = build_model(settings, vocabulary, IMAGE_SIZE_PX, seed=0)
    save_model(before, tmp_path / "model")
    model = start(tmp_path / "model", trained=("connector", "added_tokens"))
    more = (*added, rows, rows + 1)
    fit_vocabulary(model, Vocabulary(size=rows + 2, pad_id=0, eos_id=rows, added_ids=more), seed=0)
    assert model.language.config.eos_token_id == rows
    found, wanted = logits(model), logits(before)
    assert found.shape[-1] == rows + 2
    # Added rows are multiplied together: one more of them moves the last bit.
    assert torch.equal(found[..., : VOCABULARY - 1], wanted[..., : VOCABULARY - 1])
    assert float((found[..., :rows] - wanted).abs().max() / wanted.abs().max()) <= 1e-6
    names = trained_names(model)
    assert {name.partition(".")[0] for name in names} == {"connector", "language"}
    assert all(name.endswith(".added.weight") for name in names if name.startswith("language"))
    save_model(model, tmp_path / "more")
    assert torch.equal(logits(load_model(tmp_path / "more")), found)


def test_the_tokenizer_of_another_model_is_refused(finished: Path) -> None:
    with pytest.raises(InputError, match="knows 128 tokens, the tokenizer has 130"):
        fit_vocabulary(start(finished), Vocabulary(size=130, pad_id=0, added_ids=(129,)), seed=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapters": LORA}, "the weights of vision are trained themselves"),
        ({"trained": ()}, "nothing would be trained"),
        ({"image_size_px": 40}, "40 px: no multiple of the 16 px"),
    ],
)
def test_what_excludes_itself_is_refused(finished: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        start(finished, **changes)


def test_adapters_beside_trained_weights_are_to_be_merged(tmp_path: Path) -> None:
    adapted(tmp_path)
    with pytest.raises(InputError, match=r"the weights of language are trained themselves.*merge_adapters = true"):
        start(tmp_path, trained=("language",))
    assert start(tmp_path, trained=("language",), merge=True).settings.adapters is None


def test_a_grid_that_pixel_shuffle_cannot_cut_is_refused(tmp_path: Path) -> None:
    settings = make_settings().model_copy(update={"connector": CONNECTORS["pixel_shuffle"]})
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), IMAGE_SIZE_PX, seed=2)
    save_model(model, tmp_path)
    with pytest.raises(InputError, match="does not divide the tower's 9 patches"):
        start(tmp_path, image_size_px=48)


def test_folders_without_a_model_are_refused_with_what_is_wanted(finished: Path, tmp_path: Path) -> None:
    words = r"no model here .* Wanted the output folder of a finished train recipe.* exported to idefics, .* or llava"
    with pytest.raises(InputError, match=words):
        start(tmp_path / "nowhere")
    (tmp_path / "checkpoints" / "step-00000300").mkdir(parents=True)
    with pytest.raises(InputError, match=r"Its newest checkpoint is .*checkpoints/step-00000300\."):
        start(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        start(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(
        InputError, match="a model of type 'llama'; wanted one of idefics, idefics2, idefics3, llava, smolvlm"
    ):
        start(tmp_path)
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"model\.safetensors: missing"):
        start(tmp_path)
    weights = (finished / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-9])
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        start(tmp_path)


def test_a_checkpoint_is_a_start_unless_a_byte_of_it_is_wrong(finished: Path, tmp_path: Path) -> None:
    names = ("config.json", "model.safetensors")
    for name in names:
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    digests = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names}
    (tmp_path / "state.json").write_text(json.dumps({"step": 3, "digests": digests}))
    assert torch.equal(logits(start(tmp_path)), logits(load_model(finished)))
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"model\.safetensors: damaged: its sha256 .* start from another checkpoint"):
        start(tmp_path)
    (tmp_path / "state.json").write_text("[]")
    with pytest.raises(InputError, match=r"state\.json: damaged"):
        start(tmp_path)
