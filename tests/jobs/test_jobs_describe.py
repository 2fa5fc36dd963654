"""`carnac show RECIPE`: the model of a train recipe before anything of it exists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from carnac.cli import cli
from carnac.core.errors import InputError, RecipeError
from carnac.jobs.describe import measure_recipe

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny" / "05-train.toml"


def test_the_tables_of_idefics3_are_those_of_8_462_billion_parameters() -> None:
    size = measure_recipe(ROOT / "recipes" / "idefics3" / "05-train.toml")
    assert round(size.parameters / 1e9, 3) == 8.462
    assert {part.name: round(part.parameters / 1e6, 1) for part in size.parts} == {
        "vision": 412.9,
        "connector": 18.9,
        "language": 8030.4,
    }
    assert (size.image_size_px, size.tokens_per_image) == (364, 169)


def test_a_folder_of_a_language_model_counts_with_the_tokens_that_it_lacks(tmp_path: Path, model: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
                                 vocab_size=320)).save_pretrained(tmp_path / "language")  # fmt: skip
    shutil.copy(model / "tokenizer.json", tmp_path / "language")
    (tmp_path / "language" / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    folder = f'{{folder="{tmp_path / "language"}"}}'
    overrides = [f"model.language={folder}", f"tokenizer={folder}", 'model.trained=["added_tokens"]']
    size = measure_recipe(TINY, overrides)
    rows = {part.name: part for part in size.parts}["added tokens"]
    assert rows.trained == size.trained == rows.parameters > 0


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a recipe of job 'shards'; only those of job 'train' describe a model"):
        measure_recipe(TINY.with_name("04-shards.toml"))
    with pytest.raises(RecipeError, match="llama has no field 'hidden_sise'"):
        measure_recipe(TINY, ["model.language.config.hidden_sise=3"])
    with pytest.raises(RecipeError, match="no such file"):
        measure_recipe(tmp_path / "gone.toml")


def test_the_command_shows_a_recipe_and_takes_settings_for_it() -> None:
    runner = CliRunner()
    done = runner.invoke(cli, ["show", str(TINY), "--set", "model.connector.hidden_size=64"])
    assert done.exit_code == 0
    assert "connector      20,736     20,736  mlp" in done.output
    assert "squares of 96 px, 36 image tokens each" in done.output
    assert "memory in fp32: weights 15 MB; in training 59 MB" in done.output
    for arguments in (["show", str(TINY), "--brief"], ["show", str(ROOT), "--set", "a=1"]):
        refused = runner.invoke(cli, arguments)
        assert refused.exit_code == 2
        assert "recipe" in refused.output
