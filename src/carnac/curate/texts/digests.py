"""Keys by which equal things meet: 64-bit hashes of texts and addresses.

Among a billion pages 0.03 pairs are expected to share one by chance. BLAKE2b, so that no page can be written to collide
with another on purpose for less than 2**32 tries.
"""

from __future__ import annotations

import hashlib

DIGEST_BYTES = 8


def normalise(text: str) -> str:
    """Return a text in lower case with white space collapsed: texts that agree in this are equal."""
    return " ".join(text.lower().split())


def digest_text(text: str) -> int | None:
    """Return the digest of a text by what `normalise` leaves; None where nothing is left."""
    normalised = normalise(text)
    return digest(normalised) if normalised else None


def digest_url(url: str) -> int:
    """Return the digest of a URL without its fragment, which names a place in a page."""
    return digest(url.partition("#")[0])


def digest(text: str) -> int:
    """Return the first 64 bits of BLAKE2b of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest())
