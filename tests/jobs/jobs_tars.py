"""Tars as a writer of WebDataset sets leaves them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence

Member = tuple[str, bytes]


def tar(members: Sequence[Member], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of (name, content)."""
    with tarfile.open(fileobj=(out := io.BytesIO()), mode="w", format=form) as writer:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            writer.addfile(member, io.BytesIO(content))
    return out.getvalue()
