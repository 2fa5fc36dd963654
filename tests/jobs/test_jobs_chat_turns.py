"""Models of conversations: asked in turns by the job and by `carnac chat`; exported so that transformers does too."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from jobs_model import WORDS, DoneHere, document, picture, row, runner, write_shards
from model_formats import Case, make_case, pictures_of, write_all
from PIL import Image
from tokenizers import Tokenizer, processors
from transformers import AutoProcessor, PreTrainedTokenizerFast

from carnac.engine.manifest import read_manifest
from carnac.engine.tables import read_rows
from carnac.jobs.chat import ChatRecipe, open_chat, run
from carnac.jobs.import_model import import_model
from carnac.jobs.models import INPUTS_FILE, open_model
from carnac.model.formats.processor import write_processor
from carnac.model.settings import GenerationSettings
from carnac.sequence.chat_template import Message
from carnac.sequence.conversation import lay_out_conversation, stop_ids
from carnac.sequence.layout import lay_out_messages, lay_out_prompt
from carnac.sequence.marks import mark_names
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

FEW = GenerationSettings(max_new_tokens=6)


@pytest.fixture(scope="module", name="talking")
def fixture_talking(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as if it had been trained on conversations."""
    folder = tmp_path_factory.mktemp("talking") / "model"
    shutil.copytree(model, folder)
    inputs = json.loads((folder / INPUTS_FILE).read_text())
    (folder / INPUTS_FILE).write_text(json.dumps({**inputs, "conversations": True}))
    return folder


def conversation(number: int, *, image: bool = True) -> dict[str, Any]:
    blocks: list[str | bytes] = [picture(number), "what turns?", "the wheel", "and then?", "the water"]
    roles = ["user", "user", "assistant", "user", "assistant"]
    found = row(f"c{number}", blocks if image else blocks[1:])
    return {**found, "roles": roles if image else roles[1:]}


def said(model: Path, shards: Path, **fields: Any) -> list[dict[str, Any]]:
    """Run the job and return its rows."""
    values = {"generation": FEW, "prompt_characters": 20, **fields}
    run(ChatRecipe(job="chat", model=model, shards=shards, output=shards.parent / "chat", **values), runner()[0])
    return [line for entry in read_manifest(shards.parent / "chat", "chat").parts for line in read_rows(entry.path)]


def test_the_first_question_of_a_conversation_is_asked(talking: Path, tmp_path: Path, done: DoneHere) -> None:
    broken = conversation(5)
    broken["roles"][0] = "robot"
    shards = write_shards(
        tmp_path / "heldout", [conversation(1, image=False), broken, conversation(2), document(0), conversation(3)]
    )
    rows = said(talking, shards)
    assert [line["id"] for line in rows] == ["c2", "d0", "c3"]
    assert (rows[0]["prompt"], rows[0]["reference"], rows[0]["image"]) == ("what turns?", "the wheel", picture(2))
    assert rows[1]["prompt"] == "the old mill by the"
    assert all(line["continuation"] == line["continuation"].strip() for line in rows)
    assert read_manifest(tmp_path / "chat").counts == {"prompts": 3, "lost.bad_role": 1}


def test_a_model_of_documents_goes_on_from_the_question(model: Path, tmp_path: Path, done: DoneHere) -> None:
    (line,) = said(model, write_shards(tmp_path / "heldout", [conversation(2)]))
    assert (line["prompt"], line["reference"]) == ("what turns?", "the wheel")


