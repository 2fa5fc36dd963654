"""Whatever is wrong with a model's folder, opening it ends in one sentence that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs_model import INPUTS, WORDS

from carnac.core.errors import InputError
from carnac.jobs.models import open_model, write_inputs
from carnac.sequence.settings import TokenizerSettings
from carnac.sequence.tokenizer import train_tokenizer

Damage = Callable[[Path], object]


def changed(name: str, change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_bytes())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def cut(name: str, length: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def gone(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def larger_tokenizer(folder: Path) -> None:
    words = [WORDS, "quite other words which were not there before, zig zag " * 3]
    train_tokenizer(words, TokenizerSettings(vocabulary_size=600, min_frequency=1)).save(str(folder / "tokenizer.json"))


CASES: dict[str, tuple[Damage, str]] = {
    "no inputs": (
        gone("inputs.json"),
        r"inputs\.json: cannot be read \(No such file or directory\).*one of its checkpoints",
    ),
    "half inputs": (cut("inputs.json", 20), r"inputs\.json: Invalid JSON: EOF.*Train the model again"),
    "inputs with a wrong value": (
        changed("inputs.json", lambda content: content.update(row_tokens=1)),
        r"inputs\.json: row_tokens: Input should be greater than or equal to 2\. Train",
    ),
    "inputs with an unknown key": (
        changed("inputs.json", lambda content: content["pictures"].update(sise_px=4)),
        r"inputs\.json: pictures\.sise_px: Extra inputs are not permitted",
    ),
    "pictures of another size": (
        changed("inputs.json", lambda content: content["pictures"].update(size_px=48)),
        r"inputs\.json: pictures of 48 px and 9 tokens, the model takes 32 px and 4 tokens\. Train",
    ),
    "patches of another size": (
        changed("inputs.json", lambda content: content["pictures"].update(patch_px=8)),
        r"inputs\.json: pictures of 32 px and 16 tokens, the model takes 32 px and 4 tokens",
    ),
    "pictures of any shape for a tower of squares": (
        changed("inputs.json", lambda content: content["pictures"].update(aspect="native")),
        r"inputs\.json: pictures of aspect = native, the model takes square ones\. Train",
    ),
    "no tokenizer": (gone("tokenizer.json"), r"tokenizer\.json: cannot be read"),
    "half a tokenizer": (cut("tokenizer.json", 900), r"tokenizer\.json: not a tokenizer"),
    "a foreign tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text(
            (folder / "tokenizer.json").read_text().replace("<|image|>", "<|picture|>")
        ),
        r"tokenizer\.json: the tokenizer lacks <\|image\|>",
    ),
    "a larger tokenizer": (
        larger_tokenizer,
        r"tokenizer\.json: has \d+ tokens, the model knows \d+: the tokenizer of another",
    ),
    "no weights": (gone("model.safetensors"), r"model\.safetensors: missing"),
    "half the weights": (cut("model.safetensors", 5000), r"model\.safetensors: damaged or not a safetensors file"),
    "no config": (
        gone("config.json"),
        r"no model here \(config\.json is missing\)\. Wanted the output folder of a train",
    ),
    "half a config": (cut("config.json", 40), r"config\.json: not JSON"),
    "a config of another program": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'),
        r"config\.json: not a carnac model: format is None",
    ),
    "another architecture": (
        changed(
            "config.json", lambda content: content.update(language={"model_type": "gpt2", "n_embd": 32, "n_head": 4})
        ),
        r"model\.safetensors: weights of another model: \d+ missing, \d+ unknown",
    ),
    "a field of another architecture": (
        changed("config.json", lambda content: content["language"].update(model_type="qwen2")),
        r"config\.json: not a model that carnac can build: qwen2 has no field",
    ),
    "a deeper model": (
        changed("config.json", lambda content: content["language"].update(num_hidden_layers=2)),
        r"model\.safetensors: weights of another model: 9 missing",
    ),
    "a wider model": (
        changed("config.json", lambda content: content["language"].update(intermediate_size=96)),
        r"model\.safetensors: weights of another model: .* has shape \(64, 32\), wanted \(96, 32\)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_folder_is_one_sentence(model: Path, tmp_path: Path, case: str) -> None:
    damage, words = CASES[case]
    folder = shutil.copytree(model, tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        open_model(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_whole_folder_opens(model: Path) -> None:
    opened = open_model(model)
    assert opened.inputs == INPUTS
    assert opened.tokenizer.vocabulary_size == opened.model.language.config.vocab_size
    assert not opened.model.training


def test_inputs_come_back_as_written(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    other = INPUTS.model_copy(update={"row_tokens": 77})
    write_inputs(folder, model / "tokenizer.json", other)
    assert open_model(folder).inputs == other


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no model here"):
        open_model(tmp_path / "nowhere")
