"""The blocks of an article -> without what stands at its two ends, and between its paragraphs, for other reasons.

Lines that are nothing but a date, an author or a button look like text to any measure of shape. They are told by their
words, and only where a page puts them: before the first real paragraph, after the last one, or alone in a line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from carnac.web.blocks import Block

_MAX_LINE = 100  # characters: a line that is longer says more than a date
_MAX_SAME = 5  # equal lines in one article: labels of a gallery, buttons; a refrain comes less often
_EXEMPT = frozenset(("code", "table", "quote", "heading"))
_MAX_LEAD = 4  # lines before the first paragraph that are looked at
# Whatever the language of the page, these stand in it in English; the second group are their words elsewhere.
_ALONE = re.compile(
    r"(?:advertise?ments?|advertising|ad|sponsored(?: content)?|promoted|story continues below(?: advertisement)?"
    r"|loading|please wait|share|share this(?: (?:article|story|page|post))?|share on:?|print|comments?|no comments"
    r"|(?:blog )?comments powered by.{0,20}|hide caption|toggle caption|enlarge(?: image)?"
    r"|related(?: (?:articles|stories))?:?"
    r"|anzeige|werbung|publicit\u00e9|publicidad|anuncio|reklama|\u5e7f\u544a|\u5e83\u544a|\u0440\u0435\u043a\u043b\u0430\u043c\u0430)"
    r"[\s.:\u2026]*",
    re.IGNORECASE,
)
_SHARE_TEXT = (
    "share tweet print email e-mail facebook twitter linkedin pinterest reddit whatsapp tumblr flipboard telegram"
    " recommend like save pocket copy link comment comments x bluesky mastodon sms messenger"
)
_SHARE_WORDS = frozenset(_SHARE_TEXT.split())
_DATE = re.compile(r"(?:\d{1,4}[./\u5e74-]\s?\d{1,2}[./\u6708-]\s?\d{1,4}|\b(?:19|20)\d\d\b)", re.IGNORECASE)
_DATE_WORDS = re.compile(
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec|january|february|march|april|june|july|august|september"
    r"|october|november|december|mon|tue|wed|thu|fri|sat|sun|monday|tuesday|wednesday|thursday|friday|saturday|sunday"
    r"|published|updated|posted|last|modified|on|at|am|pm|a\.m\.|p\.m\.|et|est|edt|gmt|utc|bst|pst|pdt|ist|submitted|first)\b"
    r"|[\d\s.,:;|/()+\u2013\u2014-]",
    re.IGNORECASE,
)
_NAME = r"(?:[^\W\d_a-z][\w'\u2019-]*\.?|and|und|et|y|e|de|da|du|van|von|of|for|the|&)"
_AUTHOR = re.compile(
    rf"(?:[Bb]y|BY|[Vv]on|[Pp]or|[Pp]ar|[Dd]i|[Dd]oor)\s+[^\W\d_a-z]\S*(?:(?:\s|,\s?){_NAME}){{0,7}}(?<!\w\w\.)"
)


def trim(blocks: Sequence[Block]) -> tuple[list[Block], list[tuple[str, Block]]]:
    """Return the blocks without such lines, and those lines with the reason of each.

    Reasons: `button` (buttons, labels, advertisements), `repeated_line` (after the first), `dateline`,
    `last_heading` (of nothing).
    """
    counts = Counter(block.text for block in blocks if block.text is not None and len(block.text) <= _MAX_LINE)
    seen: set[str] = set()
    kept: list[Block] = []
    dropped: list[tuple[str, Block]] = []
    num_lead = 0
    for block in blocks:
        reason = None
        if block.text is not None:
            reason = _reason(block, block.text)
            if reason is None and block.kind == "paragraph" and counts[block.text] >= _MAX_SAME:
                reason = "repeated_line" if block.text in seen else None
                seen.add(block.text)
            if reason is None and num_lead < _MAX_LEAD:
                num_lead = _MAX_LEAD if len(block.text) > _MAX_LINE else num_lead + 1
                if block.kind == "paragraph" and _is_dateline(block.text):
                    reason = "dateline"
        if reason is None:
            kept.append(block)
        else:
            dropped.append((reason, block))
    while kept and kept[-1].kind == "heading":
        dropped.append(("last_heading", kept.pop()))
    if not any(block.text is not None for block in kept):
        return list(blocks), []
    return kept, dropped


def _reason(block: Block, text: str) -> str | None:
    if block.kind in _EXEMPT or len(text) > _MAX_LINE:
        return None
    return "button" if _is_alone(block, text) else None


def _is_alone(block: Block, text: str) -> bool:
    if block.kind == "list":
        words = re.findall(r"[\w-]*\w[\w-]*", text.lower())
        return bool(words) and _SHARE_WORDS.issuperset(words)
    return _ALONE.fullmatch(text) is not None


def _is_dateline(text: str) -> bool:
    """Say whether a line is a date and no more, or names an author."""
    if len(text) > _MAX_LINE:
        return False
    return _AUTHOR.fullmatch(text) is not None or (_DATE.search(text) is not None and not _DATE_WORDS.sub("", text))
