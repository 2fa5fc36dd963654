"""What a page and its server object to, as facts: tags for robots and for text and data mining -> sorted words.

Whether an objection counts is for the recipe's consent rules; here none is weighed, only written down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from carnac.core.robots_tag import EVERYONE, directives
from carnac.web.sources import resolve

# Objections to being kept, shown or learnt from. `nocache` and `noarchive` are how Bing's chat is refused; `noml` is
# Mojeek's; `noindex` and `noimageindex` are among those that img2dataset obeys; `nopin` is Pinterest's.
_DIRECTIVES = frozenset(
    [
        "noai",
        "noimageai",
        "noml",
        "disallowaitraining",
        "noindex",
        "noimageindex",
        "noarchive",
        "nocache",
        "nosnippet",
        "nopin",
    ]
)
_NONE = "none"  # short for noindex, nofollow
_ROBOT = re.compile(
    r"robots|[\w.+-]*(?:bot|spider|crawler|slurp)[\w.+-]*"
    r"|google-extended|anthropic-ai|claude[\w-]*|cohere-ai|pinterest|img2dataset|chatgpt-user|teoma",
    re.ASCII,
)
_REFUSED_USE = re.compile(r"\s*([a-z][a-z0-9-]{0,30})\s*=\s*n\s*", re.ASCII)
_MAX_NAME = 40


def is_robot(name: str) -> bool:
    """Say whether a `<meta>` of this name, in lower case, addresses a robot."""
    return len(name) <= _MAX_NAME and _ROBOT.fullmatch(name) is not None


def read_reservations(metas: Mapping[str, Sequence[str]], headers: Mapping[str, str], base: str) -> tuple[str, ...]:
    """Return the objections of a page, sorted, each once: of its `<meta>` contents by name, and its HTTP headers.

    `noai` is for everyone, `gptbot:noai` for one robot. `tdm-reservation` and `tdm-policy:URL` are those of the TDM
    Reservation Protocol; `content-usage:train-ai=n` is the header of the IETF's draft. All names are in lower case;
    several headers of one name are joined by line breaks.
    """
    facts: set[str] = set()
    for name, contents in metas.items():
        if is_robot(name):
            for content in contents:
                facts.update(_objections(content, name))
    for line in headers.get("x-robots-tag", "").splitlines():
        facts.update(_objections(line, ""))
    for line in headers.get("content-usage", "").splitlines():
        found = (_REFUSED_USE.fullmatch(part) for part in line.lower().split(","))
        facts.update(f"content-usage:{match[1]}=n" for match in found if match)
    reserved = [*metas.get("tdm-reservation", ()), *headers.get("tdm-reservation", "").splitlines()]
    if any(value.strip() == "1" for value in reserved):
        facts.add("tdm-reservation")
    policies = map(str.strip, (*metas.get("tdm-policy", ()), *headers.get("tdm-policy", "").splitlines()))
    urls = (resolve(base, policy) for policy in policies if policy.isprintable())
    facts.update(f"tdm-policy:{url}" for url in urls if url is not None)
    return tuple(sorted(facts))


def _objections(text: str, robot: str) -> Iterator[str]:
    """Yield the objections of a value: `noai` if it is for everyone, `gptbot:noai` if for one robot."""
    for name, word in directives(text, robot):
        directive = "noindex" if word == _NONE else word
        if directive in _DIRECTIVES:
            yield directive if name in EVERYONE else f"{name}:{directive}"
