"""Texts to token ids and back: a byte-level BPE, so that every string has ids and comes back unchanged.

Flow in: texts. Flow out: `tokenizer.json` (Hugging Face `tokenizers`), ids. Web text that happens to spell a special
token is text: only `sequence.layout` places special ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from carnac.core.errors import InputError
from carnac.sequence.settings import TokenizerSettings

BEGIN, END, PAD, IMAGE = "<|begin|>", "<|end|>", "<|pad|>", "<|image|>"
SPECIAL_TOKENS = (BEGIN, END, PAD, IMAGE)  # ids 0, 1, 2, 3 of a tokenizer trained here
FILE_NAME = "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTokenizer:
    """A tokenizer ready for use, with the ids of its special tokens. It may be sent to another process."""

    tokenizer: Tokenizer
    begin: int
    end: int
    pad: int
    image: int

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, special ones included: rows of an embedding table."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, never a special id. A lone surrogate, which has no UTF-8 form, becomes `?`."""
        return list(self.tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; special ids are spelled out, bytes that are not UTF-8 become U+FFFD."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def __reduce__(self) -> tuple[Any, ...]:
        # The library forgets `encode_special_tokens` on the way through pickle; without it text could forge image ids.
        return ready, (Tokenizer.from_str(self.tokenizer.to_str()),)


def train_tokenizer(texts: Iterable[str], settings: TokenizerSettings) -> Tokenizer:
    """Train on `texts`; equal texts in equal order give an equal tokenizer, byte for byte.

    All 256 bytes are in the vocabulary whatever the texts; a small corpus may fill less than `vocabulary_size`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary_size,
        min_frequency=settings.min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.encode(errors="replace").decode() for text in texts), trainer)
    return tokenizer


def ready(tokenizer: Tokenizer) -> LoadedTokenizer:
    """Return `tokenizer` ready for use. Raises InputError when it lacks a special token."""
    found = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    ids = {token: number for token, number in found.items() if number is not None}
    missing = found.keys() - ids.keys()
    if missing:
        raise InputError(
            f"the tokenizer lacks {', '.join(sorted(missing))}. Wanted one that carnac trained; train it again."
        )
    tokenizer.encode_special_tokens = True  # "special tokens are encoded like other text"
    return LoadedTokenizer(tokenizer=tokenizer, begin=ids[BEGIN], end=ids[END], pad=ids[PAD], image=ids[IMAGE])


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> Path:
    """Write `folder/tokenizer.json` and return its path."""
    path = folder / FILE_NAME
    path.write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    return path


def load_tokenizer(path: Path) -> LoadedTokenizer:
    """Read a tokenizer file, or a folder's `tokenizer.json`. Raises InputError when missing, damaged or not ours."""
    path = path / FILE_NAME if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Wanted the tokenizer of a model or plan.") from error
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a tokenizer ({error}). Train it again.") from error
    try:
        return ready(tokenizer)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
