"""The tokenizer of another model, from its folder, with the special tokens that pictures need.

Flow in: `tokenizer.json`, `tokenizer_config.json` and the chat template as transformers saves them. Flow out: a
`LoadedTokenizer`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from carnac.core.errors import InputError
from carnac.sequence.chat_template import FOR_DOCUMENTS
from carnac.sequence.marks import IDEFICS3_IMAGE, mark_names
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import FILE_NAME, PAD, LoadedTokenizer, Roles, ready

CONFIG_FILES = ("special_tokens_map.json", "tokenizer_config.json")  # the second overrules the first
# Where a chat template is looked for first, as a text of its own or under its key; last in tokenizer_config.json. What
# a processor has comes first: a model that sees may lie beside the tokenizer of one that only read.
TEMPLATE_KEY = "chat_template"
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "processor_config.json")
SAVE_AGAIN = (
    "Wanted a folder as transformers saves a tokenizer: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
)


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of `folder` that decide its tokenizer. Raises InputError where it has none."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise InputError(f"{path}: missing. {SAVE_AGAIN}.")
    return [path, *(folder / name for name in (*CONFIG_FILES, *TEMPLATE_FILES) if (folder / name).is_file())]


def read_tokenizer_folder(folder: Path, pictures: PictureSettings) -> LoadedTokenizer:
    """Read another model's tokenizer and add the special tokens that it lacks: image, padding, marks.

    `added_ids` of the result are those that its language model was never trained with. Sequences begin as that model's
    do: with its begin token only where transformers would put one. Conversations are written by its chat template; by
    carnac's plain one where it has none. Raises InputError with a sentence.
    """
    path, *others = tokenizer_files(folder)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a tokenizer ({error}). {SAVE_AGAIN}.") from error
    tokenizer.no_truncation()  # what one use of the tokenizer left in its file: it would cut texts in silence
    tokenizer.no_padding()
    config: dict[str, Any] = {}
    for file in others:
        config |= _read(file) if file.name in CONFIG_FILES else {}
    extra = config.get("extra_special_tokens")
    config = {**(extra if isinstance(extra, dict) else {}), **config}
    end = _token(config, "eos_token")
    if end is None:
        raise InputError(
            f"{folder}: neither {' nor '.join(CONFIG_FILES)} names an eos_token: the end of a document. {SAVE_AGAIN}."
        )
    marks = mark_names(pictures)
    image = IDEFICS3_IMAGE if marks else _token(config, "image_token") or IDEFICS3_IMAGE
    pad = _token(config, "pad_token") or PAD
    begin = _begin(tokenizer, config)
    names = dict.fromkeys(name for name in (begin, end, pad, image, *marks) if name)
    added = tuple(name for name in names if tokenizer.token_to_id(name) is None)
    # Also those that are there as ordinary words of the vocabulary: web text could spell them.
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    ordinary = [name for name in names if name not in special]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ordinary])
    template = _template(folder, config)
    named = [(name, _token(config, name)) for name in sorted(config) if name.endswith("_token")]
    special_tokens = tuple((name, token) for name, token in named if token) if template else ()
    roles = Roles(
        begin=begin,
        end=end,
        pad=pad,
        image=image,
        marks=marks,
        added=added,
        template=template,
        special_tokens=special_tokens,
    )
    return ready(tokenizer, roles)


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    """Return the chat template of a folder; None where it has none, or that of a model of documents."""
    found: Any = None
    for path in (folder / name for name in TEMPLATE_FILES):
        if not path.is_file():
            continue
        found = _read_text(path) if path.suffix == ".jinja" else _read(path).get(TEMPLATE_KEY)
        if found is not None:
            break
    found = config.get(TEMPLATE_KEY) if found is None else found
    if isinstance(found, list):  # several, by name
        found = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
    found = found.get("default") if isinstance(found, dict) else found
    return found if isinstance(found, str) and found.strip() and FOR_DOCUMENTS not in found else None


def _begin(tokenizer: Tokenizer, config: dict[str, Any]) -> str | None:
    """Return the begin token where transformers would put it before every text."""
    begin = _token(config, "bos_token")
    if begin is None or "add_bos_token" in config:
        return begin if config.get("add_bos_token") else None
    placed = tokenizer.encode("").tokens
    return begin if placed[:1] == [begin] else None


def _token(config: dict[str, Any], name: str) -> str | None:
    """Return a token that is written as a text or as a table with its text."""
    found = config.get(name)
    found = found.get("content") if isinstance(found, dict) else found
    return found if isinstance(found, str) and found else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}). {SAVE_AGAIN}."
        ) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}). {SAVE_AGAIN}."
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no table. {SAVE_AGAIN}.")
    return found