def test_a_model_of_conversations_is_asked_in_turns(talking: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(picture(3))
    chat = open_chat(talking, FEW)
    shown: list[str] = []
    answer = chat.reply
    chat.out = io.StringIO()

    def reply(layout: Any, pixels: Any) -> Any:
        shown.append(chat.tokenizer.decode([i for i in layout.ids.tolist() if i != chat.tokenizer.image]))
        return answer(layout, pixels)

    chat.reply = reply
    chat.loop(lines=[f"/image {path}\n", "what turns?\n", "the mill?\n"])
    assert shown[0] == "<|begin|>User:what turns?\nAssistant:"
    assert shown[1].startswith("<|begin|>User:what turns?\nAssistant: ")
    assert shown[1].endswith("<|end|>User: the mill?\nAssistant:")
    assert [message.role for message in chat.messages] == ["user", "assistant"] * 2
    assert not open_chat(model, FEW).turns


# -- exports

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LISTS = (
    "{{ cls_token }}{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] "
    "== 'image' %}{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' "
    "%}{{line['text']}}{% elif line['type'] == 'image' %}{{ IMAGE }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def of_folder(template: str, folder: Path, pictures: PictureSettings, *, begin: bool) -> LoadedTokenizer:
    """A tokenizer as another model has it, with its own template; `begin`: it begins texts, the template does not."""
    words = train_tokenizer([WORDS] * 2, TokenizerSettings(vocabulary_size=320))
    words = Tokenizer.from_str(words.to_str())
    words.add_special_tokens(["<|im_start|>", "<|im_end|>", "<cls>"])
    if begin:
        words.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", pair=None, special_tokens=[("<|begin|>", 0)]
        )
    names = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>", "cls_token": "<cls>"}
    image = "<image>" if pictures.marks != "none" else "<|image|>"
    wrapper: Any = PreTrainedTokenizerFast
    chat_template = template.replace("IMAGE", repr(image))
    wrapper(tokenizer_object=words, chat_template=chat_template, image_token=image, **names).save_pretrained(folder)
    return read_tokenizer_folder(folder, pictures)


def trained(pictures: PictureSettings, template: Literal["plain", "tokens"]) -> LoadedTokenizer:
    settings = TokenizerSettings(vocabulary_size=400, template=template)
    return ready(train_tokenizer([WORDS] * 2, settings, mark_names(pictures)))


TOKENIZERS: dict[str, Callable[[Path, PictureSettings], LoadedTokenizer]] = {
    "plain": lambda _, pictures: trained(pictures, "plain"),
    "tokens": lambda _, pictures: trained(pictures, "tokens"),
    "lists": lambda folder, pictures: of_folder(LISTS, folder, pictures, begin=False),
    "chatml": lambda folder, pictures: of_folder(CHATML, folder, pictures, begin=False),
    "chatml behind a begin": lambda folder, pictures: of_folder(CHATML, folder, pictures, begin=True),
}
CASES = [
    ("idefics3", "plain"),
    ("idefics3", "tokens"),
    ("idefics3", "lists"),
    *(("llava", name) for name in TOKENIZERS),
]
ASKED = [
    Message(role="user", content=(picture(1), "the old  mill?")),
    Message(role="assistant", content=("turns.",)),
    Message(role="user", content=("by", picture(2), " the river")),
]


def tables_of(messages: list[Message], words: LoadedTokenizer, *, lists: bool) -> list[dict[str, Any]]:
    """Messages as a stranger would hand them to transformers."""
    found = []
    for message in messages:
        parts = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": opened(part)}
            for part in message.content
        ]
        text = "".join(part if isinstance(part, str) else words.roles.image for part in message.content)
        found.append({"role": message.role, "content": parts if lists else text})
    return found


def opened(part: bytes) -> Image.Image:
    return Image.open(io.BytesIO(part))


@pytest.mark.parametrize(("form", "name"), CASES)
def test_an_exported_processor_writes_conversations_as_they_were_trained_on(
    form: Any, name: str, tmp_path: Path
) -> None:
    case = Case(format=form, max_tiles=2 if form == "idefics3" else 1)
    words = TOKENIZERS[name](tmp_path / "words", pictures_of(case))
    model, described, _ = make_case(case, words)
    out = tmp_path / "export"
    write_all(model, described, form, words, out)
    (out / "chat_template.jinja").unlink()
    write_processor(described, form, words, out, conversations=True)
    processors_: Any = AutoProcessor
    processor = processors_.from_pretrained(out, local_files_only=True)
    ours = lay_out_messages(ASKED, words, described.pictures)
    if name.startswith("chatml"):  # its content is text: pictures are handed over beside it
        text = processor.apply_chat_template(tables_of(ASKED, words, lists=False), add_generation_prompt=True)
        images = [opened(part) for message in ASKED for part in message.content if isinstance(part, bytes)]
        made = processor(text=[text], images=images, return_tensors="pt")
    else:
        made = processor.apply_chat_template(
            tables_of(ASKED, words, lists=True),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    assert made["input_ids"][0].tolist() == ours.ids.tolist()
    whole = [*ASKED, Message(role="assistant", content=("The wheel.",))]
    layout = lay_out_conversation(whole, words, described.pictures)
    assert layout.ids[: len(ours.ids)].tolist() == ours.ids.tolist()
    ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert (ends if isinstance(ends, list) else [ends]) == list(stop_ids(words))
    back = import_model(out, tmp_path / "back").folder
    read = open_model(back)
    assert read.inputs.conversations
    again = lay_out_messages(ASKED, read.tokenizer, read.inputs.pictures)
    assert again.ids.tolist() == ours.ids.tolist()
    assert stop_ids(read.tokenizer) == stop_ids(words)
    template = (out / "chat_template.jinja").read_text()
    write_processor(described, form, read.tokenizer, out, conversations=True)
    assert (out / "chat_template.jinja").read_text() == template


def test_an_export_of_documents_comes_back_as_one(tmp_path: Path) -> None:
    model, described, words = make_case(Case(format="llava"))
    write_all(model, described, "llava", words, tmp_path / "export")
    read = open_model(import_model(tmp_path / "export", tmp_path / "back").folder)
    assert not read.inputs.conversations
    parts: list[str | bytes] = ["the mill", picture(1)]
    ids = [lay_out_prompt(parts, each, described.pictures).ids.tolist() for each in (words, read.tokenizer)]
    assert ids[0] == ids[1]
