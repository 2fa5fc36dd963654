from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_pages import real_texts, real_tokenizer
from tokenizers import Tokenizer, models

from carnac.core.errors import InputError
from carnac.sequence.settings import TokenizerSettings
from carnac.sequence.tokenizer import (
    SPECIAL_TOKENS,
    LoadedTokenizer,
    load_tokenizer,
    ready,
    save_tokenizer,
    train_tokenizer,
)

SMALL = TokenizerSettings(vocabulary_size=300)


@pytest.fixture(scope="module", name="tokenizer")
def fixture_tokenizer() -> LoadedTokenizer:
    return real_tokenizer()


@pytest.fixture(scope="module", name="real_texts")
def fixture_real_texts() -> list[str]:
    return real_texts()


def test_training_twice_gives_the_same_bytes(real_texts: list[str]) -> None:
    settings = TokenizerSettings(vocabulary_size=1500)
    assert train_tokenizer(real_texts, settings).to_str() == train_tokenizer(iter(real_texts), settings).to_str()


def test_another_process_trains_the_same_bytes(real_texts: list[str]) -> None:
    program = (
        "import json, sys\n"
        "from carnac.sequence.tokenizer import train_tokenizer\n"
        "from carnac.sequence.settings import TokenizerSettings\n"
        "texts = json.load(sys.stdin)\n"
        "sys.stdout.write(train_tokenizer(texts, TokenizerSettings(vocabulary_size=1500)).to_str())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(real_texts), capture_output=True, text=True, check=True
    )
    assert done.stdout == train_tokenizer(real_texts, TokenizerSettings(vocabulary_size=1500)).to_str()


def test_the_vocabulary_has_the_size_asked_for_and_learns_merges(
    tokenizer: LoadedTokenizer, real_texts: list[str]
) -> None:
    assert tokenizer.vocabulary_size == 1000
    num_bytes = sum(len(text.encode()) for text in real_texts)
    num_tokens = sum(len(tokenizer.encode(text)) for text in real_texts)
    assert num_bytes / num_tokens > 2.0  # 2.5 seen; bytes alone would give 1.0


def test_special_tokens_come_first(tokenizer: LoadedTokenizer) -> None:
    assert [tokenizer.begin, tokenizer.end, tokenizer.pad, tokenizer.image] == [0, 1, 2, 3]


@settings(deadline=None)
@given(text=st.text())
def test_every_text_comes_back_unchanged(tokenizer: LoadedTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None)
@given(parts=st.lists(st.sampled_from([*SPECIAL_TOKENS, " ", "a", "\n", "<|", "|>", "image"])))
def test_text_that_spells_special_tokens_is_text(tokenizer: LoadedTokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    ids = tokenizer.encode(text)
    assert not set(ids) & {tokenizer.begin, tokenizer.end, tokenizer.pad, tokenizer.image}
    assert tokenizer.decode(ids) == text


def test_text_full_of_special_tokens_teaches_no_way_around() -> None:
    trained = ready(train_tokenizer(["<|image|>" * 50, "<|image|> <|end|>"] * 50, SMALL))
    assert not set(trained.encode("x<|image|><|end|>")) & {0, 1, 2, 3}


def test_special_tokens_stay_text_in_another_process(tokenizer: LoadedTokenizer) -> None:
    travelled = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301 - our own object, as a process pool sends it
    assert travelled.encode("<|image|>") == tokenizer.encode("<|image|>")
    assert (travelled.begin, travelled.image) == (tokenizer.begin, tokenizer.image)


def test_no_space_is_put_before_text(tokenizer: LoadedTokenizer) -> None:
    assert tokenizer.encode("image") != tokenizer.encode(" image")
    assert tokenizer.encode("") == []


def test_special_ids_are_spelled_out(tokenizer: LoadedTokenizer) -> None:
    assert tokenizer.begin is not None
    assert tokenizer.decode([tokenizer.begin, *tokenizer.encode("a"), tokenizer.end]) == "<|begin|>a<|end|>"


def test_lone_surrogates_do_no_harm(tokenizer: LoadedTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"
    assert train_tokenizer(["a\udfffb"], SMALL).get_vocab_size() >= 260


def test_without_texts_the_bytes_remain() -> None:
    trained = ready(train_tokenizer([], SMALL))
    assert trained.vocabulary_size == 260
    assert trained.decode(trained.encode("Kermario, 1029 menhirs \u00e9")) == "Kermario, 1029 menhirs \u00e9"


def test_a_saved_tokenizer_loads_equal(tokenizer: LoadedTokenizer, tmp_path: Path) -> None:
    path = save_tokenizer(tokenizer.tokenizer, tmp_path)
    assert path == tmp_path / "tokenizer.json"
    loaded = load_tokenizer(tmp_path)
    assert loaded.tokenizer.to_str() == tokenizer.tokenizer.to_str()
    assert loaded.encode("a <|image|> of coins") == tokenizer.encode("a <|image|> of coins")


@pytest.mark.parametrize(
    ("content", "message"), [(b"{", "not a tokenizer"), (b"\xff\xfe", "cannot be read"), (None, "cannot be read")]
)
def test_a_missing_or_damaged_tokenizer_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_a_tokenizer_of_others_is_refused(tmp_path: Path) -> None:
    save_tokenizer(Tokenizer(models.BPE()), tmp_path)
    with pytest.raises(InputError, match=r"tokenizer\.json: the tokenizer lacks <\|begin\|>"):
        load_tokenizer(tmp_path)
