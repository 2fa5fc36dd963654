"""`carnac export` with its proof in a fresh process, for a tiny model of each format, and `carnac import` back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs_model import picture
from model_formats import PERCEIVER, Case, make_case
from model_idefics import idefics_case
from PIL import Image
from transformers import AutoProcessor

from carnac.core.errors import InputError, OutputError, RunError
from carnac.jobs.export import describe_export, export_model
from carnac.jobs.import_model import import_model
from carnac.jobs.models import InputSettings, open_model, write_inputs
from carnac.model.formats import FormatName
from carnac.model.generation.generate import generate
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import AdapterSettings, GenerationSettings
from carnac.model.weights import save_model
from carnac.sequence.layout import lay_out_prompt
from carnac.sequence.pixels import load_pixels

CASES: dict[FormatName, Case] = {
    # Heads of their own, and a connector as wide inside as the language model: what is read back is the same tensors.
    "idefics": idefics_case(language={"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "idefics2": Case(
        format="idefics2",
        aspect="native",
        shortest_px=16,
        max_tiles=2,
        connector=PERCEIVER.model_copy(update={"hidden_size": 96}),
    ),
    "idefics3": Case(format="idefics3", max_tiles=2, language={"tie_word_embeddings": True}),
    "llava": Case(format="llava", vision_type="clip_vision_model", feature_layer=-2),
}


def write_model(folder: Path, case: Case, *, adapted: bool = False) -> MultimodalModel:
    """Write a model as the job `train` leaves it."""
    model, described, words = make_case(case)
    if adapted:
        from carnac.model.adapters import adapter_parameters, add_adapters

        model.settings = model.settings.model_copy(update={"adapters": AdapterSettings(rank=4)})
        add_adapters(model)
        for parameter in adapter_parameters(model):
            torch.nn.init.normal_(parameter, std=0.1)
    save_model(model, folder)
    tokenizer = folder / "words.json"
    tokenizer.write_text(words.to_json())
    write_inputs(folder, tokenizer, InputSettings(pictures=described.pictures, row_tokens=512))
    return model


@pytest.fixture(scope="module", params=list(CASES))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, dict[str, Any]]:
    """Return (model, its export, what the proof found), made by the command in processes of their own."""
    folder = tmp_path_factory.mktemp(request.param)
    write_model(folder / "model", CASES[request.param])
    command = [sys.executable, "-m", "carnac", "export", str(folder / "model"), "--format", request.param, "--out"]
    done = subprocess.run([*command, str(folder / "export")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    print(done.stdout)
    return folder / "model", folder / "export", {"said": done.stdout}


def test_an_export_is_proved_in_a_fresh_process(exported: tuple[Path, Path, dict[str, Any]]) -> None:
    _, export, found = exported
    parity = json.loads((export / "parity.json").read_text())
    assert parity["passed"]
    assert parity["worst"] <= 1e-5
    assert [each["case"] for each in parity["logits"]] == [
        "no picture", "one picture", "three pictures", "padded", "packed",
    ]  # fmt: skip
    assert [each["equal"] for each in parity["greedy"]] == [True] * 3
    assert all(each["ids_equal"] and each.get("pixels_same_shape", True) for each in parity["processor"])
    assert parity["too_long"] == []
    lines = found["said"].splitlines()
    assert lines[0].startswith(f"{export}: {parity['class']}, {parity['parameters']:,} parameters")
    assert "no picture, one picture, three pictures, padded, packed" in lines[1]
    assert "3 of 3 equal" in lines[2]
    assert "ids equal" in lines[3]
    assert sorted(path.name for path in export.parent.iterdir()) == ["export", "model"]


def test_an_export_holds_all_that_serving_needs(exported: tuple[Path, Path, dict[str, Any]]) -> None:
    _, export, _ = exported
    assert {path.name for path in export.iterdir()} == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "parity.json",
        "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    modes = {path.stat().st_mode & 0o777 for path in export.iterdir()}
    assert len(modes) == 1
    generation = json.loads((export / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"], generation["pad_token_id"]) == (0, 1, 2)


def interleaved(tokenizer: Any, conversation: list[dict[str, Any]]) -> list[Any]:
    """Return a conversation as Idefics' processor takes it: texts and pictures in one list, without the begin token."""
    written = tokenizer.apply_chat_template(conversation, tokenize=False).removeprefix(tokenizer.bos_token)
    shown = [part["image"] for turn in conversation for part in turn["content"] if part["type"] == "image"]
    first, *texts = written.split("<image>")
    pairs = zip(shown, texts, strict=True)
    return [part for part in (first, *(each for pair in pairs for each in pair)) if part != ""]


