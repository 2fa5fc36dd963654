"""Texts without the e-mail addresses and telephone numbers in them: a mark stands in the place of each.

Both are told by their form alone. What has it is masked whoever's it is, that of an office too; what is written out
("name at stones dot example") stays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

Personal = Literal["email", "phone"]
MARKS: dict[Personal, str] = {"email": "<email>", "phone": "<phone>"}

# The names of RFC 5321 without quotes and "/", in any script (RFC 6531). Possessive, and begun only where a word
# begins: linear in the text, also in a megabyte without a space. `picture@2x.png` is a file.
_NAME = r"\w!#$%&'*+=?^`{|}~\-"
_EMAIL = re.compile(
    rf"(?<![{_NAME}.])[{_NAME}]{{1,64}}+(?:\.[{_NAME}]{{1,64}}+)*+@"
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?!(?:png|jpe?g|gif|webp|svg)\b)"
    r"(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w-])",
    re.IGNORECASE,
)
# What may be a number: groups of digits, parted by one to three of " ./()-". Digits or letters right before or behind
# make it something else: a decimal, a version, a name.
_GAP = r"[ ./()\u00a0\u2010\u2011\u2013-]"
_BEFORE = r"(?<![\w.,/\\$\u20ac\u00a3#@=+-])(?<![$\u20ac\u00a3] )(?<!\d:)"
_DIGITS = re.compile(rf"{_BEFORE}\+?\(?\d{{1,15}}(?:{_GAP}{{1,3}}\d{{1,15}}){{0,8}}+(?![\w%@]|[,:]\d)")
# Of those, what is written as one: with the country's code, in North America, and with the 0 of most other countries.
# Seven to 15 digits are E.164's; nine with a 0, or dates such as 01.02.2024 would be numbers.
_FORMS = (
    (re.compile(rf"\+{_GAP}?[1-9][\s\S]*"), 8),
    (re.compile(rf"\(?00[1-9]\d?{_GAP}[\s\S]*"), 10),
    (re.compile(r"(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[ .-]\d{4}"), 10),
    (re.compile(rf"\(?0[1-9]\d{{0,4}}{_GAP}[\s\S]*"), 9),
)
_MIN_LABELLED, _MAX_DIGITS = 6, 15
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1(?:19|20)\d\d\b|(?:19|20)\d\d([./-])\d{1,2}\2\d{1,2}\b")
_LABEL = re.compile(
    r"(?:\btel(?:ephone|efon|\u00e9fono|efono|efone)?|t\u00e9l(?:\u00e9phone)?|\b(?:tele)?phone|\bfon|\b(?:tele)?fax|\bmobile?"
    r"|\bcell|\bwhatsapp)(?: (?:no|number|nr))? ?[.:]{0,2} ?$",
    re.IGNORECASE,
)
_LABEL_CHARACTERS = 24


def mask_personal(text: str, kinds: Collection[Personal], counts: Counter[str]) -> str:
    """Return `text` with a mark (`MARKS`) for everything of `kinds` in it; adds to `counts` how many were masked."""

    def phone(found: re.Match[str]) -> str:
        bracket = "(" if found[0][0] == "(" and ")" not in found[0] else ""  # of the words around it
        if not _is_phone(found, found[0].removeprefix(bracket)):
            return found[0]
        counts["phone"] += 1
        return bracket + MARKS["phone"]

    if "email" in kinds and "@" in text:
        text, number = _EMAIL.subn(MARKS["email"], text)
        counts["email"] += number
    return _DIGITS.sub(phone, text) if "phone" in kinds else text


def mask_document(
    document: Mapping[str, Any], keep_block: Sequence[bool], kinds: Collection[Personal]
) -> tuple[Mapping[str, Any], Counter[str]]:
    """Return a document (`core.schema.DOCUMENTS`) with its kept texts and its title masked, and what was, by kind."""
    counts: Counter[str] = Counter()
    if not kinds:
        return document, counts
    texts = [
        mask_personal(text, kinds, counts) if text is not None and keep else text
        for text, keep in zip(document["texts"], keep_block, strict=True)
    ]
    title = document.get("title")
    masked = {"texts": texts, "title": None if title is None else mask_personal(title, kinds, counts)}
    return {**document, **masked}, counts


def _is_phone(found: re.Match[str], written: str) -> bool:
    """Say whether what was found, as it is written, is a number: by its form, or by the word before it."""
    num_digits = sum(character.isdigit() for character in written)
    if num_digits > _MAX_DIGITS or _DATE.match(written):
        return False
    if num_digits >= _MIN_LABELLED and _LABEL.search(
        found.string[max(0, found.start() - _LABEL_CHARACTERS) : found.start()]
    ):
        return True
    return any(num_digits >= least and form.fullmatch(written) for form, least in _FORMS)
