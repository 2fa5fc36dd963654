"""Words of a text, as all signals count them.

The definition is that of OBELICS (Laurencon et al. 2023, arXiv 2306.16527, appendix A), which took it from the ROOTS
corpus (Laurencon et al. 2022, arXiv 2303.03915), with letters told by Unicode instead of by a list.
"""

from __future__ import annotations

import re

# From the first letter to the last letter of a run without white space: "(3) 'Hello-world!'" gives "hello-world".
_WORD = re.compile(r"[^\W\d_](?:\S*[^\W\d_])?")


def split_words(text: str) -> list[str]:
    """Return the words of `text`: lower case, stripped of digits, punctuation and symbols at both ends.

    A run without white space is at most one word, so Chinese, Japanese and Thai are undercounted.
    """
    return _WORD.findall(text.lower().replace("\u2019", "'"))
