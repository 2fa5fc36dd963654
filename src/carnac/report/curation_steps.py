"""The inner steps of a curate recipe: shown by name, or while a run works or has stopped in one."""

from __future__ import annotations

STEPS_OF_CURATION = (
    "list_entries", "asked", "contamination_sets", "kept_signals", "document_values",
    "near_sketches", "near_bands", "near_groups", "near_edges", "near_pairs", "near_wanted", "near_compared",
    "near_sets",
    "phash_pictures", "phash_distinct", "phash_joined", "phash_frequent",
    "funnel_parts", "funnel_excerpts", "funnel",
)  # fmt: skip
