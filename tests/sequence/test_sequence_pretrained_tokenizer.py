"""Tokenizers of other models, against what transformers makes of the same folder."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sequence_folders import byte_level, metaspace, save
from tokenizers import AddedToken, Tokenizer, models
from transformers import AutoTokenizer

from carnac.core.errors import InputError
from carnac.sequence.layout import lay_out_prompt
from carnac.sequence.marks import mark_names
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder, tokenizer_files
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, load_tokenizer

PICTURES = PictureSettings(size_px=16, patch_px=8)
MARKED = PictureSettings(size_px=16, patch_px=8, max_tiles=2, marks="idefics3")
TEXTS = ["The  coins are\n\nhere.", " a", "", "Caf\u00e9 \U0001f600\n", "x</s><s><image><|endoftext|>y"]

FOLDERS: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any], bool]] = {
    "no begin token": (byte_level, {}, False),
    "one that is never put": (byte_level, {"bos_token": "<s>"}, False),
    "a post-processor puts it": (lambda: byte_level(begin=True), {"bos_token": "<s>"}, True),
    "the config overrules it": (lambda: byte_level(begin=True), {"bos_token": "<s>", "add_bos_token": False}, False),
    "the config asks for it": (byte_level, {"bos_token": "<s>", "add_bos_token": True}, True),
    "metaspace": (metaspace, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}, True),
    "metaspace, always": (lambda: metaspace("always"), {"bos_token": "<s>", "eos_token": "</s>"}, True),
}


@pytest.mark.parametrize("name", list(FOLDERS))
def test_prompts_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    make, given, begins = FOLDERS[name]
    tokenizer = read_tokenizer_folder(save(make(), tmp_path, **given), PICTURES)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.begin is not None) == begins
    assert tokenizer.end == theirs.eos_token_id
    for text in TEXTS[:-1]:
        assert lay_out_prompt([text], tokenizer, PICTURES).ids.tolist() == theirs(text).input_ids
    if theirs.pad_token_id is not None:
        assert tokenizer.pad == theirs.pad_token_id


@pytest.mark.parametrize("name", list(FOLDERS))
def test_what_is_missing_is_added_behind_the_vocabulary(name: str, tmp_path: Path) -> None:
    make, given, _ = FOLDERS[name]
    rows = make().get_vocab_size()
    tokenizer = read_tokenizer_folder(save(make(), tmp_path, **given), MARKED)
    added = ["<image>", *mark_names(MARKED)] if "pad_token" in given else ["<|pad|>", "<image>", *mark_names(MARKED)]
    assert tokenizer.added_ids == tuple(range(rows, rows + len(added)))
    assert [tokenizer.tokenizer.id_to_token(number) for number in tokenizer.added_ids] == added
    assert tokenizer.vocabulary_size == rows + len(added)
    assert tokenizer.pad != tokenizer.end


def test_tokens_that_are_there_keep_their_ids_and_become_special(tmp_path: Path) -> None:
    base = byte_level()
    base.add_tokens([AddedToken("<row_1_col_2>", special=False), AddedToken("<image>", special=False)])
    tokenizer = read_tokenizer_folder(save(base, tmp_path), MARKED)
    assert tokenizer.image == base.token_to_id("<image>") == 601
    assert tokenizer.marks["<row_1_col_2>"] == 600
    assert not {600, 601} & set(tokenizer.added_ids)
    assert not {600, 601} & set(tokenizer.encode("a<image><row_1_col_2>"))


def test_the_image_token_may_have_a_name_of_its_own(tmp_path: Path) -> None:
    base = byte_level()
    base.add_special_tokens(["<|picture|>"])
    save(base, tmp_path)
    config = tmp_path / "tokenizer_config.json"
    token = {"content": "<|picture|>", "special": True}
    config.write_text(json.dumps({**json.loads(config.read_text()), "image_token": token}))
    assert read_tokenizer_folder(tmp_path, PICTURES).image == 600
    assert read_tokenizer_folder(tmp_path, MARKED).image != 600  # Idefics3 knows one name only


def same(one: LoadedTokenizer, other: LoadedTokenizer) -> bool:
    names = [name for name in one.__slots__ if name not in ("tokenizer", "inside")]
    equal = all(getattr(one, name) == getattr(other, name) for name in names)
    texts = [(text, start) for text in TEXTS for start in (True, False)]
    return equal and all(one.encode(t, at_start=s) == other.encode(t, at_start=s) for t, s in texts)


@pytest.mark.parametrize("name", list(FOLDERS))
def test_it_is_the_same_from_one_file_and_in_another_process(name: str, tmp_path: Path) -> None:
    make, given, _ = FOLDERS[name]
    tokenizer = read_tokenizer_folder(save(make(), tmp_path / "theirs", **given), MARKED)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    loaded = load_tokenizer(tmp_path)
    assert same(loaded, tokenizer)
    assert same(pickle.loads(pickle.dumps(tokenizer)), tokenizer)  # noqa: S301 - our own object, as a pool sends it
    assert loaded.to_json() == tokenizer.to_json()
    assert loaded.tokenizer.to_str() == tokenizer.tokenizer.to_str()
    Tokenizer.from_str(loaded.tokenizer.to_str())


def test_only_the_first_text_of_a_sequence_gets_a_space_before_it(tmp_path: Path) -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = read_tokenizer_folder(save(metaspace(), tmp_path, **names), PICTURES)
    assert tokenizer.encode("coins") == tokenizer.encode(" coins", at_start=False)
    assert tokenizer.encode("coins", at_start=False) != tokenizer.encode("coins")
    layout = lay_out_prompt([b"", "coins"], tokenizer, PICTURES)
    assert layout.ids.tolist()[5:] == tokenizer.encode("coins", at_start=False)


def test_words_that_spell_special_tokens_are_taken_letter_by_letter(tmp_path: Path) -> None:
    words = ["<unk>", "</s>", "<", "/", "s", ">", "x", "</", "s>", " "]
    merges = [("<", "/"), ("s", ">"), ("</", "s>")]
    base = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges, unk_token="<unk>"))  # noqa: S106
    assert base.encode("x</s>").ids == [6, 1]  # the vocabulary itself builds the end token
    tokenizer = read_tokenizer_folder(save(base, tmp_path, eos_token="</s>", unk_token="<unk>"), PICTURES)  # noqa: S106
    assert tokenizer.encode("x</s>s>") == [6, 2, 3, 4, 5, 8]
    assert tokenizer.encode("</s>", at_start=False) == [2, 3, 4, 5]


def test_a_length_limit_in_the_file_does_not_cut_texts(tmp_path: Path) -> None:
    base = byte_level()
    base.enable_truncation(4)
    base.enable_padding(length=9)
    base.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    tokenizer = read_tokenizer_folder(tmp_path, PICTURES)
    assert tokenizer.decode(tokenizer.encode("the coins of Carnac")) == "the coins of Carnac"


def test_an_older_folder_names_its_tokens_in_a_map(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|endoftext|>"}, "pad_token": "<s>"}')
    tokenizer = read_tokenizer_folder(tmp_path, PICTURES)
    assert (tokenizer.end, tokenizer.pad, tokenizer.begin) == (0, 1, None)
    assert [path.name for path in tokenizer_files(tmp_path)] == ["tokenizer.json", "special_tokens_map.json"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"tokenizer\.json: missing\. Wanted a folder as transformers saves a tokenizer"),
        ({"tokenizer.json": "{"}, r"tokenizer\.json: not a tokenizer \("),
        ({"tokenizer_config.json": "{}"}, "names an eos_token"),
        ({"tokenizer_config.json": "{"}, r"tokenizer_config\.json: cannot be read"),
        ({"tokenizer_config.json": "[]"}, r"tokenizer_config\.json: holds no table"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    if files and "tokenizer.json" not in files:
        byte_level().save(str(tmp_path / "tokenizer.json"))
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_tokenizer_folder(tmp_path, PICTURES)
    assert str(tmp_path) in str(caught.value)


def test_sizes_are_for_a_tokenizer_that_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocabulary_size: only for a tokenizer that is trained"):
        TokenizerSettings(folder=tmp_path, vocabulary_size=300)
    given = TokenizerSettings(folder=tmp_path)
    assert TokenizerSettings.model_validate_json(given.model_dump_json()) == given
