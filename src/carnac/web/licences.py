"""What a page says and links about its licence -> the Creative Commons licence of the whole page, if it has one.

Half of what links to creativecommons.org is the credit of one picture. So a statement counts for the page only where
HTML says that it is one: `rel=license`, metadata, or a link in a footer or a notice of rights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_DEED = re.compile(
    r"(?:(?:https?:)?//)?(?:www\.)?creativecommons\.org/(?:"
    r"licenses/(?P<terms>[a-z-]+)(?:/(?P<version>\d\.\d))?(?:/(?P<port>[a-z]{2,3}|scotland))?"
    r"|publicdomain/(?P<domain>zero|mark)(?:/(?P<domain_version>\d\.\d))?"
    r")(?=[/?#]|$)",
    re.IGNORECASE | re.ASCII,
)
_TERMS = frozenset(("by", "nc", "nd", "sa"))
_INTERNATIONAL_SINCE = "4.0"


def name_licence(url: str) -> str | None:
    """Return the name of a Creative Commons deed or legal code, as SPDX writes it where SPDX knows it.

    `CC-BY-4.0`, `CC-BY-SA-3.0-DE` (a port), `CC-BY` (no version), `CC0-1.0`, `CC-PDM-1.0` (no SPDX name). None for
    any other URL. `by-nd-nc` and `by-nc-nd` are the same.
    """
    found = _DEED.match(url.strip())
    if found is None:
        return None
    if found["domain"]:
        name = "CC0" if found["domain"].lower() == "zero" else "CC-PDM"
        return f"{name}-{found['domain_version'] or '1.0'}"
    terms = found["terms"].lower()
    if terms == "publicdomain":
        return "CC-PDDC"
    parts = terms.split("-")
    if not _TERMS.issuperset(parts) or len(set(parts)) < len(parts):
        return None
    ordered = [part for part in ("by", "nc", "nd", "sa") if part in parts]
    port = found["port"] if found["version"] and found["version"] < _INTERNATIONAL_SINCE else None
    return "-".join(["CC", *ordered, *filter(None, (found["version"], port))]).upper()


def find_deed(text: str) -> str | None:
    """Return the first URL of a Creative Commons licence in the text of a statement of rights, or None."""
    found = _DEED.search(text)
    return None if found is None else found[0] + ("/" if text[found.end() :].startswith("/") else "")


def choose_licence(declared: Sequence[str], mentioned: Sequence[str]) -> tuple[str | None, str | None]:
    """Return licence and URL of a page from the URLs it declares for itself, and those it merely links to.

    - One licence declared: that one, and its URL. Another URL (terms of use) only if no Creative Commons licence is.
    - Several declared: the parts of the page have different ones, so all hold for the whole: "A AND B" (SPDX), no URL.
    - None declared, one linked: it may be a picture's. No licence, but the URL, so that the fact is not lost.
    """
    named = {name: url for url in reversed(declared) if (name := name_licence(url)) is not None}
    if named:
        return " AND ".join(sorted(named)), next(iter(named.values())) if len(named) == 1 else None
    if declared:
        return None, declared[0]
    linked = {name: url for url in reversed(mentioned) if (name := name_licence(url)) is not None}
    return None, next(iter(linked.values())) if len(linked) == 1 else None
