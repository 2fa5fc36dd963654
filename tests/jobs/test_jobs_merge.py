"""A model with adapters is merged, or kept as what was trained alone; what comes out is a model for every other job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from jobs_model import INPUTS, MODEL_SETTINGS, PICTURES, WORDS

from carnac.cli import cli
from carnac.core.errors import InputError, OutputError, RunError
from carnac.engine.manifest import read_manifest
from carnac.jobs.merge import merge_model, save_trained
from carnac.jobs.models import open_model, open_same_model, write_inputs
from carnac.model.adapters import adapter_parameters
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ModelSettings
from carnac.model.weights import save_model
from carnac.sequence.settings import TokenizerSettings
from carnac.sequence.tokenizer import ready, save_tokenizer, train_tokenizer

TOKENIZER = train_tokenizer([WORDS] * 2, TokenizerSettings(vocabulary_size=320))
IDS = ready(TOKENIZER)
VOCABULARY = Vocabulary(size=IDS.vocabulary_size, pad_id=IDS.pad, bos_id=IDS.begin, eos_id=IDS.end)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two backbones, and `model`, made of them with adapters that say something."""
    folder = tmp_path_factory.mktemp("merge")
    base = build_model(MODEL_SETTINGS, VOCABULARY, PICTURES.size_px, seed=2)
    base.vision.save_pretrained(folder / "vision")
    base.language.save_pretrained(folder / "language")
    content = {
        "vision": {"folder": str(folder / "vision")},
        "connector": {"type": "mlp"},
        "language": {"folder": str(folder / "language")},
        "trained": ["connector"],
        "adapters": {"rank": 2, "dora": True, "vision": ["fc1"]},
    }
    settings = ModelSettings.model_validate_json(json.dumps(content))
    model = build_model(settings, VOCABULARY, PICTURES.size_px, seed=0)
    torch.manual_seed(0)
    for parameter in adapter_parameters(model):
        parameter.data += 0.1 * torch.randn_like(parameter)
    write_model(model, folder / "model")
    return folder


def write_model(model: MultimodalModel, folder: Path) -> None:
    save_model(model, folder)
    write_inputs(folder, save_tokenizer(TOKENIZER, folder), INPUTS)


def test_the_merged_model_opens_as_any_other_and_its_layers_are_plain(folders: Path, tmp_path: Path) -> None:
    merged = merge_model(folders / "model", tmp_path / "merged")
    assert merged.layers == 8
    assert merged.difference <= 1e-5
    opened = open_same_model(tmp_path / "merged", read_manifest(tmp_path / "merged", "model").digest)
    assert opened.model.settings.adapters is None
    assert opened.inputs == INPUTS
    assert sum(parameter.numel() for parameter in opened.model.parameters()) == merged.parameters
    with pytest.raises(InputError, match="has no adapters: there is nothing to merge"):
        merge_model(tmp_path / "merged", tmp_path / "again")


def test_what_was_trained_is_small_and_merges_to_the_same_bytes(folders: Path, tmp_path: Path) -> None:
    merge_model(folders / "model", tmp_path / "merged")
    kept = save_trained(folders / "model", tmp_path / "adapters")
    assert kept.kept_bytes < kept.whole_bytes
    merge_model(tmp_path / "adapters", tmp_path / "from-adapters")
    assert (tmp_path / "from-adapters" / "model.safetensors").read_bytes() == (
        tmp_path / "merged" / "model.safetensors"
    ).read_bytes()
    moved = shutil.copytree(folders / "language", tmp_path / "moved")
    merge_model(tmp_path / "adapters", tmp_path / "from-moved", {"language": moved})
    assert open_model(tmp_path / "from-moved").model.settings.adapters is None


def test_blocks_between_the_layers_are_kept_through_merging(folders: Path, tmp_path: Path) -> None:
    content = {
        "family": "cross_attention",
        "vision": {"folder": str(folders / "vision")},
        "connector": {"type": "resampler", "latents": 3, "depth": 1, "heads": 2, "head_size": 8},
        "language": {"folder": str(folders / "language")},
        "cross_attention": {"every": 1, "gate_start": 0.5},
        "trained": ["connector"],
        "adapters": {"rank": 2},
    }
    model = build_model(ModelSettings.model_validate_json(json.dumps(content)), VOCABULARY, PICTURES.size_px, seed=0)
    torch.manual_seed(0)
    for parameter in adapter_parameters(model):
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_model(model, tmp_path / "model")
    pictures = PICTURES.model_copy(update={"tokens": 1})
    tokenizer = save_tokenizer(TOKENIZER, tmp_path / "model")
    write_inputs(tmp_path / "model", tokenizer, INPUTS.model_copy(update={"pictures": pictures}))
    merged = merge_model(tmp_path / "model", tmp_path / "merged")
    assert merged.difference <= 1e-5
    save_trained(tmp_path / "model", tmp_path / "adapters")
    merge_model(tmp_path / "adapters", tmp_path / "from-adapters")
    files = [tmp_path / name / "model.safetensors" for name in ("merged", "from-adapters")]
    assert files[0].read_bytes() == files[1].read_bytes()
    found, blocks = open_model(tmp_path / "merged").model.state_dict(), model.get_submodule("fusion").state_dict()
    assert len(blocks) > 10
    assert all(torch.equal(found[f"fusion.{name}"], each) for name, each in blocks.items())


def test_what_cannot_be_merged_or_left_out_is_one_sentence(folders: Path, tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="a whole model, with its backbones in it"):
        merge_model(folders / "model", tmp_path / "merged", {"vision": folders / "vision"})
    with pytest.raises(InputError, match="nothing to leave out"):
        save_trained(model, tmp_path / "adapters")
    with pytest.raises(InputError, match="no model here"):
        merge_model(tmp_path / "gone", tmp_path / "merged")
    with pytest.raises(OutputError, match="is not empty"):
        merge_model(folders / "model", folders / "vision")
    save_trained(folders / "model", tmp_path / "adapters")
    (tmp_path / "adapters" / "inputs.json").unlink()
    with pytest.raises(InputError, match=r"inputs\.json: missing; the adapters' folder is not whole"):
        merge_model(tmp_path / "adapters", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_adapters_that_are_not_numbers_are_not_merged(folders: Path, tmp_path: Path) -> None:
    damaged = open_model(folders / "model").model
    adapter_parameters(damaged)[0].data[0] = torch.nan
    write_model(damaged, tmp_path / "damaged")
    with pytest.raises((InputError, RunError), match="merged"):
        merge_model(tmp_path / "damaged", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_the_commands_say_what_they_did(folders: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(cli, ["adapters", str(folders / "model"), "--out", str(tmp_path / "adapters")])
    assert "MB of" in done.output
    arguments = ["merge", str(tmp_path / "adapters"), "--out", str(tmp_path / "merged")]
    done = runner.invoke(cli, [*arguments, "--vision", str(folders / "vision")])
    assert "8 adapted layers merged, logits differ by" in done.output
    shown = runner.invoke(cli, ["show", str(tmp_path / "merged")])
    assert "llama, 1 layers of width 32" in shown.output
