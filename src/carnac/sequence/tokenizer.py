"""Texts to token ids and back, by a tokenizer trained here or by another model's.

Flow in: texts. Flow out: `tokenizer.json` (Hugging Face `tokenizers`), ids. Web text that happens to spell a special
token is text: only `sequence.layout` places special ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from carnac.core.errors import InputError
from carnac.sequence.chat_template import PLAIN, ROLE_TOKENS, TOKENS, ChatTemplate, built_in
from carnac.sequence.control_tokens import ControlTokens, control_tokens
from carnac.sequence.marks import IDEFICS3_IMAGE, LineEnds
from carnac.sequence.settings import TokenizerSettings

BEGIN, END, PAD, IMAGE = "<|begin|>", "<|end|>", "<|pad|>", "<|image|>"
SPECIAL_TOKENS = (BEGIN, END, PAD, IMAGE)  # ids 0, 1, 2, 3 of a tokenizer trained here
FILE_NAME = "tokenizer.json"
# Where a tokenizer is another model's, its file holds which tokens play these parts. The library knows no such key.
ROLES_KEY = "carnac"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which tokens of a tokenizer play which part.

    `added` are those that its own model has no rows for. `template` is the chat template that came with it, and
    `special_tokens` the tokens by the names that the template may use; without one, carnac's own is meant.
    """

    begin: str | None
    end: str
    pad: str
    image: str
    marks: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    template: str | None = None
    special_tokens: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTokenizer:
    """A tokenizer ready for use, with the ids of its special tokens. It may be sent to another process.

    tokenizer        the library's object; `tokenizer.to_str()` is a `tokenizer.json` as transformers reads it
    inside           the same, for text that does not begin a sequence; None where that makes no difference
    roles            which tokens play which part
    begin            id that begins every sequence; None where the model is used to none
    end, pad, image  ids of the end of a document, of padding, of image tokens
    marks            ids of the tokens around squares, by name (`sequence.marks`)
    added_ids        ids that the language model of a given tokenizer does not know, in ascending order
    vocabulary_size  rows that an embedding table needs: the largest id + 1
    line_ends        ids of one and of two line ends inside a sequence
    template         how a conversation is written
    controls         the special tokens that the template writes, which no text becomes
    """

    tokenizer: Tokenizer = field(repr=False)
    inside: Tokenizer | None = field(repr=False)
    roles: Roles
    begin: int | None
    end: int
    pad: int
    image: int
    marks: Mapping[str, int]
    added_ids: tuple[int, ...]
    vocabulary_size: int
    line_ends: LineEnds
    template: ChatTemplate
    controls: ControlTokens = field(repr=False)

    def encode(self, text: str, *, at_start: bool = True) -> list[int]:
        """Return the ids of `text`, never a special id. A lone surrogate, which has no UTF-8 form, becomes `?`.

        Some tokenizers put a space before the first text of a sequence: not `at_start`, it is left out.
        """
        return self.encode_with_places(text, at_start=at_start)[0]

    def encode_with_places(self, text: str, *, at_start: bool = True) -> tuple[list[int], list[tuple[int, int]]]:
        """Return what `encode` does, and for each id the [start, stop) of its characters in `text`."""
        tokenizer = self.tokenizer if at_start or self.inside is None else self.inside
        found = tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False)
        if self.controls.ids.isdisjoint(found.ids):
            return list(found.ids), list(found.offsets)
        # Some vocabularies hold special tokens as words that merges can build (Llama 2's `</s>`): letter by letter.
        pieces = [
            piece
            for number, span in zip(found.ids, found.offsets, strict=True)
            for piece in (self._letters(text, span) if number in self.controls.ids else [(number, span)])
        ]
        return [number for number, _ in pieces], [span for _, span in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; special ids are spelled out, bytes that are not UTF-8 become U+FFFD."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def to_json(self) -> str:
        """Return what `load_tokenizer` reads: the library's file, with the roles of another model's tokenizer."""
        text = str(self.tokenizer.to_str(pretty=True))
        if self.roles == roles_by_name(self.tokenizer):
            return text + "\n"
        roles = {name: getattr(self.roles, name) for name in self.roles.__slots__}
        if self.roles.template is None:  # as files were before there were templates
            roles = {name: value for name, value in roles.items() if name not in ("template", "special_tokens")}
        return json.dumps({ROLES_KEY: roles, **json.loads(text)}, indent=2, ensure_ascii=False) + "\n"

    def _letters(self, text: str, span: tuple[int, int]) -> list[tuple[int, tuple[int, int]]]:
        tokenizer = self.inside or self.tokenizer
        return [
            (number, (place, place + 1))
            for place in range(*span)
            for number in tokenizer.encode(text[place], add_special_tokens=False).ids
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        # The library forgets `encode_special_tokens` on the way through pickle; without it text could forge image ids.
        return _from_text, (self.tokenizer.to_str(), self.roles)


def train_tokenizer(texts: Iterable[str], settings: TokenizerSettings, marks: Sequence[str] = ()) -> Tokenizer:
    """Train on `texts`; equal texts in equal order give an equal tokenizer, byte for byte.

    All 256 bytes are in the vocabulary whatever the texts; a small corpus may fill less than `vocabulary_size`. With
    `marks` (`sequence.marks.mark_names`) the image token is called as Idefics3 calls it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    roles = ROLE_TOKENS.values() if settings.template == "tokens" else ()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary_size,
        min_frequency=settings.min_frequency,
        special_tokens=[BEGIN, END, PAD, IDEFICS3_IMAGE if marks else IMAGE, *marks, *roles],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.encode(errors="replace").decode() for text in texts), trainer)
    return tokenizer


def ready(tokenizer: Tokenizer, roles: Roles | None = None) -> LoadedTokenizer:
    """Return `tokenizer` ready for use; without `roles` it is one trained here.

    Raises InputError when it lacks a special token.
    """
    roles = roles or roles_by_name(tokenizer)
    names = [name for name in (roles.begin, roles.end, roles.pad, roles.image, *roles.marks, *roles.added) if name]
    found = {token: tokenizer.token_to_id(token) for token in names}
    ids = {token: number for token, number in found.items() if number is not None}
    missing = found.keys() - ids.keys()
    if missing:
        raise InputError(
            f"the tokenizer lacks {', '.join(sorted(missing))}. Wanted one that carnac trained; train it again."
        )
    tokenizer.encode_special_tokens = True  # "special tokens are encoded like other text"
    inside = _inside(tokenizer)
    template = _template(tokenizer, roles)
    parts = (roles.begin, roles.end, roles.pad, roles.image, *roles.marks)
    return LoadedTokenizer(
        tokenizer=tokenizer,
        inside=inside,
        roles=roles,
        begin=None if roles.begin is None else ids[roles.begin],
        end=ids[roles.end],
        pad=ids[roles.pad],
        image=ids[roles.image],
        marks={name: ids[name] for name in roles.marks},
        added_ids=tuple(sorted(ids[name] for name in roles.added)),
        vocabulary_size=max(tokenizer.get_vocab().values()) + 1,
        line_ends=_line_ends(inside or tokenizer),
        template=template,
        controls=control_tokens(tokenizer, template, [None if name is None else ids[name] for name in parts]),
    )


def _template(tokenizer: Tokenizer, roles: Roles) -> ChatTemplate:
    """Return the chat template that came with a tokenizer, else carnac's own."""
    if roles.template is not None:
        return ChatTemplate(text=roles.template, special_tokens=roles.special_tokens, image=roles.image)
    has_tokens = all(tokenizer.token_to_id(token) is not None for token in ROLE_TOKENS.values())
    # Only what carnac trained: others' tokens of these names may mean something else.
    own = has_tokens and roles.begin == BEGIN
    return built_in(TOKENS if own else PLAIN, begin=roles.begin, end=roles.end, image=roles.image)


def roles_by_name(tokenizer: Tokenizer) -> Roles:
    """Return the roles of the special tokens of a tokenizer trained here: their names say them."""
    names = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
    known = {*SPECIAL_TOKENS, IDEFICS3_IMAGE, *ROLE_TOKENS.values()}
    marks = tuple(name for name in names if name not in known)
    image = IDEFICS3_IMAGE if IDEFICS3_IMAGE in names and IMAGE not in names else IMAGE
    return Roles(begin=BEGIN, end=END, pad=PAD, image=image, marks=marks)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> Path:
    """Write the `folder/tokenizer.json` of a tokenizer trained here and return its path."""
    path = folder / FILE_NAME
    path.write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    return path


def load_tokenizer(path: Path) -> LoadedTokenizer:
    """Read a tokenizer file, or a folder's `tokenizer.json`. Raises InputError when missing, damaged or not ours."""
    path = path / FILE_NAME if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Wanted the tokenizer of a model or plan.") from error
    try:
        text, roles = _split(text)
        return _from_text(text, roles)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a tokenizer ({error}). Train it again.") from error


def _split(text: str) -> tuple[str, Roles | None]:
    """Take our roles out of a file: the library refuses keys that it does not know."""
    if f'"{ROLES_KEY}"' not in text:
        return text, None
    parts = json.loads(text)
    given = parts.pop(ROLES_KEY, None)
    if given is None:
        return text, None
    for name in ("marks", "added"):
        given[name] = tuple(given[name])
    given["special_tokens"] = tuple((name, token) for name, token in given.get("special_tokens", ()))
    return json.dumps(parts, ensure_ascii=False), Roles(**given)


def _from_text(text: str, roles: Roles | None = None) -> LoadedTokenizer:
    return ready(Tokenizer.from_str(text), roles)


def _inside(tokenizer: Tokenizer) -> Tokenizer | None:
    """Return the tokenizer of text inside a sequence: Llama 2's kind puts a space before the first word only."""
    if tokenizer.pre_tokenizer is None:
        return None
    before = json.loads(tokenizer.pre_tokenizer.__getstate__())
    steps = [before, *before.get("pretokenizers", ())]
    first = [step for step in steps if step["type"] == "Metaspace" and step.get("prepend_scheme") == "first"]
    if not first:
        return None
    for step in first:
        step["prepend_scheme"] = "never"
    parts = json.loads(tokenizer.to_str())
    inside = Tokenizer.from_str(json.dumps({**parts, "pre_tokenizer": before}))
    inside.encode_special_tokens = True
    return inside


def _line_ends(tokenizer: Tokenizer) -> LineEnds:
    one, two = (tuple(tokenizer.encode(text, add_special_tokens=False).ids) for text in ("\n", "\n\n"))
    return one, two
