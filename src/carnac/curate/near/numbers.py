"""The numbers of the search for near-duplicates that lie on disk: another one is another version of its stages."""

from __future__ import annotations

SHINGLE = 3  # words in a row
# 20 bands of 6 values (OmniCorpus, MinHash of datatrove: 14 x 8): of pairs of similarity 0.8 all but 0.2 % share a
# band, of 0.75 all but 2 %, of 0.5 only 27 % do.
BANDS = 20
ROWS = 6
# Shingles kept of a document: all of a text of up to about 500 words; of a longer one a similarity of 0.8 is estimated
# within 0.018 (standard error), in 2 kB.
SKETCH = 512
# Documents of a group before it that each one is compared with, beside the first: linear, and enough to know all pairs
# of the small groups that most are.
WINDOW = 8
# How far below the asked similarity two documents of a set may be. Sets joined by chains alone held 8 % of pairs below
# 0.7 (20,000 pages and paragraphs, docs/03-near.md); with this bound it is under 1 %.
MARGIN = 0.05