def test_a_conversation_with_pictures_is_answered_as_by_carnac(
    exported: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    """A stranger's way: the Auto classes, the chat template, and a batch of unequal prompts."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder, export, _ = exported
    processors: Any = AutoProcessor
    auto: Any = AutoModelForImageTextToText
    processor, theirs = processors.from_pretrained(export), auto.from_pretrained(export)
    path = tmp_path / "picture.png"
    path.write_bytes(picture(0))
    asked: list[list[str | bytes]] = [[picture(0), "the old mill"], [picture(0), "by", picture(0), "the river"]]
    conversations = []
    for parts in asked:
        shown = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": Image.open(path)}
            for part in parts
        ]
        conversations.append([{"role": "user", "content": shown}])
    if type(processor).__name__ == "IdeficsProcessor":
        made = processor(text=[interleaved(processor.tokenizer, each) for each in conversations], return_tensors="pt")
    else:
        made = processor.apply_chat_template(
            conversations, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"padding": True}
        )
    theirs.generation_config.eos_token_id = None
    found = theirs.generate(**made, max_new_tokens=12)[:, made["input_ids"].shape[1] :]

    opened = open_model(folder)
    for number, parts in enumerate(asked):
        layout = lay_out_prompt(parts, opened.tokenizer, opened.inputs.pictures)
        ids = made["input_ids"][number][made["attention_mask"][number] == 1]
        assert ids.tolist() == layout.ids.tolist()
        pixels = torch.cat(
            [torch.tensor(load_pixels(part, opened.inputs.pictures)) for part in parts if isinstance(part, bytes)]
        ).numpy()
        settings = GenerationSettings(max_new_tokens=12)
        wanted = list(generate(opened.model, layout.ids, layout.image_slots, pixels, settings))
        assert found[number].tolist() == wanted


def test_an_export_comes_back_as_the_same_model(exported: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, export, _ = exported
    done = subprocess.run(
        [sys.executable, "-m", "carnac", "import", str(export), "--out", str(tmp_path / "back")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'back'}: ")
    one, two = open_model(folder), open_model(tmp_path / "back")
    assert two.inputs.pictures == one.inputs.pictures.model_copy(update={"normalisation": "given"})
    parts: list[str | bytes] = ["the mill", picture(1), "turns"]
    layouts = [lay_out_prompt(parts, opened.tokenizer, opened.inputs.pictures) for opened in (one, two)]
    assert layouts[0].ids.tolist() == layouts[1].ids.tolist()
    mine, theirs = dict(one.model.named_parameters()), dict(two.model.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_an_idefics2_model_of_squares_comes_back_as_one_of_squares(tmp_path: Path) -> None:
    case = Case(format="idefics2", connector=PERCEIVER.model_copy(update={"hidden_size": 96}))
    one = write_model(tmp_path / "model", case)
    export_model(tmp_path / "model", "idefics2", tmp_path / "export")
    import_model(tmp_path / "export", tmp_path / "back")
    two = open_model(tmp_path / "back")
    assert two.inputs.pictures.aspect == "square"
    assert two.model.vision.config.model_type == "siglip_vision_model"
    theirs = dict(two.model.named_parameters())
    assert all(torch.equal(each, theirs[name]) for name, each in one.named_parameters())


def test_adapters_are_merged_on_the_way(tmp_path: Path) -> None:
    write_model(tmp_path / "model", CASES["llava"], adapted=True)
    found = export_model(tmp_path / "model", "llava", tmp_path / "export")
    assert found.parity["passed"]
    assert "LlavaForConditionalGeneration" in describe_export(found)


def test_an_idefics_model_of_conversations_is_told_what_its_processor_hides(tmp_path: Path) -> None:
    write_model(tmp_path / "model", CASES["idefics"])
    path = tmp_path / "model" / "inputs.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"conversations": True}))
    found = export_model(tmp_path / "model", "idefics", tmp_path / "export")
    assert found.parity["passed"]
    assert "note           answers end with <|end|>, and behind it" in describe_export(found)
    processors: Any = AutoProcessor
    processor = processors.from_pretrained(tmp_path / "export")
    made = processor(text=[[Image.new("RGB", (9, 9)), "Which?", "The old.<|end|>Where?"]], return_tensors="pt")
    reads = made["image_attention_mask"][0, :, 0].tolist()
    ends = made["input_ids"][0].tolist().index(processor.tokenizer.eos_token_id)
    assert reads[ends] == 1
    assert set(reads[ends + 1 :]) == {0}


def test_a_model_that_the_format_cannot_express_leaves_nothing_behind(tmp_path: Path) -> None:
    write_model(tmp_path / "model", CASES["llava"])
    with pytest.raises(InputError, match=r"model\.vision: the idefics3 format cannot express this model.*llava can"):
        export_model(tmp_path / "model", "idefics3", tmp_path / "exports" / "idefics3")
    assert list((tmp_path / "exports").iterdir()) == []


def test_prompts_that_the_model_is_too_short_for_are_left_out(tmp_path: Path) -> None:
    case = Case(format="llava", language={"max_position_embeddings": 140})
    write_model(tmp_path / "model", case)
    found = export_model(tmp_path / "model", "llava", tmp_path / "export")
    assert found.parity["too_long"] == ["three pictures"]
    assert "left out       three pictures" in describe_export(found)
    write_model(tmp_path / "short", Case(format="llava", language={"max_position_embeddings": 80}))
    with pytest.raises(InputError, match="longest position is 80: the proof's shortest prompt needs 100"):
        export_model(tmp_path / "short", "llava", tmp_path / "none")


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine").write_text("")
    for work in (
        lambda: export_model(tmp_path / "model", "llava", tmp_path / "export"),
        lambda: import_model(tmp_path / "model", tmp_path / "export"),
    ):
        with pytest.raises(OutputError, match="is not empty"):
            work()


def test_no_model_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model here"):
        export_model(tmp_path, "llava", tmp_path / "export")
    with pytest.raises(InputError, match=r"no config\.json there"):
        import_model(tmp_path, tmp_path / "out")


def test_a_proof_that_fails_keeps_the_folder_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from carnac.model.formats import folders

    true = folders.write_folder

    def write_wrongly(model: Any, *rest: Any) -> None:
        true(model, *rest)
        with torch.no_grad():
            next(model.connector.parameters()).mul_(1.01)

    monkeypatch.setattr(folders, "write_folder", write_wrongly)
    write_model(tmp_path / "model", CASES["llava"])
    with pytest.raises(RunError, match=r"export\.failed: transformers computes something else: the logits differ by"):
        export_model(tmp_path / "model", "llava", tmp_path / "export")
    assert not (tmp_path / "export").exists()
    assert not json.loads((tmp_path / "export.failed" / "parity.json").read_text())["passed"]


def test_an_export_that_transformers_cannot_load_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from carnac.model.formats import processor

    monkeypatch.setattr(processor, "write_processor", lambda *_, **__: None)
    write_model(tmp_path / "model", CASES["llava"])
    with pytest.raises(RunError, match="transformers cannot use the exported folder: "):
        export_model(tmp_path / "model", "llava", tmp_path / "export")
    assert os.listdir(tmp_path) == ["model"]  # noqa: PTH208 - hidden ones too


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model", CASES["llava"])
    export_model(tmp_path / "model", "llava", tmp_path / "export")
    path = tmp_path / "export" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_token_index": 7}))
    with pytest.raises(InputError, match=r"<\|image\|> has id 3, config.json says 7"):
        import_model(tmp_path / "export", tmp_path / "out")
