"""Idefics both ways: our cross-attention model in transformers' class, and theirs in ours; logits and gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_formats import byte_level_words, compare, make_case, make_talkative, make_words, metaspace_words, write_all
from model_idefics import (
    IMAGE,
    ROWS,
    VOCABULARY,
    compare_logits,
    idefics_case,
    make_idefics,
    make_tensors,
    their_idefics,
    their_inputs,
    worst_difference,
)

from carnac.core.errors import InputError
from carnac.model.added_tokens import add_tokens
from carnac.model.build import join
from carnac.model.formats import idefics
from carnac.model.formats.description import describe_model
from carnac.model.formats.folders import read_folder
from carnac.model.formats.idefics_names import BLOCKS, RESAMPLER
from carnac.model.language import language_from_config
from carnac.model.precision import checkpoint_activations
from carnac.model.settings import ModelSettings, TowerSettings
from carnac.model.vision import vision_from_config
from carnac.sequence.settings import PictureSettings

TOLERANCE = 1e-5
INSIDE, BEYOND = (IMAGE, 59, 60), (IMAGE, VOCABULARY, VOCABULARY + 1)
OURS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a block before every second layer": {"blocks": {"every": 2}},
    "a block before every fourth layer": {"blocks": {"every": 4}, "language": {"num_hidden_layers": 8}},
    "no norms in the blocks": {"blocks": {"qk_norms": False}},
    "no norms in the resampler": {"resampler": {"qk_norms": False}},
    "no norms": {"blocks": {"qk_norms": False}, "resampler": {"qk_norms": False}},
    "vector gates": {"blocks": {"gates": "vector"}},
    "gates closed": {"blocks": {"gate_start": 0.0, "gate_spread": 0.0}},
    "all heads of their own": {"language": {"num_key_value_heads": 4}},
    "one key-value head": {"language": {"num_key_value_heads": 1}},
    "tied": {"language": {"tie_word_embeddings": True}},
    "one latent": {"resampler": {"latents": 1, "depth": 1, "heads": 1}},
    "5 x 5 patches of 7 px": {"size_px": 35, "patch_px": 7},
    "another epsilon": {"language": {"rms_norm_eps": 1e-2}},
    "mistral without a window": {"language_type": "mistral", "language": {"sliding_window": 4096}},
}
ADDED: dict[str, tuple[tuple[int, ...], bool]] = {
    "inside": (INSIDE, False),
    "inside, tied": (INSIDE, True),
    "beyond": (BEYOND, False),
    "beyond, tied": (BEYOND, True),
}


def both_ways(case: Any, folder: Path, added_ids: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """Compare ours with theirs, and what is read back with theirs; return both."""
    model = make_idefics(case, added_ids)
    theirs = their_idefics(model, case, folder)
    again, _ = read_folder(folder)
    batch = make_tensors(model)
    found = compare_logits(model, theirs, batch), compare_logits(again, theirs, batch)
    print(f"worst {max(found):.1e}")
    assert max(found) <= TOLERANCE
    return model, theirs


@pytest.mark.parametrize("label", OURS)
def test_packed_rows_compute_the_same_both_ways(label: str, tmp_path: Path) -> None:
    both_ways(idefics_case(**OURS[label]), tmp_path)


@pytest.mark.parametrize("label", ADDED)
def test_added_tokens_go_into_the_table_or_beside_it(label: str, tmp_path: Path) -> None:
    added_ids, tied = ADDED[label]
    case = idefics_case(language={"tie_word_embeddings": tied})
    model, theirs = both_ways(case, tmp_path, added_ids)
    beyond = [each for each in added_ids if each >= VOCABULARY]
    assert (theirs.config.vocab_size, theirs.config.additional_vocab_size) == (VOCABULARY, len(beyond))
    table = theirs.model.embed_tokens
    rows = torch.cat([table.weight, table.additional_embedding.weight]) if beyond else table.weight
    added = model.language.get_input_embeddings().added.weight
    assert torch.equal(rows[list(added_ids)], added)
    again, _ = read_folder(tmp_path)
    assert again.language.config.vocab_size == VOCABULARY + len(beyond)


def test_padding_may_be_a_token_that_their_table_has_no_row_for(tmp_path: Path) -> None:
    case = idefics_case()
    model = make_idefics(case, BEYOND)
    model.language.config.pad_token_id = VOCABULARY + 1
    theirs = their_idefics(model, case, tmp_path)
    assert theirs.config.pad_token_id is None
    assert compare_logits(model, theirs, make_tensors(model)) <= TOLERANCE


def test_rows_without_any_picture_compute_the_same(tmp_path: Path) -> None:
    case = idefics_case()
    model = make_idefics(case)
    theirs = their_idefics(model, case, tmp_path)
    assert compare_logits(model, theirs, make_tensors(model, [[(12, ()), (5, ())], [(9, ())]])) <= TOLERANCE


def test_their_class_leaks_between_pieces_without_the_mask(tmp_path: Path) -> None:
    case = idefics_case()
    model = make_idefics(case)
    theirs = their_idefics(model, case, tmp_path)
    batch = make_tensors(model)
    told = {**their_inputs(batch), "attention_mask": None}
    with torch.no_grad():
        found = worst_difference(model(batch), theirs(**told, use_cache=False).logits)
    assert found > 0.01


THEIRS: dict[str, dict[str, Any]] = {
    "idefics": {},
    "vector gates, two layers a block": {"alpha_type": "vector", "cross_layer_interval": 2},
    "no norms, tied": {"qk_layer_norms": False, "tie_word_embeddings": True},
    "additional tokens": {"additional_vocab_size": 2},
    "additional tokens, tied": {"additional_vocab_size": 3, "tie_word_embeddings": True},
    "a rest that no patch sees": {"image_size": 36},
    "positions stretched": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
}


def make_theirs(vocab_size: int = VOCABULARY, **fields: Any) -> Any:
    """Return transformers' Idefics with random weights."""
    from transformers import AutoModelForImageTextToText, IdeficsConfig

    vision = {"embed_dim": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    perceiver = {"resampler_n_latents": 4, "resampler_depth": 2, "resampler_n_heads": 2, "resampler_head_dim": 8}
    told: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4}
    told |= {"num_attention_heads": 4, "qk_layer_norms": True, "use_resampler": True, "vocab_size": vocab_size}
    told |= {"max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    vision_config = {**vision, "image_size": fields.pop("image_size", 32), "patch_size": 8}
    resampled = {**perceiver, "use_resampler": True, "qk_layer_norms_perceiver": fields.get("qk_layer_norms", True)}
    auto: Any = AutoModelForImageTextToText
    config = IdeficsConfig(**{**told, **fields}, vision_config=vision_config, perceiver_config=resampled)
    theirs = auto.from_config(config).eval()
    make_talkative(theirs)
    return theirs


@pytest.mark.parametrize("label", THEIRS)
def test_our_model_computes_what_transformers_computes(label: str, tmp_path: Path) -> None:
    theirs = make_theirs(**THEIRS[label])
    theirs.save_pretrained(tmp_path)
    model, config = read_folder(tmp_path)
    assert config.model_type == "idefics"
    batch = make_tensors(model)
    told = their_inputs(batch)
    side = theirs.config.vision_config.image_size
    missing = side - model.image_size_px
    told["pixel_values"] = torch.nn.functional.pad(told["pixel_values"], (0, missing, 0, missing))
    with torch.no_grad():
        found = worst_difference(model(batch), theirs(**told, use_cache=False).logits)
    print(f"{label}: worst {found:.1e}")
    assert found <= TOLERANCE


def gradients_of_theirs(theirs: Any, told: dict[str, torch.Tensor], batch: Any) -> dict[str, torch.Tensor]:
    theirs.requires_grad_(True)
    theirs.zero_grad()
    loss_of(theirs(**told, use_cache=False).logits, batch).backward()  # type: ignore[no-untyped-call]
    names = (BLOCKS, RESAMPLER)
    return {name: each.grad.clone() for name, each in theirs.named_parameters() if name.startswith(names)}


def loss_of(logits: torch.Tensor, batch: Any) -> torch.Tensor:
    """Return the mean cross entropy of the next token, padding and all."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch.input_ids[:, 1:].flatten())


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("label", ["as it is", "vector gates", "no norms", "a block before every second layer"])
def test_gradients_of_blocks_and_resampler_equal_theirs(label: str, recompute: bool, tmp_path: Path) -> None:
    case = idefics_case(**OURS[label])
    model = make_idefics(case)
    theirs = their_idefics(model, case, tmp_path).train()
    model.train()
    if recompute:
        checkpoint_activations(model)
        theirs.activation_checkpointing_enable()
    batch = make_tensors(model)
    loss_of(model(batch), batch).backward()  # type: ignore[no-untyped-call]
    joining = {name: each.grad for name, each in model.connector.named_parameters()}
    joining |= {f"fusion.{name}": each.grad for name, each in model.get_submodule("fusion").named_parameters()}
    described = describe_model(model, PictureSettings(size_px=32, patch_px=8, marks="idefics", tokens=1))
    ours = idefics.their_tensors(described, {}, {name: each for name, each in joining.items() if each is not None}, {})
    wanted = gradients_of_theirs(theirs, their_inputs(batch), batch)
    assert ours.keys() == wanted.keys()
    # The same number added to all keys changes no attention: what is found there is rounding, 1e-9 beside 0.6.
    nothing = {name for name in wanted if name.endswith("k_layer_norm.bias")}
    largest = max(float(each.abs().max()) for each in wanted.values())
    assert all(float(each[name].abs().max()) <= TOLERANCE * largest for each in (ours, wanted) for name in nothing)
    # A gate's gradient is one number, a sum in which much cancels: its scale is that of the gates together.
    gates = torch.cat([wanted[name].flatten() for name in wanted if ".alpha_" in name]).abs().max()
    found = {
        name: float(
            (ours[name] - wanted[name]).abs().max() / (gates if ".alpha_" in name else wanted[name].abs().max())
        )
        for name in wanted.keys() - nothing
    }
    worst = max(found, key=found.__getitem__)
    print(f"{label}: worst gradient {found[worst]:.1e} of its scale ({worst}), {len(wanted)} tensors")
    assert found[worst] <= TOLERANCE


@pytest.mark.parametrize("kind", ["trained here", "metaspace", "nothing begins a text"])
def test_the_whole_proof_holds_with_its_processor(kind: str, tmp_path: Path) -> None:
    case = idefics_case(language={"tie_word_embeddings": kind == "metaspace"})
    pictures = PictureSettings(size_px=32, patch_px=8, marks="idefics")
    if kind == "trained here":
        words = make_words(pictures)
    elif kind == "metaspace":
        words = metaspace_words(tmp_path / "words", pictures, "first")
    else:
        words = byte_level_words(tmp_path / "words", pictures)
    model, described, _ = make_case(case, words)
    write_all(model, described, "idefics", words, tmp_path / "export")
    found = compare(model, described, words, tmp_path / "export", tmp_path)
    print(f"{kind}: worst {found['worst']:.1e}")
    assert found["passed"]
    assert found["class"] == "IdeficsForVisionText2Text"
    assert all(each["ids_equal"] and each["images_read_equal"] for each in found["processor"])
    assert all(each["pixels_same_shape"] for each in found["processor"][1:])


def test_an_export_read_and_written_again_is_the_same_file(tmp_path: Path) -> None:
    pictures = PictureSettings(size_px=32, patch_px=8, marks="idefics", tokens=1)
    words = byte_level_words(tmp_path / "words", pictures)
    model, described, _ = make_case(idefics_case(language={"tie_word_embeddings": True}), words)
    write_all(model, described, "idefics", words, tmp_path / "first")
    again, _ = read_folder(tmp_path / "first")
    assert again.settings.blocks.text_tokens == "mlp"
    write_all(again, describe_model(again, pictures), "idefics", words, tmp_path / "second")
    for path in sorted((tmp_path / "first").iterdir()):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_resampler": False}, "use_resampler: false"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'; wanted 'silu'"),
        ({"cross_layer_interval": 3}, "cross_layer_interval: 3 does not divide 4 layers"),
    ],
)
def test_a_folder_that_ours_cannot_express_is_refused(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    make_theirs().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(InputError, match=words):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({}, 8_929_679_632),
        ({"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 80, "num_attention_heads": 64},
         79_967_843_624),
    ],
    ids=["9b", "80b"],
)  # fmt: skip
def test_the_real_sizes_have_as_many_parameters_as_in_transformers(fields: dict[str, Any], parameters: int) -> None:
    from transformers import AutoModelForImageTextToText, IdeficsConfig

    tower = {"embed_dim": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}
    resampled = {"use_resampler": True, "qk_layer_norms_perceiver": True}
    told: dict[str, Any] = {"additional_vocab_size": 2, "cross_layer_interval": 4, "qk_layer_norms": True, **fields}
    config = IdeficsConfig(**told, use_resampler=True, vision_config=tower, perceiver_config=resampled)
    vision, connector = idefics.our_settings(config)
    settings = ModelSettings(
        family="cross_attention",
        vision=vision,
        connector=connector,
        language=TowerSettings(type="llama"),
        cross_attention=idefics.our_blocks(config),
    )
    auto: Any = AutoModelForImageTextToText
    with torch.device("meta"):
        language = language_from_config(idefics.our_language(config))
        add_tokens(language, idefics.our_added_ids(config))
        model = join(settings, vision_from_config(idefics.our_vision(config)), language)
        theirs = auto.from_config(config)
    assert [sum(each.numel() for each in built.parameters()) for built in (model, theirs)] == [parameters] * 2


def test_the_rows_hold_all_that_is_hard() -> None:
    counts = [sum(len(images) for _, images in row) for row in ROWS]
    lengths = [sum(tokens for tokens, _ in row) for row in ROWS]
    assert len(set(counts)) == len(counts)
    assert len(set(lengths)) == len(lengths)
    assert 0 in counts
